#!/bin/sh
# A certificate for development: an authority of its own and a certificate for localhost, nginx and the names given.
#
#   make-certificate.sh DIRECTORY [NAME…]
#
# Files that are there are kept. For production put your own server.crt (with its chain), server.key (0400, readable by
# nginx's user) and ca.crt (what clients inside trust) there instead.
set -eu

folder=${1:?usage: make-certificate.sh DIRECTORY [NAME...]}
shift
umask 077
mkdir -p "$folder"
if [ -s "$folder/server.crt" ] && [ -s "$folder/server.key" ]; then
    echo "make-certificate: $folder/server.crt is there and stays" >&2
    exit 0
fi

names="DNS:localhost,DNS:nginx,IP:127.0.0.1"
for name in "$@"; do
    names="$names,DNS:$name"
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

new_key() {
    openssl ecparam -name prime256v1 -genkey -noout -out "$1"
}

new_key "$work/ca.key"
openssl req -x509 -new -key "$work/ca.key" -days 825 -subj "/CN=streamgauge development" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign -out "$work/ca.crt"
new_key "$work/server.key"
openssl req -new -key "$work/server.key" -subj "/CN=localhost" -out "$work/server.csr"
printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n' "$names" >"$work/server.ext"
openssl x509 -req -in "$work/server.csr" -CA "$work/ca.crt" -CAkey "$work/ca.key" -CAcreateserial -days 90 \
    -extfile "$work/server.ext" -out "$work/server.crt" 2>/dev/null
chmod 0400 "$work/server.key"
chmod 0444 "$work/server.crt" "$work/ca.crt"
mv "$work/ca.crt" "$work/server.crt" "$work/server.key" "$folder/"
echo "make-certificate: made $folder/server.crt for $names, 90 days; ca.crt is what clients trust" >&2
