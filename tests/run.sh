#!/bin/bash
# Runs the whole test suite: tests/run.sh [ARGUMENT OF PYTEST…]. `make test` makes what it needs, then calls it.
# Root runs everything. Another user runs what needs no root, then the rest by sudo; without sudo the rest is left out
# (tests/conftest.py counts it).
set -euo pipefail
cd "$(dirname "$0")/.."

suite=(build/env/dev/bin/python -m pytest -n 2 --dist loadfile "$@")
((EUID != 0)) || exec "${suite[@]}"
if ! packaging/as-root.sh true; then
    echo "tests/run.sh: this user is not root and has no sudo: the tests that need root are left out" >&2
    exec "${suite[@]}"
fi
echo "tests/run.sh: the tests that need root run last, by sudo" >&2
NO_TESTS=5 # pytest's exit status when the arguments select none
status=0
ROOT_LATER=1 "${suite[@]}" || status=$?
((status == 0 || status == NO_TESTS)) || exit "$status"
# Root leaves no files of its own among the user's.
as_root=(env PYTHONDONTWRITEBYTECODE=1 CI="${CI-}" "${suite[@]}" -p no:cacheprovider -m needs_root)
by_sudo=0
packaging/as-root.sh "${as_root[@]}" || by_sudo=$?
((by_sudo == NO_TESTS)) || exit "$by_sudo"
exit "$status"
