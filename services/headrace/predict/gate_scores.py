"""The gate's steps over what a model answers: ordinary rows, golden rows, hostile rows, rows alone and among others, real events.

Run by `gate_child`, in this order. A row is never told in a refusal, only its number and what came out.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from headrace.errors import DefinitionError, SignatureMismatch
from headrace.predict import attached_rows, onnx_model
from headrace.predict.attached_rows import MOST_BACKGROUND, MOST_GOLDEN, Rows
from headrace.predict.gate_codes import Code, shortened
from headrace.predict.gate_costs import answered
from headrace.predict.gate_examination import Examination, apart, plain
from headrace.predict.gate_limits import LARGE_BATCH
from headrace.predict.onnx_model import OnnxModel
from headrace.predict.score_spread import beside
from headrace.predict.signature import OutputKind
from headrace.types import Float64s

OF_EACH = 128
"""How many golden, background and rehearsed rows are called ordinary."""
ALONE = 64
"""How many rows are scored alone."""
MOST_MISSING = 256
"""How many features are taken away one at a time."""
EDGE = 1e-6
"""By how much float32 may miss 0 or 1."""

_HOSTILE: dict[str, float] = {"NaN": np.nan, "infinity": np.inf, "-infinity": -np.inf, "1e38": 1e38, "-1e38": -1e38, "0": 0.0}


def rows(examination: Examination) -> None:
    """The rows it carries can be read and are of its features."""
    metadata = examination.model.metadata
    width = len(examination.request.feed.features)
    try:
        examination.golden, background = attached_rows.golden_in(metadata), attached_rows.background_in(metadata)
    except SignatureMismatch as error:
        raise examination.refuse(Code.ROWS_UNREADABLE, str(error)) from error
    except Exception as error:
        # numpy reads the header of an array as Python; of one that was made to harm, anything may come.
        raise examination.refuse(Code.ROWS_UNREADABLE, f"the rows it carries cannot be read ({type(error).__name__})") from error
    golden = None if examination.golden is None else examination.golden[0]
    for name, found, most in (("golden", golden, MOST_GOLDEN), ("background", background, MOST_BACKGROUND)):
        if found is not None and (found.shape[1] != width or len(found) > most):
            said = f"it carries {len(found)} {name} rows of {found.shape[1]} features, for {width} features; {most:,} rows at most"
            raise examination.refuse(Code.ROWS_UNREADABLE, said)
    with np.errstate(over="ignore"):
        real = None if examination.request.rehearsal is None else examination.request.rehearsal.astype(np.float32)
    parts = {"golden": golden, "background": background, "rehearsal": real}
    kept = {name: part[:OF_EACH] for name, part in parts.items() if part is not None and len(part)}
    if not kept:
        examination.notes.append("no ordinary rows were at hand (golden, background, rehearsal), so some were made up")
        kept = {"made up": _made_up(width)}
    examination.ordinary = np.concatenate(list(kept.values()))
    examination.report["ordinary"] = {name: len(part) for name, part in kept.items()}


def call(examination: Examination) -> None:
    """It answers ordinary rows, one score each, some of them numbers, and probabilities between 0 and 1."""
    given = examination.ordinary
    try:
        scores = examination.model.answer(given)
    except onnx_model.Unusable as error:
        raise examination.refuse(Code.OUTPUT_SHAPE, str(error)) from error
    except onnx_model.FAILURES as error:
        if onnx_model.out_of_memory(error):
            raise examination.refuse(Code.MEMORY_LIMIT, f"calling it: {onnx_model.without_values(error)}") from error
        found = examination.model.score(given.astype(np.float64))
        if len(found.refused) == len(given):
            raise examination.refuse(Code.CALL, f"for each of {len(given)} ordinary rows: {found.refused[0][1]}") from error
        scores = found.scores
    there = scores[np.isfinite(scores)]
    if not len(there):
        raise examination.refuse(Code.NOT_FINITE, f"it gives {_word(scores[0])} for each of {len(given)} ordinary rows")
    if examination.model.signature.kind is OutputKind.PROBABILITY:
        outside = np.flatnonzero((scores < -EDGE) | (scores > 1 + EDGE))
        if len(outside):
            said = f"{len(outside)} of {len(given)} ordinary rows; the first, row {outside[0]}, has score {scores[outside[0]]:.6g}"
            raise examination.refuse(Code.RANGE, f"it is said to give probabilities, and gives others: {said}")
    if len(there) > 1 and np.ptp(there) == 0:
        examination.notes.append(f"it gives {there[0]:.6g} for every ordinary row: are the columns and the scaler the right ones?")


def golden(examination: Examination) -> None:
    """Its golden rows have the scores that the trained model gave."""
    limits = examination.limits
    found = (np.empty((0, 0), dtype=np.float32), np.empty(0)) if examination.golden is None else examination.golden
    given, wanted = found
    if len(given) < limits.golden_rows:
        raise examination.refuse(Code.NO_GOLDEN_ROWS, f"it carries {len(given)} golden rows, wanted are {limits.golden_rows}")
    if not len(given):
        examination.report["golden"] = None
        return
    scores = examination.model.score(given.astype(np.float64)).scores
    scale = examination.scale(wanted)
    off = apart(scores, wanted)
    worst = int(np.argmax(off))
    beyond = int((off > limits.golden_tolerance * scale).sum())
    examination.report["golden"] = {
        "rows": len(given),
        "worst": plain(off[worst]),
        "worst_row": worst,
        "beyond": beyond,
        "tolerance": limits.golden_tolerance * scale,
    }
    if beyond > limits.golden_share * len(given) or off[worst] > limits.golden_worst * scale:
        first = int(np.argmax(off > limits.golden_tolerance * scale))
        said = f"golden row {first}: the trained model gave {_word(wanted[first])}, this file gives {_word(scores[first])}"
        allowed = limits.golden_tolerance * scale
        more = f"{beyond} of {len(given)} rows are off by more than {allowed:.3g}, the worst, row {worst}, by {off[worst]:.3g}"
        raise examination.refuse(Code.GOLDEN_DIFFERENCE, f"{said}; {more}")


def hostile(examination: Examination) -> None:
    """It survives NaN, infinity, huge numbers and zeros; what it makes of them, and of a missing feature, is told."""
    model, width = examination.model, len(examination.request.feed.features)
    made = np.array([[value] * width for value in _HOSTILE.values()], dtype=np.float32)
    examination.report["hostile"] = dict(zip(_HOSTILE, _told(model, made), strict=True))
    missing = np.repeat(examination.ordinary[:1], min(width, MOST_MISSING), axis=0)
    np.fill_diagonal(missing, np.nan)
    answers = [answer if isinstance(answer, str) else "number" for answer in _told(model, missing)]
    unscored = [examination.request.feed.features[place] for place, answer in enumerate(answers) if answer != "number"]
    counts = Counter(answers)
    examination.report["one_missing"] = {"answers": dict(counts), "no_score_without": unscored[:20]}
    if unscored:
        examination.notes.append(f"it gives no score where one of {len(unscored)} features has no value, {unscored[0]!r} the first")
    examination.beside = answered(model, np.concatenate((made, missing[:8])))


def alone(examination: Examination) -> None:
    """A row has the same score every time, alone, in another order, and beside rows of any kind."""
    model = examination.model
    given = answered(model, examination.ordinary)[:ALONE]
    scores = model.answer(given)
    again = model.answer(given)
    if scores.tobytes() != again.tobytes():
        first = int(np.argmax(apart(scores, again) > 0))
        said = f"ordinary row {first} has score {_word(scores[first])}, and {_word(again[first])} the next time"
        raise examination.refuse(Code.NOT_REPEATABLE, said)
    scale, told = examination.scale(scores), dict[str, Any]()
    examination.report["row_alone"] = told
    hostile_rows = examination.beside
    between = np.concatenate((hostile_rows, given, hostile_rows))  # a running sum shows only what stands in front
    others = {
        "alone": np.concatenate([model.answer(given[row : row + 1]) for row in range(len(given))]),
        "in another order": model.answer(given[::-1])[::-1],
        "beside hostile rows": model.answer(between)[len(hostile_rows) :][: len(given)],
    }
    for how, found in others.items():
        off = apart(scores, found)
        worst = int(np.argmax(off))
        told[how] = {"rows": len(given), "same_bits": int((off == 0).sum()), "worst": plain(off[worst])}
        if off[worst] > examination.limits.row_tolerance * scale:
            said = f"ordinary row {worst} has score {_word(scores[worst])} among {len(given)} rows, and {_word(found[worst])} {how}"
            raise examination.refuse(Code.ROWS_DEPEND, said)


def rehearse(examination: Examination) -> None:
    """It has a score for most of the last real events; how its scores are spread is told."""
    real = examination.request.rehearsal
    if real is None or not len(real):
        examination.report["rehearsal"] = None
        return
    scores, refused = _score_all(examination.model, real)
    examination.rehearsed = scores
    examination.report["rehearsal"] = beside(examination.model.signature.kind, scores)
    if len(refused) > examination.limits.refused_share * len(real):
        said = f"{len(refused):,} of the last {len(real):,} events have no score; the first, row {refused[0][0]}: {refused[0][1]}"
        raise examination.refuse(Code.REHEARSAL, said)
    there = scores[np.isfinite(scores)]
    if len(there) > 1 and np.ptp(there) == 0:
        examination.notes.append(f"it gives {there[0]:.6g} for every one of the last {len(real):,} events")


def champion(examination: Examination) -> None:
    """The champion's scores for the same events stand beside; that it cannot be scored is no fault of the candidate's."""
    content = examination.request.champion
    if content is None or examination.rehearsed is None or examination.request.rehearsal is None:
        return
    try:
        loaded = OnnxModel.load(content, examination.request.feed.features)
        scores, _ = _score_all(loaded, examination.request.rehearsal)
    except (DefinitionError, MemoryError) as error:
        examination.notes.append(shortened(f"the champion could not be scored beside it: {error}"))
        return
    told = beside(examination.model.signature.kind, examination.rehearsed, scores)
    examination.report["rehearsal"] = {**told, "champion_version": loaded.version[:100]}


def _score_all(model: OnnxModel, real: Float64s) -> tuple[Float64s, list[tuple[int, str]]]:
    """In batches as the worker makes them."""
    scores, refused = [np.empty(0)], list[tuple[int, str]]()
    for start in range(0, len(real), LARGE_BATCH):
        found = model.score(real[start : start + LARGE_BATCH])
        scores.append(found.scores)
        refused += [(start + row, said) for row, said in found.refused]
    return np.concatenate(scores), refused


def _told(model: OnnxModel, given: Rows) -> list[float | str]:
    """What it gives for each: a number, NaN, infinity, or that it raised."""
    found = model.score(given.astype(np.float64))
    said = {row: shortened(text.removeprefix(onnx_model.GAVE)) for row, text in found.refused}
    return [said.get(row, float(score)) for row, score in enumerate(found.scores)]


def _made_up(width: int) -> Rows:
    draw = np.random.default_rng(width)
    made = np.concatenate((np.zeros((1, width)), np.ones((1, width)), draw.random((6, width)), draw.normal(size=(8, width))))
    return made.astype(np.float32)


def _word(score: float) -> str:
    return f"{score:.6g}" if np.isfinite(score) else "NaN" if np.isnan(score) else "infinity"
