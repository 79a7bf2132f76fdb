"""A waterfall: from the mean, contribution by contribution, to the margin; for the terminal and as a picture (pure).

The largest contributions come first, and those that are left out are one bar before the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.apps.explaining import Explanation

COLUMNS = 36
"""The width of a picture in the terminal."""
UP, DOWN, MARK = "█", "▒", "│"
WIDTH, ROW, LEFT, RIGHT, TOP = 960, 26, 380, 90, 92
LONGEST = 48
UP_COLOUR, DOWN_COLOUR, INK, FAINT = "#c2410c", "#1d4ed8", "#1f2937", "#6b7280"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One contribution: from where it leads where to."""

    label: str
    start: float
    end: float

    @property
    def change(self) -> float:
        """What it adds."""
        return self.end - self.start


def bars_of(explanation: Explanation, most: int) -> list[Bar]:
    """The bars of an explanation, in their order."""
    order = sorted(explanation.contributions, key=lambda name: -abs(explanation.contributions[name]))
    shown, rest = order[:most], order[most:]
    steps = [(f"{name} = {number(explanation.features[name])}", explanation.contributions[name]) for name in shown]
    if rest:
        steps.append((f"{len(rest)} others", sum(explanation.contributions[name] for name in rest)))
    bars, at = [], explanation.mean
    for label, change in steps:
        bars.append(Bar(label=label, start=at, end=at + change))
        at += change
    return bars


def text_waterfall(explanation: Explanation, most: int) -> list[str]:
    """Lines for the terminal."""
    bars = bars_of(explanation, most)
    least, span = _range(bars, explanation)
    width = max(len(one) for one in ("margin", *(bar.label for bar in bars)))

    def place(value: float) -> int:
        return round((value - least) / span * (COLUMNS - 1))

    lines = [f"  {'mean':<{width}}  {explanation.mean:>+10.4f}  {' ' * place(explanation.mean)}{MARK}".rstrip()]
    for bar in bars:
        first, last = sorted((place(bar.start), place(bar.end)))
        drawn = (UP if bar.change > 0 else DOWN) * max(1, last - first) if bar.change else MARK
        lines.append(f"  {bar.label:<{width}}  {bar.change:>+10.4f}  {' ' * first}{drawn}")
    lines.append(f"  {'margin':<{width}}  {explanation.margin:>+10.4f}  {' ' * place(explanation.margin)}{MARK}".rstrip())
    return lines


def svg_waterfall(explanation: Explanation, most: int) -> str:
    """A picture, an SVG file of its own."""
    bars = bars_of(explanation, most)
    least, span = _range(bars, explanation)
    height = TOP + ROW * (len(bars) + 2) + 24

    def across(value: float) -> float:
        return LEFT + (value - least) / span * (WIDTH - LEFT - RIGHT)

    title = f"{explanation.id}: score {explanation.score:.6g}"
    who = f"entity {explanation.entity}, version {explanation.version} ({explanation.role})"
    about = f"{who}; contributions in units of the {explanation.units}"
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" font-family="system-ui, sans-serif" font-size="13">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        _words(24, 34, title, size=17),
        _words(24, 58, about, colour=FAINT),
        *_line_at(across(explanation.mean), TOP, height, f"mean {explanation.mean:+.4f}"),
    ]
    for row, bar in enumerate(bars):
        top = TOP + ROW * (row + 1)
        one, other = sorted((across(bar.start), across(bar.end)))
        colour = UP_COLOUR if bar.change > 0 else DOWN_COLOUR
        parts.append(_words(LEFT - 16, top + 14, shortened(bar.label), anchor="end"))
        parts.append(f'<rect x="{one:.1f}" y="{top + 3}" width="{max(1.0, other - one):.1f}" height="{ROW - 10}" rx="2" fill="{colour}"/>')
        parts.append(_words(other + 6, top + 14, f"{bar.change:+.4f}", colour=colour))
        end = across(bar.end)
        parts.append(f'<line x1="{end:.1f}" y1="{top + 3}" x2="{end:.1f}" y2="{top + ROW + 3}" stroke="{FAINT}"/>')
    at = TOP + ROW * (len(bars) + 1)
    parts.append(_words(across(explanation.margin), at + 18, f"margin {explanation.margin:+.4f}", anchor="middle"))
    return "\n".join([*parts, "</svg>", ""])


def number(value: float) -> str:
    """A feature's value, as people read it."""
    return "absent" if value != value else f"{value:.6g}"  # noqa: PLR0124 - absent is NaN


def shortened(label: str) -> str:
    """As much of a label as there is room for in a picture: of a long name its end says more."""
    return label if len(label) <= LONGEST else f"…{label[1 - LONGEST :]}"


def _range(bars: Sequence[Bar], explanation: Explanation) -> tuple[float, float]:
    """The least value that is shown, and how far the largest is from it."""
    values = [explanation.mean, explanation.margin, *(bar.end for bar in bars)]
    return min(values), (max(values) - min(values)) or 1.0


def _words(x: float, y: float, text: str, *, anchor: str = "start", colour: str = INK, size: int = 13) -> str:
    return f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}" fill="{colour}" font-size="{size}">{escape(text)}</text>'


def _line_at(x: float, top: int, height: int, text: str) -> list[str]:
    line = f'<line x1="{x:.1f}" y1="{top + 8}" x2="{x:.1f}" y2="{height - 16}" stroke="{FAINT}" stroke-dasharray="3 3"/>'
    return [line, _words(x, top, text, anchor="middle", colour=FAINT)]
