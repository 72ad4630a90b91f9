#!/bin/bash
# Builds the Debian package of this checkout: packaging/build-deb.sh WORK OUT [ARCH]. `make deb` is how to call it.
# The same checkout gives the same bytes: times come from the package's changelog, modes from the file's executable bit,
# bytecode is tied to its source by hash and not by time.
set -euo pipefail
unset MAKEFLAGS MFLAGS MAKELEVEL # of the make that called us; the package has its own
umask 022
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mkdir -p "$1" && cd "$1" && pwd) out=$(mkdir -p "$2" && cd "$2" && pwd)
arch=${3:-$(dpkg --print-architecture)}

rm -rf "$work/source"
mkdir "$work/source"
cd "$root"
git ls-files -z --cached --others --exclude-standard iot_agent config packaging docs README.md ARCHITECTURE.md SECURITY.md LICENSE setup.cfg pyproject.toml |
    tar --create --null --files-from=- --mode=go=rX,u+rw | tar --extract --directory "$work/source"
cd "$work/source"
cp -r packaging/debian debian
cross=()
[[ $arch == "$(dpkg --print-architecture)" ]] || cross=(--no-check-builddeps) # nothing is compiled, so no compiler is needed
# What a builder's machine must have is in packaging/packages.sh; the environment makes the rest, pinned by hash.
UV=$root/build/env/uv/bin/uv PACKAGE_ENV=$root/build/env/package \
    dpkg-buildpackage --build=binary --no-sign --host-arch "$arch" "${cross[@]}" >"$work/log" 2>&1 || {
    tail -50 "$work/log" >&2
    echo "build-deb.sh: the build failed; all it said is in $work/log" >&2
    exit 1
}
rm -f "$out"/iot-agent_*_"$arch".*
mv "$work"/iot-agent_*.{deb,changes,buildinfo} "$out"
