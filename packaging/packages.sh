#!/bin/bash
# Installs the Debian packages that building and testing need and this machine lacks: packaging/packages.sh
# `make packages`, .ci/run and .devcontainer/Containerfile call it. It needs root or sudo; without either it prints the
# command for somebody who has them, and exits 1.
set -euo pipefail

needs() { # needs PACKAGE COMMAND…: the package is missing if the command fails
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || missing+=("$package")
}

look() {
    missing=()
    needs git git --version
    needs make make --version
    needs openssl openssl version
    needs mawk awk "BEGIN {}"
    needs iproute2 ss -h
    needs procps ps
    needs mount mount --version
    needs e2fsprogs command -v mkfs.ext4
    needs xfsprogs command -v mkfs.xfs
    needs btrfs-progs command -v mkfs.btrfs
    needs systemd systemd-analyze --version
    needs systemd-sysv test -e /sbin/init
    needs dbus dbus-daemon --version
    needs systemd-container systemd-nspawn --version
    needs debhelper test -x /usr/bin/dh
    needs dpkg-dev dpkg-buildpackage --version
    needs build-essential dpkg --status build-essential
    needs lintian lintian --version
    needs jq jq --version
    needs man-db man --version
    needs groff-base groff --version
    needs bash-completion test -e /usr/share/bash-completion/bash_completion
    needs zsh zsh --version
    needs fish fish --version
    needs prometheus promtool --version
    needs mosquitto test -x /usr/sbin/mosquitto
    needs ca-certificates test -e /etc/ssl/certs/ca-certificates.crt
    # Tokens without hardware: SoftHSM, and a software TPM behind the module that devices use.
    needs softhsm2 softhsm2-util --version
    needs opensc command -v pkcs11-tool
    needs swtpm command -v swtpm
    needs tpm2-abrmd test -x /usr/sbin/tpm2-abrmd
    needs libtss2-tcti-swtpm0 test -e "$(echo /usr/lib/*/libtss2-tcti-swtpm.so.0)"
    needs libtss2-tcti-tabrmd0 test -e "$(echo /usr/lib/*/libtss2-tcti-tabrmd.so.0)"
    needs tpm2-tools command -v tpm2_getcap
    needs libtpm2-pkcs11-1 test -e "$(echo /usr/lib/*/pkcs11/libtpm2_pkcs11.so)"
    needs dbus-daemon command -v dbus-daemon
    needs gcc gcc --version
    needs python3 python3 -c "import sys; assert sys.version_info >= (3, 11)"
    needs python3-venv python3 -c "import ensurepip, venv"
}

look
if ((${#missing[@]} == 0)); then
    echo "packages.sh: every package is installed" >&2
    exit
fi
as_root=()
if ((EUID != 0)); then
    # sudo counts only if it asks for nothing, or somebody is there to be asked.
    if ! command -v sudo >/dev/null || ! { [[ -t 0 ]] || sudo -n true 2>/dev/null; }; then
        echo "packages.sh: packages are missing, and this user may not install them. As root:" >&2
        echo "apt-get install --no-install-recommends ${missing[*]}"
        exit 1
    fi
    as_root=(sudo)
fi
echo "installing ${missing[*]} …" >&2
"${as_root[@]}" apt-get -qq update
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get -qq install --yes --no-install-recommends "${missing[@]}" >/dev/null
look
if ((${#missing[@]})); then
    echo "packages.sh: apt-get installed ${missing[*]}, but what the tests look for is still not there." \
        "The checkout is tested on Debian 12." >&2
    exit 1
fi
