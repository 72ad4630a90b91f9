"""The forecast as one HTML page, without scripts or other files; it adapts to dark mode and small screens. Pure."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from cloud.fleet import formatting
from cloud.fleet.forecast import about_renewals

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloud.fleet.forecast import Forecast, Histogram

WIDTH, HEIGHT, BOTTOM, TOP = 720, 240, 34, 12
DIGIT_WIDTH, GAP = 8, 8
LABELS, LABEL_WIDTH = 6, 72

STYLE = """
:root { --ink: #1c2330; --quiet: #5b6675; --line: #d9dee5; --paper: #fff; --card: #f6f8fa; --bar: #2f6fb5;
  --warn: #b54a2f }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --quiet: #9aa6b6; --line: #333c49; --paper: #12161c;
  --card: #1a2029; --bar: #6aa5e3; --warn: #ee8a6c } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif }
h1 { margin: 0; font-size: 1.6rem } h2 { margin: 2.2rem 0 .2rem; font-size: 1.15rem }
p { margin: .3rem 0; color: var(--quiet) }
.totals { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.2rem 0 0; padding: 0; list-style: none }
.totals li { flex: 1 1 8rem; padding: .7rem 1rem; background: var(--card); border-radius: .5rem; color: var(--quiet);
  font-size: .85rem }
.totals b { display: block; color: var(--ink); font-size: 1.5rem; font-variant-numeric: tabular-nums }
.totals .warn b { color: var(--warn) }
svg { width: 100%; height: auto; margin-top: .6rem } svg text { fill: var(--quiet); font-size: 12px }
rect { fill: var(--bar) } rect:hover { opacity: .7 } line { stroke: var(--line) }
.scroll { overflow-x: auto } table { width: 100%; border-collapse: collapse; font-size: .92rem }
th, td { padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line); text-align: left; white-space: nowrap }
th { color: var(--quiet); font-weight: 500 } td:first-child { font-family: ui-monospace, monospace }
td:last-child, th:last-child { width: 99% }
"""


def render(forecast: Forecast, title: str) -> str:
    """Return the page, HTML."""
    usual = formatting.span(forecast.usual) if forecast.usual is not None else "-"
    states = "".join(_total(f"{count:,}", state) for state, count in sorted(forecast.states.items()))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<p>{formatting.moment(forecast.now)} UTC</p>
<ul class="totals">
{_total(f"{forecast.devices:,}", "devices")}
{_total(f"{forecast.at_risk:,}", "at risk", warn=bool(forecast.at_risk))}
{_total(f"{forecast.expired:,}", "expired", warn=bool(forecast.expired))}
{_total(usual, "usual time between contacts")}
</ul>
<ul class="totals">{states}</ul>
<h2>When certificates expire</h2>
<p>As of now; a device that renews moves to the right. One bar is {formatting.span(forecast.expiry.width)}.</p>
{_plot(forecast.expiry, lambda ms: formatting.moment(ms)[:10], "devices whose certificate expires from")}
<h2>Renewals expected</h2>
<p>One bar is {formatting.span(forecast.renewals.width)}.</p>
{"".join(_sentence(one) for one in about_renewals(forecast))}
{_plot(forecast.renewals, lambda ms: formatting.moment(ms)[:10], "devices that renew from")}
<h2>Last contact</h2>
<p>How long ago each device last sent a message. One bar is {formatting.span(forecast.contacts.width)}.</p>
{_plot(forecast.contacts, lambda ms: formatting.span(ms) if ms else "now", "devices whose last message was, ago:")}
<h2>At risk: {forecast.at_risk:,}</h2>
{_risks(forecast)}
</body>
</html>
"""


def _total(number: str, what: str, *, warn: bool = False) -> str:
    return f"<li{' class=warn' if warn else ''}><b>{escape(number)}</b>{escape(what)}</li>"


def _sentence(text: str) -> str:
    return f"<p>{escape(text[0].upper() + text[1:])}.</p>"


def _plot(histogram: Histogram, label: Callable[[int], str], what: str) -> str:
    """Return a bar chart of counts over time; grid lines mark the largest count and half of it."""
    counts = histogram.counts
    most = max(counts, default=0)
    if not most:
        return "<p>None.</p>"
    left = GAP + DIGIT_WIDTH * len(f"{most:,}")
    inner, tall = WIDTH - left, HEIGHT - BOTTOM - TOP
    step = inner / len(counts)
    shapes = []
    for share in (0.0, 0.5, 1.0):
        y = TOP + tall * (1 - share)
        shapes.append(f'<line x1="{left}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        if share * most == int(share * most):
            shapes.append(f'<text x="{left - GAP}" y="{y + 4:.1f}" text-anchor="end">{int(share * most):,}</text>')
    every = max(1, -(-len(counts) // LABELS))
    for number, count in enumerate(counts):
        x, named = left + number * step, label(histogram.start + number * histogram.width)
        if count:
            high = max(1.5, tall * count / most)
            shapes.append(
                f'<rect x="{x + step * 0.08:.1f}" y="{TOP + tall - high:.1f}" width="{step * 0.84:.1f}" '
                f'height="{high:.1f}"><title>{count:,} {what} {escape(named)}</title></rect>'
            )
        if number % every == 0 and x < WIDTH - LABEL_WIDTH:
            shapes.append(f'<text x="{x:.1f}" y="{HEIGHT - 12}">{escape(named)}</text>')
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(shapes)}</svg>'


def _risks(forecast: Forecast) -> str:
    if not forecast.risks:
        return "<p>None.</p>"
    rows = "".join(
        f"<tr><td>{escape(risk.serial)}</td><td>{formatting.moment(risk.not_after)}</td>"
        f"<td>{formatting.ago(risk.contact, forecast.now)}</td><td>{escape(risk.why)}</td></tr>"
        for risk in forecast.risks
    )
    more = forecast.at_risk - len(forecast.risks)
    rest = f"<p>… and {more:,} more.</p>" if more else ""
    head = "<tr><th>Serial</th><th>Expires (UTC)</th><th>Last contact</th><th>Why</th></tr>"
    return f'<div class="scroll"><table>{head}{rows}</table></div>{rest}'
