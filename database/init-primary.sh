#!/bin/sh
# Makes roles and the extension in a new primary. The postgres image runs it from /docker-entrypoint-initdb.d, once,
# while its server listens on the unix socket only; it may be run again. As the superuser, with psql on PATH.
set -eu

secrets=${SECRETS_DIR:-/run/secrets}
here=${STREAMGAUGE_POSTGRES_DIR:-/etc/streamgauge}

die() {
    echo "init-primary: $1" >&2
    exit 1
}

# The first line of the file that a *_FILE variable names, else of the secret of this name.
secret() {
    [ -r "$1" ] || die "cannot read the secret $1"
    IFS= read -r value <"$1" || [ -n "$value" ] || die "the secret $1 is empty"
    printf %s "$value"
}

OWNER_PASSWORD=$(secret "${POSTGRES_OWNER_PASSWORD_FILE:-$secrets/postgres_owner_password}")
AGGREGATOR_PASSWORD=$(secret "${POSTGRES_AGGREGATOR_PASSWORD_FILE:-$secrets/postgres_aggregator_password}")
EXPORTER_PASSWORD=$(secret "${POSTGRES_EXPORTER_PASSWORD_FILE:-$secrets/postgres_exporter_password}")
OPTIMIZER_PASSWORD=$(secret "${POSTGRES_OPTIMIZER_PASSWORD_FILE:-$secrets/postgres_optimizer_password}")
METRICS_PASSWORD=$(secret "${POSTGRES_METRICS_PASSWORD_FILE:-$secrets/postgres_metrics_password}")
API_PASSWORD=$(secret "${POSTGRES_API_PASSWORD_FILE:-$secrets/postgres_api_password}")
export OWNER_PASSWORD AGGREGATOR_PASSWORD EXPORTER_PASSWORD OPTIMIZER_PASSWORD METRICS_PASSWORD API_PASSWORD

psql -X -q -v ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname "${POSTGRES_DB:-streamgauge}" \
    --file "$here/roles.sql"
"$here/init-replication.sh" primary
echo "init-primary: roles are made"
