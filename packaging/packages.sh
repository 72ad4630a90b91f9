#!/bin/bash
# Installs the Debian packages that a task needs and this machine lacks: packaging/packages.sh [GROUP…]
# A group is a function for_GROUP below; without a group it is for_test, which has all that development needs. `make` calls
# this before a task begins; .ci/run and .devcontainer/Containerfile call it too. It needs root or sudo; without either it
# prints the apt-get command for somebody who has them, and exits 1.
set -euo pipefail

needs() { # needs PACKAGE COMMAND…: the package is missing if the command fails
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || missing+=("$package")
}

# A program may be in /usr/sbin, which the PATH of an ordinary user leaves out.
for_env() {
    needs git command -v git
    needs make command -v make
    needs ca-certificates test -e /etc/ssl/certs/ca-certificates.crt -o -e /etc/pki/tls/certs/ca-bundle.crt
    needs python3 python3 -c "import sys; assert sys.version_info >= (3, 11)"
    needs python3-venv python3 -c "import ensurepip, venv"
}

for_deb() {
    for_env
    needs debhelper test -x /usr/bin/dh
    needs dpkg-dev command -v dpkg-buildpackage
    needs build-essential dpkg --status build-essential
    needs lintian command -v lintian
}

for_softhsm() {
    needs softhsm2 command -v softhsm2-util
    needs opensc command -v pkcs11-tool
}

# A software TPM behind the PKCS #11 module that devices use.
for_tpm() {
    needs swtpm command -v swtpm
    needs tpm2-abrmd command -v tpm2-abrmd
    needs tpm2-tools command -v tpm2_getcap
    needs libtss2-tcti-swtpm0 test -e "$(echo /usr/lib/*/libtss2-tcti-swtpm.so.0)"
    needs libtss2-tcti-tabrmd0 test -e "$(echo /usr/lib/*/libtss2-tcti-tabrmd.so.0)"
    needs libtpm2-pkcs11-1 test -e "$(echo /usr/lib/*/pkcs11/libtpm2_pkcs11.so)"
    needs dbus-daemon command -v dbus-daemon
    needs opensc command -v pkcs11-tool
}

for_test() {
    for_deb
    for_softhsm
    for_tpm
    needs gcc command -v gcc
    needs openssl command -v openssl
    needs mawk command -v awk
    needs procps command -v ps
    needs jq command -v jq
    needs mosquitto command -v mosquitto
    needs prometheus command -v promtool
    # What the package brings: manual pages and completions.
    needs man-db command -v man
    needs groff-base command -v groff
    needs bash-completion test -e /usr/share/bash-completion/bash_completion
    needs zsh command -v zsh
    needs fish command -v fish
    # A machine with systemd as its first process, on a network of its own.
    needs mount command -v mount
    needs e2fsprogs command -v mkfs.ext4
    needs xfsprogs command -v mkfs.xfs
    needs btrfs-progs command -v mkfs.btrfs
    needs iproute2 command -v ip
    needs systemd command -v systemd-analyze
    needs systemd-sysv test -e /sbin/init
    needs dbus command -v dbus-daemon
    needs systemd-container command -v systemd-nspawn
}

# Roots of Debian 12 and 13 with nothing in them, in which README is tried.
for_clean() {
    for_env
    needs mmdebstrap command -v mmdebstrap
    needs mount command -v mount
    needs systemd-container command -v systemd-nspawn
}

# The programs that ours are compared with.
for_bench() {
    for_env
    needs certmonger command -v certmonger
    needs prometheus-node-exporter command -v prometheus-node-exporter
    needs strace command -v strace
    needs dbus-daemon command -v dbus-daemon
}

look() {
    missing=()
    local group
    for group in "$@"; do
        declare -F "for_$group" >/dev/null || {
            echo "packages.sh: there is no group $group" >&2
            exit 64
        }
        "for_$group"
    done
    mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u | sed '/^$/d')
}

export PATH=$PATH:/usr/sbin:/sbin
here=$(dirname "$0")
(($#)) || set -- test
look "$@"
if ((${#missing[@]} == 0)); then
    exit
fi
if ! command -v apt-get >/dev/null; then
    echo "packages.sh: this is no Debian; install what Debian calls ${missing[*]}" >&2
    exit 1
fi
"$here/as-root.sh" true || {
    echo "packages.sh: these Debian packages are missing, and this user may not install them. As root, run:" >&2
    echo "apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
}
echo "installing the Debian packages ${missing[*]} …" >&2
"$here/as-root.sh" apt-get -qq update
"$here/as-root.sh" env DEBIAN_FRONTEND=noninteractive \
    apt-get -qq install --yes --no-install-recommends "${missing[@]}" >/dev/null
look "$@"
if ((${#missing[@]})); then
    echo "packages.sh: apt-get installed ${missing[*]}, but the files looked for are still not there." \
        "The checkout is tested on Debian 12 and 13." >&2
    exit 1
fi
