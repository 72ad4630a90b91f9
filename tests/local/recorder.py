"""Runs cloud.setup as `python -m cloud.setup` does, and writes every AWS call it makes to the file named first."""

import sys
from pathlib import Path
from typing import Any

from botocore.client import BaseClient

from cloud.setup.__main__ import main


def record(path: Path) -> None:
    """Have every call of this process written down, one `service Operation` a line."""
    original: Any = BaseClient._make_api_call  # type: ignore[attr-defined]  # no stub knows this private method

    def recorded(client: BaseClient, operation: str, parameters: dict[str, Any]) -> Any:  # noqa: ANN401 - any answer
        versioned = "Version" if "VersionId" in parameters else ""
        with path.open("a") as calls:
            calls.write(f"{client.meta.service_model.service_name} {operation}{versioned}\n")
        return original(client, operation, parameters)

    BaseClient._make_api_call = recorded  # type: ignore[attr-defined]  # the same


if __name__ == "__main__":
    record(Path(sys.argv.pop(1)))
    sys.exit(main())
