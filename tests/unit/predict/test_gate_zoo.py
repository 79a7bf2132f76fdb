"""The gate and its zoo: no good model is refused, every broken one is, with its own code. In this process, as none of these ends one."""

from __future__ import annotations

import pytest

from headrace.predict.gate_codes import Code
from tests.unit.predict.zoo import ROOMY, Animal, codes, look
from tests.unit.predict.zoo_broken import BROKEN
from tests.unit.predict.zoo_good import GOOD

OF_DEATHS = {Code.CPU_LIMIT, Code.MEMORY_LIMIT, Code.DEADLINE, Code.CRASHED, Code.UNEXPECTED}
"""Shown in test_gate.py and test_gate_hostile.py."""


@pytest.mark.parametrize("animal", GOOD.animals, ids=str)
def test_good_model_is_not_refused(animal: Animal) -> None:
    """A good model passes every step, and its golden rows agree far closer than asked."""
    verdict = look(animal)
    assert verdict.refusals == ()
    assert verdict.report["golden"]["beyond"] == 0
    assert verdict.passed


@pytest.mark.parametrize("animal", BROKEN.animals, ids=str)
def test_broken_model_is_refused_with_its_code(animal: Animal) -> None:
    """A broken model is refused for the fault it has, with a text and a fix."""
    verdict = look(animal)
    assert codes(verdict) == [animal.code], verdict.refusals
    (refusal,) = verdict.refusals
    assert refusal.said
    assert refusal.fix
    assert not verdict.passed


def test_every_code_is_shown() -> None:
    """There is a broken model for every code but those of processes that died, which have tests of their own."""
    assert {animal.code for animal in BROKEN.animals} | OF_DEATHS == set(Code)


def test_the_zoo_is_large_enough() -> None:
    """At least 25 broken models by hand, each name once."""
    names = [animal.name for animal in (*BROKEN.animals, *GOOD.animals)]
    assert len(BROKEN.animals) >= 25
    assert len(set(names)) == len(names)
    assert all(animal.limits.file_bytes <= ROOMY.file_bytes for animal in BROKEN.animals)
