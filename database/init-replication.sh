#!/bin/sh
# Streaming replication, on both sides.
#
#   init-replication.sh primary              makes the role that replicas connect as (again: its password anew)
#   init-replication.sh replica [COMMAND…]   makes this node's copy of the primary unless it has data, then runs COMMAND
#                                            with the settings that make it follow the primary
#
# A copy is made beside the data directory and moved there when it is whole: one that was cut off is thrown away and
# begun again. A data directory that is there is never touched. Every node may be started as `replica`: the one that
# POSTGRES_PRIMARY_HOST names just runs COMMAND; one that is neither it nor a standby was the primary once, and does
# not start.
#
# From the environment: PGDATA; POSTGRES_NODE, this node's name, also of its slot and its application_name;
# POSTGRES_PRIMARY_HOST, POSTGRES_PRIMARY_PORT; POSTGRES_REPLICATION_PASSWORD_FILE; POSTGRES_WAIT_S, how long to try;
# PGSSLMODE (verify-full), PGSSLROOTCERT.
set -eu

password_file=${POSTGRES_REPLICATION_PASSWORD_FILE:-/run/secrets/postgres_replication_password}
role=replicator

say() {
    echo "init-replication: $1" >&2
}

die() {
    say "$1"
    exit 1
}

read_password() {
    [ -r "$password_file" ] || die "cannot read the secret $password_file"
    IFS= read -r password <"$password_file" || [ -n "$password" ] || die "the secret $password_file is empty"
}

make_role() {
    read_password
    REPLICATION_PASSWORD=$password psql -X -q -v ON_ERROR_STOP=1 -v role="$role" \
        --username "${POSTGRES_USER:-postgres}" --dbname postgres <<'SQL'
\set password `printf %s "$REPLICATION_PASSWORD"`
SET log_statement = 'none';
SET log_min_duration_statement = -1;
SET log_min_error_statement = 'panic';
SET pg_stat_statements.track = 'none';
SELECT NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'role') AS is_new \gset
\if :is_new
    CREATE ROLE :"role";
\endif
ALTER ROLE :"role" WITH LOGIN REPLICATION NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS CONNECTION LIMIT 20
    PASSWORD :'password';
SQL
}

# The password of the connection to the primary, in a file that is made anew at each start: a new secret holds at once.
write_passfile() {
    read_password
    PGPASSFILE=${POSTGRES_PASSFILE:-/var/run/postgresql/replication.pgpass}
    export PGPASSFILE
    escaped=$(printf %s "$password" | sed 's/[\\:]/\\&/g')
    (umask 077 && printf '*:*:*:%s:%s\n' "$role" "$escaped" >"$PGPASSFILE.new")
    mv "$PGPASSFILE.new" "$PGPASSFILE"
}

# One command of the replication protocol; it needs no database and no right but REPLICATION.
ask_primary() {
    psql -X -A -t -q -v ON_ERROR_STOP=1 -d "$conninfo connect_timeout=5 replication=true" -c "$1"
}

has_slot() {
    found=$(ask_primary "READ_REPLICATION_SLOT \"$slot\"") || return 2
    [ "${found%%|*}" = physical ]
}

# A copy begins with a slot of its own: what an older one still holds may be gone already.
make_slot_anew() {
    status=0
    has_slot || status=$?
    [ "$status" -lt 2 ] || return 1
    if [ "$status" -eq 0 ]; then
        ask_primary "DROP_REPLICATION_SLOT \"$slot\"" >/dev/null || return 1
    fi
    ask_primary "CREATE_REPLICATION_SLOT \"$slot\" PHYSICAL RESERVE_WAL" >/dev/null
}

copy() {
    rm -rf "$PGDATA.partial"
    make_slot_anew || return 1
    pg_basebackup --dbname "$conninfo" --pgdata "$PGDATA.partial" --write-recovery-conf --slot "$slot" \
        --wal-method stream --checkpoint fast --no-password || return 1
    chmod 700 "$PGDATA.partial"
    if [ -d "$PGDATA" ]; then
        rmdir "$PGDATA" || die "$PGDATA holds files but no database: look what they are, then remove them"
    fi
    mv "$PGDATA.partial" "$PGDATA"
}

copy_until_done() {
    deadline=$(($(date +%s) + ${POSTGRES_WAIT_S:-600}))
    until copy; do
        [ "$(date +%s)" -lt "$deadline" ] || die "no copy of $POSTGRES_PRIMARY_HOST was made in ${POSTGRES_WAIT_S:-600} s"
        say "trying again in 2 s"
        sleep 2
    done
    say "copied $POSTGRES_PRIMARY_HOST to $PGDATA"
}

# A standby that is to follow another primary needs a slot there. It starts without, too: it can be read meanwhile.
require_slot() {
    status=0
    has_slot || status=$?
    case $status in
        0) ;;
        1) ask_primary "CREATE_REPLICATION_SLOT \"$slot\" PHYSICAL RESERVE_WAL" >/dev/null || say "slot $slot was not made" ;;
        *) say "$POSTGRES_PRIMARY_HOST does not answer: starting without it" ;;
    esac
}

follow() {
    : "${PGDATA:?}" "${POSTGRES_NODE:?}" "${POSTGRES_PRIMARY_HOST:?}"
    if [ "$POSTGRES_NODE" = "$POSTGRES_PRIMARY_HOST" ]; then
        if [ $# -gt 0 ]; then exec "$@"; fi
        return 0
    fi
    case $POSTGRES_NODE in
        *[!a-z0-9._-]*) die "POSTGRES_NODE: a host name of a-z, 0-9, dots, - and _" ;;
    esac
    slot=$(printf %s "$POSTGRES_NODE" | tr .- __)
    unset PGPASSWORD PGSERVICE
    write_passfile
    conninfo="host=$POSTGRES_PRIMARY_HOST port=${POSTGRES_PRIMARY_PORT:-5432} user=$role passfile=$PGPASSFILE"
    conninfo="$conninfo sslmode=${PGSSLMODE:-verify-full} sslrootcert=${PGSSLROOTCERT:-/etc/streamgauge/tls/ca.crt}"
    conninfo="$conninfo application_name=$POSTGRES_NODE"
    if [ ! -s "$PGDATA/PG_VERSION" ]; then
        copy_until_done
    elif [ ! -f "$PGDATA/standby.signal" ]; then
        say "$PGDATA is no standby, but the primary is $POSTGRES_PRIMARY_HOST: starting it would make two primaries"
        die "remove the data directory, and it is copied anew"
    else
        require_slot
    fi
    # Its own settings win over those in the copy, so that it follows another primary after a restart.
    if [ $# -gt 0 ]; then exec "$@" -c "primary_conninfo=$conninfo" -c "primary_slot_name=$slot"; fi
}

case ${1:-} in
    primary) make_role ;;
    replica)
        shift
        follow "$@"
        ;;
    *) die "usage: init-replication.sh primary | replica [COMMAND...]" ;;
esac
