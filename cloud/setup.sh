#!/bin/bash
# Sets up the cloud side: deploy, device SERIAL, destroy. `cloud/setup.sh --help` says how. This finds or makes what the
# work needs; the work itself is in cloud/setup/.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

for program in make python3; do
    command -v "$program" >/dev/null || {
        echo "setup: $program is not installed; on Debian: apt-get install make python3 python3-venv" >&2
        exit 1
    }
done
unset MAKEFLAGS MAKELEVEL # run by a make of somebody's own, ours is still another one
case ${1-} in
deploy) make -s -C "$root" env-cloud env-sam ;;
*) make -s -C "$root" env-cloud ;;
esac
unset PYTHONDONTWRITEBYTECODE # sam that may not keep its bytecode starts twice as slowly
# -P: what lies in the caller's directory is not ours to import.
exec "$root/build/env/cloud/bin/python" -P -m cloud.setup "$@"
