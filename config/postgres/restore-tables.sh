#!/usr/bin/env bash
# Puts the rows of single tables back from a dump of the schema quotagate, after
# a migration was taken back and applied again:
#
#   pg_dump -Fc -n quotagate "$DSN" >quotagate.dump      # all stopped, before `migrate down`
#   restore-tables.sh "$DSN" quotagate.dump audit_events outbox_events
#
# What stands in them is replaced: run it before anything that writes is started.
# It needs the rights of the tables' owner and of a superuser: what is put back was
# announced and checked when it was written, so no trigger fires for it again.
set -euo pipefail

[ $# -ge 3 ] || { sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
dsn=$1 dump=$2
shift 2

tables=() options=()
for table in "$@"; do
	tables+=("quotagate.\"$table\"")
	options+=(--table "$table")
done
list=$(IFS=,; echo "${tables[*]}")
{
	echo "BEGIN; SET LOCAL session_replication_role = replica; TRUNCATE $list;"
	pg_restore --data-only --schema quotagate "${options[@]}" --file - "$dump"
	echo "COMMIT;"
} | psql --quiet --no-psqlrc --set ON_ERROR_STOP=1 --output /dev/null "$dsn"
