"""Tree ensembles of an .onnx as flat arrays: every tree a run of nodes in the order of a walk, first the true side of each branch (pure).

    root                     depth 0   skip -> behind the tree
    |-- true side            depth 1   skip -> the false side
    |   |-- leaf             depth 2
    |   `-- leaf             depth 2
    `-- false side           depth 1

So a walk is a loop over consecutive places, and leaving a side out is one jump to `skip`. What a row does at a branch is what onnxruntime
does: float32 against float32, NaN goes to the true side where the missing-direction flag says so, and is compared otherwise.

A path is the way from a root to a leaf. Its features are numbered in the order in which the path meets them first, so that a set of them is
the bits of one integer. Limits: a path of more than 63 different features, branches by membership in a set (opset 5), float64 thresholds
and the aggregations MIN and MAX are refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.errors import DefinitionError
from headrace.predict.onnx_file import Operator
from headrace.types import Bools, Float64s, Int32s, Int64s

MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")
LEAF = len(MODES)
MOST_FEATURES = 63
"""On one path: their set is the bits of one integer."""
_SUM, _AVERAGE = "SUM", "AVERAGE"
_AGGREGATIONS = (_AVERAGE, _SUM, "MIN", "MAX")
_TRANSFORMS = ("NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TreeNodes:
    """Trees over some columns; what a row gets is the sum of `weight` over the leaves it comes to, one in each tree."""

    mode: NDArray[np.int8]
    """Index in `MODES`, or `LEAF`."""
    column: Int32s
    threshold: NDArray[np.float32]
    missing_true: Bools
    """Whether NaN goes to the true side whatever the comparison says."""
    depth: Int32s
    true_side: Bools
    """Whether a node is on the true side of the branch above it."""
    skip: Int32s
    """The place behind everything below a node."""
    bit: NDArray[np.int8]
    """Which of the features of its path the branch above a node looks at; -1 at a root."""
    weight: Float64s
    """Of a leaf; 0 for branches."""
    roots: Int32s
    """Where the trees begin, and where the last one ends."""
    path_start: Int32s
    """Of a leaf: where its features begin in `path_features`; `path_count` is how many they are."""
    path_count: Int32s
    path_features: Int32s

    @property
    def deepest(self) -> int:
        """The depth of the deepest leaf."""
        return int(self.depth.max(initial=0))

    @property
    def leaves(self) -> Int64s:
        """Where the leaves stand."""
        return np.flatnonzero(self.mode == LEAF)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ensemble:
    """What an operator says of its trees, before they are laid out. Columns of `weights` are classes or targets."""

    trees: Int64s
    """Of each node, the number of its tree."""
    modes: NDArray[np.int8]
    columns: Int64s
    thresholds: NDArray[np.float32]
    missing_true: Bools
    true_place: Int64s
    """Where the true side of a node stands in these arrays; -1 for leaves."""
    false_place: Int64s
    weights: Float64s
    """[nodes, outputs]."""
    biases: Float64s
    """[outputs]."""
    transform: str
    used: frozenset[int]
    """The outputs that some leaf gives a weight to."""
    all_positive: bool
    classes: int | None
    """How many classes a classifier has; None for a regressor."""


def ensemble_of(operator: Operator) -> Ensemble:
    """The trees of an operator. Raises `DefinitionError` for what cannot be explained, saying why."""
    doubles = [name for name, value in operator.settings.items() if isinstance(value, np.ndarray) and value.dtype == np.float64]
    if doubles:
        raise DefinitionError(f"its {operator.kind} holds float64 numbers ({doubles[0]}): export it from a float32 sample")
    try:
        return _by_leaves(operator.settings) if operator.kind == "TreeEnsemble" else _by_ids(operator)
    except (KeyError, IndexError, ValueError) as error:
        raise DefinitionError(f"its {operator.kind} is not whole ({type(error).__name__}: {error}): export it again") from error


def _by_ids(operator: Operator) -> Ensemble:
    """The form of TreeEnsembleClassifier and TreeEnsembleRegressor: nodes named by tree and number, weights in a list of their own."""
    said = operator.settings
    of = "class" if operator.kind == "TreeEnsembleClassifier" else "target"
    trees, numbers = said["nodes_treeids"], said["nodes_nodeids"]
    names = list(zip(trees.tolist(), numbers.tolist(), strict=True))
    place_of = {name: place for place, name in enumerate(names)}
    classes = len(said.get("classlabels_int64s", said.get("classlabels_strings", ()))) if of == "class" else None
    outputs = classes if classes is not None else int(said.get("n_targets", 1))
    modes = np.array([_mode(mode) for mode in said["nodes_modes"]], dtype=np.int8)
    sides = []
    for side in ("nodes_truenodeids", "nodes_falsenodeids"):
        ends = zip(trees.tolist(), said[side].tolist(), modes.tolist(), strict=True)
        sides.append(np.array([-1 if mode == LEAF else place_of.get((tree, end), -2) for tree, end, mode in ends], dtype=np.int64))
    weights = np.zeros((len(names), max(1, outputs)))
    targets = list(zip(said[f"{of}_treeids"].tolist(), said[f"{of}_nodeids"].tolist(), said[f"{of}_ids"].tolist(), strict=True))
    given = said[f"{of}_weights"].astype(np.float64)
    for (tree, number, output), weight in zip(targets, given.tolist(), strict=True):
        weights[place_of[tree, number], output] += weight
    biases = np.asarray(said.get("base_values", ()), dtype=np.float64)
    missing = said.get("nodes_missing_value_tracks_true", np.zeros(len(names), dtype=np.int64))
    return Ensemble(
        trees=trees,
        modes=modes,
        columns=said["nodes_featureids"],
        thresholds=said["nodes_values"],
        missing_true=missing == 1,
        true_place=sides[0],
        false_place=sides[1],
        weights=_aggregated(weights, said.get("aggregate_function", _SUM), len(set(trees.tolist()))),
        biases=biases,
        transform=said.get("post_transform", "NONE"),
        used=frozenset(output for _, _, output in targets),
        all_positive=bool((given >= 0).all()),
        classes=classes,
    )


def _by_leaves(said: Mapping[str, Any]) -> Ensemble:
    """The form of opset 5, which keeps leaves apart: here they stand behind the branches."""
    branches, outputs = len(said["nodes_splits"]), int(said.get("n_targets", 1))
    leaf_weights, targets = said["leaf_weights"].astype(np.float64), said["leaf_targetids"]
    leaves = len(leaf_weights)
    ends = [
        np.where(said[f"nodes_{side}leafs"] == 1, branches + said[f"nodes_{side}nodeids"], said[f"nodes_{side}nodeids"])
        for side in ("true", "false")
    ]
    weights = np.zeros((branches + leaves, max(1, outputs)))
    weights[np.arange(branches, branches + leaves), targets] = leaf_weights
    missing = said.get("nodes_missing_value_tracks_true", np.zeros(branches, dtype=np.int64))
    nowhere = np.full(leaves, -1, dtype=np.int64)
    roots = said["tree_roots"].tolist()
    transform, aggregation = int(said.get("post_transform", 0)), int(said.get("aggregate_function", 1))
    return Ensemble(
        trees=np.array(roots, dtype=np.int64),
        modes=np.concatenate((_known_modes(said["nodes_modes"]), np.full(leaves, LEAF, dtype=np.int8))),
        columns=np.concatenate((said["nodes_featureids"], np.zeros(leaves, dtype=np.int64))),
        thresholds=np.concatenate((said["nodes_splits"], np.zeros(leaves, dtype=np.float32))),
        missing_true=np.concatenate((missing == 1, np.zeros(leaves, dtype=np.bool_))),
        true_place=np.concatenate((ends[0], nowhere)),
        false_place=np.concatenate((ends[1], nowhere)),
        weights=_aggregated(weights, _AGGREGATIONS[aggregation], len(roots)),
        biases=np.empty(0),
        transform=_TRANSFORMS[transform],
        used=frozenset(targets.tolist()),
        all_positive=False,
        classes=None,
    )


def _mode(name: str) -> int:
    if name == "LEAF":
        return LEAF
    if name not in MODES:
        raise DefinitionError(f"a node of its trees is a {name}; those that can be explained are {', '.join(MODES)}")
    return MODES.index(name)


def _known_modes(given: NDArray[np.uint8]) -> NDArray[np.int8]:
    if (given >= len(MODES)).any():
        raise DefinitionError(f"a node of its trees is a BRANCH_MEMBER; those that can be explained are {', '.join(MODES)}")
    return given.astype(np.int8)


def _aggregated(weights: Float64s, how: str, trees: int) -> Float64s:
    if how not in {_SUM, _AVERAGE}:
        raise DefinitionError(f"its trees are aggregated by {how}, and only sums and averages can be told apart by feature")
    return weights / trees if how == _AVERAGE else weights


# ------------------------------------------------------------------------------------------------- laying them out


@dataclass(slots=True)
class _Layout:
    """The arrays of `TreeNodes` while they grow."""

    places: list[int] = field(default_factory=list)
    """Of each node, where it stands in the ensemble."""
    depth: list[int] = field(default_factory=list)
    true_side: list[bool] = field(default_factory=list)
    bit: list[int] = field(default_factory=list)
    path_start: list[int] = field(default_factory=list)
    path_count: list[int] = field(default_factory=list)
    path_features: list[int] = field(default_factory=list)


def laid_out(ensemble: Ensemble, weights: Float64s, features: Sequence[int]) -> TreeNodes:
    """The trees with one weight a node; `features` gives for each column the feature it is made of. Raises `DefinitionError`."""
    made, roots = _Layout(), []
    for root in _roots(ensemble):
        roots.append(len(made.places))
        _lay(ensemble, root, features, made)
    places, depth = np.array(made.places, dtype=np.int64), np.array(made.depth, dtype=np.int32)
    roots.append(len(places))
    modes = ensemble.modes[places]
    return TreeNodes(
        mode=modes,
        column=ensemble.columns[places].astype(np.int32),
        threshold=ensemble.thresholds[places].astype(np.float32),
        missing_true=ensemble.missing_true[places],
        depth=depth,
        true_side=np.array(made.true_side, dtype=np.bool_),
        skip=_skips(depth),
        bit=np.array(made.bit, dtype=np.int8),
        weight=np.where(modes == LEAF, weights[places], 0.0),
        roots=np.array(roots, dtype=np.int32),
        path_start=np.array(made.path_start, dtype=np.int32),
        path_count=np.array(made.path_count, dtype=np.int32),
        path_features=np.array(made.path_features, dtype=np.int32),
    )


def _roots(ensemble: Ensemble) -> list[int]:
    """The first node that is listed of each tree; of opset 5, where trees are named by them, those."""
    if len(ensemble.trees) != len(ensemble.modes):
        return [int(root) for root in ensemble.trees]
    _, first = np.unique(ensemble.trees, return_index=True)
    return sorted(first.tolist())


def _lay(ensemble: Ensemble, root: int, features: Sequence[int], made: _Layout) -> None:
    """Append one tree."""
    begin, most = len(made.places), len(ensemble.modes)
    modes, columns = ensemble.modes, ensemble.columns
    # What is still to be laid: a node, its depth, its side, the bit of the branch above, and the features of its path.
    left: list[tuple[int, int, bool, int, tuple[int, ...]]] = [(root, 0, True, -1, ())]
    while left:
        place, depth, side, bit, path = left.pop()
        if place < 0 or len(made.places) - begin > 2 * most:
            raise DefinitionError("its trees are none: a branch leads nowhere, or back to where it came from; export it again")
        made.places.append(place)
        made.depth.append(depth)
        made.true_side.append(side)
        made.bit.append(bit)
        leaf = modes[place] == LEAF
        made.path_start.append(len(made.path_features))
        made.path_count.append(len(path) if leaf else 0)
        if leaf:
            made.path_features.extend(path)
            continue
        column = int(columns[place])
        if not 0 <= column < len(features):
            raise DefinitionError(f"a node of its trees looks at column {column}, and there are {len(features)}: export it again")
        feature = features[column]
        below = path if feature in path else (*path, feature)
        if len(below) > MOST_FEATURES:
            raise DefinitionError(
                f"a path of its trees asks for more than {MOST_FEATURES} different features; train it with fewer or flatter"
            )
        number = below.index(feature)
        left.append((int(ensemble.false_place[place]), depth + 1, False, number, below))
        left.append((int(ensemble.true_place[place]), depth + 1, True, number, below))


def _skips(depth: Int32s) -> Int32s:
    """Behind each node, the next that is no deeper."""
    skip = np.full(len(depth), len(depth), dtype=np.int32)
    above: list[int] = []
    for place, level in enumerate(depth.tolist()):
        while above and depth[above[-1]] >= level:
            skip[above.pop()] = place
        above.append(place)
    return skip
