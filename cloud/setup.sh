#!/bin/bash
# Sets up the cloud side: deploy, device SERIAL, destroy; see `cloud/setup.sh --help`. This script makes the Python
# environments that the commands need; the commands are in cloud/setup/.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

for program in make python3; do
    command -v "$program" >/dev/null || {
        echo "setup: $program is not installed; on Debian: apt-get install make python3 python3-venv" >&2
        exit 1
    }
done
unset MAKEFLAGS MAKELEVEL # a make that runs this script must not pass its options to the makes below
case ${1-} in
deploy) make -s -C "$root" env-cloud env-sam ;;
*) make -s -C "$root" env-cloud ;;
esac
unset PYTHONDONTWRITEBYTECODE # without its bytecode cache sam starts twice as slowly
# -P: import nothing from the caller's working directory.
exec "$root/build/env/cloud/bin/python" -P -m cloud.setup "$@"
