"""The audit of what is looked up: the twins tell the state that was read, where each prediction says that it read."""

from __future__ import annotations

import random
from functools import partial
from unittest.mock import patch

import numpy as np
import pytest

from headrace.audit.auditing import Audit
from headrace.audit.findings import Findings
from headrace.features.reader import StateReader
from headrace.memory_log import MemoryReader
from headrace.testing import Driver
from headrace.types import Bools, Float64s
from headrace.verify.subject import Subject
from tests.unit.boarding import airport, app, started, traffic

NAMES = ["late looking up airport", "late looking up aircraft", "late"]


def auditing(driver: Driver, share: float = 1.0) -> Audit:
    """An audit of a driver's log."""
    subject = Subject(
        reader=lambda: MemoryReader(driver.log),
        written_end=driver.log.end_offset,
        committed=partial(driver.log.committed, app.name),
        topic_id=driver.log.topic_id,
        store=None,
        now_ms=driver.clock.now_ms,
        pause=driver.clock.advance,
    )
    return Audit(app, subject, share=share)


def compared(findings: Findings, name: str) -> tuple[int, int]:
    """How many vectors were compared, and how many are wrong."""
    found = findings.pipelines[name]
    return found.vectors, found.wrong


def test_a_clean_run_is_clean(seed: int) -> None:
    """What was looked up is told again, in rounds too, and nothing differs; nothing is passed over without a word."""
    draw = random.Random(seed)
    driver = started()
    traffic(driver, draw, 150)
    driver.crash(before="apply")
    driver.run()
    audit = auditing(driver)
    audit.more()
    traffic(driver, draw, 150)
    driver.run()
    found = audit.more()
    assert sorted(found.pipelines) == sorted(NAMES)
    assert found.differences == []
    predictions = len(driver.results("late"))
    for name in NAMES[:2]:
        vectors, wrong = compared(found, name)
        assert wrong == 0
        assert vectors > 30
        others = sum(found.pipelines[name].not_compared.values())
        assert predictions <= vectors + others + predictions // 8, "events without an airport ask nothing"


def test_a_sample_is_a_part(seed: int) -> None:
    """Only those who ask about somebody in the sample are compared."""
    draw = random.Random(seed)
    driver = started()
    traffic(driver, draw, 300)
    driver.run()
    all_of_it, part = auditing(driver).more(), auditing(driver, share=0.4).more()
    assert 0 < compared(part, "late looking up aircraft")[0] < compared(all_of_it, "late looking up aircraft")[0]
    assert part.differences == []


def test_a_wrong_value_is_found(seed: int) -> None:
    """A mean of the airport that is served a little too large is found in its feature and in no other."""
    at = StateReader.vectors_at
    column = airport.feature_names.index("mean_delay_1h")

    def wrong(self: StateReader, *asked: object) -> tuple[Float64s, Bools]:
        values, ahead = at(self, *asked)  # type: ignore[arg-type]
        if self.view is airport:
            values[:, column] *= 1.0 + 1e-6
        return values, ahead

    driver = started()
    with patch.object(StateReader, "vectors_at", wrong):
        traffic(driver, random.Random(seed), 300)
        driver.run()
    found = auditing(driver).more()
    assert set(found.pipelines["late looking up airport"].mismatches) == {"airport.mean_delay_1h"}
    assert compared(found, "late looking up aircraft")[1] == 0
    first = found.differences[0]
    assert first.feature == "airport.mean_delay_1h"
    assert first.expected is not None
    assert first.served == pytest.approx(first.expected * (1.0 + 1e-6), rel=1e-9)
    assert np.isfinite(first.off)
