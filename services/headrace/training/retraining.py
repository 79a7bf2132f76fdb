"""A version trained again: the recipe in its lineage, called with a newer training frame.

    lineage["recipe"] = "fraud.train:fit"  ->  fit(frame) -> the bytes of a fitted, exported model

The frame is of the whole log, as states need their past, and then of the rows of the span alone; its lineage says both. Old and new are
graded on the same newest rows that have a label. Limit: unless rows are held out, the new version was trained on those rows, and the old
one was not, so its figures are the better for it.
"""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from headrace.definition import Pipeline
from headrace.errors import DefinitionError
from headrace.predict import onnx_file
from headrace.predict.scores import Model
from headrace.predict.signature import OutputKind
from headrace.training.frame import LABEL, TrainingFrame, content_hash
from headrace.training.grading import Grades, probability_grades, value_grades
from headrace.training.span import Span
from headrace.training.tables import column
from headrace.training.versions import HALF
from headrace.types import Bools, Int64s

NEWEST = 0.2
"""The share of the rows that old and new are compared on, where none are held out."""

Recipe = Callable[[TrainingFrame], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Graded:
    """How good two versions are on the same rows."""

    rows: int
    held_out: bool
    """Whether the new one has not seen them."""
    old: Grades
    new: Grades


def recipe_in(lineage: Mapping[str, Any] | None, called: str) -> str:
    """The recipe of a version. Raises `DefinitionError` where none was recorded."""
    found = (lineage or {}).get("recipe")
    if not isinstance(found, str):
        raise DefinitionError(
            f"{called} says not how it was trained: stamp a version with recipe='module:function', the function that makes the exported "
            "model of a training frame, and register that"
        )
    return found


def load_recipe(reference: str) -> Recipe:
    """The function that `module:function` names; the current folder is searched too. Raises `DefinitionError`."""
    module_name, _, attribute = reference.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise DefinitionError(f"recipe {reference!r} cannot be imported (looked in {here}, too):\n{_trace(error)}") from error
    found = getattr(module, attribute, None)
    if not callable(found):
        raise DefinitionError(f"recipe {reference!r}: module {module_name} has no function {attribute!r}; define it, or stamp again")
    recipe: Recipe = found
    return recipe


def followed(reference: str, recipe: Recipe, frame: TrainingFrame) -> bytes:
    """The exported model that a recipe makes of a frame. Raises `DefinitionError` where it raises, or returns something else."""
    try:
        made = recipe(frame)
    except Exception as error:
        raise DefinitionError(f"recipe {reference!r} failed on {len(frame):,} rows:\n{_trace(error)}") from error
    if not isinstance(made, bytes):
        raise DefinitionError(
            f"recipe {reference!r} returned a {type(made).__name__}, not the bytes of an exported model: let it end with for example "
            "return headrace.models.export_sklearn(fitted, frame.names)"
        )
    try:
        onnx_file.metadata(made)
    except DefinitionError as error:
        raise DefinitionError(f"recipe {reference!r} returned {len(made):,} bytes that are no model: {error}") from error
    return made


def insist_on_definitions(lineage: Mapping[str, Any], pipeline: Pipeline, called: str) -> None:
    """Raise `DefinitionError` where a version was trained on other features than the pipeline has now; the text names them."""
    told = lineage.get("fingerprint")
    if told in {None, pipeline.fingerprint}:
        return
    views = lineage.get("views", {})
    changed = [f"view {one.name}" for one in pipeline.views if views.get(one.name, {}).get("fingerprint") != one.fingerprint]
    before = list(lineage.get("features", ()))
    changed += [f"feature {name} is new" for name in pipeline.feature_names if name not in before]
    changed += [f"feature {name} is gone" for name in before if name not in pipeline.feature_names]
    raise DefinitionError(
        f"{called} was trained on another definition of pipeline {pipeline.name} (fingerprint {str(told)[:16]}, "
        f"{pipeline.fingerprint[:16]} now: {', '.join(changed) or 'the order of its features'}), so its recipe would be given other "
        "features: where it takes them, say --changed-definitions"
    )


def rows_within(frame: TrainingFrame, span: Span) -> TrainingFrame:
    """The rows of a span. Raises `DefinitionError` where there are none."""
    if span.whole and len(frame):
        return frame
    numbers = (column(frame.table, name).to_numpy(zero_copy_only=False) for name in ("_partition", "_offset"))
    found = frame if not len(frame) else part_of(frame, span.inside(_times_ms(frame), *numbers))
    if not len(found):
        raise DefinitionError(f"no row of the training frame lies in the span, of {len(frame):,}: choose an earlier --from or a later --to")
    return found


def part_of(frame: TrainingFrame, kept: Bools) -> TrainingFrame:
    """Some rows of a frame, as a frame: with a hash of their own, and the span of their event times."""
    table = frame.table.filter(pa.array(kept))
    times_ms = column(table, "_event_time").cast(pa.int64()).to_numpy(zero_copy_only=False)
    lineage = {**frame.lineage, "rows": table.num_rows, "rows_of_log": frame.lineage.get("rows_of_log", len(frame))}
    lineage |= {"hash": content_hash(table), "late": int(column(table, "_late").to_numpy(zero_copy_only=False).sum())}
    if len(times_ms):
        lineage["span_ms"] = [int(times_ms.min()), int(times_ms.max())]
    if lineage["labels"] is not None:
        labelled = table.num_rows - column(table, LABEL).null_count
        lineage["labels"] = {"labelled": labelled, "missing": table.num_rows - labelled}
    return TrainingFrame(table.replace_schema_metadata({b"headrace": json.dumps(lineage, sort_keys=True).encode()}))


def split(frame: TrainingFrame, newest: float) -> tuple[TrainingFrame, TrainingFrame]:
    """The older rows, and a share of the newest ones by event time; rows of one instant stay together."""
    times_ms = _times_ms(frame)
    behind = np.sort(times_ms)[min(int(len(times_ms) * (1 - newest)), len(times_ms) - 1)]
    return part_of(frame, times_ms < behind), part_of(frame, times_ms >= behind)


def graded(frame: TrainingFrame, old: Model, new: Model, kind: OutputKind, *, held_out: bool) -> Graded | None:
    """How good both are on the rows that have a label, and get a score of both; None where there are none."""
    if LABEL not in frame.table.column_names:
        return None
    values, labels = frame.values, frame.labels
    scores = [model.score(values).scores for model in (old, new)]
    known = np.isfinite(labels) & np.isfinite(scores[0]) & np.isfinite(scores[1])
    if not known.any():
        return None

    def grades(found: Any) -> Grades:  # noqa: ANN401 - the scores of one of them
        of, outcome = found[known], labels[known]
        return probability_grades(of, outcome, HALF) if kind is OutputKind.PROBABILITY else value_grades(of, outcome)

    return Graded(rows=int(known.sum()), held_out=held_out, old=grades(scores[0]), new=grades(scores[1]))


def _times_ms(frame: TrainingFrame) -> Int64s:
    return np.asarray(column(frame.table, "_event_time").cast(pa.int64()).to_numpy(zero_copy_only=False), dtype=np.int64)


def _trace(error: Exception) -> str:
    return "".join(traceback.format_exception(error)).rstrip()
