"""Models from Python: `stamp()` writes into an ONNX file what it was trained on.

Path("late_arrival.onnx").write_bytes(stamp("trained.onnx", pipeline, version="1", output="probabilities"))

The registry is reached as `register`, `shadow`, `challenge`, `promote`, `rollback`, `retire`, `withdraw`, `mend` and `versions`, which are
loaded when they are asked for: who only stamps needs no client of a server.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from headrace.definition import Pipeline
from headrace.errors import DefinitionError
from headrace.predict import onnx_file
from headrace.predict.signature import OutputKind, Signature, ViewVersion, event_features_fingerprint

if TYPE_CHECKING:
    from headrace.apps.model_calls import challenge, mend, promote, register, retire, rollback, shadow, versions, withdraw

__all__ = ["challenge", "mend", "promote", "register", "retire", "rollback", "shadow", "signature_of", "stamp", "versions", "withdraw"]

_OF_THE_REGISTRY = ("challenge", "mend", "promote", "register", "retire", "rollback", "shadow", "versions", "withdraw")

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _OF_THE_REGISTRY:
            raise AttributeError(f"headrace.models has no name {name!r}; it has {', '.join(__all__)}")
        return getattr(import_module("headrace.apps.model_calls"), name)


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
) -> bytes:
    """The model's bytes with the signature of `pipeline` in their `metadata_props`; needs the package `onnx`.

    `output` may be left out where the file has only one, or one named `probabilities`. Raises `DefinitionError`.
    """
    try:
        content = model if isinstance(model, bytes) else Path(model).read_bytes()
    except OSError as error:
        raise DefinitionError(f"stamp of {pipeline.name!r}: {model!r} cannot be read ({error.strerror})") from error
    names = onnx_file.output_names(content)
    if output is None:
        output = "probabilities" if "probabilities" in names else names[0] if len(names) == 1 else None
    if output is None or output not in names:
        raise DefinitionError(f"stamp of {pipeline.name!r}: output is {output!r}, the file has {', '.join(names)}: name one with output=")
    signature = signature_of(pipeline, version=version, output=output, kind=kind, class_index=class_index)
    return onnx_file.with_metadata(content, signature.to_metadata())
