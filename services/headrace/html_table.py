"""What notebooks show: tables as HTML that needs nothing else, readable on light and on dark ground.

Colours are taken from the page (`currentColor`, transparent greys); only bars have one of their own, that stands out on both. All texts
are escaped here, so whoever makes a table gives texts.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

BAR = "#4a90d9"
_LINE = "border-bottom:1px solid rgba(128,128,128,.35)"
_CELL = f"padding:2px 8px;{_LINE};background:transparent;color:inherit;white-space:nowrap;vertical-align:middle"


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table: its text, what is told when one points at it, and markup that was made here and comes as it is."""

    text: str = ""
    title: str = ""
    drawn: str = ""
    number: bool = False

    def html(self, tag: str = "td") -> str:
        """The cell in HTML."""
        title = f' title="{html.escape(self.title)}"' if self.title else ""
        style = f"{_CELL};text-align:{'right' if self.number else 'left'}"
        return f'<{tag} style="{style}"{title}>{html.escape(self.text)}{self.drawn}</{tag}>'


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and the rows below it."""

    heading: str
    rows: Sequence[Sequence[Cell]]


def table(caption: str, head: Sequence[Cell], sections: Sequence[Section], *, notes: Sequence[str] = ()) -> str:
    """A table: caption, notes, head, and for each section its heading (none if empty) and rows."""
    above = f"<b>{html.escape(caption)}</b>" + "".join(f"<br/><small>{html.escape(note)}</small>" for note in notes)
    body = ""
    for section in sections:
        if section.heading:
            style = f"{_CELL};text-align:left;padding-top:8px"
            body += f'<tr><th colspan="{len(head)}" style="{style}">{html.escape(section.heading)}</th></tr>'
        body += "".join("<tr>" + "".join(cell.html() for cell in row) + "</tr>" for row in section.rows)
    first = "<tr>" + "".join(cell.html("th") for cell in head) + "</tr>"
    return (
        f'<div style="color:inherit">{above}<div style="overflow-x:auto"><table style="border-collapse:collapse;font-size:90%">'
        f"<thead>{first}</thead><tbody>{body}</tbody></table></div></div>"
    )


def bars(counts: Sequence[int], title: str, *, width: int = 120, height: int = 24) -> str:
    """A small histogram as inline SVG; `title` is read out in its place."""
    most = max(counts, default=0) or 1
    step = width / max(len(counts), 1)
    # What is there at all is seen: a bar is a pixel high at least.
    tall = [max(1.0, height * count / most) if count else 0.0 for count in counts]
    drawn = "".join(
        f'<rect x="{place * step:.1f}" y="{height - high:.1f}" width="{max(step - 0.6, 0.6):.1f}" height="{high:.1f}"/>'
        for place, high in enumerate(tall)
        if high
    )
    return (
        f'<svg role="img" width="{width}" height="{height}" viewBox="0 0 {width} {height}" style="vertical-align:middle">'
        f'<title>{html.escape(title)}</title><rect y="{height - 0.5}" width="{width}" height="0.5" fill="currentColor" opacity=".4"/>'
        f'<g fill="{BAR}">{drawn}</g></svg>'
    )
