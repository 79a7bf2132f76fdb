"""Packed retained events: what the online store keeps of one entity in one `RetainedView`.

    retained := version newest events sizes joins ground* event* join*
    version  := byte                    STATE_LAYOUT_VERSION, as of every state
    newest   := 9 bytes                 the newest event time shown, a varint as in `state.py`, filled up so that all are as long
    events   := uint32                  how many events follow
    sizes    := uint32, one a view      how many bytes the ground has in it; 0: nothing has settled yet
    joins    := uint32                  how many bytes the joins have
    ground   := a packed state          of the view, from before the events; `state.py` draws it
    event    := time offset revisions value*    in the order of event time: 8 bytes each, 4 for the revisions
    join     := uint32 byte*            where outcomes are joined: the text of each event; size 0xffffffff: none

All numbers are little endian. It begins as any state does, so the sweep of the store judges it by its newest event. Limit: events are not
compressed; they are few, and their values are packed whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.errors import StoreRefused
from headrace.features.compiled import entry
from headrace.features.entries import Happened
from headrace.features.retained_view import RetainedView
from headrace.features.rows import EntityRows
from headrace.features.state import newest_times_ms
from headrace.features.streams import Stream
from headrace.features.tables import streams_of
from headrace.features.varint import LOW_BITS, MORE, Bytes
from headrace.features.view import STATE_LAYOUT_VERSION
from headrace.types import NO_WATERMARK_MS, Int64s

Packed = tuple[Bytes, Int64s]
"""Packed states as one buffer and its bounds."""

_NEWEST_BYTES, _NO_TEXT = 9, 0xFFFF_FFFF


def pack(ground: EntityRows, rows: Int64s, newest_ms: Int64s, kept: Happened) -> Packed:
    """The packed states of some rows, which ascend; `kept` are their events, row by row and in order."""
    head, event = _head(len(ground.views)), _event(kept.values.shape[1])
    begins = np.searchsorted(kept.rows, rows)
    counts = np.diff(np.concatenate((begins, [len(kept)])))
    heads = np.zeros(len(rows), dtype=head)
    heads["version"], heads["events"] = STATE_LAYOUT_VERSION, counts
    for place in range(_NEWEST_BYTES):
        more = MORE if place < _NEWEST_BYTES - 1 else 0
        heads["newest"][:, place] = (2 * newest_ms >> 7 * place) & LOW_BITS | more
    events = np.empty(len(kept), dtype=event)
    events["time"], events["offset"], events["revisions"] = kept.times_ms, kept.offsets, kept.revisions
    events["values"] = kept.values
    parts = [_grounded(ground, place, rows) for place in range(len(ground.views))]
    heads["sizes"] = np.stack([np.diff(bounds) for _, bounds in parts], axis=1)
    texts = [_text_bytes(text) for text in kept.joins.tolist()]
    joins = np.cumsum([0, *map(len, texts)])[np.concatenate((begins, [len(kept)]))] if texts else np.zeros(len(rows) + 1, dtype=np.int64)
    heads["joins"] = np.diff(joins)
    one_each = np.arange(len(rows) + 1)
    parts = [
        (heads.view(np.uint8), one_each * head.itemsize),
        *parts,
        (events.view(np.uint8), np.concatenate((begins, [len(kept)])) * event.itemsize),
        (np.frombuffer(bytearray(b"".join(texts)), dtype=np.uint8), joins),
    ]
    return _woven(parts)


def unpack(view: RetainedView, packed: bytes, row: int) -> tuple[int, Sequence[bytes], Happened]:
    """The newest event time shown, the packed grounds by view, and the events, as those of a row. Raises `StoreRefused`."""
    head, event = _head(len(view.views)), _event(len(_streams(view)) + len(view.extras))
    if len(packed) < head.itemsize or packed[0] != STATE_LAYOUT_VERSION:
        raise StoreRefused(
            "stored retained events are damaged or have another layout; reset their view, which is filled again from the log"
        )
    (found,) = np.frombuffer(packed, dtype=head, count=1)
    sizes, count, joins = found["sizes"].tolist(), int(found["events"]), int(found["joins"])
    at = head.itemsize + np.cumsum([0, *sizes])
    end = int(at[-1]) + count * event.itemsize
    if end + joins != len(packed):
        raise StoreRefused("stored retained events are damaged; reset their view, which is filled again from the log")
    events = np.frombuffer(packed, dtype=event, count=count, offset=int(at[-1]))
    texts = _texts(packed[end:], count) if view.join is not None else ()
    kept = Happened(
        rows=np.full(count, row, dtype=np.int64),
        times_ms=events["time"].astype(np.int64),
        offsets=events["offset"].astype(np.int64),
        revisions=events["revisions"].astype(np.int64),
        values=events["values"].astype(np.float64),
        joins=np.array([*texts, None], dtype=object)[:-1] if view.join is not None else np.empty(0, dtype=object),
    )
    grounds = [packed[begin:behind] for begin, behind in pairwise(at.tolist())]
    return int(newest_times_ms([packed])[0]), grounds, kept


@cache
def _streams(view: RetainedView) -> Sequence[Stream]:
    return streams_of(view.views)


@cache
def _head(views: int) -> np.dtype[np.void]:
    return np.dtype(
        [
            ("version", "u1"),
            ("newest", "u1", (_NEWEST_BYTES,)),
            ("events", "<u4"),
            ("sizes", "<u4", (views,)),
            ("joins", "<u4"),
        ]
    )


@cache
def _event(width: int) -> np.dtype[np.void]:
    return np.dtype([("time", "<i8"), ("offset", "<i8"), ("revisions", "<u4"), ("values", "<f8", (width,))])


def _grounded(ground: EntityRows, place: int, rows: Int64s) -> Packed:
    """The packed states of the ground in one view; nothing of rows in which nothing has settled."""
    some = ground.rows.newest_ms[rows, place] != NO_WATERMARK_MS
    buffer, bounds = ground.pack(place, rows[some])
    sizes = np.zeros(len(rows), dtype=np.int64)
    sizes[some] = np.diff(bounds)
    return buffer, np.concatenate(([0], np.cumsum(sizes)))


def _text_bytes(text: str | None) -> bytes:
    if text is None:
        return _NO_TEXT.to_bytes(4, "little")
    content = text.encode()
    return len(content).to_bytes(4, "little") + content


def _texts(content: bytes, count: int) -> list[str | None]:
    found: list[str | None] = []
    at = 0
    for _ in range(count):
        size = int.from_bytes(content[at : at + 4], "little")
        at += 4
        found.append(None if size == _NO_TEXT else content[at : at + size].decode())
        at += 0 if size == _NO_TEXT else size
    return found


def _woven(parts: Sequence[tuple[NDArray[Any], Int64s]]) -> Packed:
    """The first stretch of each part, then the second of each, and so on."""
    sizes = sum((np.diff(bounds) for _, bounds in parts), start=np.zeros(len(parts[0][1]) - 1, dtype=np.int64))
    whole = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(sizes)))
    buffer = np.empty(whole[-1], dtype=np.uint8)
    at = whole[:-1].copy()
    for content, bounds in parts:
        copy_stretches(np.ascontiguousarray(content), bounds, buffer, at)
    return buffer, whole


@entry
def copy_stretches(content: Bytes, bounds: Int64s, buffer: Bytes, at: Int64s) -> None:
    """Copy the stretches of `content` between `bounds` to the places `at` of the buffer, and move these behind them."""
    for stretch in range(len(at)):
        place = at[stretch]
        for each in range(bounds[stretch], bounds[stretch + 1]):
            buffer[place] = content[each]
            place += 1
        at[stretch] = place
