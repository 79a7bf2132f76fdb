"""What a model expects and gives: feature names in order, the views they come from, dtype, output.

The signature travels inside the .onnx file, as one JSON text under one key of its `metadata_props`, so a file that was moved or
renamed still says what it is. It is compared with the pipeline before the first event is scored: a model fed with the right number
of wrong columns answers without complaint, and that is the one mistake nothing later would notice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Protocol

from headrace.errors import SignatureMismatch
from headrace.expression import Expression

METADATA_KEY = "headrace.signature"
FORMAT = 1
"""The version of the JSON under `METADATA_KEY`; a reader refuses one it does not know."""

RESTAMP = (
    "train it on the training frame of this definition (`training_frame`) and stamp it again with `headrace.models.stamp()`, "
    "or put the definition back"
)


class OutputKind(StrEnum):
    """What the number that comes out means."""

    PROBABILITY = "probability"
    """The chance of one class, 0 to 1."""
    VALUE = "value"
    """A quantity in a unit of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewVersion:
    """One feature view as the model was trained on it; the fingerprint covers everything that decides its values."""

    name: str
    version: int
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """The contract of one model version: `features` in the order of the input's columns, `output` by its name in the file."""

    name: str
    version: str
    features: tuple[str, ...]
    views: tuple[ViewVersion, ...]
    event_features: str
    """The fingerprint of the event features: their names and what they compute."""
    output: str
    kind: OutputKind = OutputKind.PROBABILITY
    class_index: int = 1
    """The column of a [n, classes] output that is the score; not looked at for [n, 1] and [n]."""
    dtype: str = "float32"

    def to_metadata(self) -> dict[str, str]:
        """The entry for `metadata_props`: the same signature gives the same bytes."""
        return {METADATA_KEY: json.dumps({"format": FORMAT, **asdict(self)}, separators=(",", ":"), sort_keys=True)}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Signature:
        """The signature in a file's `metadata_props`. Raises `SignatureMismatch` when there is none, or none that can be read."""
        text = metadata.get(METADATA_KEY)
        if text is None:
            raise SignatureMismatch(
                f"the model carries no signature (no {METADATA_KEY!r} in its metadata_props): write it with `headrace.models.stamp()`"
            )
        try:
            return _parsed(json.loads(text))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise SignatureMismatch(
                f"the signature in the model's metadata_props cannot be read ({type(error).__name__}: {error}): "
                "write it again with `headrace.models.stamp()`"
            ) from error


class _View(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def fingerprint(self) -> str: ...


class Scored(Protocol):
    """What a signature is compared with: the pipeline as declared."""

    @property
    def name(self) -> str:
        """The pipeline's name."""

    @property
    def feature_names(self) -> Sequence[str]:
        """What it feeds its model with, in order."""

    @property
    def views(self) -> Sequence[_View]:
        """Where the first of them come from."""

    @property
    def event_features(self) -> Sequence[tuple[str, Expression]]:
        """What the others compute from the scored event itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """What a pipeline feeds its model with, in plain values: what a signature is compared with where the pipeline itself is not at hand."""

    name: str
    features: tuple[str, ...]
    views: tuple[ViewVersion, ...]
    event_features: str
    """The fingerprint of the event features, as in a signature."""


def feed_of(pipeline: Scored) -> Feed:
    """What the pipeline feeds its model with as it is defined now."""
    return Feed(
        name=pipeline.name,
        features=tuple(pipeline.feature_names),
        views=tuple(ViewVersion(name=view.name, version=view.version, fingerprint=view.fingerprint) for view in pipeline.views),
        event_features=event_features_fingerprint(pipeline.event_features),
    )


def event_features_fingerprint(features: Sequence[tuple[str, Expression]]) -> str:
    """The sha256 of the names and canonical forms of event features, in order, in hex."""
    form = [[name, expression.canonical()] for name, expression in features]
    return hashlib.sha256(json.dumps(form, separators=(",", ":"), sort_keys=True).encode()).hexdigest()


def check(signature: Signature, pipeline: Scored) -> None:
    """Prove that the pipeline feeds the model what it was trained on.

    Raises `SignatureMismatch` naming the first difference: a feature by its position, expected by the model and found in the
    pipeline, or a view whose definition has changed since.
    """
    feed = feed_of(pipeline)
    check_features(signature, feed.features, f"pipeline {feed.name!r}")
    check_definitions(signature, feed)


def check_definitions(signature: Signature, feed: Feed) -> None:
    """Prove that names which agree also mean the same: views by version and fingerprint, event features by theirs."""
    found = {view.name: view for view in feed.views}
    for expected in signature.views:
        view = found.pop(expected.name, None)
        if view is None:
            said = f"it was trained on view {expected.name!r}, which the pipeline does not have"
        elif view.version != expected.version:
            said = f"it was trained on version {expected.version} of view {expected.name!r}, the pipeline has version {view.version}"
        elif view.fingerprint != expected.fingerprint:
            said = (
                f"view {expected.name!r} has the same names but another definition "
                f"(fingerprint {expected.fingerprint[:16]} when trained, {view.fingerprint[:16]} now)"
            )
        else:
            continue
        raise _mismatch(signature, f"pipeline {feed.name!r}", said)
    for name in found:
        raise _mismatch(signature, f"pipeline {feed.name!r}", f"the pipeline has view {name!r}, which the model was not trained on")
    if feed.event_features != signature.event_features:
        raise _mismatch(signature, f"pipeline {feed.name!r}", "an event feature has the same name but computes something else")


def check_features(signature: Signature, names: Sequence[str], fed_by: str) -> None:
    """Prove that `names` are the signature's features in the same order; `fed_by` says in the error who gives them."""
    for position, (expected, found) in enumerate(zip(signature.features, names, strict=False)):
        if expected != found:
            raise _mismatch(signature, fed_by, f"feature {position} is {expected!r} in the model and {found!r} there")
    position = min(len(signature.features), len(names))
    for owner, extra in (("in the model", signature.features[position:]), ("there", names[position:])):
        for name in extra:
            counts = f"{len(signature.features)} features in the model, {len(names)} there"
            raise _mismatch(signature, fed_by, f"{counts}; the first extra one is feature {position}, {name!r} {owner}")


def _mismatch(signature: Signature, fed_by: str, said: str) -> SignatureMismatch:
    return SignatureMismatch(f"model {signature.name!r} version {signature.version} does not fit {fed_by}: {said}; {RESTAMP}")


def _parsed(fields: dict[str, Any]) -> Signature:
    if fields["format"] != FORMAT:
        raise ValueError(f"its format is not {FORMAT}")
    if fields["dtype"] != "float32":
        raise ValueError("its dtype is not float32")
    kinds = {"name": str, "version": str, "output": str, "event_features": str, "class_index": int, "features": list, "views": list}
    wrong = [name for name, kind in kinds.items() if not isinstance(fields[name], kind)]
    wrong += ["features" for feature in fields["features"] if not isinstance(feature, str)]
    if wrong:
        raise ValueError(f"{wrong[0]} is of the wrong kind")
    return Signature(
        name=fields["name"],
        version=fields["version"],
        features=tuple(fields["features"]),
        views=tuple(ViewVersion(**view) for view in fields["views"]),
        event_features=fields["event_features"],
        output=fields["output"],
        kind=OutputKind(fields["kind"]),
        class_index=fields["class_index"],
    )
