"""What converters lose of trees, put back while they convert: the last float32 that still goes left, and where absent values go.

A converter hands its nodes to a *container*; `Healing` stands in front of it. A library compares in double: x <= t. A float32 graph
compares with a float32, and the nearest one to t may be above it; then a row that holds exactly that number goes left instead of right.
The largest float32 that is not above t decides every float32 x as t does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Convert = Callable[[Any, Any, Any], None]
"""What converts one operator: (scope, operator, container)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What one tree learned of each of its nodes."""

    absent_left: NDArray[np.bool_]
    """Whether a row without the value goes left."""
    thresholds: NDArray[np.float64] | None = None
    """In double; None where the converter keeps them itself."""


class Healing:
    """A converter's container that mends the trees that are put into it; all else is the container's own."""

    def __init__(self, container: Any, learned: Mapping[int, Learned] | None) -> None:  # noqa: ANN401 - it has no type of its own
        self._container = container
        self._learned = learned

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - as above
        return getattr(self._container, name)

    def add_node(self, kind: str, *arguments: Any, **attributes: Any) -> None:  # noqa: ANN401 - the attributes of any operator
        """Add a node, mended if it is trees."""
        if kind.startswith("TreeEnsemble"):
            attributes |= self._mended(attributes)
        self._container.add_node(kind, *arguments, **attributes)

    def _mended(self, attributes: Mapping[str, Any]) -> dict[str, Any]:
        modes = attributes["nodes_modes"]
        values = np.asarray(attributes["nodes_values"], dtype=np.float64)
        absent = [int(goes) for goes in attributes.get("nodes_missing_value_tracks_true") or [0] * len(values)]
        for place, (tree, node) in enumerate(zip(attributes["nodes_treeids"], attributes["nodes_nodeids"], strict=True)):
            if modes[place] == "LEAF" or self._learned is None:
                continue
            absent[place] = int(self._learned[tree].absent_left[node])
            exact = self._learned[tree].thresholds
            if exact is not None:
                values[place] = exact[node]
        leq = np.array([mode == "BRANCH_LEQ" for mode in modes])
        values[leq] = float32_below(values[leq])
        return {"nodes_values": values.tolist(), "nodes_missing_value_tracks_true": absent}


def float32_below(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest float32 that is not above each number."""
    with np.errstate(over="ignore"):
        near = values.astype(np.float32)
    down = np.nextafter(near, np.float32(-np.inf))
    return np.where(near.astype(np.float64) > values, down, near).astype(np.float64)


def healed(convert: Convert, learned: Callable[[Any], Mapping[int, Learned] | None] | None = None) -> Convert:
    """The same converter, with its trees mended; `learned` gives what an estimator's trees know, by the tree's number."""

    def convert_and_mend(scope: Any, operator: Any, container: Any) -> None:  # noqa: ANN401 - as above
        convert(scope, operator, Healing(container, None if learned is None else learned(operator.raw_operator)))

    return convert_and_mend
