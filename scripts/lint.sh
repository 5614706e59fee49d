#!/usr/bin/env bash
# Runs golangci-lint of exactly the version given ($1), installing it into .bin
# with the Go module proxy when neither .bin nor PATH has it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

want=${1:?usage: lint.sh VERSION}

# has PROGRAM: reports whether the program is there and of the version wanted.
has() {
	command -v "$1" >/dev/null 2>&1 && "$1" version 2>/dev/null | grep -qF "version ${want#v} "
}

linter=
for candidate in .bin/golangci-lint golangci-lint; do
	if has "$candidate"; then
		linter=$candidate
		break
	fi
done
if [ -z "$linter" ]; then
	echo "building golangci-lint $want (some minutes, once)" >&2
	GOBIN="$PWD/.bin" CGO_ENABLED=0 go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$want"
	linter=.bin/golangci-lint
fi
exec "$linter" run
