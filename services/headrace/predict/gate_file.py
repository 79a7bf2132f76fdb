"""The gate's first steps: the file as it lies there, before a row is scored. Run by `gate_child`, in this order.

Nothing is loaded before everything has been parsed and found to stand inside the bytes: the runtime reads tensors kept in files by a
relative name even when it is given bytes, and `onnx.checker` has nothing against it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from headrace.errors import DefinitionError, SignatureMismatch
from headrace.predict import onnx_file, onnx_model
from headrace.predict.gate_codes import Code, Refused
from headrace.predict.gate_costs import forget_peak, resident_bytes
from headrace.predict.gate_examination import Examination
from headrace.predict.onnx_file import Structure
from headrace.predict.onnx_model import OnnxModel
from headrace.predict.signature import METADATA_KEY, RESTAMP, Signature, check_definitions, check_features
from headrace.predict.tensors import misfit

GRAPHS_INSIDE = ("Loop", "Scan", "If", "SequenceMap")
RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli")
COMPILED = "EPContext"
"""Carries, or names by path, something compiled for one kind of machine; never allowed."""
OF_RUNTIMES = ("ai.onnx", "com.microsoft", "com.ms", "com.intel", "com.xilinx", "org.pytorch")
"""Domains in which a runtime has, or may have, operators of its own: no function of a file may stand there."""


def read(examination: Examination) -> None:
    """The bytes are one whole ONNX file, and every tensor, domain and operator in it is allowed."""
    try:
        found = onnx_file.structure(examination.request.content, examination.limits.nodes)
    except onnx_file.TooManyNodes as error:
        raise examination.refuse(Code.TOO_LARGE, str(error)) from error
    except DefinitionError as error:
        raise examination.refuse(Code.NOT_ONNX, "the bytes cannot be parsed as an ONNX file") from error
    if not found.whole:
        raise examination.refuse(Code.NOT_ONNX, "the bytes hold no graph with nodes, or no version of the format")
    if found.external:
        said = f"tensor {found.external[0]!r} lives outside the file ({len(found.external)} of them do)"
        raise examination.refuse(Code.EXTERNAL_TENSOR, said)
    _check_domains(examination, found)
    _check_operators(examination, found)
    _check_nesting(examination, found)
    examination.report["file"] = {
        "ir_version": found.ir_version,
        "producer": found.producer[:100],
        "operators": _counted(found),
    }


def check(examination: Examination) -> None:
    """`onnx.checker` finds it valid."""
    wrong = onnx_file.invalid(examination.request.content)
    if wrong is not None:
        raise examination.refuse(Code.CHECKER, f"onnx.checker: {wrong}")


def load(examination: Examination) -> None:
    """The runtime loads it, its signature fits the pipeline, and what it takes and gives fits its signature."""
    forget_peak()
    examination.before_bytes = resident_bytes()
    content = examination.request.content
    try:
        session = onnx_model.open_session(content, "the model")
    except DefinitionError as error:
        cause = error.__cause__
        if cause is not None and onnx_model.out_of_memory(cause):
            raise examination.refuse(Code.MEMORY_LIMIT, f"loading it: {onnx_model.first_line(cause)}") from error
        raise examination.refuse(Code.LOAD, f"onnxruntime: {onnx_model.first_line(cause or error)}") from error
    metadata = session.get_modelmeta().custom_metadata_map
    signature = _signature(examination, metadata)
    examination.report["signature"] = json.loads(signature.to_metadata()[METADATA_KEY])
    wrong = misfit(session.get_inputs(), session.get_outputs(), signature)
    if wrong is not None:
        raise Refused(wrong)
    examination.loaded = OnnxModel(session, signature, examination.report["sha256"])


def _signature(examination: Examination, metadata: dict[str, str]) -> Signature:
    feed = examination.request.feed
    if METADATA_KEY not in metadata:
        raise examination.refuse(Code.NO_SIGNATURE, f"it carries no signature (no {METADATA_KEY!r} in its metadata_props)")
    try:
        signature = Signature.from_metadata(metadata)
    except SignatureMismatch as error:
        raise examination.refuse(Code.SIGNATURE_UNREADABLE, str(error)) from error
    if signature.name != feed.name:
        raise examination.refuse(Code.OTHER_PIPELINE, f"it was stamped for pipeline {signature.name!r}, this is pipeline {feed.name!r}")
    try:
        check_features(signature, feed.features, f"pipeline {feed.name!r}")
    except SignatureMismatch as error:
        raise examination.refuse(Code.FEATURES, str(error).removesuffix(f"; {RESTAMP}")) from error
    try:
        check_definitions(signature, feed)
    except SignatureMismatch as error:
        raise examination.refuse(Code.DEFINITIONS, str(error).removesuffix(f"; {RESTAMP}")) from error
    return signature


def _check_domains(examination: Examination, found: Structure) -> None:
    allowed = {"" if domain == "ai.onnx" else domain for domain in examination.limits.domains}
    for domain, name in sorted(found.functions):
        if not domain or domain.startswith(OF_RUNTIMES):
            said = f"function {name!r} of the file is of domain {domain or 'ai.onnx'!r}, where runtimes have operators of their own"
            raise examination.refuse(Code.DOMAIN, said, "give the functions of the file a domain of your own")
    for domain, operator in sorted(found.operators):
        if domain not in allowed and (domain, operator) not in found.functions:
            raise examination.refuse(Code.DOMAIN, f"operator {operator!r} is of domain {domain!r}; allowed are {_names(allowed)}")
    unused = {domain for domain, _ in found.operator_sets} - allowed - {domain for domain, _ in found.operators}
    if unused:
        examination.notes.append(f"it lists operator sets that no node uses: {', '.join(sorted(unused))}"[:500])


def _check_operators(examination: Examination, found: Structure) -> None:
    for domain, operator in sorted(found.operators):
        if operator == COMPILED:
            said = f"operator {operator} carries compiled parts for one kind of machine"
            raise examination.refuse(Code.OPERATOR, said, "export it without: from the model before it was compiled")
        if (domain, operator) in found.functions or operator in examination.limits.operators:
            continue
        if operator in GRAPHS_INSIDE:
            raise examination.refuse(Code.OPERATOR, f"operator {operator} runs graphs inside the graph, perhaps for ever")
        if operator in RANDOM:
            raise examination.refuse(Code.OPERATOR, f"operator {operator} gives another answer each time")


def _check_nesting(examination: Examination, found: Structure) -> None:
    limits = examination.limits
    if found.calls_deep > limits.calls_deep:
        said = f"its functions call one another {found.calls_deep:g} deep, allowed are {limits.calls_deep}"
        raise examination.refuse(Code.NESTING, said)
    if found.nodes > limits.nodes:
        said = f"it has {found.nodes:,.0f} nodes once its functions stand in the place of their calls, allowed are {limits.nodes:,}"
        raise examination.refuse(Code.TOO_LARGE, said)
    if found.graphs_deep > limits.graphs_deep:
        raise examination.refuse(Code.NESTING, f"its graphs stand in graphs {found.graphs_deep} deep, allowed are {limits.graphs_deep}")


def _counted(found: Structure) -> dict[str, int]:
    """The most frequent operators; a file may define any number of functions."""
    counted = sorted(found.operators.items(), key=lambda entry: (-entry[1], entry[0]))[:50]
    return {f"{domain}:{operator}"[:100] if domain else operator[:100]: count for (domain, operator), count in counted}


def _names(domains: Iterable[str]) -> str:
    return ", ".join(sorted(domain or "ai.onnx" for domain in domains))
