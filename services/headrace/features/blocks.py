"""Blocks of cells in the arena: taken, given back, and made larger. Compiled.

A block's capacity is one of 2, 3, 4, 6, 8, 12, ...; a free block is used again for the same size. Nothing here allocates: the caller has
seen to it that the arena has room for the largest block one event can ask for (`Plan.reserve`).
"""

from __future__ import annotations

from headrace.features.compiled import inner
from headrace.features.tables import Arena, Record, Records


@inner
def capacity_of(size: int) -> int:
    """2, 3, 4, 6, 8, 12, 16, 24, ..."""
    return (2 + (size & 1)) << (size >> 1)


@inner
def take_block(arena: Arena, size: int) -> int:
    """A block of a size: a free one, else never used cells. The caller has seen to it that there are some."""
    start = arena.free[size]
    if start >= 0:
        arena.free[size] = arena.cells[start].pane
    else:
        start = arena.top[0]
        arena.top[0] = start + capacity_of(size)
    return int(start)


@inner
def free_block(arena: Arena, lane: Record) -> None:
    """Give the block of a lane back."""
    if lane.size >= 0:
        arena.cells[lane.start].pane = arena.free[lane.size]
        arena.free[lane.size] = lane.start
        lane.size = -1
    lane.first = 0
    lane.length = 0


@inner
def make_room(arena: Arena, lane: Record) -> None:
    """Let there be room behind a lane's last cell: its cells move to the front if that frees a quarter, else to a larger block."""
    cells = arena.cells
    if lane.size < 0:
        lane.start = take_block(arena, 0)
        lane.size = 0
        lane.first = 0
        return
    capacity = capacity_of(lane.size)
    if lane.first + lane.length < capacity:
        return
    source = lane.start + lane.first
    if 4 * lane.length <= 3 * capacity:
        for step in range(lane.length):
            cells[lane.start + step] = cells[source + step]
    else:
        size = lane.size + 1
        start = take_block(arena, size)
        length = lane.length
        for step in range(length):
            cells[start + step] = cells[source + step]
        free_block(arena, lane)
        lane.start = start
        lane.size = size
        lane.length = length
    lane.first = 0


@inner
def settle(arena: Arena, lane: Record, cells: Records, begin: int, length: int) -> None:
    """Copy cells into a new block of a lane, the smallest that holds them."""
    size = 0
    while capacity_of(size) < length:
        size += 1
    lane.start = take_block(arena, size)
    lane.size = size
    lane.first = 0
    lane.length = length
    for step in range(length):
        arena.cells[lane.start + step] = cells[begin + step]
