"""Codes of refusals: whole, stable, readable; and what a step that raises becomes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as runtime

from headrace.predict import gate_child, onnx_model
from headrace.predict.gate_codes import MEANINGS, MOST_SAID, Code, refusal, table_text
from headrace.predict.gate_examination import Examination
from tests.unit.predict.zoo import Animal, codes, look
from tests.unit.predict.zoo_good import linear

STABLE = (
    "too_large not_onnx external_tensor domain operator nesting checker load no_signature signature_unreadable other_pipeline features "
    "definitions input_count input_dtype input_shape batch_axis output_missing output_zipmap output_dtype output_class rows_unreadable "
    "output_shape call not_finite range no_golden_rows golden_difference not_repeatable rows_depend too_slow too_much_memory rehearsal "
    "cpu_limit memory_limit deadline crashed unexpected"
)


def test_codes_never_change() -> None:
    """Programs rely on these; a new one is added here, none is taken away."""
    assert [code.value for code in Code] == STABLE.split()


def test_every_code_has_a_meaning_and_a_fix() -> None:
    """The table is whole, in the order of the codes, and its sentences end alike."""
    assert list(MEANINGS) == list(Code)
    for what, fix in MEANINGS.values():
        assert not what.endswith(".")
        assert not fix.endswith(".")


def test_table_is_printed_for_people() -> None:
    """The table as text has a paragraph a code and fits a terminal."""
    lines = table_text(100).splitlines()
    assert max(len(line) for line in lines) <= 100
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == [code.value for code in Code]


def test_text_from_the_file_is_cut_and_harmless() -> None:
    """Names in a file can neither flood nor steer a terminal."""
    found = refusal(Code.CHECKER, "\x1b[2J" + "x" * 10_000 + "\n")
    assert len(found.said) == MOST_SAID
    assert found.said.isprintable()
    assert str(found).endswith("; export it again with a converter that fits your version of onnx [checker]")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError(), Code.MEMORY_LIMIT),
        (runtime.Fail("Failed to allocate memory for requested buffer of size 4"), Code.MEMORY_LIMIT),
        (runtime.RuntimeException("std::bad_alloc"), Code.MEMORY_LIMIT),
        (runtime.InvalidArgument("index 12345 is out of bounds"), Code.CALL),
        (onnx_model.Unusable("the model gave shape [1] for 2 rows"), Code.OUTPUT_SHAPE),
        (ZeroDivisionError("12345"), Code.UNEXPECTED),
    ],
)
def test_whatever_a_step_raises_is_a_refusal(error: Exception, code: Code, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that no step foresaw refuses the file, and its text, which may hold values of rows, is not told."""

    def raising(_: Examination) -> None:
        raise error

    steps: tuple[tuple[str, Callable[[Examination], None]], ...] = (("thinking", raising),)
    monkeypatch.setattr(gate_child, "STEPS", steps)
    verdict = look(Animal("linear", linear))
    assert codes(verdict) == [code]
    assert verdict.refusals[0].said.startswith("thinking: ")
    assert "12345" not in verdict.refusals[0].said
