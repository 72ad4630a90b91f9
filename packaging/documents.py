"""Makes the man pages and the shell completions from argparse, the exit statuses and config/agent.yaml.

    python packaging/documents.py OUT      SOURCE_DATE_EPOCH gives the date of the pages

This program replaces each @NAME@ in packaging/man. If a key has no description in config/agent.yaml, or a description
has no key, the build ends with an error.
"""

# ruff: noqa: INP001 - a program, not part of a package

import argparse
import os
import re
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import shtab

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # describe the programs of this checkout

from iot_agent import __version__, agentctl, main  # noqa: E402 - after the change of the path
from iot_agent.core import journal_events  # noqa: E402 - the same

PROGRAMS = {"iot-agent": (main, 8), "agentctl": (agentctl, 1)}
PATHS = {"--config": shtab.FILE, "--run": shtab.DIRECTORY, "--state": shtab.DIRECTORY}


def write_all(out: Path) -> None:
    """Write every page and completion into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    for name, (program, section) in PROGRAMS.items():
        parser = program.arguments_parser()
        parts = {
            "SYNOPSIS": synopsis(parser),
            "OPTIONS": options(parser),
            "COMMANDS": commands(parser),
            "EXIT_STATUS": statuses(program.EXIT_STATUS),
            "EVENTS": iter([roff(", ".join(journal_events.MESSAGE_IDS))]),
        }
        (out / f"{name}.{section}").write_text(page(f"{name}.{section}", parts))
        for action in _flags(parser):
            if kind := PATHS.get(action.option_strings[0]):
                action.complete = kind  # type: ignore[attr-defined] # shtab reads this attribute
        (out / f"{name}.bash").write_text(shtab.complete(parser, "bash"))
        (out / f"_{name}").write_text(shtab.complete(parser, "zsh"))
        (out / f"{name}.fish").write_text("".join(fish(parser)))
    (out / "agent.yaml.5").write_text(page("agent.yaml.5", {"KEYS": keys((ROOT / "config/agent.yaml").read_text())}))


def page(name: str, parts: Mapping[str, Iterator[str]]) -> str:
    """Fill in a page of packaging/man."""
    moment = datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), UTC)
    values = {part: "\n".join(lines) for part, lines in parts.items()}
    values |= {"DATE": f"{moment:%Y-%m-%d}", "VERSION": __version__}
    text = (ROOT / "packaging/man" / f"{name}.in").read_text()
    return re.sub(r"@([A-Z_]+)@", lambda found: values[found[1]], text)


def roff(text: str) -> str:
    """Escape what roff would take as a command."""
    return re.sub(r"^([.'])", r"\\&\1", text.replace("\\", r"\e").replace("-", r"\-"), flags=re.MULTILINE)


def synopsis(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Give one line for each way to call the program."""
    words = " ".join(_shown(action) for action in _flags(parser))
    found = subcommands(parser)
    if not found:
        yield f".B {parser.prog}\n{roff(words)}"
    for index, (name, (_, sub)) in enumerate(found.items()):
        inner = " ".join(_shown(action) for action in _flags(sub))
        yield (".br\n" if index else "") + f".B {parser.prog}\n[options] {roff(name)} {roff(inner)}"


def options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Give a paragraph for each option."""
    for action in _flags(parser):
        about = (action.help or "").replace("%(default)s", str(action.default)).replace("%%", "%")
        value = f" {action.metavar}" if action.metavar else ""
        yield f".TP\n.B {roff(', '.join(action.option_strings) + value)}\n{roff(_sentence(about))}"


def commands(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Give a section for each command, with its options."""
    for name, (about, sub) in subcommands(parser).items():
        yield f".SS {roff(name)}\n{roff(_sentence(about))}"
        yield from (text for text in options(sub) if "\\-\\-help" not in text)


def statuses(meanings: Mapping[int, str]) -> Iterator[str]:
    """Give a paragraph for each exit status."""
    yield from (f".TP\n.B {code}\n{roff(_sentence(meaning))}" for code, meaning in sorted(meanings.items()))


def keys(text: str) -> Iterator[str]:
    """Give a paragraph for each key of config/agent.yaml: its comment, and its default."""
    from iot_agent.config import agent_yaml  # noqa: PLC0415 - it needs yaml, and only this function does

    comment: list[str] = []
    section, described = "", set()
    for line in text.splitlines():
        found = re.match(r"(?:# )?( *)(?:# )?([a-z0-9_]+): ?(.*)", line)
        if found and not found[3]:
            section = f"{found[2]}."
        elif found and (key := (section if found[1] else "") + found[2]) in agent_yaml.SETTINGS:
            default = agent_yaml.SETTINGS[key].default
            fact = (
                "Required."
                if default is agent_yaml.REQUIRED
                else "Optional."
                if default is None
                else f"Default: {found[3]}."
            )
            yield f".TP\n.B {roff(key)}\n{roff(' '.join(comment))}\n.br\n{roff(fact)}"
            described.add(key)
            comment = []
        elif line.strip():
            comment.append(line.strip(" #"))
        else:
            comment = []
    if described != agent_yaml.SETTINGS.keys():
        raise SystemExit(f"config/agent.yaml does not describe {sorted(agent_yaml.SETTINGS.keys() ^ described)}")


def fish(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Give the completions for fish, which shtab cannot write."""
    found = subcommands(parser)
    yield f"complete -c {parser.prog} -f\n"
    yield from _fish_options(parser.prog, parser, "__fish_use_subcommand" if found else "true")
    for name, (about, sub) in found.items():
        yield f"complete -c {parser.prog} -n __fish_use_subcommand -a {name} -d {_quoted(about)}\n"
        yield from _fish_options(parser.prog, sub, f"__fish_seen_subcommand_from {name}")


def _fish_options(prog: str, parser: argparse.ArgumentParser, when: str) -> Iterator[str]:
    for action in _flags(parser):
        value = "" if action.nargs == 0 else " -r -F" if action.option_strings[0] in PATHS else " -x"
        for option in action.option_strings:
            kind = f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"
            about = (action.help or "").split(" (default")[0].replace("%(default)s", str(action.default))
            yield f"complete -c {prog} -n {_quoted(when)} {kind}{value} -d {_quoted(about)}\n"


def subcommands(parser: argparse.ArgumentParser) -> dict[str, tuple[str, argparse.ArgumentParser]]:
    """Give the commands by name: (what each is for, its parser)."""
    for action in parser._actions:  # noqa: SLF001 - argparse has no public name for it
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - the same
            about = {choice.dest: choice.help or "" for choice in action._choices_actions}  # noqa: SLF001 - the same
            return {name: (about[name], sub) for name, sub in action.choices.items()}
    return {}


def _flags(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if action.option_strings]  # noqa: SLF001 - the same


def _shown(action: argparse.Action) -> str:
    return f"[{action.option_strings[-1]}{f' {action.metavar}' if action.metavar else ''}]"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
