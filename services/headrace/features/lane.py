"""Lanes: what features share. Which kind, over which window, how many cells it can hold and how many bytes these cost."""

from __future__ import annotations

from dataclasses import dataclass, replace

from headrace.duration import duration_text
from headrace.features.aggregation import (
    BINS,
    DECAY,
    HASHES,
    KINDS,
    MOMENTS,
    NEEDS_MAX,
    NEEDS_MIN,
    NEEDS_SQUARES,
    NEEDS_SUM,
    OLDEST,
    RECENT,
    RUN,
    Aggregation,
    Options,
)
from headrace.features.streams import BinForm, Form, SymbolForm

_COUNT = 2**35
"""Bounds hold for up to so many events a pane."""
_HASH = 2**53


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """Cells shared by features: of which stream (its place in `FeatureView.streams`), how long, and what is kept (`NEEDS_...`)."""

    kind: int
    stream: int
    window_ms: int
    pane_ms: int
    needs: int
    most: int
    """The most cells it can hold."""
    scale: float
    """Decay: the half-life in ms; bins: those of a power of two; hashes: how many are kept for an estimate."""
    origin: int
    """Bins: the power of two the first bins begin with."""

    @property
    def panes(self) -> int:
        """How many closed panes the window has."""
        return self.window_ms // self.pane_ms - (self.kind == RECENT)

    @property
    def name(self) -> str:
        """The kind in words."""
        return next(name for name, kind in KINDS.items() if kind == self.kind)

    def key(self) -> tuple[object, ...]:
        """Equal for lanes that can be one."""
        return self.kind, self.stream, self.window_ms, self.pane_ms, self.scale, self.origin

    def joined(self, other: Lane) -> Lane:
        """The lane that serves the features of both."""
        return replace(self, needs=self.needs | other.needs, most=max(self.most, other.most))

    def text(self) -> str:
        """The window and how it is cut."""
        whole = duration_text(self.window_ms)
        return whole if self.kind == RECENT else f"{whole} by {duration_text(self.pane_ms)}"

    def most_bytes(self) -> int:
        """The most bytes it can take in a packed state (`state.py` draws them)."""
        gap = _varint_bytes(2 * (self.panes + 1) + 1)
        cell = {
            MOMENTS: gap + _varint_bytes(_COUNT) + 8 * stored_numbers(self.needs),
            OLDEST: gap + _varint_bytes(self.pane_ms) + 8,
            RUN: gap + 2 * _varint_bytes(_COUNT),
            DECAY: gap + 8 + 8 * bool(self.needs & NEEDS_SUM),
            RECENT: gap + 8,
            BINS: _varint_bytes(2 * self.most) + gap + _varint_bytes(_COUNT),
            HASHES: _varint_bytes(_HASH) + gap + _varint_bytes(int(self.scale)),
        }[self.kind]
        return _varint_bytes(self.most) + self.most * cell


def lane_of(aggregation: Aggregation, stream: int, form: Form | None, window_ms: int, pane_ms: int, options: Options) -> Lane:
    """The lane of a feature."""
    kind = KINDS[aggregation.of]
    panes = 1 if kind == RECENT else window_ms // pane_ms + 1
    most, scale, origin = panes, 0.0, 0
    if kind == RECENT:
        most = max(options.n, 1) + 1
    elif kind == DECAY:
        scale = float(options.half_life_ms)
    elif kind == HASHES:
        scale = options.exact + 1.0
        most = panes * int(scale)
    elif isinstance(form, BinForm):
        most, scale, origin = panes * form.count, float(form.parts), form.low
    elif isinstance(form, SymbolForm):
        most = panes * (len(form.vocabulary) + 1)
    return Lane(
        kind=kind,
        stream=stream,
        window_ms=window_ms,
        pane_ms=pane_ms or 1,
        needs=aggregation.needs,
        most=most,
        scale=scale,
        origin=origin,
    )


def stored_numbers(needs: int) -> int:
    """How many floats a packed pane of several events holds in a lane of moments."""
    return (needs & (NEEDS_SUM | NEEDS_SQUARES | NEEDS_MIN | NEEDS_MAX)).bit_count()


def _varint_bytes(most: int) -> int:
    """The bytes of the varint of numbers up to `most`."""
    return max(1, (most.bit_length() + 6) // 7)
