"""What a model was trained on: hash, fingerprints and log span of its training frame, kept inside its .onnx (pure).

A training frame says all that itself (`training/frame.py`), also as the pyarrow Table it holds, so whoever gives a frame need not write
anything down. Limits: a pandas or polars DataFrame made of it says nothing any more; rows that were left out after the frame was made are
still counted in its hash.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Protocol

from headrace.errors import DefinitionError, SignatureMismatch
from headrace.predict.signature import RESTAMP, Scored

LINEAGE = "headrace.lineage"
_IN_A_TABLE = b"headrace"
_RECIPE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")

Lineage = Mapping[str, Any]
"""As a training frame tells it: a JSON object."""


class Trained(Scored, Protocol):
    """The pipeline as declared, with the fingerprint of its definition."""

    @property
    def fingerprint(self) -> str:
        """Equal fingerprints mean equal feature vectors."""


def lineage_told_by(given: object) -> Lineage | None:
    """What a training frame, the folder of one, or its table says of where it comes from; None for what says nothing."""
    told = getattr(given, "lineage", None)
    if isinstance(told, Mapping):
        return told
    schema = getattr(given, "schema", None)
    kept = getattr(schema, "metadata", None)
    if isinstance(kept, Mapping) and _IN_A_TABLE in kept:
        found: dict[str, Any] = json.loads(kept[_IN_A_TABLE])
        return found
    return None


def lineage_among(trained_on: object, *others: object) -> Lineage | None:
    """The lineage of `trained_on`, else the one that the others agree on. Raises `DefinitionError` where they do not."""
    if trained_on is not None:
        told = lineage_told_by(trained_on)
        if told is None:
            raise DefinitionError(
                f"trained_on= is a {type(trained_on).__name__} that does not say where it comes from; give the training frame itself, or "
                "what you know of it as lineage={...}"
            )
        return told
    found = [told for one in others if (told := lineage_told_by(one)) is not None]
    if any(one.get("hash") != found[0].get("hash") for one in found):
        raise DefinitionError("golden_rows and background come from two training frames; say with trained_on= which the model is of")
    return found[0] if found else None


def check_lineage(lineage: Lineage, pipeline: Trained) -> None:
    """Prove that rows of this lineage have the features of the pipeline as it is defined now. Raises `DefinitionError`.

    A frame of another pipeline will do where it has the same views; one that does not tell its fingerprint is believed.
    """
    told = lineage.get("fingerprint", pipeline.fingerprint)
    if told == pipeline.fingerprint:
        return
    where = f"the training frame of pipeline {lineage.get('pipeline')!r}"
    if lineage.get("pipeline") == pipeline.name:
        said = f"was made with another definition (fingerprint {str(told)[:16]}, {pipeline.fingerprint[:16]} now)"
        raise DefinitionError(f"{where} {said}; {RESTAMP}")
    views = lineage.get("views", {})
    for view in pipeline.views:
        if views.get(view.name, {}).get("fingerprint") != view.fingerprint:
            raise DefinitionError(f"{where} has no view {view.name!r} as pipeline {pipeline.name!r} defines it now; {RESTAMP}")
    for name in pipeline.feature_names:
        if name not in lineage.get("features", ()):
            raise DefinitionError(f"{where} has no feature {name!r} of pipeline {pipeline.name!r}; {RESTAMP}")


def with_recipe(lineage: Lineage | None, recipe: str | None) -> Lineage | None:
    """The same with what trains the model again, `module:function`. Raises `DefinitionError`."""
    if recipe is None:
        return lineage
    if not _RECIPE.fullmatch(recipe):
        raise DefinitionError(f"recipe={recipe!r} names no function; write 'module:function'")
    return {**(lineage or {}), "recipe": recipe}


def lineage_entries(lineage: Lineage) -> dict[str, str]:
    """The entry for `metadata_props`: the same lineage gives the same bytes. Raises `DefinitionError` for what is no JSON."""
    try:
        return {LINEAGE: json.dumps(lineage, separators=(",", ":"), sort_keys=True, allow_nan=False)}
    except (ValueError, TypeError) as error:
        raise DefinitionError(f"lineage= cannot be kept as JSON ({error}); give texts, numbers, lists and tables of them") from error


def lineage_in(metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """The lineage in a file's `metadata_props`; None where there is none. Raises `SignatureMismatch` for what is none."""
    if LINEAGE not in metadata:
        return None
    try:
        found = json.loads(metadata[LINEAGE])
    except ValueError as error:
        raise SignatureMismatch(f"{LINEAGE!r} in the model's metadata_props cannot be read: stamp it again") from error
    if not isinstance(found, dict):
        raise SignatureMismatch(f"{LINEAGE!r} in the model's metadata_props is no table: stamp it again")
    return found
