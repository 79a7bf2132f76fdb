"""What every exported graph has in common: one float32 input [None, n] named `features`, the scores as its only output, the same bytes."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from headrace.errors import DefinitionError, SignatureMismatch
from headrace.predict import onnx_file

if TYPE_CHECKING:
    import onnx

EXPORTED = "headrace.exported"
INPUT = "features"
OPSET, ML_OPSET = 15, 3
"""What every onnxruntime since 1.10 knows, the highest that onnxmltools writes, and enough for all that is converted."""

_NEEDS = "pip install 'headrace[export]'"


@contextmanager
def converting(what: str) -> Iterator[None]:
    """Around a converter: its warnings are kept quiet, and what it raises becomes a `DefinitionError` that says what to do."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the converters warn of their own dependencies
            yield
    except ImportError as error:
        raise DefinitionError(f"{what} needs the package {error.name or error}: {_NEEDS}") from error
    except DefinitionError:
        raise
    except Exception as error:  # whatever a converter raises for a model it cannot convert; all of them raise what they like
        said = " ".join(str(error).split())
        said = said if len(said) <= _SAID else said[:_SAID] + " ..."
        raise DefinitionError(
            f"{what}: the converter cannot do this model ({type(error).__name__}: {said}); take a model of another kind, or export it by "
            "other means and compare it with `headrace.models.stamp(..., golden_scores=)`"
        ) from error


_SAID = 200


def checked_names(feature_names: Sequence[str], own: Sequence[str] | None, width: int, what: str) -> tuple[str, ...]:
    """The names, proved to be as many as the model takes and, where it knows names itself, the same in order. Raises `DefinitionError`."""
    names = tuple(feature_names)
    if isinstance(feature_names, str) or not names:
        raise DefinitionError(f"{what}: feature_names is {feature_names!r}; give pipeline.feature_names")
    if len(names) != width:
        raise DefinitionError(
            f"{what}: the model takes {width} features, feature_names has {len(names)}; train it on the pipeline's features"
        )
    for place, (known, given) in enumerate(zip(() if own is None else own, names, strict=False)):
        if known != given:
            raise DefinitionError(
                f"{what}: the model knows feature {place} as {known!r}, feature_names has {given!r}; train it in that order"
            )
    return names


def finished(converted: onnx.ModelProto, names: Sequence[str], output: str) -> bytes:
    """The graph with `output` alone, without what does not lead to it, and with the names of its features."""
    graph = converted.graph
    graph.name = "exported"  # the converters draw one
    kept = [one for one in graph.output if one.name == output]
    del graph.output[:]
    graph.output.extend(kept)
    needed, nodes = {output}, []
    for node in reversed(graph.node):
        if needed & set(node.output):
            nodes.append(node)
            needed.update(node.input)
    nodes.reverse()
    constants = [one for one in graph.initializer if one.name in needed]
    del graph.node[:]
    del graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
    listed: dict[str, int] = {}
    for entry in converted.opset_import:
        listed[entry.domain] = max(entry.version, listed.get(entry.domain, 0))
    del converted.opset_import[:]
    for domain, version in sorted({"": OPSET, **listed}.items()):
        converted.opset_import.add(domain=domain, version=version)
    return onnx_file.with_metadata(converted.SerializeToString(), {EXPORTED: json.dumps(list(names))})


def exported_names(metadata: Mapping[str, str]) -> tuple[str, ...] | None:
    """The features that an exporter was given; None for a file that none of them wrote. Raises `SignatureMismatch`."""
    if EXPORTED not in metadata:
        return None
    try:
        return tuple(str(name) for name in json.loads(metadata[EXPORTED]))
    except (ValueError, TypeError) as error:
        raise SignatureMismatch(f"{EXPORTED!r} in the model's metadata_props cannot be read: export it again") from error
