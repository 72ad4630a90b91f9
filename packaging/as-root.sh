#!/bin/bash
# Runs a command as root: packaging/as-root.sh COMMAND…
# Root runs it; anybody else by sudo, if sudo asks for nothing or somebody is there to be asked. Otherwise nothing runs,
# and the exit status is 77 (EX_NOPERM).
set -euo pipefail

((EUID != 0)) || exec "$@"
if command -v sudo >/dev/null && { [[ -t 0 ]] || sudo -n true 2>/dev/null; }; then
    exec sudo -- "$@"
fi
exit 77
