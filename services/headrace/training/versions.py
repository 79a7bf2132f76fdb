"""The two versions of a model that a scenario compares, and how their scores are read.

Where a version's bytes come from is asked of one function, `Fetch`: of a pipeline and of what a person wrote (a path, a version), or of the
champion where nothing is written. `from_files` knows the files that definitions and people name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headrace.definition import Pipeline
from headrace.errors import DefinitionError
from headrace.predict.scores import Model
from headrace.predict.signature import OutputKind, check
from headrace.types import Float64s

Fetch = Callable[[Pipeline, str | None], bytes]
"""Gives the bytes of a version by its name, or of the champion for None. Raises `DefinitionError` where there is none."""
Given = str | Path | bytes | Model
"""A model: what `Fetch` takes, its bytes, or anything that scores."""

HALF = 0.5


def from_files(pipeline: Pipeline, named: str | None) -> bytes:
    """The bytes of a file: the one that is named, else the one the pipeline declares."""
    path = named or pipeline.model
    if path is None:
        raise DefinitionError(f"{pipeline!r} declares no model to compare with; name its file with baseline= (--baseline-model)")
    try:
        return Path(path).read_bytes()
    except OSError as error:
        fix = "check the path" if named else "check the path in Pipeline(model=...)"
        raise DefinitionError(f"model {path!r} of {pipeline!r} cannot be read ({error.strerror}): {fix}") from error


def loaded(pipeline: Pipeline, given: Given | None, fetch: Fetch) -> Model:
    """A version, ready to score. Raises `SignatureMismatch` where it was not made for this pipeline as it is defined now."""
    if given is not None and not isinstance(given, (str, Path, bytes)):
        return given
    from headrace.predict.onnx_model import OnnxModel  # noqa: PLC0415 - training sets need no runtime of models

    content = given if isinstance(given, bytes) else fetch(pipeline, None if given is None else str(given))
    model = OnnxModel.load(content, pipeline.feature_names)
    check(model.signature, pipeline)
    return model


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionShown:
    """Which version it was."""

    name: str
    version: str
    sha256: str | None
    """None of what is no ONNX file."""

    def __str__(self) -> str:
        return f"{self.name} version {self.version}{f' ({self.sha256[:16]})' if self.sha256 else ''}"


def shown(model: Model) -> VersionShown:
    """What is known of a version."""
    return VersionShown(name=model.name, version=model.version, sha256=getattr(model, "sha256", None))


def declared_kind(before: Model, after: Model) -> OutputKind | None:
    """What both say their scores mean; None where neither does. Raises `DefinitionError` where they differ."""
    kinds = [getattr(getattr(model, "signature", None), "kind", None) for model in (before, after)]
    said = [OutputKind(kind) for kind in kinds if kind is not None]
    if len(set(said)) > 1:
        raise DefinitionError(
            f"{shown(before)} gives a {said[0]}, {shown(after)} a {said[1]}: such scores cannot be compared; stamp both with one kind="
        )
    return said[0] if said else None


def kind_of(before: Float64s, after: Float64s) -> OutputKind:
    """What scores mean of which nobody says it: all from 0 to 1 are probabilities."""
    both = np.concatenate((before, after))
    known = both[np.isfinite(both)]
    return OutputKind.PROBABILITY if ((known >= 0) & (known <= 1)).all() else OutputKind.VALUE


def thresholds(kind: OutputKind, threshold: float | None, baseline: float | None) -> tuple[float, float] | None:
    """From which score on the answer is yes, before and after; None where nothing is decided.

    Before it is a half for probabilities, unless it is said; after it is as before, unless it is said. Of values the one before must be.
    """
    before = HALF if baseline is None and kind is OutputKind.PROBABILITY else baseline
    if before is None:
        if threshold is not None:
            raise DefinitionError("the model gives a value, which has no usual threshold: say with baseline_threshold= which one holds now")
        return None
    return before, before if threshold is None else threshold
