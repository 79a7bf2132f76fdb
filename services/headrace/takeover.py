"""How long nobody serves the partitions of a worker that died, from its time-outs and the broker's (pure).

Its slot starts again: its partitions come back at once, and its open transaction is aborted by whoever opens the slot's producer.
Its slot stays away: the group waits out the session; readers and the new owner wait until the broker has aborted the open transaction,
which takes its time-out and then up to one round of the broker's sweep.
"""

from __future__ import annotations

from collections.abc import Mapping

SESSION_MS, TRANSACTION_MS, SWEEP_MS, REBALANCE_MS = 10_000, 8_000, 10_000, 3_000
SWEEP = "transaction.abort.timed.out.transaction.cleanup.interval.ms"
CONSUMER_SESSION = "group.consumer.session.timeout.ms"


def identity_of(name: str, started_ms: int) -> str:
    """What a worker announces of itself: who it is, and since when."""
    return f"{name} since {started_ms}"


def later_than(holder: str | None, ours: str) -> str:
    """Our identity, since later than that of who holds the slot: his machine's clock may be ahead of ours."""
    if holder in (None, ours):
        return ours
    name, _, started_ms = ours.rpartition(" since ")
    return identity_of(name, max(int(started_ms), _started_ms(holder or "") + 1))


def is_newer(holder: str | None, ours: str) -> bool:
    """Whether who is announced for our slot came after us; an older one only shows that the store has forgotten us."""
    return holder not in (None, ours) and _started_ms(holder or "") >= _started_ms(ours)


def _started_ms(identity: str) -> int:
    return int(identity.rpartition(" since ")[2])


def takeover_text(properties: Mapping[str, object], brokers: Mapping[int, Mapping[str, str]], *, static: bool = True) -> str:
    """One sentence; `properties` are the clients', `brokers` the readable settings by broker id, `static` whether the group knows slots."""
    sweep_ms = max((int(found.get(SWEEP, SWEEP_MS)) for found in brokers.values()), default=SWEEP_MS)
    transaction_ms = int(str(properties.get("transaction.timeout.ms", TRANSACTION_MS)))
    if properties.get("group.protocol") == "consumer":
        session_ms = max((int(found.get(CONSUMER_SESSION, 45_000)) for found in brokers.values()), default=45_000)
        restarted_ms = session_ms
    else:
        session_ms = int(str(properties.get("session.timeout.ms", SESSION_MS)))
        restarted_ms = REBALANCE_MS if static else session_ms
    lost_ms = max(session_ms, transaction_ms + sweep_ms) + REBALANCE_MS
    advice = ""
    if transaction_ms + sweep_ms > session_ms:
        advice = f"; the broker looks for timed-out transactions every {sweep_ms / 1_000:g} s, {SWEEP}=1000 on the brokers shortens it"
    return f"restarted within {restarted_ms / 1_000:g} s if its slot starts again, else taken over within {lost_ms / 1_000:g} s{advice}"
