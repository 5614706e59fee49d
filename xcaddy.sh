#!/usr/bin/env bash
# Builds a release of Caddy with Quotagate's modules, and others' on request:
#
#   ./xcaddy.sh [-o FILE] [--with MODULE[@VERSION][=PATH]]...
#
# FILE is ./caddy unless said otherwise. The versions of Caddy and xcaddy are
# those of go.mod; further arguments go to `xcaddy build` as they are.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
caddy=v2.11.9

# absolute PATH: xcaddy runs in the project's folder, paths are the caller's.
absolute() {
	case $1 in
	/*) printf '%s' "$1" ;;
	*) printf '%s/%s' "$PWD" "$1" ;;
	esac
}

# module ARG: MODULE[@VERSION][=PATH] with an absolute PATH.
module() {
	case $1 in
	*=*) printf '%s=%s' "${1%%=*}" "$(absolute "${1#*=}")" ;;
	*) printf '%s' "$1" ;;
	esac
}

output=$PWD/caddy
arguments=()
while [ $# -gt 0 ]; do
	case $1 in
	-h | --help)
		sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
		exit 0
		;;
	-o | --output | --with)
		[ $# -ge 2 ] || {
			echo "xcaddy.sh: $1 needs a value" >&2
			exit 2
		}
		if [ "$1" = --with ]; then
			arguments+=(--with "$(module "$2")")
		else
			output=$(absolute "$2")
		fi
		shift 2
		;;
	--output=*)
		output=$(absolute "${1#*=}")
		shift
		;;
	--with=*)
		arguments+=(--with "$(module "${1#*=}")")
		shift
		;;
	*)
		arguments+=("$1")
		shift
		;;
	esac
done

cd "$here"
# With a version and a path the module is taken from here and nobody is asked
# for it.
CGO_ENABLED=0 go tool xcaddy build "$caddy" \
	--output "$output" \
	--with github.com/quotagate/quotagate@v0.0.0="$here" \
	${arguments[@]+"${arguments[@]}"}
