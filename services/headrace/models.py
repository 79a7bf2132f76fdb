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

The registry is reached as `register`, `shadow`, `challenge`, `promote`, `rollback`, `retire`, `withdraw`, `mend` and `versions`, which are
loaded when they are asked for: who only stamps needs no client of a server.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from headrace.definition import Pipeline
from headrace.errors import DefinitionError
from headrace.predict import onnx_file
from headrace.predict.agreement import AGREEMENT, TOLERANCE, Agreement, agreement_in
from headrace.predict.attached_rows import BACKGROUND, GOLDEN_ROWS, GOLDEN_SCORES, MOST_BACKGROUND, background_entries
from headrace.predict.export import export_lightgbm, export_sklearn, export_xgboost
from headrace.predict.export.finish import exported_names
from headrace.predict.given_rows import float32_rows, float_rows, spread
from headrace.predict.golden import golden_of
from headrace.predict.lineage import LINEAGE, Lineage, check_lineage, lineage_among, lineage_entries, lineage_in, with_recipe
from headrace.predict.model_card import CARD, ModelCard, card_in, markdown
from headrace.predict.signature import METADATA_KEY, OutputKind, Signature, ViewVersion, event_features_fingerprint

if TYPE_CHECKING:
    from headrace.apps.model_calls import challenge, mend, promote, register, retire, rollback, shadow, versions, withdraw

__all__ = [
    "Agreement",
    "ModelCard",
    "agreement_of",
    "card_of",
    "challenge",
    "describe",
    "export_lightgbm",
    "export_sklearn",
    "export_xgboost",
    "lineage_of",
    "mend",
    "promote",
    "register",
    "retire",
    "rollback",
    "shadow",
    "signature_of",
    "stamp",
    "versions",
    "withdraw",
]

_OF_THE_REGISTRY = ("challenge", "mend", "promote", "register", "retire", "rollback", "shadow", "versions", "withdraw")

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _OF_THE_REGISTRY:
            raise AttributeError(f"headrace.models has no name {name!r}; it has {', '.join(__all__)}")
        return getattr(import_module("headrace.apps.model_calls"), name)


STAMPED = (METADATA_KEY, GOLDEN_ROWS, GOLDEN_SCORES, BACKGROUND, AGREEMENT, CARD, LINEAGE)
"""The keys that `stamp` writes."""


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
    [rows], [rows, 1] or [rows, classes]: the file may differ from them by `tolerance`, of quantities as a share of the largest, and by
    more in one row of a hundred, as the gate has it; without them the file's own scores are kept. A frame among the rows, or
    `trained_on`, is recorded as what it was trained on; `lineage` says it where there is none, `recipe` ("module:function") names what
    trains it again. Raises `DefinitionError`.
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
        rows = float32_rows(float_rows(background, signature.features, "background"), signature.features, "background")
        entries |= background_entries(rows[spread(len(rows), MOST_BACKGROUND)])
    if golden_rows is not None:
        bare = onnx_file.with_metadata(content, signature.to_metadata(), without=STAMPED)
        entries |= golden_of(bare, signature, float_rows(golden_rows, signature.features, "golden_rows"), golden_scores, tolerance)
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
