"""How scores are spread, a candidate's beside the champion's: figures, a histogram in text, a picture in SVG (pure).

Both are counted in the same bars. Probabilities have bars from 0 to 1; other values from the 1 % to the 99 % quantile of both together, and
the outermost bars hold the tails. Limit: bars are of equal width, so scores that crowd at one end share a few of them.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from headrace.html_table import BAR
from headrace.predict.signature import OutputKind
from headrace.types import Float64s

BARS = 20
SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Of the quantiles that are told."""
TAIL = 0.01
CHAMPION = "#dd8452"
_WIDE = 24
"""The longest bar in text, in characters."""


def spread_of(scores: Float64s, edges: Sequence[float]) -> dict[str, Any]:
    """Figures of scores, NaN where a row has none, as plain JSON; `counts` are those of the bars between `edges`."""
    there = scores[np.isfinite(scores)]
    figures: dict[str, Any] = {"rows": len(scores), "scored": len(there)}
    if not len(there):
        return {**figures, "mean": None, "least": None, "most": None, "quantiles": None, "counts": [0] * (len(edges) - 1)}
    counts, _ = np.histogram(np.clip(there, edges[0], edges[-1]), bins=np.asarray(edges))
    return {
        **figures,
        "mean": float(there.mean()),
        "least": float(there.min()),
        "most": float(there.max()),
        "quantiles": dict(zip([f"{share:g}" for share in SHARES], np.quantile(there, SHARES).tolist(), strict=True)),
        "counts": counts.tolist(),
    }


def beside(kind: OutputKind, candidate: Float64s, champion: Float64s | None = None) -> dict[str, Any]:
    """A candidate's scores and, where there is one, the champion's for the same rows, as plain JSON to be shown by `histogram_text`."""
    edges = _edges(kind, candidate if champion is None else np.concatenate((candidate, champion)))
    told: dict[str, Any] = {"edges": edges, "candidate": spread_of(candidate, edges), "champion": None, "apart": None}
    if champion is not None:
        apart = np.abs(candidate - champion)
        apart = apart[np.isfinite(apart)]
        told["champion"] = spread_of(champion, edges)
        told["apart"] = {"mean": float(apart.mean()), "most": float(apart.max())} if len(apart) else None
    return told


def histogram_text(told: Mapping[str, Any], *, candidate: str = "candidate", champion: str = "champion") -> str:
    """The bars as lines of text, the share of scores behind each; what `beside` told, with names for the two."""
    columns = [(name, told[key]) for name, key in ((candidate, "candidate"), (champion, "champion")) if told[key] is not None]
    labels = [f"{low:.4g} to {high:.4g}" for low, high in zip(told["edges"], told["edges"][1:], strict=False)]
    first = max(len(label) for label in labels)
    most = max(_shares(figures)[place] for _, figures in columns for place in range(len(labels))) or 1.0
    lines = [" " * first + "".join(f"  {name[: _WIDE + 8]:<{_WIDE + 8}}" for name, _ in columns)]
    for place, label in enumerate(labels):
        line = f"{label:>{first}}"
        for _, figures in columns:
            share = _shares(figures)[place]
            length = math.ceil(_WIDE * share / most)
            line += f"  {'█' * length:<{_WIDE}} {100 * share:5.1f} %"
        lines.append(line)
    for name, figures in columns:
        without = figures["rows"] - figures["scored"]
        mean = "no score" if figures["mean"] is None else f"mean {figures['mean']:.4g}, {figures['least']:.4g} to {figures['most']:.4g}"
        lines.append(f"{name}: {figures['rows']:,} rows, {without:,} without a score; {mean}")
    return "\n".join(line.rstrip() for line in lines)


def picture_svg(told: Mapping[str, Any], *, candidate: str = "candidate", champion: str = "champion") -> str:
    """The bars as a picture that stands alone, readable on light and on dark ground; the champion's are drawn beside the candidate's."""
    width, height, left, top = 640.0, 220.0, 44.0, 34.0
    both = ((candidate, told["candidate"], BAR), (champion, told["champion"], CHAMPION))
    columns = [(name, figures, colour) for name, figures, colour in both if figures is not None]
    most = max(share for _, figures, _ in columns for share in _shares(figures)) or 1.0
    step = width / (len(told["edges"]) - 1)
    one = (step - 2) / len(columns)
    drawn = []
    for number, (name, figures, colour) in enumerate(columns):
        bars = "".join(
            f'<rect x="{left + place * step + 1 + number * one:.1f}" y="{top + height * (1 - share / most):.1f}" width="{one:.1f}" '
            f'height="{max(height * share / most, 1):.1f}"><title>{100 * share:.1f} %</title></rect>'
            for place, share in enumerate(_shares(figures))
            if share
        )
        drawn.append(f'<g fill="{colour}">{bars}</g>')
        place = left + number * width / 2
        mean = "" if figures["mean"] is None else f", mean {figures['mean']:.4g}"
        drawn.append(
            f'<rect x="{place:.1f}" y="10" width="10" height="10" fill="{colour}"/><text x="{place + 15:.1f}" y="19">'
            f"{html.escape(name)}: {figures['scored']:,} of {figures['rows']:,} rows scored{mean}</text>"
        )
    ground = top + height
    marks = "".join(
        f'<text x="{left + width * place / 4:.1f}" y="{ground + 16:.1f}" text-anchor="middle">{_at(told["edges"], place / 4):.4g}</text>'
        for place in range(5)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {left + width + 20:.0f} {ground + 28:.0f}" '
        'font-family="sans-serif" font-size="11" fill="currentColor">'
        f"<title>{html.escape(' beside '.join(name for name, _, _ in columns))}: share of scores</title>"
        f'<text x="4" y="{top + 8:.0f}">{100 * most:.0f} %</text><text x="4" y="{ground:.0f}">0 %</text>'
        f'{"".join(drawn)}<rect x="{left:.1f}" y="{ground:.1f}" width="{width:.1f}" height="1" opacity=".5"/>{marks}</svg>\n'
    )


def _edges(kind: OutputKind, scores: Float64s) -> list[float]:
    low, high = 0.0, 1.0
    there = scores[np.isfinite(scores)]
    if kind is OutputKind.VALUE and len(there):
        low, high = np.quantile(there, (TAIL, 1 - TAIL)).tolist()
        if low == high:
            low, high = float(there.min()), float(there.max())
        if low == high:
            low, high = low - 0.5 * max(1.0, abs(low)), high + 0.5 * max(1.0, abs(high))
    edges: list[float] = np.linspace(low, high, BARS + 1).tolist()
    return edges


def _shares(figures: Mapping[str, Any]) -> list[float]:
    return [count / max(figures["scored"], 1) for count in figures["counts"]]


def _at(edges: Sequence[float], share: float) -> float:
    return edges[0] + share * (edges[-1] - edges[0])
