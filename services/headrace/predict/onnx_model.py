"""The .onnx running: one call per batch, one score per row or the reason why there is none.

A model that cannot be used at all is a `DefinitionError` when it is loaded. From then on nothing raises: a row for which the model
gives NaN or infinity, or an answer of the wrong shape, or raises, is refused alone. To find such rows a batch that raised is halved
until they are found, so one bad row in a batch of n costs about 2 log2(n) calls more.

Same row, same bits: libraries of kernels differ in the last bits between one row and many, so a batch of one is padded to two.

Limits: one float32 input [rows, features]; NaN goes in as it is (trees know what to do with it, linear models answer NaN).
The file is never read by the runtime: it gets bytes, and tensors kept outside of them are refused (by looking, where the `onnx`
package is installed, and by pointing the runtime at a folder that cannot exist, always).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as runtime

from headrace.errors import DefinitionError
from headrace.predict import onnx_file
from headrace.predict.scores import Explains, Scores
from headrace.predict.signature import Signature, check_features
from headrace.types import Float64s

FAILURES: tuple[type[Exception], ...] = (
    runtime.DeviceReset,
    runtime.EPFail,
    runtime.EngineError,
    runtime.Fail,
    runtime.InvalidArgument,
    runtime.InvalidGraph,
    runtime.InvalidProtobuf,
    runtime.ModelLoadCanceled,
    runtime.ModelLoaded,
    runtime.ModelRequiresCompilation,
    runtime.NoModel,
    runtime.NoSuchFile,
    runtime.NotFound,
    runtime.NotImplemented,
    runtime.RuntimeException,
)
"""Every exception of onnxruntime: at load each becomes a `DefinitionError`, at a call each refuses rows."""

NO_FOLDER = os.devnull
"""Where the runtime is told to look for tensors outside the file: a folder that cannot exist."""

_NODE = re.compile(r"running (\w+) node\. Name:'([^']*)'")


class _Unusable(Exception):
    """A call gave something that is no column of scores; the text says what, without any value."""


FAILURES_OF_A_CALL: tuple[type[Exception], ...] = (_Unusable, *FAILURES)


class OnnxModel:
    """One model version, ready to score on the calling thread. Not to be used from two threads at once."""

    def __init__(self, session: onnxruntime.InferenceSession, signature: Signature, sha256: str) -> None:
        self.signature = signature
        self.name = signature.name
        self.version = signature.version
        self.sha256 = sha256
        self._session = session
        self._input = session.get_inputs()[0].name
        self._outputs = [signature.output]
        self.metadata: dict[str, str] = session.get_modelmeta().custom_metadata_map
        self.explainer: Explains | None = None
        """What explains its scores, where that was asked for (`explain.load_explained`)."""

    @classmethod
    def load(cls, model: str | Path | bytes, feature_names: Sequence[str]) -> OnnxModel:
        """Load a stamped model that will be fed with `feature_names` in that order, and warm it.

        Raises `SignatureMismatch` when there is no signature or its features are others, `DefinitionError` when the model cannot be used.
        """
        what = "model" if isinstance(model, bytes) else f"model {str(model)!r}"
        content = model if isinstance(model, bytes) else _read(Path(model), what)
        session = _session(content, what)
        signature = Signature.from_metadata(session.get_modelmeta().custom_metadata_map)
        what = f"model {signature.name!r} version {signature.version}"
        check_features(signature, feature_names, "the features it will be fed with")
        _check_input(session, signature, what)
        _check_output(session, signature, what)
        loaded = cls(session, signature, hashlib.sha256(content).hexdigest())
        loaded.score(np.zeros((2, len(signature.features))))
        return loaded

    def score(self, values: Float64s) -> Scores:
        """Score float64 [rows, features]. Never raises for what is in the rows, nor for what the model makes of them."""
        scores = np.full(len(values), np.nan)
        refused: list[tuple[int, str]] = []
        with np.errstate(over="ignore"):
            rows = values.astype(np.float32)
        self._score_between(rows, 0, len(rows), scores, refused)
        known = {row for row, _ in refused}
        unusable = [row for row in np.flatnonzero(~np.isfinite(scores)).tolist() if row not in known]
        refused.extend((row, "the model gave " + ("NaN" if np.isnan(scores[row]) else "infinity")) for row in unusable)
        scores[unusable] = np.nan
        return Scores(scores=scores, refused=sorted(refused))

    def _score_between(self, rows: NDArray[np.float32], start: int, end: int, scores: Float64s, refused: list[tuple[int, str]]) -> None:
        if start == end:
            return
        try:
            scores[start:end] = self._call(rows[start:end])
        except FAILURES_OF_A_CALL as error:
            if end - start == 1:
                refused.append((start, _said(error)))
                return
            middle = (start + end) // 2
            self._score_between(rows, start, middle, scores, refused)
            self._score_between(rows, middle, end, scores, refused)

    def _call(self, rows: NDArray[np.float32]) -> Float64s:
        count = len(rows)
        if count == 1:
            rows = np.concatenate((rows, rows))
        (given,) = self._session.run(self._outputs, {self._input: rows})
        if not isinstance(given, np.ndarray) or given.dtype.kind not in "fiub":
            raise _Unusable("the model's output is not a tensor of numbers")
        match given.shape:
            case (n,) if n == len(rows):
                column = given
            case (n, 1) if n == len(rows):
                column = given[:, 0]
            case (n, classes) if n == len(rows) and 0 <= self.signature.class_index < classes:
                column = given[:, self.signature.class_index]
            case shape:
                raise _Unusable(f"the model gave shape {list(shape)} for {len(rows)} rows")
        return column[:count].astype(np.float64)


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DefinitionError(f"{what} cannot be read ({error.strerror}): check the path in Pipeline(model=...)") from error


def _session(content: bytes, what: str) -> onnxruntime.InferenceSession:
    if onnx_file.installed():
        outside = onnx_file.external_tensors(content)
        if outside:
            raise DefinitionError(f"{what} keeps tensor {outside[0]!r} outside the file: save it again with save_as_external_data=False")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", NO_FOLDER)
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except FAILURES as error:
        said = str(error).strip().splitlines()[0]
        raise DefinitionError(f"{what} cannot be loaded ({said}): export it again with the ONNX operators of this onnxruntime") from error


def _check_input(session: onnxruntime.InferenceSession, signature: Signature, what: str) -> None:
    inputs = session.get_inputs()
    width = len(signature.features)
    wanted = f"one float32 input [None, {width}]"
    if len(inputs) != 1:
        raise DefinitionError(f"{what} has {len(inputs)} inputs ({', '.join(entry.name for entry in inputs)}): export it with {wanted}")
    (given,) = inputs
    if given.type != "tensor(float)":
        raise DefinitionError(f"{what}: input {given.name!r} is {given.type}: export it from a float32 sample, with {wanted}")
    match given.shape:
        case [str() | None, columns] if columns == width or not isinstance(columns, int):
            return
        case shape:
            raise DefinitionError(f"{what}: input {given.name!r} has shape {shape} for {width} features: export it with {wanted}")


def _check_output(session: onnxruntime.InferenceSession, signature: Signature, what: str) -> None:
    outputs = {output.name: output for output in session.get_outputs()}
    found = outputs.get(signature.output)
    if found is None:
        raise DefinitionError(f"{what} has no output {signature.output!r}, only {', '.join(outputs)}: stamp it again with output=")
    if "map" in found.type:
        raise DefinitionError(
            f"{what}: output {signature.output!r} is {found.type}, made by ZipMap: export without it, "
            "to_onnx(..., options={'zipmap': False}) or convert_lightgbm(..., zipmap=False)"
        )
    if found.type not in ("tensor(float)", "tensor(double)", "tensor(int64)", "tensor(int32)"):
        raise DefinitionError(f"{what}: output {signature.output!r} is {found.type}, not a tensor of numbers: stamp it again with output=")
    match found.shape:
        case [_, int(columns)] if columns > 1 and not 0 <= signature.class_index < columns:
            raise DefinitionError(
                f"{what}: output {signature.output!r} has {columns} columns, class_index is {signature.class_index}: "
                "stamp it again with class_index="
            )


def _said(error: Exception) -> str:
    """What happened, without anything that could be a value of the row."""
    if isinstance(error, _Unusable):
        return str(error)
    node = _NODE.search(str(error))
    where = f" in its {node[1]} node {node[2]!r}" if node else ""
    return f"the model raised {type(error).__name__}{where}"
