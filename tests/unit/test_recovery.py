"""The recovery table, row by row."""

from __future__ import annotations

import pytest

from headrace.errors import FatalError, PartitionGivenUp
from headrace.recovery import MOVES, Found, Phase, decide, move, must_rebuild, rebuild_time_ms
from headrace.types import NO_WATERMARK_MS, Delivery, LogRange, Position, TopicPartition, ViewHead

PARTITION = TopicPartition("events", 3)


def found(
    *,
    off: int | None = 50,
    committed: int | None = 50,
    wm: int | None = 9_000,
    log: tuple[int, int] = (0, 100),
    topic_id: str | None = "a",
    **more: int | None,
) -> Found:
    """What an assigned partition looks like; `more` are the offsets of further views."""
    heads = {"v": ViewHead(offset=off, watermark_ms=None if off is None else wm)}
    heads |= {view: ViewHead(offset=offset, watermark_ms=None if offset is None else 7_000) for view, offset in more.items()}
    return Found(
        partition=PARTITION,
        heads=heads,
        state_topic_id=topic_id,
        topic_id="a",
        partitions=4,
        committed=None if committed is None else Position(offset=committed, watermark_ms=wm),
        log=LogRange(start=log[0], end=log[1]),
    )


def plan_of(case: Found, *, delivery: Delivery = Delivery.EXACTLY_ONCE, span_ms: int | None = 1_000, offset: int | None = None):  # type: ignore[no-untyped-def]  # noqa: ANN201
    """Decide as `Assignment` does."""
    return decide(case, delivery, rebuild_ms=rebuild_time_ms(case, span_ms), rebuild_offset=offset)


def test_goes_on_where_store_and_commit_agree() -> None:
    """A partition whose applied offset is the committed one is live at once."""
    plan = plan_of(found())
    assert (plan.start, plan.live_from, plan.resets, plan.watermark_ms) == (50, 50, {}, 9_000)


def test_catches_up_from_the_applied_offset() -> None:
    """A store that is behind is folded forward from where it stands, with its own watermark."""
    plan = plan_of(found(off=20))
    assert (plan.start, plan.live_from, plan.starts, plan.resets) == (20, 50, {"v": 20}, {})


def test_each_view_catches_up_from_where_it_stands() -> None:
    """A view that is behind starts the fold; one that is further keeps its own start."""
    plan = plan_of(found(off=50, other=30))
    assert (plan.start, plan.starts, plan.watermark_ms) == (30, {"v": 50, "other": 30}, 7_000)


def test_rebuilds_a_view_without_state_from_far_enough_back() -> None:
    """A rebuild begins at the first record that can matter and drops what is there."""
    case = found(off=None)
    assert must_rebuild(case) == ["v"]
    assert rebuild_time_ms(case, 1_000) == 8_000
    plan = plan_of(case, offset=12)
    assert (plan.start, plan.live_from, plan.resets, plan.watermark_ms) == (12, 50, {"v": 12}, NO_WATERMARK_MS)


def test_rebuilds_when_the_log_no_longer_holds_the_applied_offset() -> None:
    """A state older than the log is dropped, not patched."""
    plan = plan_of(found(off=5, log=(10, 100)), offset=30)
    assert plan.resets == {"v": 30}


def test_a_rebuild_with_no_young_record_has_nothing_to_fold() -> None:
    """Where no record is young enough to matter the partition is live at once, with the committed watermark."""
    plan = plan_of(found(off=None), offset=None)
    assert (plan.start, plan.live_watermark_ms) == (50, 9_000)


def test_a_rebuild_that_reaches_the_start_of_a_shortened_log_is_refused() -> None:
    """If the first kept record is young enough to matter, older ones that matter may be gone."""
    with pytest.raises(PartitionGivenUp, match="no longer holds all events"):
        plan_of(found(off=None, log=(10, 100)), offset=10)


def test_a_historical_source_is_rebuilt_from_offset_zero_only() -> None:
    """Without a bound in time a rebuild needs the whole log."""
    assert plan_of(found(off=None), span_ms=None).start == 0
    with pytest.raises(PartitionGivenUp):
        plan_of(found(off=None, log=(1, 100)), span_ms=None)


def test_a_new_app_may_begin_with_a_log_that_was_shortened_before() -> None:
    """Before the first commit there is no watermark: the fold is that of the log as it is kept."""
    assert plan_of(found(off=None, committed=10, wm=None, log=(10, 100), topic_id=None)).start == 10


@pytest.mark.parametrize(
    ("case", "text"),
    [
        (found(committed=None), "headrace apply"),
        (found(topic_id="b"), "created again"),
        (found(committed=101, off=101), "outside of the log"),
        (found(committed=5, off=5, log=(10, 100)), "outside of the log"),
        (found(off=60), "beyond the committed offset"),
    ],
)
def test_gives_up_rather_than_skip(case: Found, text: str) -> None:
    """What cannot be continued exactly is given up, with the reason."""
    with pytest.raises(PartitionGivenUp, match=text):
        plan_of(case, offset=0)


def test_at_least_once_goes_on_at_the_applied_offset() -> None:
    """Without transactions the store may be ahead of the commit: what it holds was delivered."""
    plan = plan_of(found(off=60), delivery=Delivery.AT_LEAST_ONCE)
    assert (plan.start, plan.live_from, plan.live_watermark_ms) == (60, 60, None)


def test_only_drawn_moves_are_legal() -> None:
    """Every move of the picture is allowed and no other."""
    for old in Phase:
        for new in Phase:
            if new in MOVES[old]:
                assert move(old, new) is new
            else:
                with pytest.raises(FatalError):
                    move(old, new)
