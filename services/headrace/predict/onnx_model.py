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
from headrace.predict.tensors import misfit
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

GAVE, RAISED = "the model gave ", "the model raised "
"""How the reasons of refused rows begin."""

_NO_MEMORY = ("Failed to allocate memory", "bad_alloc", "bad allocation")
_NODE = re.compile(r"running (\w+) node\. Name:'([^']*)'")


class Unusable(Exception):
    """A call gave something that is no column of scores; the text says what, without any value."""


FAILURES_OF_A_CALL: tuple[type[Exception], ...] = (Unusable, *FAILURES)


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
        self.explainer: Explains | None = None
        """What explains its scores, where that was asked for (`explain.load_explained`)."""

    @classmethod
    def load(cls, model: str | Path | bytes, feature_names: Sequence[str]) -> OnnxModel:
        """Load a stamped model that will be fed with `feature_names` in that order, and warm it.

        Raises `SignatureMismatch` when there is no signature or its features are others, `DefinitionError` when the model cannot be used.
        """
        what = "model" if isinstance(model, bytes) else f"model {str(model)!r}"
        content = model if isinstance(model, bytes) else _read(Path(model), what)
        session = open_session(content, what)
        try:
            signature = Signature.from_metadata(session.get_modelmeta().custom_metadata_map)
        except UnicodeDecodeError as error:
            raise DefinitionError(f"{what}: its metadata_props are no text ({error.reason}): stamp it again") from error
        check_features(signature, feature_names, "the features it will be fed with")
        wrong = misfit(session.get_inputs(), session.get_outputs(), signature)
        if wrong is not None:
            raise DefinitionError(f"model {signature.name!r} version {signature.version}: {wrong.said}; {wrong.fix}")
        loaded = cls(session, signature, hashlib.sha256(content).hexdigest())
        loaded.score(np.zeros((2, len(signature.features))))
        return loaded

    @property
    def metadata(self) -> dict[str, str]:
        """The file's `metadata_props`."""
        return dict(self._session.get_modelmeta().custom_metadata_map)

    def score(self, values: Float64s) -> Scores:
        """Score float64 [rows, features]. Never raises for what is in the rows, nor for what the model makes of them."""
        scores = np.full(len(values), np.nan)
        refused: list[tuple[int, str]] = []
        with np.errstate(over="ignore"):
            rows = values.astype(np.float32)
        self._score_between(rows, 0, len(rows), scores, refused)
        known = {row for row, _ in refused}
        unusable = [row for row in np.flatnonzero(~np.isfinite(scores)).tolist() if row not in known]
        refused.extend((row, GAVE + ("NaN" if np.isnan(scores[row]) else "infinity")) for row in unusable)
        scores[unusable] = np.nan
        return Scores(scores=scores, refused=sorted(refused))

    def _score_between(self, rows: NDArray[np.float32], start: int, end: int, scores: Float64s, refused: list[tuple[int, str]]) -> None:
        if start == end:
            return
        try:
            scores[start:end] = self.answer(rows[start:end])
        except FAILURES_OF_A_CALL as error:
            if end - start == 1:
                refused.append((start, without_values(error)))
                return
            middle = (start + end) // 2
            self._score_between(rows, start, middle, scores, refused)
            self._score_between(rows, middle, end, scores, refused)

    def answer(self, rows: NDArray[np.float32]) -> Float64s:
        """What it gives for float32 rows, whatever that is; raises `FAILURES_OF_A_CALL`. `score` is what never raises."""
        count = len(rows)
        if count == 1:
            rows = np.concatenate((rows, rows))
        (given,) = self._session.run(self._outputs, {self._input: rows})
        if not isinstance(given, np.ndarray) or given.dtype.kind not in "fiub":
            raise Unusable("the model's output is not a tensor of numbers")
        match given.shape:
            case (n,) if n == len(rows):
                column = given
            case (n, 1) if n == len(rows):
                column = given[:, 0]
            case (n, classes) if n == len(rows) and 0 <= self.signature.class_index < classes:
                column = given[:, self.signature.class_index]
            case shape:
                raise Unusable(f"{GAVE}shape {list(shape)} for {len(rows)} rows")
        return column[:count].astype(np.float64)


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DefinitionError(f"{what} cannot be read ({error.strerror}): check the path in Pipeline(model=...)") from error


def open_session(content: bytes, what: str) -> onnxruntime.InferenceSession:
    """The runtime with the model in it, `what` in errors; nothing outside its bytes is read. Raises `DefinitionError`."""
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
        said = f"{what} cannot be loaded ({first_line(error)})"
        raise DefinitionError(f"{said}: export it again with the ONNX operators of this onnxruntime") from error


def without_values(error: Exception) -> str:
    """What happened, without anything that could be a value of the row."""
    if isinstance(error, Unusable):
        return str(error)
    node = _NODE.search(str(error))
    where = f" in its {node[1]} node {node[2]!r}" if node else ""
    return f"{RAISED}{type(error).__name__}{where}"


def out_of_memory(error: BaseException) -> bool:
    """Whether a failure of the runtime says that it was given no memory."""
    return any(words in str(error) for words in _NO_MEMORY)


def first_line(error: BaseException) -> str:
    """What the runtime says, without the lines that follow; of a call it may hold values of the rows, see `without_values`."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
