"""Exact contributions of features to a score: interventional SHAP over the background rows that travel in the model.

The contribution of feature i to the margin of a row x is its Shapley value in the game whose players are the features and whose worth v(S)
is the mean, over background rows z, of the margin of the row that takes the features of S from x and all others from z. So contributions
add up to margin(x) less the mean margin of the background; `shap.TreeExplainer(model, background,
feature_perturbation="interventional")` gives the same. Of trees they are worked out in `leaf_sets.py`; of a weighted sum they are
weight * (column(x) - its mean over the background).

The file is read by us and scored by onnxruntime. So before an explainer is believed, its margins are compared with the model's scores, on
the background and on mixes of it. Limit: float32 rows, as the model sees them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np

from headrace.errors import DefinitionError
from headrace.predict import onnx_file
from headrace.predict.additive import Link, Sum, Trees, form_of
from headrace.predict.attached_rows import MOST_BACKGROUND, Rows, background_in
from headrace.predict.leaf_sets import LeafSets
from headrace.predict.onnx_model import OnnxModel
from headrace.predict.prepared import Float32s
from headrace.predict.signature import Signature
from headrace.types import Float64s

CHECKED_WITHIN = 1e-5
"""How far the score that a margin gives may be from the model's, for scores up to 1; above, relative to them."""


class Explainer:
    """Explains the scores of one model version. Not to be used from two threads at once."""

    def __init__(self, form: Sum | Trees, background: Rows, *, feature_count: int) -> None:
        self._form, self._feature_count = form, feature_count
        self.link: Link = form.link
        """In which units contributions add up."""
        self._parts: LeafSets | _Means
        self._parts = LeafSets.of(form, background) if isinstance(form, Trees) else _Means.of(form, background)
        self.mean: float = self._parts.mean
        """The mean margin of the background: what a score is explained from."""

    @classmethod
    def of(cls, content: bytes, signature: Signature, background: Rows) -> Self:
        """The explainer of a stamped model, believed only after its margins gave the model's scores. Raises `DefinitionError`."""
        return cls._of(content, OnnxModel.load(content, signature.features), background)

    @classmethod
    def _of(cls, content: bytes, model: OnnxModel, background: Rows) -> Self:
        signature = model.signature
        what = f"the scores of model {signature.name!r} version {signature.version} cannot be explained"
        if background.shape[1:] != (len(signature.features),) or not 1 <= len(background) <= MOST_BACKGROUND:
            raise DefinitionError(
                f"{what}: its background is {list(background.shape)}, wanted are 1 to {MOST_BACKGROUND} rows of {len(signature.features)} "
                "features: stamp it again with background=..."
            )
        try:
            form = form_of(onnx_file.graph_of(content), signature)
            found = cls(form, background, feature_count=len(signature.features))
            found.insist_on_scores(model, background)
        except DefinitionError as error:
            raise DefinitionError(f"{what}: {error}") from error
        return found

    def contributions(self, values: Float64s) -> Float64s:
        """The contribution of each feature of float64 [rows, features], in the units of the margin; `mean` and they add up to it."""
        return self._parts.contributions(self._columns(values), self._feature_count)

    def margin(self, scores: Float64s) -> Float64s:
        """The margins that give these scores."""
        return self.link.margin(scores)

    def score(self, margins: Float64s) -> Float64s:
        """The scores that these margins give."""
        return self.link.score(margins)

    def insist_on_scores(self, model: OnnxModel, background: Rows) -> None:
        """Raises `DefinitionError` where mean and contributions do not lead to the score that the model gives."""
        rows = _mixed(background).astype(np.float64)
        scores = model.score(rows).scores
        margins = self.mean + self.contributions(rows).sum(axis=1)
        given = self.score(margins)
        slack = CHECKED_WITHIN * np.maximum(1.0, np.abs(scores)) + self._parts.rounding(self._columns(rows))
        with np.errstate(invalid="ignore"):
            wrong = np.flatnonzero(~(np.abs(given - scores) <= slack) & np.isfinite(scores))
        if len(wrong):
            row = int(wrong[0])
            raise DefinitionError(
                f"its file, read here, gives {given[row]:.6g} where onnxruntime gives {scores[row]:.6g}: something in it means what is not "
                "known here; please report it"
            )

    def _columns(self, values: Float64s) -> Float32s:
        """What is weighed or walked, as onnxruntime prepares it."""
        with np.errstate(over="ignore"):
            rows = np.ascontiguousarray(values, dtype=np.float32)
        return np.ascontiguousarray(self._form.prepared.columns(rows).values)


def load_explained(model: str | Path | bytes, feature_names: Sequence[str]) -> OnnxModel:
    """Load a stamped model with what explains its scores. Raises `DefinitionError`, also where the file carries no background."""
    loaded = OnnxModel.load(model, feature_names)
    content = model if isinstance(model, bytes) else Path(model).read_bytes()
    background = background_in(loaded.metadata)
    if background is None:
        raise DefinitionError(
            f"the scores of model {loaded.name!r} version {loaded.version} cannot be explained: it carries no background rows; stamp it "
            "again with `headrace.models.stamp(..., background=rows)`"
        )
    loaded.explainer = Explainer._of(content, loaded, background)  # noqa: SLF001 - its own
    return loaded


def _mixed(background: Rows) -> Rows:
    """The background, and rows whose features come from different rows of it."""
    count, width = background.shape
    places = (np.arange(count)[:, None] + np.arange(width)) % count
    return np.concatenate((background, background[places, np.arange(width)]))


class _Means:
    """A weighted sum over the background."""

    def __init__(self, form: Sum, columns: Float32s) -> None:
        self._features, self._weights = form.features, form.weights
        self._means = columns.astype(np.float64).mean(axis=0)
        self.mean = form.bias + float(sum((self._weights * self._means).tolist()))

        if not np.isfinite(self.mean):
            raise DefinitionError(
                "it weighs its features, and the background has rows without some of them, or so large that sums overflow"
            )

    @classmethod
    def of(cls, form: Sum, background: Rows) -> Self:
        return cls(form, form.prepared.columns(background).values)

    def contributions(self, columns: Float32s, feature_count: int) -> Float64s:
        found = np.zeros((len(columns), feature_count))
        for column, feature in enumerate(self._features):
            found[:, feature] += self._weights[column] * (columns[:, column].astype(np.float64) - self._means[column])
        return found

    def rounding(self, columns: Float32s) -> Float64s:
        """How far the runtime's float32 sum may be off, for each row."""
        return float(np.finfo(np.float32).eps) * (np.abs(columns.astype(np.float64)) @ np.abs(self._weights))
