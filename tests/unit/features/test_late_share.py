from __future__ import annotations

from headrace.features.late_share import LateShare


def observed(share: LateShare, *batches: tuple[int, int]) -> list[bool]:
    return [share.observe(events=events, late=late) is not None for events, late in batches]


def test_it_speaks_once_when_the_share_rises_above_the_limit() -> None:
    """The line is said once a rise, not once a batch, and names share, topic and lateness."""
    share = LateShare("flights", 7_200_000, limit=0.05, window=100)
    assert observed(share, (50, 0), (50, 5)) == [False, False]
    text = share.observe(events=50, late=5)
    assert text is not None
    assert text.startswith("10.0% of the last 100 events of flights are late")
    assert "lateness=2h" in text
    assert observed(share, (50, 10), (50, 50)) == [False, False]


def test_it_waits_for_a_full_window() -> None:
    """A few late events at the start are no trend."""
    share = LateShare("flights", 1_000, window=100)
    assert observed(share, (1, 1), (98, 98)) == [False, False]
    assert observed(share, (1, 1)) == [True]


def test_it_speaks_again_after_the_share_was_down() -> None:
    """Only below half of the limit is the matter over; then a new rise is said again."""
    share = LateShare("flights", 1_000, limit=0.1, window=10)
    assert observed(share, (10, 2)) == [True]
    assert observed(share, (10, 1), (10, 2)) == [False, False]
    assert observed(share, (10, 0), (10, 2)) == [False, True]


def test_the_window_slides() -> None:
    """Old batches leave the window as soon as it is full without them; an empty one has share 0."""
    share = LateShare("flights", 1_000, window=10)
    assert share.share == 0
    share.observe(events=10, late=10)
    share.observe(events=6, late=0)
    assert share.share == 10 / 16
    share.observe(events=4, late=0)
    assert share.share == 0
    share.observe(events=0, late=0)
    assert share.share == 0
