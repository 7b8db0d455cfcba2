#!/bin/bash
# Grid proxies by the real tools, in the directory $1, without any grid: an authority, a user and a VOMS host of its own.
set -eu
mkdir -p "$1" && cd "$1"
mkdir -p certs voms/lofar
subject=/C=NL/O=AglowTest
openssl req -x509 -newkey rsa:2048 -nodes -days 30 -sha256 -subj "$subject/CN=AglowTest CA" -keyout ca.key -out ca.pem \
    -addext keyUsage=critical,keyCertSign,cRLSign
for option in -subject_hash -subject_hash_old; do
    hash=$(openssl x509 -in ca.pem -noout "$option")
    cp ca.pem "certs/$hash.0"
    printf "access_id_CA X509 '%s/CN=AglowTest CA'\npos_rights globus CA:sign\ncond_subjects globus '\"%s/*\"'\n" \
        "$subject" "$subject" >"certs/$hash.signing_policy"
done
sign() { # NAME COMMON-NAME
    openssl req -newkey rsa:2048 -nodes -subj "$subject/CN=$2" -keyout "$1.key" -out "$1.csr"
    openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -sha256 -out "$1.pem" -extfile <(
        printf 'basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature,keyEncipherment\n'
    )
    chmod 400 "$1.key"
}
sign user "Test User"
sign host voms.example.org
printf '%s/CN=voms.example.org\n%s/CN=AglowTest CA\n' "$subject" "$subject" >voms/lofar/voms.example.org.lsc
export X509_CERT_DIR=$PWD/certs X509_VOMS_DIR=$PWD/voms X509_USER_CERT=$PWD/user.pem X509_USER_KEY=$PWD/user.key
fake() { # FILE OPTION…
    voms-proxy-fake -cert user.pem -key user.key -certdir certs -hostcert host.pem -hostkey host.key -voms lofar \
        -uri voms.example.org:15000 -fqan /lofar/Role=NULL/Capability=NULL -rfc -newformat -out "$@"
}
fake attributes -hours 168 -vomslife 12
fake attributes-over -hours 168 -vomslife 1 -pastac 2:00
fake over -hours 1 -vomslife 1 -pastproxy 3:00
voms-proxy-init -valid 24:00 -out plain
grid-proxy-init -valid 12:00 -rfc -out globus
