"""The functions of a module, and what mutmut has made of them. Pure."""

import ast
import difflib
import hashlib
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

CONSTANTS: Final = "(tables and constants)"
"""What stands for all of a module that is outside of its functions."""

BODY_OF: Final = "body_of_"
MADE: Final = re.compile(rf"^x(?:_|ǁ(?P<of>\w+)ǁ)(?:{BODY_OF})?(?P<name>\w+)__mutmut_(?P<number>\d+)$")


@dataclass(frozen=True)
class Mutant:
    """A mutant by its function ("Class.method" for a method) and by the lines that differ, each after "-" or "+"."""

    function: str
    difference: tuple[str, ...]

    def block(self, module: str, last: str) -> str:
        """Return it as it stands in `explained.txt`, with this last line."""
        return "\n".join([f"{module} {self.function}", *self.difference, f"= {last}", ""])


def _functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        if isinstance(node, ast.ClassDef):
            yield from ((f"{node.name}.{one.name}", one) for one in node.body if isinstance(one, ast.FunctionDef))


def hashes(source: str) -> dict[str, str]:
    """Hash each function, and what is outside of them, without docstrings, comments and imports."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    found = {name: _hash(node) for name, node in _functions(tree)}
    holders: list[ast.Module | ast.ClassDef] = [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef))]
    for holder in holders:
        holder.body = [one for one in holder.body if not isinstance(one, ast.FunctionDef | ast.Import | ast.ImportFrom)]
    return {**found, CONSTANTS: _hash(tree)}


def _hash(node: ast.AST) -> str:
    return hashlib.sha256(ast.dump(node).encode()).hexdigest()[:12]


def texts(source: str) -> dict[str, str]:
    """Return the source of each function, at the margin, without its decorators."""
    lines = source.splitlines()
    return {
        name: textwrap.dedent("\n".join(lines[node.lineno - 1 : node.end_lineno]))
        for name, node in _functions(ast.parse(source))
    }


def opened(source: str) -> str:
    """Move the body of each property to a method, for mutmut passes over what is decorated."""
    lines = source.splitlines()
    for _, node in reversed(list(_functions(ast.parse(source)))):
        if [ast.unparse(one) for one in node.decorator_list] == ["property"]:
            head, body = lines[node.lineno - 1], lines[node.lineno : node.end_lineno]
            moved = [head.replace(f"def {node.name}(", f"def {BODY_OF}{node.name}("), *body]
            asks = ["    @property", head, f"        return self.{BODY_OF}{node.name}()"]
            lines[node.lineno - 2 : node.end_lineno] = [*moved, "", *asks]
    return "\n".join(lines) + "\n"


def made(mutated: str) -> dict[str, Mutant | None]:
    """Return each mutant in a module that mutmut has filled, by its name there; None for a change of wording."""
    found: dict[str, Mutant | None] = {}
    sources = texts(mutated)
    for full_name, source in sources.items():
        name = full_name.rpartition(".")[2]
        match = MADE.match(name)
        if match is not None:
            original = sources[re.sub(r"\d+$", "orig", full_name)]
            function = f"{match['of']}.{match['name']}" if match["of"] else match["name"]
            wording = _is_wording(ast.parse(original), ast.parse(source))
            found[name] = None if wording else Mutant(function, tuple(_difference(original, source)))
    return found


def _difference(before: str, after: str) -> Iterator[str]:
    """Yield the lines that differ, but for the first, which has the function's name."""
    for line in difflib.ndiff(before.splitlines()[1:], after.splitlines()[1:]):
        if line[0] in "-+":
            yield f"{line[0]} {line[1:].strip()}"


def _is_wording(before: ast.Module, after: ast.Module) -> bool:
    """Say whether nothing differs but the letters of a text that has a space in it."""
    pairs = [
        (old.value, new.value)
        for old, new in zip(ast.walk(before), ast.walk(after), strict=False)
        if isinstance(old, ast.Constant) and isinstance(new, ast.Constant) and old.value != new.value
    ]
    if len(pairs) != 1:
        return False
    ((old, new),) = pairs
    if not isinstance(old, str) or not isinstance(new, str) or " " not in old:
        return False
    return new.lower() in (old.lower(), f"xx{old.lower()}xx")
