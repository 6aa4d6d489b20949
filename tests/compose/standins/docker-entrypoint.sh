#!/bin/sh
# In the place of the postgres image's entrypoint, for stand-in images: an empty data directory is initialised, the
# scripts of /docker-entrypoint-initdb.d run while the server listens on its socket only, then the command starts.
set -eu

if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
    mkdir -p "$PGDATA"
    chmod 700 "$PGDATA"
    # shellcheck disable=SC2086 # several options in one variable, as in the image
    initdb --username=postgres --pwfile="$POSTGRES_PASSWORD_FILE" $POSTGRES_INITDB_ARGS >/dev/null
    shift
    pg_ctl -D "$PGDATA" -w -o "$* -c listen_addresses=''" start
    createdb -h /var/run/postgresql -U postgres "$POSTGRES_DB"
    for script in /docker-entrypoint-initdb.d/*.sh; do
        PGHOST=/var/run/postgresql "$script"
    done
    pg_ctl -D "$PGDATA" -w -m fast stop
    set -- postgres "$@"
fi
exec "$@"
