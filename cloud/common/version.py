"""The version of this project, which is written in one place: in `iot_agent`, which `cloud` does not import."""

from __future__ import annotations

import re
from pathlib import Path


def version() -> str:
    """Return the version, from the file beside this package, in a checkout as in an installation."""
    source = Path(__file__).parents[2] / "iot_agent/__init__.py"
    found = re.search(r'^__version__ = "(.+)"$', source.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"{source} has no __version__")
    return found[1]
