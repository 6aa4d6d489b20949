#!/bin/sh
# Make the secrets and development certificates that docker-compose.scale.yml mounts, under secrets/, once.
#
#   scripts/bootstrap.sh [NAME…]     NAME: host names for the certificate of nginx, beside localhost
#
# What is there is kept: run it again after an upgrade to add what is new. Files that are made of others (an address with a
# password in it, a service's own copy) follow these: remove a password, run it again, and all that is made of it is
# renewed; docs/deployment/compose.md says what to restart. Each file is 0400 and belongs to the user of the service that
# reads it, which takes root (without it everything belongs to you, and it says so). Certificates are
# for development: put real ones into secrets/nginx (server.crt with its chain, server.key, ca.crt), and for PostgreSQL
# into secrets/tls/HOST (postgres.crt, postgres.key) with their authority as secrets/tls/ca.crt.
set -eu
umask 077

root=$(cd "$(dirname "$0")/.." && pwd)
secrets=${SECRETS:-$root/secrets}

say() {
    echo "bootstrap: $1" >&2
}

is_root() {
    [ "$(id -u)" -eq 0 ]
}

# own UID FILE: readable by that user only.
own() {
    chmod 0400 "$2"
    if is_root; then chown "$1:$1" "$2"; fi
}

# Letters, digits, - and _ only: passwords stand in addresses, too.
random() {
    openssl rand -base64 33 | tr -d '\n=' | tr '/+' '_-'
}

# keep FOLDER/NAME UID: write standard input there unless it is there.
keep() {
    path=$secrets/$1
    if [ -s "$path" ]; then
        cat >/dev/null
        return 0
    fi
    mkdir -p "$(dirname "$path")"
    cat >"$path"
    own "$2" "$path"
}

# derive FOLDER/NAME UID: the same for what is made of other files; it is written anew when they changed.
derive() {
    path=$secrets/$1
    mkdir -p "$(dirname "$path")"
    cat >"$path.new"
    if cmp -s "$path" "$path.new"; then
        rm "$path.new"
        return 0
    fi
    if [ -e "$path" ]; then say "$1 is renewed"; fi
    own "$2" "$path.new"
    mv "$path.new" "$path"
}

# The text of a secret of ours.
text_of() {
    cat "$secrets/$1"
}

passwords() {
    for name in superuser replication owner aggregator exporter optimizer metrics api; do
        random | keep "postgres/postgres_${name}_password" 999
    done
    for name in admin producer aggregator exporter cache metrics replica sentinel health client; do
        random | keep "redis/redis_${name}_password" 999
    done
    random | keep exporter/exporter_token 10001
    text_of exporter/exporter_token | derive prometheus/exporter_token 65534
    random | keep grafana/grafana_password 472
}

# redis_url USER: through the Sentinels.
redis_url() {
    hosts=172.30.1.24:26379,172.30.1.25:26379,172.30.1.26:26379
    access="sentinel_user=client&sentinel_password=$(text_of redis/redis_client_password)"
    printf 'redis+sentinel://%s:%s@%s/streams?%s\n' "$1" "$(text_of "redis/redis_$1_password")" "$hosts" "$access"
}

# replicas ROLE PREFIX: the addresses of PostgreSQL's replicas as a role, a line each.
replicas() {
    password=$(text_of "postgres/postgres_$1_password")
    tls="sslmode=verify-full&sslrootcert=/etc/streamgauge/tls/ca.crt"
    for replica in postgres-replica-1 postgres-replica-2; do
        printf '%spostgresql://streamgauge_%s:%s@%s:5432/streamgauge?%s\n' "$2" "$1" "$password" "$replica" "$tls"
    done
}

addresses() {
    redis_url producer | derive api/redis_url 10001
    printf 'redis://cache:%s@172.30.1.27:6379/0\n' "$(text_of redis/redis_cache_password)" | derive api/cache_url 10001
    text_of postgres/postgres_api_password | derive api/postgres_password 10001
    text_of postgres/postgres_owner_password | derive migrate/postgres_password 10001
    for service in aggregator exporter; do
        redis_url "$service" | derive "$service/redis_url" 10001
        text_of "postgres/postgres_${service}_password" | derive "$service/postgres_password" 10001
    done
    replicas exporter "" | derive exporter/postgres_replicas 10001
    replicas optimizer monitoring= | derive aggregator/optimizer_replicas 10001
    text_of postgres/postgres_metrics_password | derive metrics/postgres_password 65534
    password=$(text_of redis/redis_metrics_password)
    {
        printf '{'
        for host in redis-1:6379 redis-2:6379 redis-3:6379 redis-cache:6379 sentinel-1:26379 sentinel-2:26379; do
            printf '"redis://metrics@%s": "%s", ' "$host" "$password"
        done
        printf '"redis://metrics@sentinel-3:26379": "%s"}\n' "$password"
    } | derive metrics/redis_passwords 59000
}

# What only you know: made empty of meaning, so that everything starts, and named at the end.
from_outside() {
    printf 'change-me\n' | keep alertmanager/smtp_password 65534
    printf 'http://127.0.0.1:9/change-me\n' | keep alertmanager/slack_url 65534
    printf 'change-me\n' | keep alertmanager/watchdog_token 65534
}

certificates() {
    if [ ! -s "$secrets/nginx/server.crt" ]; then
        "$root/nginx/ssl/make-certificate.sh" "$secrets/nginx" "$@"
        own 101 "$secrets/nginx/server.key"
        chmod 0755 "$secrets/nginx"
    fi
    for host in postgres-primary postgres-replica-1 postgres-replica-2; do
        certificate_of "$host"
    done
    rm -f "$secrets/tls/ca.srl"
}

# One authority for all nodes of PostgreSQL; its key stays here, readable by you only, and is mounted nowhere.
certificate_of() {
    folder=$secrets/tls/$1
    if [ -s "$folder/postgres.crt" ]; then return 0; fi
    mkdir -p "$folder"
    if [ ! -s "$secrets/tls/ca.key" ]; then
        openssl ecparam -name prime256v1 -genkey -noout -out "$secrets/tls/ca.key"
        openssl req -x509 -new -key "$secrets/tls/ca.key" -days 825 -subj "/CN=streamgauge data" \
            -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign \
            -out "$secrets/tls/ca.crt"
        chmod 0400 "$secrets/tls/ca.key"
        chmod 0444 "$secrets/tls/ca.crt"
    fi
    rm -f "$folder/postgres.key"
    openssl ecparam -name prime256v1 -genkey -noout -out "$folder/postgres.key"
    openssl req -new -key "$folder/postgres.key" -subj "/CN=$1" -out "$folder/request"
    printf 'subjectAltName=DNS:%s\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n' "$1" >"$folder/extensions"
    openssl x509 -req -in "$folder/request" -CA "$secrets/tls/ca.crt" -CAkey "$secrets/tls/ca.key" -CAcreateserial \
        -days 825 -extfile "$folder/extensions" -out "$folder/postgres.crt" 2>/dev/null
    rm -f "$folder/request" "$folder/extensions"
    cp "$secrets/tls/ca.crt" "$folder/ca.crt"
    own 999 "$folder/postgres.key"
    chmod 0444 "$folder/postgres.crt" "$folder/ca.crt"
    chmod 0755 "$folder"
}

mkdir -p "$secrets"
before=$(find "$secrets" -type f | wc -l)
passwords
addresses
from_outside
certificates "$@"
# The folders are passed through by services' users; only you may list secrets/ itself.
find "$secrets" -type d -exec chmod 0711 {} +
chmod 0755 "$secrets/nginx" "$secrets"/tls/*/
say "$(($(find "$secrets" -type f | wc -l) - before)) files made in $secrets; $before were there and are kept"
is_root || say "not root: every file belongs to $(id -un). As root each gets the user of the service that reads it."
say "for real use, change secrets/alertmanager/{smtp_password,slack_url,watchdog_token}, the addresses in"
say "monitoring/alertmanager/alertmanager.yml, server_name in nginx/nginx.conf, and the certificates in secrets/nginx"
