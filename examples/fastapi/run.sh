#!/usr/bin/env bash
# Starts both backends and the gateway before them; README.md says what it needs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
root=$(cd ../.. && pwd)

: "${DATABASE_URL:?set it to the database of the backends, e.g. postgresql://localhost/app}"
export AUTH_UPSTREAM=${AUTH_UPSTREAM:-localhost:8001} DASHBOARD_UPSTREAM=${DASHBOARD_UPSTREAM:-localhost:8002}
caddy=${CADDY:-$root/.bin/caddy}
[ -x "$caddy" ] || { echo "$caddy is missing: run make build in $root, or set CADDY" >&2; exit 1; }
python=${PYTHON:-/usr/bin/python3}

umask 077
mkdir -p data
if [ -z "${JWT_SECRET:-}" ]; then
	[ -s data/jwt-secret ] || head -c 48 /dev/urandom | base64 -w0 >data/jwt-secret
	JWT_SECRET=$(cat data/jwt-secret)
fi
export DATABASE_URL JWT_SECRET

export QUOTA_DSN=${DATABASE_URL/#postgresql:/postgres:}
export QUOTA_RECORDS='postgres {env.QUOTA_DSN}'
if [ -n "${REDIS_URL:-}" ]; then
	export QUOTA_REDIS_URL=$REDIS_URL QUOTA_COUNTERS='redis {env.QUOTA_REDIS_URL}'
fi

"$python" -m backend.schema
"$caddy" quota migrate up --config "$root/Caddyfile"

trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT
trap 'exit 0' INT TERM
"$python" -m uvicorn backend.auth:app --host 127.0.0.1 --port "${AUTH_UPSTREAM##*:}" --proxy-headers &
"$python" -m uvicorn backend.dashboard:app --host 127.0.0.1 --port "${DASHBOARD_UPSTREAM##*:}" --proxy-headers &
"$caddy" run --config "$root/Caddyfile" &
wait -n
