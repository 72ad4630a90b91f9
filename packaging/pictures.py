"""Draws the pictures of README, from the tables below and from a recorded run. `make pictures` runs it.

    docs/demo.svg            the lines of docs/demo.txt, as a terminal shows them; make demo >docs/demo.txt records
    docs/life.svg            what device and cloud say to each other, from the factory to the first renewal
    docs/architecture.svg    what the stack consists of on AWS

Only the standard library is used, and the same tables give the same bytes: a test compares them.
"""
# ruff: noqa: INP001 - a program, not part of a package

from __future__ import annotations

import sys
from html import escape
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
FONT = "font-family='ui-monospace, Consolas, monospace'"
SANS = "font-family='system-ui, sans-serif'"

# ---- a recorded run -------------------------------------------------------------------------------------------------

COLUMNS = 118


def terminal(lines: list[str]) -> str:
    """Show lines as a terminal does; a line that is too long is cut."""
    height, colours = 20, {"acked": "#7ee787", "rotated": "#79c0ff", "jitp": "#d2a8ff"}
    rows = []
    for number, line in enumerate(lines):
        shown = line if len(line) <= COLUMNS else line[: COLUMNS - 1] + "…"
        words = shown.split()
        colour = next((colours[word] for word in words[2:4] if word in colours), "#e6edf3")
        rows.append(
            f"<text x='16' y='{32 + number * height}' fill='{colour}' xml:space='preserve'>{escape(shown)}</text>"
        )
    return _svg(940, 32 + len(lines) * height, "#0d1117", f"<g {FONT} font-size='12.8'>", *rows, "</g>")


# ---- a life ---------------------------------------------------------------------------------------------------------

DEVICE, IOT, LAMBDA = "device", "AWS IoT Core", "Lambda and tables"
ACTORS = {DEVICE: 130, IOT: 520, LAMBDA: 910}
LIFE: list[tuple[str, str, str]] = [  # from, to, text; a note is from somebody to the same
    (DEVICE, DEVICE, "unprovisioned: a vendor certificate from the factory"),
    (DEVICE, IOT, "connects with the vendor certificate"),
    (IOT, DEVICE, "closes the connection; registers the certificate, creates the thing"),
    (IOT, LAMBDA, "registered: is the serial on the allow-list?"),
    (DEVICE, IOT, "connects again"),
    (DEVICE, DEVICE, "jitp: makes its own key, which never leaves it"),
    (DEVICE, LAMBDA, "certificate signing request"),
    (LAMBDA, DEVICE, "certificate, signed by the manufacturer's CA"),
    (DEVICE, DEVICE, "rotated: stored beside the old identity, not yet used"),
    (DEVICE, IOT, "connects with the new certificate, subscribes, publishes"),
    (DEVICE, LAMBDA, "acknowledges, over the new certificate"),
    (LAMBDA, DEVICE, "acknowledged"),
    (DEVICE, DEVICE, "acked: the new certificate is active"),
    (LAMBDA, IOT, "retires the vendor certificate"),
    (DEVICE, LAMBDA, "at two thirds of its life: the same with a new key, again and again"),
]


def life() -> str:
    """Draw who says what to whom, from top to bottom."""
    step, top = 34, 64
    parts = [ARROWHEAD]
    bottom = top + step * len(LIFE)
    for name, x in ACTORS.items():
        parts += [_box(x - 90, 12, 180, 30, "#eef4ff"), _text(x, 32, name, weight="bold")]
        parts.append(f"<line x1='{x}' y1='42' x2='{x}' y2='{bottom}' stroke='#8c959f' stroke-dasharray='4 4'/>")
    for number, (source, target, text) in enumerate(LIFE):
        y = top + step * number + 8
        x1, x2 = ACTORS[source], ACTORS[target]
        if source == target:
            width = 7 * len(text) + 20
            parts += [_box(16, y - 16, width, 24, "#fff8c5"), _text(26, y, text, anchor="start")]
        else:
            away = 6 if x2 > x1 else -6
            parts += [_arrow(x1 + away, y, x2 - away, y), _text((x1 + x2) / 2, y - 5, text, halo=True)]
    return _svg(1030, bottom + 16, "#ffffff", f"<g {SANS} font-size='13'>", *parts, "</g>")


# ---- the stack on AWS -----------------------------------------------------------------------------------------------

BOXES: dict[str, tuple[int, int, int, str, str]] = {  # x, y, width, title, what it does
    "device": (10, 150, 210, "device", "iot-agent, its key and certificate"),
    "factory": (10, 330, 210, "factory", "cloud/setup.sh device"),
    "iot": (290, 60, 230, "AWS IoT Core", "MQTT over mutual TLS, policies"),
    "jitp": (290, 150, 230, "registration template", "vendor CA: just-in-time provisioning"),
    "rules": (290, 240, 230, "topic rules", "with the certificate's id"),
    "lambda": (590, 150, 220, "Lambda", "issues, retires; every 5 min: sweeps"),
    "key": (870, 60, 220, "CA key", "KMS, or SSM SecureString"),
    "tables": (870, 150, 220, "DynamoDB", "allow-list, records, history"),
    "alarms": (870, 240, 220, "CloudWatch, SNS", "alarms, dashboard, failure queue"),
    "operator": (590, 330, 220, "operator", "cloud/iot-fleet, cloud/setup.sh"),
}
LINES = [
    ("device", "iot"), ("iot", "jitp"), ("jitp", "rules"), ("rules", "lambda"), ("lambda", "iot"), ("lambda", "key"),
    ("lambda", "tables"), ("lambda", "alarms"), ("operator", "tables"),  ("factory", "device"),
]  # fmt: skip
HEIGHT = 56


def architecture() -> str:
    """Draw the parts of the stack and who calls whom."""
    parts = [ARROWHEAD, "<rect x='265' y='20' width='840' height='290' rx='8' fill='#fafbfc' stroke='#d0d7de'/>"]
    parts.append(_text(280, 42, "one CloudFormation stack in your account", anchor="start", weight="bold"))
    for source, target in LINES:
        parts.append(_arrow(*_between(BOXES[source], BOXES[target])))
    for x, y, width, title, about in BOXES.values():
        parts.append(_box(x, y, width, HEIGHT, "#eef4ff"))
        parts.append(_text(x + width / 2, y + 23, title, weight="bold"))
        parts.append(_text(x + width / 2, y + 42, about, size=11.5))
    return _svg(1120, 410, "#ffffff", f"<g {SANS} font-size='13'>", *parts, "</g>")


def _between(one: tuple[int, int, int, str, str], other: tuple[int, int, int, str, str]) -> tuple[float, ...]:
    """Give the ends of a line from the edge of one box to the edge of the other."""
    (x1, y1, w1), (x2, y2, w2) = one[:3], other[:3]
    if x1 + w1 <= x2:
        return x1 + w1, y1 + HEIGHT / 2, x2, y2 + HEIGHT / 2
    if x2 + w2 <= x1:
        return x1, y1 + HEIGHT / 2, x2 + w2, y2 + HEIGHT / 2
    down = y2 > y1
    return x1 + w1 / 2, y1 + HEIGHT * down, x2 + w2 / 2, y2 + HEIGHT * (not down)


# ---- strokes --------------------------------------------------------------------------------------------------------

ARROWHEAD = (
    "<defs><marker id='head' viewBox='0 0 10 10' refX='9' refY='5' markerWidth='7' markerHeight='7' orient='auto'>"
    "<path d='M0 0L10 5L0 10z' fill='#57606a'/></marker></defs>"
)


def _arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    return f"<line x1='{x1:g}' y1='{y1:g}' x2='{x2:g}' y2='{y2:g}' stroke='#57606a' marker-end='url(#head)'/>"


def _box(x: float, y: float, width: float, height: float, fill: str) -> str:
    return f"<rect x='{x:g}' y='{y:g}' width='{width:g}' height='{height:g}' rx='5' fill='{fill}' stroke='#8c959f'/>"


def _text(  # noqa: PLR0913 - what a text looks like
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "middle",
    weight: str = "normal",
    size: float = 13,
    halo: bool = False,
) -> str:
    around = " stroke='#ffffff' stroke-width='4' paint-order='stroke'" if halo else ""
    style = f"text-anchor='{anchor}' font-weight='{weight}' font-size='{size:g}'"
    return f"<text x='{x:g}' y='{y:g}' {style}{around}>{escape(text)}</text>"


def _svg(width: int, height: int, background: str, *parts: str) -> str:
    head = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}'>"
    return "\n".join(
        [head, f"<rect width='{width}' height='{height}' rx='6' fill='{background}'/>", *parts, "</svg>\n"]
    )


def pictures() -> dict[Path, str]:
    """Give each picture by its file."""
    return {
        DOCS / "demo.svg": terminal((DOCS / "demo.txt").read_text().splitlines()),
        DOCS / "life.svg": life(),
        DOCS / "architecture.svg": architecture(),
    }


def main() -> int:
    """Write every picture."""
    for path, drawn in pictures().items():
        path.write_text(drawn)
        sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
