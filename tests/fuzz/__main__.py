"""Fuzzes every parser of bytes that somebody else wrote: `python -m tests.fuzz`, or `replay` to run one input again.

    python -m tests.fuzz --seconds 600                       ten minutes, split over all targets
    python -m tests.fuzz --seconds 60 --target agent-yaml
    python -m tests.fuzz replay agent-yaml build/fuzz/findings/agent-yaml/crash-…

Exit status: 0 nothing was found, 1 something was, 2 wrong arguments, or no fuzzer for this Python and machine.
"""
# ruff: noqa: T201 - a command line program prints

import argparse
import json
import platform
import sys
import traceback
from pathlib import Path

from tests.fuzz.bounds import in_time
from tests.fuzz.run import BY_NAME, ROOT, TARGETS, atheris, fuzz

LAST_WORDS = 4000  # characters of what libFuzzer says: the traceback and the input
NO_FUZZER = (
    "there is no atheris, the fuzzer, for Python {} on {} {}: it is made for Python 3.11 to 3.13 on Linux on x86-64. "
    "Choose such a Python: make clean; make fuzz PYTHON=/path/to/python3. "
    "Elsewhere the tests in tests/fuzz run the corpus, and random changes of it, without the fuzzer."
)


def main() -> int:
    """Run the command line."""
    options = _options()
    if options.command == "replay":
        return _replay(options.name, options.file)
    if atheris is None:
        told = NO_FUZZER.format(platform.python_version(), platform.system(), platform.machine())
        print(f"fuzz: {told}", file=sys.stderr)
        return 2
    names = options.targets or list(TARGETS)
    executions: dict[str, int] = {}
    findings = 0
    for number, name in enumerate(names):
        share = options.seconds * (number + 1) // len(names) - options.seconds * number // len(names)
        ran = fuzz(name, seconds=max(1, share), executions=options.runs)  # libFuzzer counts in whole seconds
        executions[name] = ran.executions
        print(f"{name:<24}{ran.executions:>10} executions", flush=True)
        if ran.finding is not None:
            findings += 1
            file = ran.finding.relative_to(ROOT)
            print(f"{ran.said[-LAST_WORDS:]}\nFOUND: python -m tests.fuzz replay {name} {file}", flush=True)
    summary = {"executions": sum(executions.values()), "findings": findings, "targets": executions}
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(summary, indent=1) + "\n")
    print(f"{summary['executions']} executions of {len(names)} targets, {findings} findings")
    return int(findings > 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60, help="for all targets together (default: %(default)s)")
    parser.add_argument("--runs", type=int, metavar="N", help="stop each target after so many executions")
    parser.add_argument(
        "--target", action="append", dest="targets", choices=BY_NAME, metavar="NAME",
        help=f"may be repeated (default: all); one of {', '.join(TARGETS)}",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the executions and findings there")
    commands = parser.add_subparsers(dest="command")
    again = commands.add_parser("replay", help="run one input, without the fuzzer")
    again.add_argument("name", choices=BY_NAME, metavar="TARGET")
    again.add_argument("file", type=Path, metavar="FILE")
    return parser.parse_args()


def _replay(name: str, file: Path) -> int:
    try:
        with in_time():
            taken = BY_NAME[name].run(file.read_bytes())
    except BaseException:  # noqa: BLE001 - whatever it is, it is what is looked for: a library in Rust panics
        traceback.print_exc()
        return 1
    print("taken" if taken else "refused, as declared")
    return 0


if __name__ == "__main__":
    sys.exit(main())
