"""docs/evidence.md: intro.md, the runs that are kept, the faults that were found, and the catalogue."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tests.evidence.catalogue import HERE, Found, Row
from tests.evidence.summary import Summary

INTRO = (HERE / "intro.md").read_text()


def render(every: Sequence[Summary], rows: Sequence[Row], finds: Sequence[Found]) -> str:
    """Write the page for the runs that are kept; the last one is shown in detail."""
    last = every[-1]
    parts = (INTRO.replace("{runs}", _totals(every)), _plants(last), _finds(finds), _catalogue(rows, last))
    return "\n".join(parts)


def in_three_lines(last: Summary, rows: Sequence[Row]) -> str:
    """Say what a run explored, as README's first screen has it."""
    explorer, powercut, mutation = last.explorer, last.powercut, last.mutation
    return (
        f"**Evidence.** {explorer['states']:,} states of device and cloud together with up to "
        f"{explorer['faults']} faults, {powercut['images']:,} disks that lost power in the middle of their writes and "
        f"were recovered, {mutation['killed']:,} of {mutation['total']:,} changed rules caught by a test, "
        f"{sum(not row.open for row in rows)} faults tested, each with a bug planted to see a test fail. "
        "`make prove` runs all of it again in less than an hour: [docs/evidence.md](docs/evidence.md)."
    )


def _totals(every: Sequence[Summary]) -> str:
    lines = [
        "## The runs\n",
        "| date | commit | seed | worlds | transitions | walks | disk images | mutants killed | fuzzed inputs |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_run(one) for one in every),
    ]
    worlds = sum(one.explorer["states"] for one in every)
    images = sum(one.powercut.get("images", 0) for one in every)
    inputs = sum(one.fuzz.get("executions", 0) for one in every)
    broken = sum(one.explorer["violations"] + one.powercut.get("violations", 0) for one in every)
    total = f"{worlds:,} worlds, {images:,} disk images, {inputs:,} fuzzed inputs; {broken or 'no'} promises broken"
    return "\n".join(
        [*lines, f"\n**In all: {total}.** Worlds are distinct within a run, and may occur again in another.\n"]
    )


def _run(one: Summary) -> str:
    killed = f"{one.mutation['killed']} of {one.mutation['total']}" if one.mutation else "—"
    cells: tuple[object, ...] = (
        one.date, f"`{one.commit}`", one.seed, f"{one.explorer['states']:,}", f"{one.explorer['transitions']:,}",
        f"{one.explorer['walks']:,}", f"{one.powercut.get('images', 0):,}", killed,
        f"{one.fuzz.get('executions', 0):,}",
    )  # fmt: skip
    return _line(cells)


def _plants(last: Summary) -> str:
    """Name the planted bugs that the explorer and the power-cut lab find, with what it took."""
    explored, cut = last.explorer["states_to_find"], last.powercut.get("plant_images", {})
    return "\n".join(
        [
            "## Planted bugs\n",
            f"Found: {_share(last.explorer)} by the explorer, {_share(last.powercut)} by the power-cut lab.\n",
            "| planted bug | found by | after |",
            "|---|---|---|",
            *(_line((_words(name), "explorer", f"{count:,} worlds")) for name, count in sorted(explored.items())),
            *(_line((_words(name), "power-cut lab", f"{count:,} images")) for name, count in sorted(cut.items())),
            "",
        ]
    )


def _finds(finds: Iterable[Found]) -> str:
    return "\n".join(
        [
            "## Faults that were found by these means\n",
            "The last column shows each again: it runs the test that came with the repair on the code before the",
            "repair, in a checkout of its own, and the test fails.\n",
            "| what | since | found by | repaired | see it again |",
            "|---|---|---|---|---|",
            *(
                _line((one.what, one.since, one.by, f"`{one.repaired}`",
                       f"`python -m tests.evidence before {one.repaired} {one.test}`"))
                for one in finds
            ),
            "",
        ]
    )  # fmt: skip


def _catalogue(rows: Sequence[Row], last: Summary) -> str:
    shown = set(last.covered)
    return "\n".join(
        [
            "## The catalogue of faults\n",
            _shown(len(shown), len(rows), last.commit),
            "The bug in a row is planted by the last test of the row, which catches it.\n",
            "| # | fault | required outcome | tests | planted bug |",
            "|---|---|---|---|---|",
            *(_line(_row(row, shown)) for row in rows),
            "",
        ]
    )


def _shown(shown: int, rows: int, commit: str) -> str:
    if not shown:
        return "The last run did not include these tests; the test suite runs them on every commit."
    return f"{shown} of {rows} rows are shown by tests that ran and passed on `{commit}`."


def _row(row: Row, shown: set[int]) -> tuple[object, ...]:
    if row.open:
        return row.number, row.fault, row.outcome, f"**open:** {row.open}", ""
    mark = "" if not shown or row.number in shown else "**not shown in this run** "
    tests = "<br>".join(f"`tests/{test.split('[')[0]}`" for test in row.named)
    return row.number, row.fault, row.outcome, mark + tests, row.bug


def _share(one: Mapping[str, int]) -> str:
    return f"{one.get('plants_found', 0)} of {one.get('plants', 0)}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _line(cells: Iterable[object]) -> str:
    return f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |"
