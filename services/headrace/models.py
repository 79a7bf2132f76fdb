"""Models from Python: out of the library that trained them, stamped with what they were trained on, and read again.

    fitted = LogisticRegression().fit(frame.values, frame.labels)
    exported = hr.models.export_sklearn(fitted, pipeline.feature_names)
    stamped = hr.models.stamp(exported, pipeline, version="1", golden_rows=frame, golden_scores=fitted.predict_proba(frame.values))
    Path("fraud.onnx").write_bytes(stamped)

What is in a stamped file, each under a key of its own in its `metadata_props`, and so covered by its sha256:

| key | what | written from |
| --- | --- | --- |
| `headrace.signature` | features in order, fingerprints of views, output and class | the pipeline |
| `headrace.golden_rows`, `..._scores` | up to 1,000 rows and the scores it must give for them | `golden_rows`, `golden_scores` |
| `headrace.agreement` | how far the file is from the trained model at worst | `golden_scores` |
| `headrace.background` | up to 100 rows that contributions are measured from | `background` |
| `headrace.card` | owner, contact, use, training, metrics, limits | `card` |
| `headrace.lineage` | hash, fingerprints and log span of the training frame; what trains it again | a frame among the arguments, `recipe` |
| `headrace.exported` | the features that the exporter was given | `export_...` |

Stamping takes away what an earlier stamp wrote, but for what the exporter did: a file says what its last stamp was told and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from headrace.definition import Pipeline
from headrace.errors import DefinitionError
from headrace.predict import onnx_file
from headrace.predict.agreement import AGREEMENT, TOLERANCE, Agreement, agreed, agreement_in
from headrace.predict.attached_rows import (
    BACKGROUND,
    GOLDEN_ROWS,
    GOLDEN_SCORES,
    MOST_BACKGROUND,
    MOST_GOLDEN,
    background_entries,
    golden_entries,
)
from headrace.predict.export import export_lightgbm, export_sklearn, export_xgboost
from headrace.predict.export.finish import exported_names
from headrace.predict.given_rows import float32_rows, float_rows, spread
from headrace.predict.lineage import (
    LINEAGE,
    Lineage,
    check_lineage,
    lineage_among,
    lineage_entries,
    lineage_in,
    with_recipe,
)
from headrace.predict.model_card import CARD, ModelCard, card_in, markdown
from headrace.predict.signature import METADATA_KEY, OutputKind, Signature, ViewVersion, event_features_fingerprint
from headrace.types import Float64s

__all__ = [
    "Agreement",
    "ModelCard",
    "agreement_of",
    "card_of",
    "describe",
    "export_lightgbm",
    "export_sklearn",
    "export_xgboost",
    "lineage_of",
    "signature_of",
    "stamp",
]

STAMPED = (METADATA_KEY, GOLDEN_ROWS, GOLDEN_SCORES, BACKGROUND, AGREEMENT, CARD, LINEAGE)
"""The keys that `stamp` writes."""

_A_LITTLE = 1e-6


def signature_of(
    pipeline: Pipeline, *, version: str, output: str, kind: Literal["probability", "value"] = "probability", class_index: int = 1
) -> Signature:
    """The signature of a model trained on the training frame of `pipeline` as it is defined now."""
    return Signature(
        name=pipeline.name,
        version=version,
        features=tuple(pipeline.feature_names),
        views=tuple(ViewVersion(name=view.name, version=view.version, fingerprint=view.fingerprint) for view in pipeline.views),
        event_features=event_features_fingerprint(pipeline.event_features),
        output=output,
        kind=OutputKind(kind),
        class_index=class_index,
    )


def stamp(
    model: bytes | str | Path,
    pipeline: Pipeline,
    *,
    version: str,
    output: str | None = None,
    kind: Literal["probability", "value"] = "probability",
    class_index: int = 1,
    golden_rows: object = None,
    golden_scores: object = None,
    tolerance: float = TOLERANCE,
    background: object = None,
    card: ModelCard | None = None,
    trained_on: object = None,
    lineage: Lineage | None = None,
    recipe: str | None = None,
) -> bytes:
    """The model's bytes with the signature of `pipeline` in their `metadata_props`; needs the package `onnx`.

    `output` may be left out where the file has only one, or one named `probabilities`. Rows are arrays, pyarrow Tables, DataFrames or
    training frames of the pipeline's features in order. `golden_scores` are what the trained model gives for all golden rows, as
    [rows], [rows, 1] or [rows, classes]: the file may differ from them by `tolerance` at most, of quantities as a share of the largest;
    without them the file's own scores are kept. A frame among the rows, or `trained_on`, is recorded as what it was trained on;
    `lineage` says it where there is none, `recipe` ("module:function") names what trains it again. Raises `DefinitionError`.
    """
    where = f"stamp of {pipeline.name!r}"
    content = _read(model, where)
    _check_exported(content, pipeline, where)
    output = _output(content, output, where)
    signature = signature_of(pipeline, version=version, output=output, kind=kind, class_index=class_index)
    entries = signature.to_metadata()
    told = lineage if lineage is not None else lineage_among(trained_on, golden_rows, background)
    if told is not None:
        check_lineage(told, pipeline)
    told = with_recipe(told, recipe)
    if told is not None:
        entries |= lineage_entries(told)
    if card is not None:
        entries |= card.entries()
    if background is not None:
        rows = float_rows(background, signature.features, "background")
        chosen = rows[spread(len(rows), MOST_BACKGROUND)]
        entries |= background_entries(float32_rows(chosen, signature.features, "background"))
    if golden_rows is not None:
        bare = onnx_file.with_metadata(content, signature.to_metadata(), without=STAMPED)
        entries |= _golden(bare, signature, float_rows(golden_rows, signature.features, "golden_rows"), golden_scores, tolerance)
    elif golden_scores is not None:
        raise DefinitionError(f"{where}: golden_scores= are given without golden_rows=; give the rows they are of")
    return onnx_file.with_metadata(content, entries, without=STAMPED)


def card_of(model: bytes | str | Path) -> ModelCard | None:
    """The card of a stamped model; None where it was stamped without. Raises `DefinitionError`."""
    return card_in(_told(model))


def lineage_of(model: bytes | str | Path) -> dict[str, Any] | None:
    """What a stamped model was trained on; None where it was stamped without. Raises `DefinitionError`."""
    return lineage_in(_told(model))


def agreement_of(model: bytes | str | Path) -> Agreement | None:
    """How far a stamped model is from the one that was trained; None where it was stamped without its scores. Raises `DefinitionError`."""
    return agreement_in(_told(model))


def describe(model: bytes | str | Path) -> str:
    """Everything a stamped model says of itself, as Markdown. Raises `DefinitionError`."""
    told = _told(model)
    return markdown(Signature.from_metadata(told), card_in(told), lineage_in(told), agreement_in(told))


def _told(model: bytes | str | Path) -> Mapping[str, str]:
    return onnx_file.metadata(_read(model, "model"))


def _read(model: bytes | str | Path, where: str) -> bytes:
    try:
        return model if isinstance(model, bytes) else Path(model).read_bytes()
    except OSError as error:
        raise DefinitionError(f"{where}: {model!r} cannot be read ({error.strerror})") from error


def _check_exported(content: bytes, pipeline: Pipeline, where: str) -> None:
    names = exported_names(onnx_file.metadata(content))
    if names is None or names == pipeline.feature_names:
        return
    place = next((at for at, (one, other) in enumerate(zip(names, pipeline.feature_names, strict=False)) if one != other), None)
    said = (
        f"{len(names)} features, the pipeline has {len(pipeline.feature_names)}"
        if place is None
        else f"feature {place} as {names[place]!r}, the pipeline has {pipeline.feature_names[place]!r} there"
    )
    raise DefinitionError(f"{where}: the model was exported with {said}; train and export it with pipeline.feature_names")


def _output(content: bytes, output: str | None, where: str) -> str:
    names = onnx_file.output_names(content)
    if output is None:
        output = "probabilities" if "probabilities" in names else names[0] if len(names) == 1 else None
    if output is None or output not in names:
        raise DefinitionError(f"{where}: output is {output!r}, the file has {', '.join(names)}: name one with output=")
    return output


def _golden(bare: bytes, signature: Signature, rows: Float64s, trained: object, tolerance: float) -> dict[str, str]:
    """The entries of golden rows; all of them are compared where the trained model's scores are given, 1,000 are kept, with the worst."""
    from headrace.predict.onnx_model import OnnxModel  # noqa: PLC0415 - the runtime is for those who score

    narrow = float32_rows(rows, signature.features, "golden_rows")
    found = _scores(OnnxModel.load(bare, signature.features), rows, signature)
    if trained is None:
        chosen = spread(len(rows), MOST_GOLDEN)
        return golden_entries(narrow[chosen], found[chosen])
    expected = _column(trained, len(rows), signature.class_index)
    agreement = agreed(found, expected, signature.kind, tolerance)
    chosen = np.union1d(spread(len(rows), MOST_GOLDEN - 1), [agreement.row])
    return agreement.entries() | golden_entries(narrow[chosen], expected[chosen])


def _scores(model: Any, rows: Float64s, signature: Signature) -> Float64s:  # noqa: ANN401 - an OnnxModel, which is loaded lazily
    given = model.score(rows)
    for row, why in given.refused:
        raise DefinitionError(f"golden_rows: {why} for row {row}; leave the row out, or export a model that has an answer for it")
    outside = np.flatnonzero((given.scores < -_A_LITTLE) | (given.scores > 1 + _A_LITTLE))
    if signature.kind is OutputKind.PROBABILITY and len(outside):
        raise DefinitionError(
            f"golden_rows: output {signature.output!r} gives {given.scores[outside[0]]:.9g} for row {outside[0]}, which is no probability; "
            "stamp it with kind='value', or name the output of probabilities with output="
        )
    scores: Float64s = given.scores
    return scores


def _column(trained: object, count: int, class_index: int) -> Float64s:
    """The trained model's scores of the class that is served."""
    try:
        scores = np.asarray(trained, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise DefinitionError(f"golden_scores are no numbers ({error}); give what the trained model predicts for golden_rows") from error
    match scores.shape:
        case (n,) if n == count:
            found = scores
        case (n, 1) if n == count:
            found = scores[:, 0]
        case (n, classes) if n == count and 0 <= class_index < classes:
            found = scores[:, class_index]
        case shape:
            raise DefinitionError(f"golden_scores has shape {list(shape)} for {count} golden rows; give one score a row, or one a class")
    for row in np.flatnonzero(~np.isfinite(found)).tolist():
        raise DefinitionError(f"golden_scores: that of row {row} is {found[row]}; leave the row out of both")
    return found
