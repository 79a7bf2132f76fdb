"""Why the gate refuses a model: a code that never changes, the first difference, and the fix (pure).

Codes stand in the order in which the gate looks. Programs may rely on them: a code is never given another meaning and never removed. What
each means and what usually helps is in `MEANINGS`, which `table_text()` prints.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class Code(StrEnum):
    """What is wrong with a model."""

    TOO_LARGE = "too_large"
    NOT_ONNX = "not_onnx"
    EXTERNAL_TENSOR = "external_tensor"
    DOMAIN = "domain"
    OPERATOR = "operator"
    NESTING = "nesting"
    CHECKER = "checker"
    LOAD = "load"
    NO_SIGNATURE = "no_signature"
    SIGNATURE_UNREADABLE = "signature_unreadable"
    OTHER_PIPELINE = "other_pipeline"
    FEATURES = "features"
    DEFINITIONS = "definitions"
    INPUT_COUNT = "input_count"
    INPUT_DTYPE = "input_dtype"
    INPUT_SHAPE = "input_shape"
    BATCH_AXIS = "batch_axis"
    OUTPUT_MISSING = "output_missing"
    OUTPUT_ZIPMAP = "output_zipmap"
    OUTPUT_DTYPE = "output_dtype"
    OUTPUT_CLASS = "output_class"
    ROWS_UNREADABLE = "rows_unreadable"
    OUTPUT_SHAPE = "output_shape"
    CALL = "call"
    NOT_FINITE = "not_finite"
    RANGE = "range"
    NO_GOLDEN_ROWS = "no_golden_rows"
    GOLDEN_DIFFERENCE = "golden_difference"
    NOT_REPEATABLE = "not_repeatable"
    ROWS_DEPEND = "rows_depend"
    TOO_SLOW = "too_slow"
    TOO_MUCH_MEMORY = "too_much_memory"
    REHEARSAL = "rehearsal"
    CPU_LIMIT = "cpu_limit"
    MEMORY_LIMIT = "memory_limit"
    DEADLINE = "deadline"
    CRASHED = "crashed"
    UNEXPECTED = "unexpected"


class Meaning(NamedTuple):
    """What a code says of a model, and what usually helps."""

    what: str
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One reason against a model: `said` is the first difference that was found, `fix` what to do about it."""

    code: Code
    said: str
    fix: str

    def __str__(self) -> str:
        return f"{self.said}; {self.fix} [{self.code}]"


class Refused(Exception):
    """Ends an examination at the first refusal; never leaves the gate."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


MOST_SAID = 500
"""Names come from the file, so a text may not grow with them."""

_FLOAT32 = "export it from a float32 sample, with one float32 input [None, features]"
_EXPORT_FREE = "export it with a free batch axis (None, or a name) in front, and no Reshape to a fixed number of rows"
_STAMP = "stamp it with `headrace.models.stamp()`"
_TRAIN = (
    "train it on the training frame of this definition (`training_frame`) and stamp it again with `headrace.models.stamp()`, "
    "or put the definition back"
)
_OUTPUT = "name the right one: `headrace.models.stamp(..., output=...)`"

MEANINGS: dict[Code, Meaning] = {
    Code.TOO_LARGE: Meaning(
        "the file has more bytes, or more nodes, than the gate takes", "export a smaller model: fewer trees, float32 weights"
    ),
    Code.NOT_ONNX: Meaning("the bytes are no ONNX file, or not all of one", "export it again and check that it was copied whole"),
    Code.EXTERNAL_TENSOR: Meaning("a tensor lives outside the file", "save it again with save_as_external_data=False"),
    Code.DOMAIN: Meaning(
        "an operator, or a function of the file, is of a domain that is not allowed",
        "export it with the operators of ONNX and ONNX-ML alone (no custom, contributed or fused ones)",
    ),
    Code.OPERATOR: Meaning(
        "it has an operator that may run for ever, or that gives another answer each time",
        "export it without; or allow the operator by name where you trust the file (GateLimits.operators)",
    ),
    Code.NESTING: Meaning("functions or graphs are nested too deep, or call themselves", "export it with its functions inlined"),
    Code.CHECKER: Meaning("onnx.checker finds it invalid", "export it again with a converter that fits your version of onnx"),
    Code.LOAD: Meaning("onnxruntime does not load it", "export it again with the ONNX operators of this onnxruntime"),
    Code.NO_SIGNATURE: Meaning("it carries no signature", _STAMP),
    Code.SIGNATURE_UNREADABLE: Meaning("its signature cannot be read", _STAMP),
    Code.OTHER_PIPELINE: Meaning("it was stamped for another pipeline", "register it for that pipeline, or stamp it for this one"),
    Code.FEATURES: Meaning("its features are not the pipeline's, in order", _TRAIN),
    Code.DEFINITIONS: Meaning("its features have the pipeline's names but other definitions", _TRAIN),
    Code.INPUT_COUNT: Meaning("it has not exactly one input", "export it with one float32 input [None, features]"),
    Code.INPUT_DTYPE: Meaning("its input is not float32", _FLOAT32),
    Code.INPUT_SHAPE: Meaning("its input is not [rows, features]", "export it with one float32 input [None, features]"),
    Code.BATCH_AXIS: Meaning("its input takes a fixed number of rows", _EXPORT_FREE),
    Code.OUTPUT_MISSING: Meaning("it has no output of the signature's name", _OUTPUT),
    Code.OUTPUT_ZIPMAP: Meaning(
        "its output is a list of dicts, made by ZipMap",
        "export without it, to_onnx(..., options={'zipmap': False}) or convert_lightgbm(..., zipmap=False)",
    ),
    Code.OUTPUT_DTYPE: Meaning("its output is not a tensor of numbers", _OUTPUT),
    Code.OUTPUT_CLASS: Meaning("its output has no column for the signature's class", "stamp it again with class_index="),
    Code.ROWS_UNREADABLE: Meaning(
        "the golden or background rows it carries cannot be read, or are not of its features",
        "stamp it again: `headrace.models.stamp(..., golden_rows=...)`",
    ),
    Code.OUTPUT_SHAPE: Meaning("it does not give one score a row", _EXPORT_FREE),
    Code.CALL: Meaning(
        "it raises for every ordinary row", "score its golden rows with onnxruntime where you exported it, and export it again"
    ),
    Code.NOT_FINITE: Meaning(
        "it gives NaN or infinity for every ordinary row",
        "look for a division by zero, a logarithm of zero, or weights that are NaN, and export it again",
    ),
    Code.RANGE: Meaning(
        "it is said to give probabilities, and gives numbers outside of 0 to 1",
        "export probabilities, not margins (raw scores), or stamp it with kind='value'",
    ),
    Code.NO_GOLDEN_ROWS: Meaning(
        "it carries too few golden rows, so nothing shows that the export answers as the trained model does",
        "stamp it with rows and what the trained model gives for them: `headrace.models.stamp(..., golden_rows=...)`",
    ),
    Code.GOLDEN_DIFFERENCE: Meaning(
        "it gives other scores for its golden rows than the trained model gave",
        "compare the order of columns, the scaler, and what is done with missing values at training and in the export",
    ),
    Code.NOT_REPEATABLE: Meaning(
        "it gives another answer for the same rows the next time", "export it without dropout, sampling and other random operators"
    ),
    Code.ROWS_DEPEND: Meaning(
        "the score of a row depends on the rows beside it", "look for a mean, softmax or normalisation over axis 0, and export it again"
    ),
    Code.TOO_SLOW: Meaning("it takes longer than the limits allow", "train a smaller one, or raise the limit (GateLimits.call_us, row_us)"),
    Code.TOO_MUCH_MEMORY: Meaning(
        "it takes more memory than the limits allow", "train a smaller one, or raise the limit (GateLimits.model_bytes)"
    ),
    Code.REHEARSAL: Meaning(
        "it gives no score for too many of the last real events",
        "train it on rows with missing values as events have them, or fill them inside the model",
    ),
    Code.CPU_LIMIT: Meaning(
        "it was ended at the limit of CPU time", "look for an endless loop; a large model may need a higher GateLimits.cpu_s"
    ),
    Code.MEMORY_LIMIT: Meaning(
        "it asked for more memory than the limit",
        "look for a tensor made at run time that is far too large; or raise GateLimits.address_bytes",
    ),
    Code.DEADLINE: Meaning("it was ended at the deadline", "run the gate again on a quieter machine, or raise GateLimits.wall_s"),
    Code.CRASHED: Meaning(
        "the process that examined it died",
        "do not load this file anywhere; export it again with current versions of onnx and the converter",
    ),
    Code.UNEXPECTED: Meaning(
        "the gate met something it has no code for", "export it again; if it stays so, report it together with this text"
    ),
}
"""For every code what it says and what usually helps, in the order in which the gate looks."""


def refusal(code: Code, said: str, fix: str | None = None) -> Refusal:
    """A refusal with the usual fix, or a better one; what comes from the file is cut to a readable length."""
    return Refusal(code=code, said=shortened(said), fix=shortened(fix if fix is not None else MEANINGS[code].fix))


def shortened(text: str) -> str:
    """One line of at most `MOST_SAID` characters, none of which a terminal would obey."""
    line = "".join(sign if sign.isprintable() else " " for sign in text[: MOST_SAID + 1])
    return line if len(line) <= MOST_SAID else line[: MOST_SAID - 1] + "…"


def table_text(width: int = 120) -> str:
    """All codes, what each means and what usually helps, in the order in which the gate looks."""
    first = max(len(code) for code in Code) + 2
    lines = []
    for code, (what, fix) in MEANINGS.items():
        told = f"{what}. {fix[0].upper()}{fix[1:]}."
        lines += textwrap.wrap(told, width, initial_indent=f"{code:{first}}", subsequent_indent=" " * first)
    return "\n".join(lines)
