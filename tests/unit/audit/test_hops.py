"""The audit of pipelines of several entities: each stage is told again from what it reads."""

from __future__ import annotations

import random
from functools import partial
from unittest.mock import patch

import numpy as np
import pytest

from headrace.audit.auditing import Audit
from headrace.audit.findings import Findings
from headrace.features import watermark
from headrace.memory_log import MemoryReader
from headrace.testing import Driver
from headrace.types import Int64s
from headrace.verify.subject import Subject
from tests.unit.flying import app, fly, started


def audited(driver: Driver, share: float = 1.0) -> Findings:
    """What an audit of a driver's log finds."""
    subject = Subject(
        reader=lambda: MemoryReader(driver.log),
        written_end=driver.log.end_offset,
        committed=partial(driver.log.committed, app.name),
        topic_id=driver.log.topic_id,
        store=None,
        now_ms=driver.clock.now_ms,
        pause=driver.clock.advance,
    )
    return Audit(app, subject, share=share).more()


@pytest.fixture(scope="module")
def run() -> Driver:
    """A run of 300 flights, some late, with a crash."""
    draw = random.Random(3)
    driver = started(draw)
    fly(driver, draw, 150)
    driver.crash(before="apply")
    driver.run()
    fly(driver, draw, 150)
    driver.run()
    return driver


def test_a_clean_run_is_clean_at_every_stage(run: Driver) -> None:
    """Aircraft, airports and carriers are all told again, and nothing differs."""
    found = audited(run)
    assert list(found.pipelines) == ["late by tail", "late by origin", "late"]
    for one in found.pipelines.values():
        assert (one.wrong, dict(one.mismatches)) == (0, {})
        assert one.vectors == len(run.results("late"))
        assert set(one.not_compared) <= {"events without a prediction"}  # those that the model refused
    assert found.differences == []


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_a_sample_compares_some_of_each(run: Driver, share: float) -> None:
    """A part of the entities of each stage is compared, and what is not of it waits for nobody."""
    whole, some = audited(run), audited(run, share)
    for name, one in some.pipelines.items():
        assert one.wrong == 0
        assert one.vectors <= whole.pipelines[name].vectors
    assert sum(one.vectors for one in some.pipelines.values()) < sum(one.vectors for one in whole.pipelines.values())


def test_a_mistake_of_one_stage_is_named_there() -> None:
    """A stage that takes events as late that are not is told apart from the others."""
    draw = random.Random(3)
    driver = started(draw)
    least = watermark._least

    def foremost(feeders: Int64s, marks_ms: Int64s, parts: Int64s) -> Int64s:
        found = least(feeders, marks_ms, parts)
        return np.full_like(found, parts.max() + 3_600_000)

    with patch.object(watermark, "_least", foremost):
        fly(driver, draw, 200)
        driver.run()
    found = audited(driver)
    assert found.pipelines["late by tail"].wrong == 0
    assert found.pipelines["late by origin"].wrong > 0
    assert {one.split(".")[0] for one in found.pipelines["late by origin"].mismatches} == {"airport"}
