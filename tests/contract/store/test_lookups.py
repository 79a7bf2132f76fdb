"""Look-ups answer the same from every store, alone and in batches."""

from __future__ import annotations

from typing import cast

import pytest

import headrace as hr
from headrace.errors import LookupRefused
from headrace.features.state_store import ApplyResult, LookupStore, StateStore
from headrace.local_stack import RedisServer
from headrace.lookup import FeatureLookups
from headrace.types import TopicPartition
from tests.contract.store.conftest import Connect
from tests.contract.store.subjects import Subject, ready, view_write, write
from tests.unit.paying import APP, NOON_MS, SECOND_MS, TOPIC, Cards, app_over

ME = b"nonce of mine"
PARTITIONS = 5
VIEW = APP.pipelines[0].views[0]
KNOWN = [f"card-{number}" for number in range(60)]
AS_OF_MS = NOON_MS + 90 * SECOND_MS


@pytest.fixture(scope="module")
def cards() -> Cards:
    """Sixty cards that have paid, in memory."""
    found = Cards(partitions=PARTITIONS)
    for place, name in enumerate(KNOWN * 2):
        found.pay(name, NOON_MS + place * 500, 0.7 * place)
    return found


def copy(cards: Cards, store: StateStore) -> None:
    """The same state in another store, as a worker would have put it there."""
    store.set_partitions(TOPIC, PARTITIONS)
    for number in range(PARTITIONS):
        name = TopicPartition(TOPIC, number)
        head, states = cards.driver.store.head(name, VIEW.fp), cards.driver.store.states(name, VIEW.fp)
        assert head.offset is not None
        assert head.watermark_ms is not None
        ready(store, ME, {VIEW.fp: 0}, name)
        moved = write(view_write(VIEW.fp, 0, head.offset, states), partition=name, watermark_ms=head.watermark_ms)
        assert store.apply(ME, moved) is ApplyResult.OK


def answers_alike(cards: Cards, features: FeatureLookups) -> None:
    """Whether one by one, all at once or as of now, the answers are those from memory."""
    wanted = [*KNOWN, "unknown", KNOWN[0], "ünknown {}"]
    right = [one.as_json() for one in cards.features.get_many("spending", wanted, AS_OF_MS)]
    assert [one.as_json() for one in features.get_many("spending", wanted, AS_OF_MS)] == right
    assert [features.get("spending", one, AS_OF_MS).as_json() for one in wanted] == right
    assert [one["known"] for one in right] == [True] * 60 + [False, True, False]
    now = features.get("spending", KNOWN[7])
    assert now.as_json() == cards.features.get("spending", KNOWN[7], now.as_of_ms).as_json()


def test_every_store_answers_alike(subject: Subject, cards: Cards, unique_name: str) -> None:
    """Single look-ups, batches and look-ups as of now give what the engine's own store gives; refusals too."""
    store = subject.store(unique_name)
    copy(cards, store)
    features = FeatureLookups(APP, cast("LookupStore", store), now_ms=cards.clock.now_ms)
    answers_alike(cards, features)
    with pytest.raises(LookupRefused, match="has an event at"):
        features.get("spending", KNOWN[-1], NOON_MS + 58 * SECOND_MS)


def test_a_cluster_answers_alike(cluster: tuple[RedisServer, RedisServer], cards: Cards, connect: Connect) -> None:
    """In a cluster a batch is gathered from all nodes."""
    store = connect(cluster[0])
    copy(cards, store)
    features = FeatureLookups(APP, connect(cluster[1]), now_ms=cards.clock.now_ms)
    answers_alike(cards, features)


def test_the_public_client(redis: RedisServer, cards: Cards, unique_name: str) -> None:
    """`hr.Features` needs the URL and the app; its clock is the machine's."""
    app = app_over(name=unique_name)
    features = hr.Features(redis.url, app=app)
    features.warm_up()
    with pytest.raises(LookupRefused, match=f"no worker of app '{unique_name}' has served it there"):
        features.get("spending", KNOWN[3])
    copy(cards, cast("StateStore", features._store))
    found = features.get("spending", KNOWN[3])
    assert found.known
    assert found.as_of_ms > AS_OF_MS
    assert found.values["count_where_real_1h"] == 0.0
    assert features.get("spending", KNOWN[3], AS_OF_MS).as_json() == cards.features.get("spending", KNOWN[3], AS_OF_MS).as_json()
    features.close()
