"""Metrics, in a file for node_exporter's textfile collector (Prometheus text format 0.0.4).

Off unless `metrics.textfile` names the file. The file is replaced as a whole, and only when a value has changed: times
are instants, not ages, so the file stays right while nothing happens. The file is removed when the daemon stops.
"""

import logging
from pathlib import Path
from typing import Any

from iot_agent.core.record import State
from iot_agent.storage import atomic, layout

log = logging.getLogger(__name__)


class Textfile:
    """Keeps the file at `path` up to date; does nothing if `path` is None. A failure is only logged."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._written = ""
        self._problem = ""

    def publish(self, shown: dict[str, Any]) -> None:
        """Write the metrics of a status report, unless the file has the same already."""
        content = text(shown)
        if self._path is None or content == self._written:
            return
        try:
            atomic.write(self._path, content.encode(), layout.PUBLIC_FILE_MODE)
        except (OSError, ValueError) as error:
            if str(error) != self._problem:
                log.warning("cannot write the metrics: %s", error)
            self._problem = str(error)
        else:
            self._written, self._problem = content, ""

    def close(self) -> None:
        """Remove the file: it would look as if the daemon were running."""
        try:
            if self._path is not None:
                self._path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("cannot remove the metrics: %s", error)


def text(shown: dict[str, Any]) -> str:
    """Write the metrics of a status report; a value that is not known is left out."""
    identity, error = shown["identity"] or {}, shown["last_error"]
    lines: list[str] = []

    def metric(name: str, kind: str, about: str, *samples: tuple[dict[str, str], float | None]) -> None:
        known = [(labels, value) for labels, value in samples if value is not None]
        if known:
            lines.extend((f"# HELP iot_agent_{name} {about}", f"# TYPE iot_agent_{name} {kind}"))
            lines.extend(f"iot_agent_{name}{_labels(labels)} {value}" for labels, value in known)

    metric("info", "gauge", "The agent.", ({"serial": shown["serial"], "version": shown["version"]}, 1))
    states = [({"state": str(state)}, int(state == shown["state"])) for state in State]
    metric("state", "gauge", "1 for the state that the device is in.", *states)
    for name, key, about in (
        ("certificate_not_before", "not_before", "When the active certificate begins to be valid."),
        ("certificate_not_after", "not_after", "When the active certificate expires."),
        ("certificate_renewal", "renew_at", "When the active certificate is to be renewed."),
    ):
        metric(f"{name}_timestamp_seconds", "gauge", about, ({}, identity.get(key)))
    metric("last_contact_timestamp_seconds", "gauge", "When the cloud last answered.", ({}, shown["last_contact"]))
    metric("failed_attempts", "gauge", "Failures in a row.", ({}, shown["attempt"]))
    metric("rotations_total", "counter", "Certificates that have become active so far.", ({}, shown["rotations"]))
    if error is not None:
        labels = {"step": str(error["step"]), "code": error["code"]}
        metric("last_error_timestamp_seconds", "gauge", "The last failure, until it is over.", (labels, error["at"]))
    refused, trouble = shown["configuration"]["error"] is not None, shown["trouble"] is not None
    metric("configuration_refused", "gauge", "1 while the last reload was refused.", ({}, int(refused)))
    metric("disk_trouble", "gauge", "1 while the record cannot be written to disk.", ({}, int(trouble)))
    metric("clock_trusted", "gauge", "0 while the clock is behind the cloud's.", ({}, int(shown["clock_trusted"])))
    return "\n".join(lines) + "\n"


def _labels(labels: dict[str, str]) -> str:
    def escaped(value: str) -> str:
        return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

    return "{" + ",".join(f'{name}="{escaped(value)}"' for name, value in labels.items()) + "}" if labels else ""
