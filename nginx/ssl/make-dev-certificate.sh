#!/bin/sh
# Makes a development authority and a certificate for nginx, in this folder or the one named; needs openssl.
# Run again it changes nothing while the certificate is good for 14 days more; the authority stays for ever.
# For real ones put the chain into tls.crt and its key into tls.key (0400, owner: nginx's user), then `nginx -s reload`.
set -eu
umask 077

folder=${1:-$(dirname "$0")}
names=${TLS_NAMES:-DNS:localhost,DNS:nginx,IP:127.0.0.1}
days=90
mkdir -p "$folder"
cd "$folder"

is_good() {
    [ -s tls.crt ] && [ -s tls.key ] && openssl x509 -in tls.crt -noout -checkend 1209600 >/dev/null 2>&1
}

if is_good; then
    # Also what others made: a real certificate is never replaced.
    echo "$folder/tls.crt is good: kept"
    exit 0
fi

if [ -s tls.crt ] && ! { [ -s ca.crt ] && openssl x509 -in tls.crt -noout -issuer -nameopt RFC2253 |
    grep -q 'CN=streamgauge development authority$'; }; then
    echo "$folder/tls.crt ends within 14 days and is not ours: renew it" >&2
    exit 1
fi

work=$(mktemp -d ./.making.XXXXXX)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

if ! { [ -s ca.crt ] && [ -s ca.key ]; }; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 \
        -subj '/CN=streamgauge development authority' \
        -addext basicConstraints=critical,CA:TRUE,pathlen:0 -addext keyUsage=critical,keyCertSign,cRLSign \
        -keyout "$work/ca.key" -out "$work/ca.crt" 2>/dev/null
    chmod 0400 "$work/ca.key"
    chmod 0444 "$work/ca.crt"
    mv -f "$work/ca.key" ca.key
    mv -f "$work/ca.crt" ca.crt
fi

openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost \
    -keyout "$work/tls.key" -out "$work/tls.csr" 2>/dev/null
{
    echo 'basicConstraints=critical,CA:FALSE'
    echo 'keyUsage=critical,digitalSignature'
    echo 'extendedKeyUsage=serverAuth'
    echo "subjectAltName=$names"
} >"$work/extensions"
openssl x509 -req -in "$work/tls.csr" -CA ca.crt -CAkey ca.key -CAserial "$work/serial" -CAcreateserial \
    -days "$days" -sha256 -extfile "$work/extensions" -out "$work/tls.crt" 2>/dev/null
chmod 0400 "$work/tls.key"
chmod 0444 "$work/tls.crt"
# nginx runs as a user of its own and must read its key.
if [ -n "${TLS_OWNER:-}" ]; then
    chown "$TLS_OWNER" "$work/tls.key"
fi
mv -f "$work/tls.key" tls.key
mv -f "$work/tls.crt" tls.crt
echo "$folder/tls.crt: $names, $days days; clients trust $folder/ca.crt"
