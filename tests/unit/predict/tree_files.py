"""Tree ensembles made by hand, as .onnx files: at random, or of one branch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper

from headrace.predict import onnx_file
from headrace.predict.attached_rows import background_entries
from headrace.predict.signature import OutputKind, Signature
from headrace.predict.tree_nodes import MODES
from tests.unit.predict.small_models import graph_bytes, output

Rows = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(slots=True)
class Forest:
    """The attributes of an ensemble while it grows."""

    trees: list[int] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    modes: list[str] = field(default_factory=list)
    columns: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    true_side: list[int] = field(default_factory=list)
    false_side: list[int] = field(default_factory=list)
    weights: list[tuple[int, int, int, float]] = field(default_factory=list)
    """Tree, node, output, weight."""

    def node(self, tree: int, mode: str, column: int = 0, value: float = 0.0, *, missing: bool = False) -> int:
        """Add a node and tell its number in its tree."""
        number = self.trees.count(tree)
        self.trees.append(tree)
        self.numbers.append(number)
        self.modes.append(mode)
        self.columns.append(column)
        self.values.append(value)
        self.missing.append(int(missing))
        self.true_side.append(0)
        self.false_side.append(0)
        return number

    def join(self, tree: int, number: int, true_side: int, false_side: int) -> None:
        """Say where a branch leads."""
        place = list(zip(self.trees, self.numbers, strict=True)).index((tree, number))
        self.true_side[place], self.false_side[place] = true_side, false_side

    def weigh(self, tree: int, number: int, weight: float, of: int = 0) -> None:
        """Give a leaf a weight."""
        self.weights.append((tree, number, of, weight))

    def operator(self, kind: str = "TreeEnsembleRegressor", **more: object) -> NodeProto:
        """The ensemble as a node over the input `X`."""
        of = "class" if kind == "TreeEnsembleClassifier" else "target"
        settings: dict[str, object] = {
            "nodes_treeids": self.trees,
            "nodes_nodeids": self.numbers,
            "nodes_modes": self.modes,
            "nodes_featureids": self.columns,
            "nodes_values": self.values,
            "nodes_missing_value_tracks_true": self.missing,
            "nodes_truenodeids": self.true_side,
            "nodes_falsenodeids": self.false_side,
        }
        columns = list(zip(*self.weights, strict=True))
        names = ("treeids", "nodeids", "ids", "weights")
        settings |= {f"{of}_{name}": list(column) for name, column in zip(names, columns, strict=True)}
        if of == "class":
            settings |= {"classlabels_int64s": [0, 1]}
        else:
            settings |= {"n_targets": 1}
        given = {name: value for name, value in {**settings, **more}.items() if value is not None}
        outputs = ["label", "score"] if of == "class" else ["score"]
        return helper.make_node(kind, ["X"], outputs, domain="ai.onnx.ml", **given)  # type: ignore[arg-type]


def grow(
    draw: np.random.Generator, features: int, *, trees: int = 4, depth: int = 4, modes: tuple[str, ...] = MODES, of: int = 1
) -> Forest:
    """An ensemble at random: every kind of branch, thresholds that rows hit, features that come twice on a path, sides of uneven depth."""
    made = Forest()

    def below(tree: int, level: int) -> int:
        if level == depth or (level and draw.random() < 0.2):
            number = made.node(tree, "LEAF")
            for one in range(of):
                made.weigh(tree, number, float(np.float32(draw.normal())), one)
            return number
        number = made.node(
            tree, str(draw.choice(modes)), int(draw.integers(features)), float(draw.integers(-2, 3)), missing=bool(draw.random() < 0.5)
        )
        made.join(tree, number, below(tree, level + 1), below(tree, level + 1))
        return number

    for tree in range(trees):
        below(tree, 0)
    return made


def rows_at_random(draw: np.random.Generator, count: int, features: int) -> Rows:
    """Rows that hit thresholds, with gaps and infinities."""
    rows = draw.integers(-3, 4, size=(count, features)).astype(np.float32)
    rows[draw.random(rows.shape) < 0.15] = np.nan
    rows[draw.random(rows.shape) < 0.03] = np.inf
    return rows


def tree_file(
    nodes: list[NodeProto],
    features: int,
    background: Rows | None = None,
    *,
    width: int = 1,
    class_index: int = 1,
    tensors: tuple[TensorProto, ...] = (),
) -> bytes:
    """A stamped model of these nodes, from `X` to `score`."""
    given = [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, features])]
    entries = signature(features, class_index=class_index).to_metadata() | ({} if background is None else background_entries(background))
    return onnx_file.with_metadata(graph_bytes(nodes, [output("score", [None, width])], inputs=given, tensors=tensors), entries)


def signature(features: int, *, class_index: int = 1) -> Signature:
    """A signature over so many features, output `score`."""
    return Signature(
        name="trees",
        version="1",
        features=names(features),
        views=(),
        event_features="",
        output="score",
        kind=OutputKind.VALUE,
        class_index=class_index,
    )


def names(features: int) -> tuple[str, ...]:
    """So many names."""
    return tuple(f"f{number}" for number in range(features))
