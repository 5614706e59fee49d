#!/usr/bin/env bash
# Installs what the tests need beyond Go, git and make: as root on Debian or
# Ubuntu with apt-get, elsewhere it says what to install and fails.
set -euo pipefail

packages=()

# The race detector links with a C compiler.
if ! command -v "${CC:-gcc}" >/dev/null 2>&1 || ! echo '#include <stdlib.h>' | "${CC:-gcc}" -E - >/dev/null 2>&1; then
	packages+=(gcc libc6-dev)
fi

# The tests of the Postgres dialect start a server of their own.
if ! command -v postgres >/dev/null 2>&1 && ! compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null; then
	packages+=(postgresql)
fi

# The example backends, which the gateway is tested in front of, are FastAPI
# applications. Debian's packages belong to Debian's own interpreter.
backends='import fastapi, uvicorn, sqlalchemy, psycopg2, jwt, redis'
if ! /usr/bin/python3 -c "$backends" >/dev/null 2>&1 && ! python3 -c "$backends" >/dev/null 2>&1; then
	packages+=(python3-fastapi python3-uvicorn python3-sqlalchemy python3-psycopg2 python3-jwt python3-redis)
fi

# The alert rules and the units are checked by the tools of Prometheus and systemd.
if ! command -v promtool >/dev/null 2>&1; then
	packages+=(prometheus)
fi
if ! command -v systemd-analyze >/dev/null 2>&1; then
	packages+=(systemd)
fi

# The commands of the guide for administrators are run as they stand there.
if ! command -v curl >/dev/null 2>&1; then
	packages+=(curl)
fi

# Those of the counters in Redis start servers, Sentinels and a Cluster.
if ! command -v redis-server >/dev/null 2>&1 || ! command -v redis-cli >/dev/null 2>&1; then
	packages+=(redis-server)
fi

[ ${#packages[@]} -gt 0 ] || exit 0

if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
	echo "installing ${packages[*]}" >&2
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -qq
	apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
	exit 0
fi

{
	echo "The tests need what is not installed: ${packages[*]} (names of Debian packages)."
	echo "On Debian or Ubuntu: sudo apt-get install --no-install-recommends ${packages[*]}"
	echo "Elsewhere: install a C compiler (gcc, or set CC), the PostgreSQL server, redis-server with redis-cli,"
	echo "Prometheus' promtool, systemd-analyze, curl, and for Python 3 what examples/fastapi/README.md names, as your system calls them."
} >&2
exit 1
