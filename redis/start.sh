#!/bin/sh
# The entrypoint of every Redis of a deployment: start.sh streams | cache | sentinel
#
# It writes the ACL file from redis/users.acl (cache-users.acl, sentinel-users.acl) with the hashes of the passwords (no password stands in it), and the node's
# own settings, then runs the server. A node of the streams asks the Sentinels who the master is and follows it, so that
# a former master that comes back does not become a second one. When no Sentinel answers, a node with data waits for one;
# at the very first start REDIS_FIRST_MASTER is the master. A master that lost its disk waits until another was elected:
# back before the Sentinels missed it, it would make its replicas as empty as it is.
#
# From the environment: REDIS_NODE, this node's address (a number); REDIS_FIRST_MASTER; REDIS_SENTINELS, "address address";
# REDIS_CONFIG (/etc/streamgauge/redis), REDIS_DATA (/data), REDIS_RUN (/run/redis), REDIS_SECRETS (/run/secrets: files
# redis_USER_password), REDIS_PORT, REDIS_SENTINEL_PORT, REDIS_WAIT_S (60).
set -eu

config=${REDIS_CONFIG:-/etc/streamgauge/redis}
data=${REDIS_DATA:-/data}
run=${REDIS_RUN:-/run/redis}
secrets=${REDIS_SECRETS:-/run/secrets}
port=${REDIS_PORT:-6379}
sentinel_port=${REDIS_SENTINEL_PORT:-26379}
master_name=streams
umask 077

say() {
    echo "redis/start.sh: $1" >&2
}

die() {
    say "$1"
    exit 1
}

password() {
    [ -r "$secrets/redis_$1_password" ] || die "cannot read the secret $secrets/redis_$1_password"
    IFS= read -r found <"$secrets/redis_$1_password" || [ -n "$found" ] || die "the secret redis_$1_password is empty"
    printf %s "$found"
}

# {name} in the file becomes the hash of that user's password.
write_acl() {
    names=$(sed -n 's/^user [a-z]* on {\([a-z]*\)}.*/\1/p' "$1")
    # Redis 7.0 does not know CLIENT SETINFO, which clients send to later ones.
    case $(redis-server --version) in
        *v=7.0.*) sed 's/ +client|setinfo//' "$1" >"$2" ;;
        *) cp "$1" "$2" ;;
    esac
    for name in $names; do
        secret=$(password "$name") || exit 1
        hash=$(printf %s "$secret" | sha256sum)
        sed "s/{$name}/#${hash%% *}/" "$2" >"$2.new"
        mv "$2.new" "$2"
    done
}

# What the first Sentinel that answers knows of the master, "address replicas"; nothing when none does.
ask_sentinels() {
    for address in ${REDIS_SENTINELS:-}; do
        found=$(REDISCLI_AUTH=$(password client) timeout 2 redis-cli -h "$address" -p "$sentinel_port" --user client \
            --no-auth-warning SENTINEL master "$master_name" 2>/dev/null |
            awk 'is == "ip" { ip = $0 } is == "num-slaves" { replicas = $0 } { is = is == "" ? $0 : "" }
                END { print ip, replicas }') || found=
        case $found in
            *.*.*.*" "[0-9]*)
                echo "$found"
                return 0
                ;;
        esac
    done
}

has_data() {
    [ -n "$(ls -A "$data/appendonlydir" 2>/dev/null)" ]
}

find_master() {
    password client >/dev/null
    deadline=$(($(date +%s) + ${REDIS_WAIT_S:-60}))
    while :; do
        known=$(ask_sentinels)
        master=${known% *}
        if [ -z "$known" ]; then
            has_data || break
            why="no Sentinel answers: this node has data and may not be the master any more"
        elif [ "$master" != "$REDIS_NODE" ] || [ "${known#* }" = 0 ] || has_data; then
            return 0
        else
            why="this node is the master, is empty, and has replicas that it would empty"
        fi
        [ "$(date +%s)" -lt "$deadline" ] || die "$why"
        sleep 1
    done
    master=${REDIS_FIRST_MASTER:?}
}

start_streams() {
    : "${REDIS_NODE:?}"
    find_master
    write_acl "$config/users.acl" "$run/users.acl"
    replica_password=$(password replica)
    {
        echo "include $config/redis.conf"
        echo "port $port"
        echo "bind $REDIS_NODE"
        echo "dir $data"
        echo "aclfile $run/users.acl"
        echo "masteruser replica"
        echo "masterauth \"$replica_password\""
        echo "replica-announce-ip $REDIS_NODE"
        echo "replica-announce-port $port"
        [ "$master" = "$REDIS_NODE" ] || echo "replicaof $master $port"
    } >"$run/redis.conf"
    say "$REDIS_NODE starts; the master is $master"
    exec redis-server "$run/redis.conf"
}

start_cache() {
    write_acl "$config/cache-users.acl" "$run/users.acl"
    {
        echo "include $config/cache.conf"
        echo "port $port"
        echo "bind ${REDIS_NODE:-0.0.0.0}"
        echo "dir $data"
        echo "aclfile $run/users.acl"
    } >"$run/redis.conf"
    exec redis-server "$run/redis.conf"
}

start_sentinel() {
    : "${REDIS_NODE:?}" "${REDIS_FIRST_MASTER:?}"
    write_acl "$config/sentinel-users.acl" "$run/sentinel-users.acl"
    own_password=$(password sentinel)
    known=$data/sentinel.conf
    # Sentinel keeps in its file what it knows, from the first start on; what is told from outside is written anew, so
    # that another password holds after a restart.
    if [ -s "$known" ]; then
        grep -vE "^(port|bind|aclfile|sentinel (announce-ip|announce-port|auth-pass|sentinel-pass)) " "$known" >"$known.new"
    else
        sed -e "/^port /d" -e "s#^dir .*#dir $data#" \
            -e "s/^sentinel monitor $master_name MASTER 6379/sentinel monitor $master_name $REDIS_FIRST_MASTER $port/" \
            "$config/sentinel.conf" >"$known.new"
    fi
    {
        echo "port $sentinel_port"
        echo "bind $REDIS_NODE"
        echo "aclfile $run/sentinel-users.acl"
        echo "sentinel announce-ip $REDIS_NODE"
        echo "sentinel announce-port $sentinel_port"
        echo "sentinel auth-pass $master_name \"$own_password\""
        echo "sentinel sentinel-pass \"$own_password\""
    } >>"$known.new"
    mv "$known.new" "$known"
    exec redis-server "$known" --sentinel
}

mkdir -p "$run"
case ${1:-} in
    streams) start_streams ;;
    cache) start_cache ;;
    sentinel) start_sentinel ;;
    *) die "usage: start.sh streams | cache | sentinel" ;;
esac
