"""T70: hostile files, each examined in a process of its own, each stopped with its code, by refusal or by the limits of that process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from headrace.predict.gate import examine
from headrace.predict.gate_codes import Code
from tests.unit.predict import hostile
from tests.unit.predict.hostile import HOSTILE, TIGHT, Hostile
from tests.unit.predict.zoo import PIPELINE, codes
from tests.unit.predict.zoo_good import ROWS


@pytest.mark.parametrize("case", HOSTILE, ids=str)
def test_hostile_file_is_stopped_with_its_code(case: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a file tries, the answer is a refusal with its code, and what it wanted lies beside us."""
    monkeypatch.chdir(tmp_path)
    verdict = examine(case.build(tmp_path), PIPELINE, limits=case.limits)
    assert codes(verdict) == [case.code], verdict.refusals


def test_there_are_sixteen() -> None:
    """The table of hostile files is whole."""
    assert len({case.name for case in HOSTILE}) == 16


def test_endless_loop_that_was_allowed_ends_at_the_limit_of_cpu_time() -> None:
    """A Loop somebody allowed is ended by the kernel, and the refusal says what it was doing."""
    limits = replace(TIGHT, operators=("Loop",))
    verdict = examine(hostile.endless_loop(Path()), PIPELINE, limits=limits)
    assert codes(verdict) == [Code.CPU_LIMIT]
    assert verdict.refusals[0].said == "while scoring ordinary rows it had used up its 1 s of CPU time"
    assert verdict.report["died"] == "scoring ordinary rows"


def test_tensor_that_the_machine_would_give_is_stopped_by_our_limit() -> None:
    """A tensor of 1.2 GB fits the machine and not the address space it is examined in."""
    model = hostile.big_tensor(Path(), floats=300_000_000)
    verdict = examine(model, PIPELINE, limits=replace(TIGHT, address_bytes=1 << 30))
    assert codes(verdict) == [Code.MEMORY_LIMIT]


def test_parsing_that_takes_all_memory_is_a_refusal() -> None:
    """A million empty nodes in two megabytes end the process in the parser, which may die of it as it likes, and not the caller."""
    one = b"\x0a\x00"  # graph.node, empty
    body = one * 1_000_000
    model = b"\x08\x09\x3a" + _varint(len(body)) + body
    verdict = examine(model, PIPELINE, limits=replace(TIGHT, address_bytes=260 << 20))
    (code,) = codes(verdict)
    assert code in {Code.MEMORY_LIMIT, Code.CRASHED, Code.NOT_ONNX}, verdict.refusals


def test_without_the_gate_a_relative_name_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Why tensors outside are refused by parsing: the checker passes such a file, and the runtime reads what lies where it works."""
    monkeypatch.chdir(tmp_path)
    model = hostile.relative(tmp_path)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (scores,) = session.run(["score"], {"X": ROWS})
    assert np.isfinite(scores).all()


def _varint(number: int) -> bytes:
    """As protobuf writes lengths."""
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])
