"""Interventional SHAP of trees, from sets of features put together once for a background (compiled).

One leaf at a time. Let X be the features of its path at whose branches the explained row x turns away from it, and Z the same of a row z of
the background. The row that takes the features of S from x and all others from z comes to the leaf only if S has none of X and all of Z. So
where X and Z meet, nothing comes to it. Else, with a = |Z| and b = |X|, the Shapley values of that are

    features in Z gain   weight (a-1)! b! / (a+b)!         features in X lose   weight a! (b-1)! / (a+b)!

and all others get nothing (Laberge and Pequignot, "Understanding Interventional TreeSHAP: How and Why it Works", 2022; the algorithm of
Lundberg et al., "From local explanations to global understanding with explainable AI for trees", Nature Machine Intelligence 2, 2020, walks
each tree with x and each z). But Z does not depend on x. So when a model is loaded, of each leaf the different sets Z are put together,
with how many of the background they stand for; and for leaves with few features on their path, as far as there is room, a table of what
each set X leads to. A row then costs one walk a tree. (Sets as the bits of integers, and tables of them: Nadel and Wettenstein, "From
Decision Trees to Boolean Logic", 2025.) A walk leaves out what is below a node to which no mix of x and any z comes.

The same row has the same bits, in any batch: sums are taken in one order, without fast-math, and what stands in a table was computed as it
is without one.

Limits: the sets of all leaves take at most 128 MB, the tables 32; a background has at most 126 rows.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import numba
import numpy as np
from numpy.typing import NDArray

from headrace.errors import DefinitionError
from headrace.predict.additive import Trees
from headrace.predict.attached_rows import Rows
from headrace.predict.prepared import Float32s
from headrace.predict.tree_nodes import LEAF, MOST_FEATURES, TreeNodes
from headrace.types import Bools, Float64s, Int32s, Int64s

MOST_SET_BYTES = 128 << 20
"""What the sets of all leaves may take."""
MOST_TABLE_BYTES, MOST_TABLED = 32 << 20, 10
"""What the tables of leaves may take, and the features on a path above which there is none."""
_SET_BYTES = 3 * 8
_WORD = 63
"""Rows of the background in one integer, of which there are two."""

Int8s = NDArray[np.int8]
_F = TypeVar("_F", bound=Callable[..., Any])
_OPTIONS: Final[dict[str, Any]] = {"nogil": True, "error_model": "numpy", "fastmath": False}


def _entry(function: _F) -> _F:
    """Compile a function that Python calls, once for an installation: the cache holds for the bytes of this file, not for its time."""
    try:
        found: _F = numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # nowhere to keep it: each process compiles for itself
        found = numba.njit(**_OPTIONS)(function)
    else:
        stamp = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
        found._cache._cache_file._source_stamp = stamp  # type: ignore[attr-defined]  # noqa: SLF001 - there is no public way
    return found


def _inner(function: _F) -> _F:
    """Compile a function that only compiled code calls."""
    found: _F = numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **_OPTIONS)(function)  # type: ignore[call-overload]
    return found


class LeafSets:
    """Trees, and of each leaf the sets of features at which rows of the background turn away from it."""

    def __init__(self, nodes: TreeNodes, bias: float, columns: Float32s) -> None:
        """`columns`: the background, as the trees see it."""
        count = len(columns)
        walk = nodes.mode, nodes.column, nodes.threshold, nodes.missing_true, nodes.depth, nodes.true_side, nodes.bit, nodes.deepest
        starts, together = np.zeros(len(nodes.mode) + 1, dtype=np.int64), np.zeros((len(nodes.mode), 2), dtype=np.int64)
        margins, nothing = np.zeros(count), np.empty(0, dtype=np.int64)
        _turned_away(columns, *walk, nodes.weight, starts, together, nothing, nothing, margins)
        np.cumsum(starts, out=starts)
        many = int(starts[-1])
        if many * _SET_BYTES > MOST_SET_BYTES:
            raise DefinitionError(
                f"its {int((nodes.mode == LEAF).sum()):,} leaves and {count} background rows need {many * _SET_BYTES >> 20} MB, more than "
                f"{MOST_SET_BYTES >> 20}: stamp it with fewer background rows, or train fewer or flatter trees"
            )
        sets, of = np.empty(many, dtype=np.int64), np.empty(many, dtype=np.int64)
        _turned_away(columns, *walk, nodes.weight, starts, together, sets, of, margins)
        leaf = nodes.weight, nodes.path_count, starts, sets, of, np.bitwise_count(sets).astype(np.int64), *_shares(count)
        tables = _places_of_tables(nodes)
        table = np.zeros(int((tables >= 0) @ _table_sizes(nodes)))
        _fill_tables(tables, table, *leaf)
        self.mean = bias + float(margins.mean())
        """The mean margin of the background."""
        paths = nodes.roots, nodes.skip, nodes.path_start, nodes.path_features
        self._known: tuple[Any, ...] = (*walk, *paths, together, tables, table, *leaf)

    @classmethod
    def of(cls, form: Trees, background: Rows) -> Self:
        """The trees of a model over its background. Raises `DefinitionError` where that takes too much memory."""
        return cls(form.nodes, form.bias, np.ascontiguousarray(form.prepared.columns(background).values))

    def contributions(self, columns: Float32s, feature_count: int) -> Float64s:
        """What each feature contributes, [rows, features]."""
        found = np.zeros((len(columns), feature_count))
        _contribute(columns, found, *self._known)
        return found

    def rounding(self, columns: Float32s) -> Float64s:
        """Leaves are of one size, and few: what the runtime's float32 sums are off is within what is allowed anyway."""
        return np.zeros(len(columns))


def warm_up() -> None:
    """Compile everything, so that a version that comes while events are scored stops nobody: one branch, two leaves."""
    no, yes = np.zeros(3, dtype=np.bool_), np.array([True, True, False])
    nodes = TreeNodes(
        mode=np.array([0, LEAF, LEAF], dtype=np.int8),
        column=np.zeros(3, dtype=np.int32),
        threshold=np.zeros(3, dtype=np.float32),
        missing_true=no,
        depth=np.array([0, 1, 1], dtype=np.int32),
        true_side=yes,
        skip=np.array([3, 2, 3], dtype=np.int32),
        bit=np.array([-1, 0, 0], dtype=np.int8),
        weight=np.array([0.0, 1.0, -1.0]),
        roots=np.array([0, 3], dtype=np.int32),
        path_start=np.array([0, 0, 1], dtype=np.int32),
        path_count=np.array([0, 1, 1], dtype=np.int32),
        path_features=np.zeros(2, dtype=np.int32),
    )
    rows = np.array([[-1.0], [1.0]], dtype=np.float32)
    LeafSets(nodes, 0.0, rows).contributions(rows, 1)


def _table_sizes(nodes: TreeNodes) -> Int64s:
    """The numbers in the table of each leaf, a row a set; 0 for branches."""
    return np.where(nodes.mode == LEAF, nodes.path_count.astype(np.int64) << np.minimum(nodes.path_count, _WORD), 0)


def _places_of_tables(nodes: TreeNodes) -> Int64s:
    """Where the table of each leaf begins, the smaller ones first as far as there is room; -1 where there is none."""
    sizes = _table_sizes(nodes)
    order = np.argsort(sizes, kind="stable")
    few = (nodes.path_count <= MOST_TABLED) & (nodes.mode == LEAF)
    chosen = np.zeros(len(sizes), dtype=np.bool_)
    chosen[order] = np.cumsum(np.where(few, sizes, 0)[order]) <= MOST_TABLE_BYTES // 8
    chosen &= few
    return np.where(chosen, np.cumsum(sizes * chosen) - sizes, -1)


def _shares(count: int) -> tuple[Float64s, Float64s]:
    """By |Z| and |X|: what one row of a background of `count` gives to each feature in Z, and takes from each in X."""
    gain, loss = np.zeros((MOST_FEATURES + 1, MOST_FEATURES + 1)), np.zeros((MOST_FEATURES + 1, MOST_FEATURES + 1))
    for a in range(MOST_FEATURES + 1):
        for b in range(MOST_FEATURES + 1 - a):
            gain[a, b] = 1 / (count * a * math.comb(a + b, a)) if a else 0.0
            loss[a, b] = 1 / (count * b * math.comb(a + b, b)) if b else 0.0
    return gain, loss


# ---------------------------------------------------------------------------------------------------- compiled


@_inner
def _goes_true(mode: int, value: np.float32, threshold: np.float32, missing_true: np.bool_) -> bool:
    if mode == 0:
        found = value <= threshold
    elif mode == 1:
        found = value < threshold
    elif mode == 2:
        found = value >= threshold
    elif mode == 3:
        found = value > threshold
    elif mode == 4:
        found = value == threshold
    else:
        found = value != threshold
    return bool(found or (missing_true and np.isnan(value)))


@_entry
def _turned_away(
    columns: Float32s, mode: Int8s, column: Int32s, threshold: Float32s, missing_true: Bools, depth: Int32s, true_side: Bools, bit: Int8s,
    deepest: int, weight: Float64s,
    starts: Int64s, together: Int64s, sets: Int64s, of: Int64s, margins: Float64s,
) -> None:  # fmt: skip
    """Take the background down every tree, all its rows at once. The first time `sets` is empty, and `starts[i + 1]` becomes the number of
    different sets of leaf i; the second time they are written. `together`: as bits, the rows that do not turn away by the feature above a
    node anywhere on its path so far.
    """
    count = len(columns)
    away = np.zeros((deepest + 1, count), dtype=np.int64)
    went = np.zeros((deepest + 1, count), dtype=np.bool_)
    for i in range(len(mode)):
        d = depth[i]
        if d > 0:
            feature = np.int64(1) << np.int64(bit[i])
            for z in range(count):
                turned = away[d - 1, z]
                if went[d - 1, z] != true_side[i]:
                    turned |= feature
                away[d, z] = turned
                if not turned & feature:
                    together[i, z // _WORD] |= np.int64(1) << np.int64(z % _WORD)
        if mode[i] != LEAF:
            for z in range(count):
                went[d, z] = _goes_true(mode[i], columns[z, column[i]], threshold[i], missing_true[i])
            continue
        ordered = np.sort(away[d])
        place, same = starts[i], 0
        for z in range(count):
            same += 1
            if z + 1 < count and ordered[z + 1] == ordered[z]:
                continue
            if len(sets) > 0:
                sets[place], of[place] = ordered[z], same
                if ordered[z] == 0:
                    for one in range(count):
                        if away[d, one] == 0:
                            margins[one] += weight[i]
            else:
                starts[i + 1] += 1
            place += 1
            same = 0


@_inner
def _of_leaf(
    i: int, x: int, n: int, weight: Float64s, path_count: Int32s, starts: Int64s, sets: Int64s, of: Int64s, sizes: Int64s, gain: Float64s,
    loss: Float64s, share: Float64s,
) -> None:  # fmt: skip
    """What leaf i gives to each feature of its path for a row that turns away by the `n` features in `x`, into `share`."""
    long = path_count[i]
    for j in range(long):
        share[j] = 0.0
    taken = 0.0
    for g in range(starts[i], starts[i + 1]):
        z = sets[g]
        if z & x:
            continue
        gained = gain[sizes[g], n] * of[g]
        taken += loss[sizes[g], n] * of[g]
        for j in range(long):
            if z >> j & 1:
                share[j] += gained
    for j in range(long):
        share[j] = (-taken if x >> j & 1 else share[j]) * weight[i]


@_entry
def _fill_tables(
    tables: Int64s, table: Float64s, weight: Float64s, path_count: Int32s, starts: Int64s, sets: Int64s, of: Int64s, sizes: Int64s,
    gain: Float64s, loss: Float64s,
) -> None:  # fmt: skip
    """Of each leaf that has a table, what every set `x` leads to."""
    share = np.zeros(_WORD + 1)
    for i in range(len(tables)):
        if tables[i] < 0:
            continue
        long = path_count[i]
        for x in range(1 << long):
            n = 0
            for j in range(long):
                n += x >> j & 1
            _of_leaf(i, x, n, weight, path_count, starts, sets, of, sizes, gain, loss, share)
            for j in range(long):
                table[tables[i] + x * long + j] = share[j]


@_entry
def _contribute(
    columns: Float32s, found: Float64s,
    mode: Int8s, column: Int32s, threshold: Float32s, missing_true: Bools, depth: Int32s, true_side: Bools, bit: Int8s,
    deepest: int, roots: Int32s, skip: Int32s, path_start: Int32s, path_features: Int32s, together: Int64s, tables: Int64s, table: Float64s,
    weight: Float64s, path_count: Int32s, starts: Int64s, sets: Int64s, of: Int64s, sizes: Int64s, gain: Float64s, loss: Float64s,
) -> None:  # fmt: skip
    """Add to `found` what every row is given by every tree. By depth: the features by which the row turns away from where the walk is, how
    many they are, and which of the background could still bring it there.
    """
    away, many = np.zeros(deepest + 1, dtype=np.int64), np.zeros(deepest + 1, dtype=np.int64)
    left = np.full((deepest + 1, 2), -1, dtype=np.int64)
    went = np.zeros(deepest + 1, dtype=np.bool_)
    share = np.zeros(_WORD + 1)
    for tree in range(len(roots) - 1):
        for row in range(len(columns)):
            i = roots[tree]
            while i < roots[tree + 1]:
                d = depth[i]
                if d > 0:
                    feature = np.int64(1) << np.int64(bit[i])
                    x, n, first, second = away[d - 1], many[d - 1], left[d - 1, 0], left[d - 1, 1]
                    if went[d - 1] != true_side[i] or x & feature:
                        n += not x & feature
                        x |= feature
                        first &= together[i, 0]
                        second &= together[i, 1]
                        if first == 0 and second == 0:
                            i = skip[i]
                            continue
                    away[d], many[d], left[d, 0], left[d, 1] = x, n, first, second
                if mode[i] != LEAF:
                    went[d] = _goes_true(mode[i], columns[row, column[i]], threshold[i], missing_true[i])
                elif tables[i] >= 0:
                    begin = tables[i] + away[d] * path_count[i]
                    for j in range(path_count[i]):
                        found[row, path_features[path_start[i] + j]] += table[begin + j]
                else:
                    _of_leaf(i, away[d], many[d], weight, path_count, starts, sets, of, sizes, gain, loss, share)
                    for j in range(path_count[i]):
                        found[row, path_features[path_start[i] + j]] += share[j]
                i += 1
