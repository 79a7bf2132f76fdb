"""What a worker says about its own death."""

from __future__ import annotations

from headrace.takeover import CONSUMER_SESSION, SWEEP, identity_of, is_newer, later_than, takeover_text


def test_a_prompt_broker_leaves_the_session_as_the_longest_wait() -> None:
    """With a sweep every second a lost slot waits for the session only, and no advice is given."""
    text = takeover_text({}, {1: {SWEEP: "1000"}})
    assert text == "restarted within 3 s if its slot starts again, else taken over within 13 s"


def test_a_broker_with_the_default_sweep_is_advised() -> None:
    """With the default sweep an open transaction is the longest wait, and the setting that shortens it is named."""
    text = takeover_text({}, {1: {SWEEP: "10000"}})
    assert "taken over within 21 s" in text
    assert f"{SWEEP}=1000" in text


def test_the_slowest_broker_counts() -> None:
    """Any broker may hold the transaction."""
    assert "within 29 s" in takeover_text({"transaction.timeout.ms": 6_000}, {1: {SWEEP: "1000"}, 2: {SWEEP: "20000"}})


def test_the_new_protocol_waits_for_the_brokers_session() -> None:
    """Under KIP-848 the time-out is the broker's, and a restarted member waits for it too."""
    text = takeover_text({"group.protocol": "consumer"}, {1: {SWEEP: "1000", CONSUMER_SESSION: "45000"}})
    assert text.startswith("restarted within 45 s")
    assert "within 48 s" in text


def test_without_static_membership_a_restarted_slot_waits_too() -> None:
    """The group does not know the slot again: who was killed is a member until its session is over."""
    text = takeover_text({"session.timeout.ms": 6_000, "transaction.timeout.ms": 5_000}, {1: {SWEEP: "1000"}}, static=False)
    assert text == "restarted within 6 s if its slot starts again, else taken over within 9 s"


def test_only_who_came_later_has_taken_our_slot() -> None:
    """A store that was set back names somebody older, or nobody: that is no reason to end."""
    ours = identity_of("here pid 2", 2_000)
    assert is_newer(identity_of("there pid 3", 3_000), ours)
    assert not is_newer(identity_of("here pid 1", 1_000), ours)
    assert not is_newer(ours, ours)
    assert not is_newer(None, ours)


def test_who_comes_later_is_newer_whatever_his_clock_says() -> None:
    """Whoever announces a slot puts himself behind its holder, so that of two machines the one whose clock is ahead does not win."""
    ahead, ours = identity_of("there pid 3", 3_600_000), identity_of("here pid 2", 2_000)
    assert later_than(ahead, ours) == "here pid 2 since 3600001"
    assert is_newer(later_than(ahead, ours), ahead)
    assert later_than(identity_of("here pid 1", 1_000), ours) == ours
    assert later_than(None, ours) == later_than(ours, ours) == ours
