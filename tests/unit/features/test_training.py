from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import headrace as hr
from headrace.features.training import event_vectors
from tests.laws.readings import EVERYTHING, SMALL, logs
from tests.unit.features.folding import Folded, batch_of, bits, offsets_of
from tests.unit.features.naive import Happening

PIPELINE = hr.Pipeline("p", views=[EVERYTHING, SMALL], event_features=["x", hr.col("y").abs()], predictions="predictions.v1")


@given(logs(), st.integers(0, 25))
def test_frame_is_what_was_served(happenings: list[Happening], cut: int) -> None:
    """Row i of a training frame is, bit for bit, the vector that was served for event i, then the event's own features."""
    offsets = offsets_of(happenings)
    batches = [batch_of(happenings[part], offsets[part]) for part in (slice(0, cut), slice(cut, None)) if happenings[part]]
    frame = event_vectors(PIPELINE, batches)
    served = Folded([EVERYTHING, SMALL], happenings, range(1, len(happenings)))
    own = np.array([[one.columns["x"], abs(float(one.columns["y"] or 0.0))] for one in happenings])
    assert bits(frame.values) == bits(np.column_stack((served.values, own)))
    assert frame.names == PIPELINE.feature_names
    assert frame.late.tolist() == served.late.tolist()
    assert frame.entities == [one.entity for one in happenings]
    assert frame.event_times_ms.tolist() == [one.time_ms for one in happenings]
    assert list(zip(frame.partitions.tolist(), frame.offsets.tolist(), strict=True)) == [
        (one.partition, offset) for one, offset in zip(happenings, offsets, strict=True)
    ]


def test_empty_log() -> None:
    """A log without events gives a frame without rows."""
    frame = event_vectors(PIPELINE, [])
    assert len(frame) == 0
    assert frame.values.shape == (0, len(PIPELINE.feature_names))
