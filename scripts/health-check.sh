#!/bin/sh
# Asks every service how it is, all at the same time, each for at most 5 s, and prints one answer.
# Needs a POSIX shell and curl 7.55 or newer. What is checked and what the answer means: docs/health.md.
# Exit code: 0 ok, 1 degraded, 2 down (also: wrong use). The answer is valid JSON even when nothing answers.
set -u
LC_ALL=C
export LC_ALL
umask 077

DEADLINE_S=5
WARN_DAYS=14
FULL_PERCENT=85

usage() {
    cat <<'USAGE'
usage: health-check.sh [--format json|text]

Addresses, from the environment (a user and password in one are used and never shown):
  STREAMGAUGE_EXPORTER_URL    default http://127.0.0.1:9464
  STREAMGAUGE_EXPORTER_TOKEN  or STREAMGAUGE_EXPORTER_TOKEN_FILE: needed for the components
  STREAMGAUGE_API_URLS        replicas, separated by spaces or commas; default http://127.0.0.1:8000
  NGINX_URL PROMETHEUS_URL ALERTMANAGER_URL GRAFANA_URL LOKI_URL   checked when set
  STREAMGAUGE_HEALTH_DISKS    directories on this machine whose disks are looked at; default /
USAGE
}

format=text
while [ $# -gt 0 ]; do
    case $1 in
        --format=*) format=${1#--format=} ;;
        --format) [ $# -gt 1 ] && shift && format=$1 || format= ;;
        -h | --help) usage && exit 0 ;;
        *) usage >&2 && exit 2 ;;
    esac
    shift
done
case $format in
    json | text) ;;
    *) usage >&2 && exit 2 ;;
esac

now_ms() {
    ns=$(date +%s%N)
    case $ns in
        *[!0-9]*) echo "$(date +%s)000" ;;
        *) echo "${ns%??????}" ;;
    esac
}

dir=$(mktemp -d "${TMPDIR:-/tmp}/health-check.XXXXXX") || exit 2
trap 'rm -rf "$dir"' EXIT
trap 'exit 2' HUP INT TERM

# Text as the inside of a JSON string; anything but printable ASCII is left out.
escape() {
    printf '%s' "$1" | tr '\n\t' '  ' | tr -cd ' -~' | sed 's/[\\"]/\\&/g'
}

# A number in seconds, as curl prints it, in ms.
to_ms() {
    awk -v s="${1:-0}" 'BEGIN { printf "%.1f", s * 1000 }'
}

# report FILE NAME STATUS SEVERITY LATENCY_MS MESSAGE [VALUE, which is JSON]: one line, one JSON object.
report() {
    printf '{"name":"%s","status":"%s","severity":"%s","latency_ms":%s,"message":"%s","value":%s}\n' \
        "$(escape "$2")" "$3" "$4" "$5" "$(escape "$6")" "${7:-null}" >>"$dir/$1.result"
}

# host:port of an address, for names: without user, password, path and scheme.
place() {
    printf '%s' "$1" | sed 's#^[a-zA-Z]*://##; s#[/?].*$##; s#^.*@##'
}

# Addresses and tokens reach curl in a file that only we can read: arguments can be seen by every user.
# configure FILE URL [TOKEN]
configure() {
    {
        printf 'url = "%s"\n' "$(printf '%s' "$2" | sed 's/[\\"]/\\&/g')"
        [ -z "${3:-}" ] || printf 'header = "Authorization: Bearer %s"\n' "$(printf '%s' "$3" | sed 's/[\\"]/\\&/g')"
    } >"$dir/$1.conf"
}

# fetch FILE: sets code (000: no answer), ms and why; the body is in FILE.body.
fetch() {
    timing=$(curl -q -sS --globoff --max-time "$DEADLINE_S" -K "$dir/$1.conf" -o "$dir/$1.body" \
        -w '%{http_code} %{time_total}' 2>/dev/null)
    failed=$?
    code=${timing%% *}
    ms=$(to_ms "${timing#* }")
    code=${code:-000}
    explain "$failed"
    case $failed in
        0) why="HTTP $code" ;;
        6 | 7 | 28) ;;
        *) code=000 ;;
    esac
}

# explain CODE: what curl's exit code means, in $why.
explain() {
    case $1 in
        6) why="the name cannot be resolved" ;;
        7) why="connection refused" ;;
        28) why="no answer within $DEADLINE_S s" ;;
        35 | 51 | 53 | 58 | 60 | 77) why="TLS failed" ;;
        52 | 56) why="closed without an answer" ;;
        *) why="curl error $1" ;;
    esac
}

# check_http FILE NAME SEVERITY URL [TOKEN]: 2xx is ok.
check_http() {
    configure "$1" "$4" "${5:-}"
    fetch "$1"
    case $code in
        2??) report "$1" "$2" ok "$3" "$ms" "" "$code" ;;
        000) report "$1" "$2" down "$3" "$ms" "$why" ;;
        *) report "$1" "$2" down "$3" "$ms" "$why" "$code" ;;
    esac
}

# check_components FILE URL TOKEN: one check for each component that the exporter's monitor tells of.
check_components() {
    configure "$1" "$2/health/detailed" "$3"
    fetch "$1"
    case $code in
        200 | 503) ;;
        401) report "$1" "components" unknown warning "$ms" "set STREAMGAUGE_EXPORTER_TOKEN" "$code" && return ;;
        000) report "$1" "components" down critical "$ms" "$why" && return ;;
        *) report "$1" "components" down critical "$ms" "$why" "$code" && return ;;
    esac
    # The members of a component come in the order that the exporter's API describes; texts stay escaped as they are.
    awk '
        function text(key) {
            if (!match($0, "\"" key "\":\"([^\"\\\\]|\\\\.)*\"")) return ""
            return substr($0, RSTART + length(key) + 4, RLENGTH - length(key) - 5)
        }
        function number(key) {
            if (!match($0, "\"" key "\":(null|-?[0-9.]+(e[-+]?[0-9]+)?)")) return "null"
            return substr($0, RSTART + length(key) + 3, RLENGTH - length(key) - 3)
        }
        { gsub(/\{"name":"/, "\n&"); all = all $0 }
        END {
            parts = split(all, lines, "\n")
            for (i = 2; i <= parts; i++) {
                $0 = lines[i]
                printf "{\"name\":\"%s\",\"status\":\"%s\",\"severity\":\"%s\",\"latency_ms\":%s,\"message\":\"%s\",\"value\":%s}\n", \
                    text("name"), text("status"), text("severity"), number("latency_ms"), text("reason"), number("value")
            }
        }' "$dir/$1.body" >"$dir/$1.result"
    [ -s "$dir/$1.result" ] || report "$1" "components" down critical "$ms" "the answer is not the exporter's" "$code"
}

# committed FILE: how many events the ledger has, for good; nothing when the exporter does not tell.
committed() {
    fetch "$1"
    sed -n 's/.*"ever_committed_events":\([0-9][0-9]*\).*/\1/p' "$dir/$1.body" 2>/dev/null
}

# check_canary FILE EXPORTER TOKEN API: what a replica measures of one request is committed, and shown, within 5 s.
check_canary() {
    configure "$1" "$2/health/detailed" "$3"
    configure "$1.api" "$4/healthz"
    before=$(committed "$1")
    if [ -z "$before" ]; then
        report "$1" "canary" unknown warning 0 "the exporter does not tell what is committed"
        return
    fi
    sent_ms=$(now_ms)
    fetch "$1.api"
    while :; do
        now=$(committed "$1")
        waited_ms=$(($(now_ms) - sent_ms))
        if [ "${now:-0}" -gt "$before" ]; then
            report "$1" "canary" ok warning "$waited_ms" "" "$((now - before))"
            return
        fi
        [ "$waited_ms" -lt $((DEADLINE_S * 1000)) ] || break
        sleep 1
    done
    report "$1" "canary" down warning "$waited_ms" "nothing was committed within $DEADLINE_S s of a request" 0
}

# count FILE TEXT: how often a text is in an answer.
count() {
    awk -v text="$2" '{ found += gsub(text, "") } END { print found + 0 }' "$dir/$1.body"
}

# check_targets FILE URL: whether Prometheus gets an answer from all that it asks.
check_targets() {
    configure "$1" "$2/api/v1/targets?state=active"
    fetch "$1"
    [ "$code" = 200 ] || { report "$1" "prometheus targets" down warning "$ms" "$why" && return; }
    up=$(count "$1" '"health":"up"')
    all=$(count "$1" '"health":"')
    if [ "$all" -eq 0 ]; then
        report "$1" "prometheus targets" degraded warning "$ms" "Prometheus asks nobody" 0
    elif [ "$up" -lt "$all" ]; then
        report "$1" "prometheus targets" degraded warning "$ms" "$((all - up)) of $all targets do not answer" "$up"
    else
        report "$1" "prometheus targets" ok warning "$ms" "" "$up"
    fi
}

# check_rules FILE URL: whether Prometheus has rules, and can evaluate them.
check_rules() {
    configure "$1" "$2/api/v1/rules"
    fetch "$1"
    [ "$code" = 200 ] || { report "$1" "prometheus rules" down warning "$ms" "$why" && return; }
    all=$(count "$1" '"health":"')
    failing=$(count "$1" '"health":"err"')
    if [ "$all" -eq 0 ]; then
        report "$1" "prometheus rules" degraded warning "$ms" "no rules are loaded" 0
    elif [ "$failing" -gt 0 ]; then
        report "$1" "prometheus rules" degraded warning "$ms" "$failing of $all rules cannot be evaluated" "$all"
    else
        report "$1" "prometheus rules" ok warning "$ms" "" "$all"
    fi
}

# check_disk FILE DIRECTORY: how full its file system is, in per cent.
check_disk() {
    used=$(df -P "$2" 2>/dev/null | awk 'NR == 2 { sub("%", "", $(NF - 1)); print $(NF - 1) }')
    case $used in
        '' | *[!0-9]*) report "$1" "disk $2" unknown warning 0 "cannot be looked at" ;;
        *)
            if [ "$used" -ge "$FULL_PERCENT" ]; then
                report "$1" "disk $2" degraded warning 0 "$used % full" "$used"
            else
                report "$1" "disk $2" ok warning 0 "" "$used"
            fi
            ;;
    esac
}

# check_websocket FILE NAME URL: shakes hands, sends one message and waits for an answer that holds it.
# The key is the example of RFC 6455, so its answer is known without SHA-1. The mask of our frames is four spaces, which
# turns HELLO into hello; the pauses let the handshake end before the message, and the reply come before the close.
check_websocket() {
    configure "$1" "$3"
    timing=$({
        sleep 1
        printf '\201\205    HELLO'
        sleep 1
        printf '\210\200    '
    } | curl -q -sS -i -N --globoff --http1.1 --max-time "$DEADLINE_S" -X GET -T - -K "$dir/$1.conf" \
        -H 'Transfer-Encoding:' -H 'Expect:' -H 'Connection: Upgrade' -H 'Upgrade: websocket' \
        -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' \
        -o "$dir/$1.body" -w '%{http_code} %{time_starttransfer}' 2>/dev/null)
    explain "$?"
    code=${timing%% *}
    ms=$(to_ms "${timing#* }")
    touch "$dir/$1.body"
    tr -d '\000\r' <"$dir/$1.body" | sed '/^$/q' | grep -i '^sec-websocket-accept: ' |
        grep -q ' s3pPLMBiTxaQ9kYGzzhZRbK+xOo=$' && shaken=yes || shaken=no
    # Text frames begin with 0x81; what comes first after the headers must be one, with our text in it.
    tr -d '\000\r' <"$dir/$1.body" | sed '1,/^$/d' >"$dir/$1.frame"
    frame=$(od -An -to1 -N1 <"$dir/$1.frame" | tr -d ' \n')
    grep -q 'hello' "$dir/$1.frame" && echoed=yes || echoed=no
    case $code.$shaken.$frame.$echoed in
        101.yes.201.yes) report "$1" "$2" ok warning "$ms" "" "$code" ;;
        101.yes.201.no) report "$1" "$2" down warning "$ms" "answered something else than it was sent" "$code" ;;
        101.yes.*) report "$1" "$2" down warning "$ms" "shook hands, but did not answer a message" "$code" ;;
        101.*) report "$1" "$2" down warning "$ms" "Sec-WebSocket-Accept is wrong" "$code" ;;
        000.* | .*) report "$1" "$2" down warning "$ms" "no handshake: $why" ;;
        *) report "$1" "$2" down warning "$ms" "HTTP $code instead of a handshake" "$code" ;;
    esac
}

# check_certificate FILE NAME URL: how many days the certificate has left.
check_certificate() {
    configure "$1" "$3"
    timing=$(curl -q -sS -v --globoff --max-time "$DEADLINE_S" -K "$dir/$1.conf" -o /dev/null \
        -w '%{time_appconnect}' 2>"$dir/$1.log")
    ms=$(to_ms "$timing")
    days=$({
        date -u '+%b %d %H:%M:%S %Y'
        sed -n 's/^\*.*expire date: *//p' "$dir/$1.log"
    } | awk '
        function days(year, month, day, era, of_era) {
            if (month <= 2) year--
            era = int(year / 400)
            of_era = year - era * 400
            return era * 146097 + of_era * 365 + int(of_era / 4) - int(of_era / 100) \
                + int((153 * (month + (month > 2 ? -3 : 9)) + 2) / 5) + day - 1
        }
        { at[NR] = days($4, (index("JanFebMarAprMayJunJulAugSepOctNovDec", $1) + 2) / 3, $2) }
        END { if (NR > 1) print at[2] - at[1] }')
    if grep -q 'SSL certificate problem\|certificate verify failed' "$dir/$1.log"; then
        report "$1" "$2" down warning "$ms" "the certificate is not trusted" "${days:-null}"
    elif [ -z "$days" ]; then
        report "$1" "$2" down warning "$ms" "no certificate was shown"
    elif [ "$days" -lt 0 ]; then
        report "$1" "$2" down warning "$ms" "the certificate has expired" "$days"
    elif [ "$days" -lt "$WARN_DAYS" ]; then
        report "$1" "$2" degraded warning "$ms" "the certificate ends in $days days" "$days"
    else
        report "$1" "$2" ok warning "$ms" "" "$days"
    fi
}

# Whether any of the replicas answers is what matters most; each by itself is a warning.
check_replicas() {
    up=$(cat "$dir"/api.*.result 2>/dev/null | grep -c '"status":"ok"')
    if [ "$up" -eq 0 ]; then
        report api "api" down critical 0 "none of $1 replicas answers" "$up"
    elif [ "$up" -lt "$1" ]; then
        report api "api" degraded critical 0 "$up of $1 replicas answer" "$up"
    else
        report api "api" ok critical 0 "" "$up"
    fi
}

start_checks() {
    exporter=${STREAMGAUGE_EXPORTER_URL:-http://127.0.0.1:${STREAMGAUGE_EXPORTER_PORT:-9464}}
    exporter=${exporter%/}
    token=${STREAMGAUGE_EXPORTER_TOKEN:-}
    [ -n "$token" ] || [ -z "${STREAMGAUGE_EXPORTER_TOKEN_FILE:-}" ] || token=$(cat "$STREAMGAUGE_EXPORTER_TOKEN_FILE")
    check_http 0.live "exporter live" critical "$exporter/healthz" &
    check_http 0.ready "exporter ready" critical "$exporter/readyz" &
    check_components 1.components "$exporter" "$token" &
    replicas=0
    for url in $(printf '%s' "${STREAMGAUGE_API_URLS:-http://127.0.0.1:${STREAMGAUGE_API_PORT:-8000}}" | tr ',' ' '); do
        url=${url%/}
        replicas=$((replicas + 1))
        [ "$replicas" -gt 1 ] || check_canary 2.canary "$exporter" "$token" "$url" &
        check_http "api.$replicas" "api $(place "$url")" warning "$url/healthz" &
        check_http "ready.$replicas" "api ready $(place "$url")" warning "$url/readyz" &
        check_websocket "websocket.$replicas" "websocket $(place "$url")" "$url/ws" &
    done
    if [ -n "${NGINX_URL:-}" ]; then
        check_http nginx "nginx" critical "${NGINX_URL%/}/healthz" &
        check_websocket websocket.nginx "websocket nginx" "${NGINX_URL%/}/ws" &
        case $NGINX_URL in https:*) check_certificate certificate "certificate nginx" "$NGINX_URL" & ;; esac
    fi
    if [ -n "${PROMETHEUS_URL:-}" ]; then
        check_http prometheus "prometheus" warning "${PROMETHEUS_URL%/}/-/ready" &
        check_targets prometheus.targets "${PROMETHEUS_URL%/}" &
        check_rules prometheus.rules "${PROMETHEUS_URL%/}" &
    fi
    [ -z "${ALERTMANAGER_URL:-}" ] || check_http alertmanager "alertmanager" warning "${ALERTMANAGER_URL%/}/-/ready" &
    [ -z "${GRAFANA_URL:-}" ] || check_http grafana "grafana" warning "${GRAFANA_URL%/}/api/health" &
    [ -z "${LOKI_URL:-}" ] || check_http loki "loki" warning "${LOKI_URL%/}/ready" &
    disks=0
    for directory in ${STREAMGAUGE_HEALTH_DISKS:-/}; do
        disks=$((disks + 1))
        check_disk "disk.$disks" "$directory" &
    done
    wait
    check_replicas "$replicas"
}

# One word for all: down when something critical is down, degraded when anything is not ok.
judge() {
    if grep -q '"status":"down","severity":"critical"' "$dir/all"; then
        echo down
    elif grep '"severity":"\(critical\|warning\)"' "$dir/all" | grep -qv '"status":"ok"'; then
        echo degraded
    else
        echo ok
    fi
}

began=$(now_ms)
if command -v curl >/dev/null; then
    start_checks
else
    report 0.curl "curl" down critical 0 "curl is not installed"
fi
cat "$dir"/*.result >"$dir/all"
status=$(judge)
took=$(($(now_ms) - began))

if [ "$format" = json ]; then
    printf '{"status":"%s","timestamp":"%s","duration_ms":%s,"checks":[' "$status" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$took"
    sed '$!s/$/,/' "$dir/all"
    printf ']}\n'
else
    printf '%s (%s ms)\n' "$status" "$took"
    sed 's/^{"name":"\(.*\)","status":"\([a-z]*\)","severity":"\([a-z]*\)","latency_ms":\([0-9.]*\),"message":"\(.*\)","value":\(.*\)}$/\2|\1|\4 ms|\5/' \
        "$dir/all" | awk -F '|' '{ printf "  %-9s %-34s %10s  %s\n", $1, $2, $3, $4 }'
fi
case $status in
    ok) exit 0 ;;
    degraded) exit 1 ;;
    *) exit 2 ;;
esac
