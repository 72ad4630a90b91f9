"""What one run of the proof has shown, as one value: from the reports of its stages, and back from the list of runs."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.evidence import stages
from tests.evidence.catalogue import HERE, Row, covered, passed

RUNS = HERE / "runs.json"


@dataclass(frozen=True)
class Summary:
    """One run. Each part is a mapping of names to counts; `covered` are the numbers of the rows that are shown."""

    date: str
    commit: str
    seed: int
    explorer: dict[str, Any]
    powercut: dict[str, Any]
    mutation: dict[str, Any]
    fuzz: dict[str, Any]
    catalogue: dict[str, int]
    covered: list[int] = field(default_factory=list)


def gather(seed: int, rows: list[Row]) -> Summary:
    """Read the reports of a run that has just ended."""
    junit = stages.BUILD / "junit.xml"
    ran = passed(junit) if junit.is_file() else set()
    shown = [row.number for row in rows if covered(row, ran)]
    return Summary(
        date=f"{dt.datetime.now(dt.UTC):%Y-%m-%d}",
        commit=_commit(),
        seed=seed,
        explorer=_explorer(),
        powercut=stages.report("powercut"),
        mutation=stages.report("mutation"),
        fuzz=stages.report("fuzz"),
        catalogue={"rows": len(rows), "covered": len(shown)},
        covered=shown,
    )


def _explorer() -> dict[str, Any]:
    each = [stages.report(f"explorer {start}") for start in stages.STARTS]
    plants = stages.report("explorer plants")
    return {
        **{what: sum(one.get(what, 0) for one in each) for what in ("states", "transitions", "walks")},
        "faults": max(one.get("faults", 0) for one in each),
        "violations": sum(len(one.get("violations", ())) for one in each),
        **{what: plants.get(what, 0) for what in ("plants_found", "plants")},
        "states_to_find": plants.get("states_to_find", {}),
    }


def _commit() -> str:
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=7"],
        capture_output=True, text=True, check=False, cwd=stages.ROOT,
    )  # fmt: skip
    return described.stdout.strip() or "unknown"


def write(summary: Summary) -> None:
    """Write build/evidence/summary.json."""
    (stages.BUILD / "summary.json").write_text(json.dumps(asdict(summary), indent=1) + "\n")


def runs() -> list[Summary]:
    """Read the runs that are kept, the earliest first."""
    return [Summary(**one) for one in json.loads(RUNS.read_text())] if RUNS.is_file() else []


def keep(summary: Summary) -> list[Summary]:
    """Add a run to those that are kept; a run takes the place of an earlier one with the same seed."""
    every = [*(one for one in runs() if one.seed != summary.seed), summary]
    RUNS.write_text(json.dumps([asdict(one) for one in every], indent=1) + "\n")
    return every
