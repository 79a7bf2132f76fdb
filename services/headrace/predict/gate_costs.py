"""The gate's last step but the rehearsal: what a model costs in time and memory.

Judged is the least time of several calls, which says what the machine can do; the median, which also says how busy it was, is reported
beside it. Memory is what the resident set grew by, at its peak. Limit: systems without /proc tell no memory, so none is judged there.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from headrace.predict import onnx_model
from headrace.predict.attached_rows import Rows
from headrace.predict.gate_codes import Code
from headrace.predict.gate_examination import Examination
from headrace.predict.gate_limits import BATCH, LARGE_BATCH
from headrace.predict.onnx_model import OnnxModel

CALLS, FEWEST_CALLS, SPENT_NS = 50, 3, 200_000_000
"""Up to so many calls of a size, fewer once they took so long, but never less than these."""
MOST_EXPECTED_US = 2_000_000
"""A large batch that would take longer is left out."""

_STATUS, _PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def costs(examination: Examination) -> None:
    """It answers a row and a batch in the time allowed, and takes no more memory than allowed."""
    rows = answered(examination.model, examination.ordinary)
    limits = examination.limits
    times: dict[str, dict[str, float] | None] = {}
    examination.report["latency"] = times
    for size in (1, BATCH, LARGE_BATCH):
        if size == LARGE_BATCH and times[str(BATCH)]["least_us"] * LARGE_BATCH / BATCH > MOST_EXPECTED_US:  # type: ignore[index]
            times[str(size)] = None
            examination.notes.append(f"a batch of {size:,} rows was left out: it would take seconds")
            continue
        times[str(size)] = _timed(examination.model, np.resize(rows, (size, rows.shape[1])))
        least = times[str(size)]["least_us"]  # type: ignore[index]
        if size == 1 and least > limits.call_us:
            raise examination.refuse(Code.TOO_SLOW, f"a call for one row takes {least:,.0f} us, allowed are {limits.call_us:,.0f}")
        if size == BATCH and least / size > limits.row_us:
            said = f"a row takes {least / size:,.0f} us in a batch of {size}, allowed are {limits.row_us:,.0f}"
            raise examination.refuse(Code.TOO_SLOW, said)
    _check_memory(examination)


def answered(model: OnnxModel, rows: Rows) -> Rows:
    """Those of the rows for which it does not raise."""
    raised = {row for row, said in model.score(rows.astype(np.float64)).refused if said.startswith(onnx_model.RAISED)}
    return rows[[row not in raised for row in range(len(rows))]]


def resident_bytes() -> int | None:
    """The memory this process has in use; None where the system does not say."""
    return _told("VmRSS")


def forget_peak() -> None:
    """The peak of memory counts from now on, where the system can do that."""
    try:
        _PEAK.write_bytes(b"5")
    except OSError:
        return


def _check_memory(examination: Examination) -> None:
    peak, before = _told("VmHWM"), examination.before_bytes
    if peak is None or before is None:
        examination.report["memory"] = None
        examination.notes.append("this system tells no memory, so its use was not judged")
        return
    now = resident_bytes() or peak
    grown = max(peak - before, 0)
    examination.report["memory"] = {"held_bytes": max(now - before, 0), "peak_bytes": grown}
    allowed = examination.limits.model_bytes
    if grown > allowed:
        said = f"loading it and scoring {LARGE_BATCH:,} rows took {grown:,} bytes, allowed are {allowed:,}"
        raise examination.refuse(Code.TOO_MUCH_MEMORY, said)


def _timed(model: OnnxModel, rows: Rows) -> dict[str, float]:
    took: list[int] = []
    model.answer(rows)
    while len(took) < FEWEST_CALLS or (len(took) < CALLS and sum(took) < SPENT_NS):
        start = time.perf_counter_ns()
        model.answer(rows)
        took.append(time.perf_counter_ns() - start)
    least, median = min(took) / 1_000, float(np.median(took)) / 1_000
    return {"calls": len(took), "least_us": least, "median_us": median, "row_us": least / len(rows)}


def _told(field: str) -> int | None:
    try:
        text = _STATUS.read_text(encoding="ascii")
    except OSError:
        return None
    lines = [line.split() for line in text.splitlines()]
    return next((int(line[1]) * 1024 for line in lines if line and line[0] == f"{field}:"), None)
