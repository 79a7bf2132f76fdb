"""The way between workers and the broker is slow, broken or loses messages, and workers stop in the middle of a transaction."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from headrace.local_stack import KafkaServer, Stack, free_port
from tests.faults.harness import SETTLED_S, Make, Moment, Trial
from tests.faults.processes import RUN_WORKER, WorkerProcess
from tests.faults.proxy import Api, Held, Proxy, Way, proxied

MakeStack = Callable[..., Stack]
MakeProxied = Callable[[int], "Proxied"]

IMPATIENT = '{"socket.timeout.ms": 3000}'
"""How long a producer waits for the end of its transaction before it asks again."""
UNDER_WAY = (Api.ADD_OFFSETS_TO_TXN, Api.TXN_OFFSET_COMMIT, Api.PRODUCE)
"""What shows that the next transaction has begun: it is to have offsets, has some, has results."""
FENCED = {47, 90}
"""The broker's answers to a producer that was replaced: INVALID_PRODUCER_EPOCH, PRODUCER_FENCED."""


class Proxied:
    """A broker of the test's own, and a proxy before it for each slot."""

    def __init__(self, kafka: KafkaServer, proxies: list[Proxy]) -> None:
        self.kafka, self.proxies = kafka, proxies

    def start(self, run: Trial, slot: int, **settings: Any) -> WorkerProcess:
        """Start a worker that knows the broker only through its slot's proxy."""
        return run.start(slot, HEADRACE_KAFKA__BOOTSTRAP_SERVERS=f"127.0.0.1:{self.proxies[slot].port}", **settings)


@pytest.fixture
def through_proxies(own_stack: MakeStack) -> Iterator[MakeProxied]:
    """Makes a broker with so many proxies."""
    with ExitStack() as opened:

        def make(slots: int) -> Proxied:
            inside = [free_port() for _ in range(slots)]
            proxies = [opened.enter_context(Proxy(port)) for port in inside]
            stack = own_stack(**proxied(inside, [proxy.port for proxy in proxies]))
            return Proxied(stack.kafka[0], proxies)

        yield make


@pytest.mark.faults
@pytest.mark.timeout(400)
def test_the_end_of_a_transaction_arrives_in_the_next(through_proxies: MakeProxied, trial: Make) -> None:
    """T24: 20 requests to commit are held until the slot's next transaction has begun, 5 are carried out unheard; 1 slot, 100 events/s."""
    way = through_proxies(1)
    run = trial(kafka=way.kafka, partitions=2)
    run.prepare()
    loader = run.load(run.records(60_000), pace=lambda _: 100)
    worker = way.start(run, 0, HEADRACE_KAFKA__PRODUCER_PROPERTIES=IMPATIENT)
    (proxy,) = way.proxies
    faults = ["held"] * 20 + ["dropped"] * 5
    run.rng.shuffle(faults)
    held: list[Held] = []
    for fault in faults:
        run.wait_passed(run.progress.total + 1)
        if fault == "held":
            held.append(proxy.hold(Api.END_TXN, until=[run.rng.choice(UNDER_WAY)]))
            run.wait(lambda: held[-1].answer is not None, "the held request has had its answer")
        else:
            dropped = proxy.drop_reply(Api.END_TXN)
            run.wait(lambda: dropped.done, "a reply is dropped")  # noqa: B023 - waited for at once
            assert dropped.answer == 0
    loader.finish()
    run.wait_drained()
    assert {one.answer for one in held} <= FENCED, held
    assert len(worker.said("worker starts")) == 1
    run.verdict()


@pytest.mark.faults
@pytest.mark.parametrize("guarded", [True, False])
def test_a_kept_producer_is_ended_by_its_past(through_proxies: MakeProxied, trial: Make, *, guarded: bool) -> None:
    """T24, control: let out when the next transaction has results and no offsets yet, with the worker killed at that moment, the held
    request does nothing to a worker; one that keeps its producer has published results twice.
    """
    way = through_proxies(1)
    run = trial(kafka=way.kafka, partitions=2)
    run.prepare()
    loader = run.load(run.records(10_000), pace=lambda _: 100)
    command = RUN_WORKER if guarded else ("-m", "tests.faults.keeping_worker", "-")
    worker = way.start(run, 0, command=command, HEADRACE_KAFKA__PRODUCER_PROPERTIES=IMPATIENT)
    (proxy,) = way.proxies
    run.wait_passed(1)
    held = proxy.hold(Api.END_TXN, until=[Api.PRODUCE], stalls=True)
    run.wait(lambda: held.caught, "a request to commit is held")
    proxy.hold(Api.TXN_OFFSET_COMMIT)
    run.wait(lambda: held.answer is not None, "the held request has had its answer")
    worker.kill()
    proxy.mend()
    way.start(run, 0)
    loader.finish()
    run.wait_drained()
    if guarded:
        assert held.answer in FENCED
        run.verdict()
    else:
        assert held.answer == 0
        with pytest.raises(AssertionError, match="duplicate"):
            run.verdict(control=True)


@pytest.mark.faults
@pytest.mark.timeout(400)
def test_stopped_inside_a_transaction(trial: Make) -> None:
    """T25: 5 times a worker is stopped inside a transaction: others commit for its partitions within 13 s; it comes to and rejoins them."""
    run = trial()
    run.prepare()
    loader = run.load(run.records(60_000), pace=lambda _: 200)
    for slot in range(2):
        run.start(slot)
    slowest_s = 0.0
    for _ in range(5):
        run.wait_settled()
        victim = run.wait_victim()
        run.freeze(victim, Moment.IN_TRANSACTION)
        stopped_s = time.monotonic() - SETTLED_S
        lost = run.owned(victim)
        run.wait(lambda: all(run.progress.first_after(stopped_s, name) for name in lost), "others commit for its partitions", 30)  # noqa: B023
        slowest_s = max(slowest_s, *(run.progress.first_after(stopped_s, name) or 0.0 for name in lost))
        victim.resume()
    loader.finish()
    run.wait_drained()
    figures = run.verdict()
    figures["slowest_takeover_s"] = round(slowest_s, 2)
    assert slowest_s <= 13
    assert figures["aborted_records"] >= 5


BREAKS: dict[str, Callable[[Proxy], None]] = {
    "cut": Proxy.cut,
    "half open": Proxy.half_open,
    "requests stalled": lambda proxy: proxy.stall(Way.UP),
    "replies stalled": lambda proxy: proxy.stall(Way.DOWN),
}


@pytest.mark.faults
@pytest.mark.timeout(400)
@pytest.mark.parametrize("kind", BREAKS)
def test_a_worker_is_cut_off(through_proxies: MakeProxied, trial: Make, kind: str) -> None:
    """T21: of 2 workers a drawn one loses the broker 3 times for 1 s, once for 10 s and once for 30 s; 6 partitions, 1,000 events/s."""
    way = through_proxies(2)
    run = trial(kafka=way.kafka, partitions=6, max_batch=200)
    run.prepare()
    loader = run.load(run.records(200_000), pace=lambda _: 1_000)
    for slot in range(2):
        way.start(run, slot)
    lengths_s = [1, 1, 1, 10, 30]
    run.rng.shuffle(lengths_s)
    for length_s in lengths_s:
        run.wait_settled()
        run.wait_passed(run.progress.total + run.rng.randrange(300))
        proxy = run.rng.choice(way.proxies)
        before = proxy.counted.total()
        run.journal.note("cut off", kind=kind, seconds=length_s, port=proxy.port)
        BREAKS[kind](proxy)
        run.pass_time(length_s)
        proxy.mend()
        run.journal.note("mended")
        assert proxy.counted.total() > before
    loader.finish()
    run.wait_drained(120)
    figures = run.verdict(cuts=len(lengths_s))
    # Where only replies are lost a commit may be carried out unheard: then nothing is aborted, and what it held is folded again; or it may
    # be aborted before any of its records came to the broker.
    felt = sum(len(worker.said("starting over")) for worker in run.workers)
    assert figures["aborted_records"] + figures["catch_ups"] + felt > 0


@pytest.mark.faults
@pytest.mark.timeout(400)
def test_batches_that_do_not_fit_through_the_line(through_proxies: MakeProxied, trial: Make) -> None:
    """6,000 records wait before a worker whose line takes 1 Mbit/s: it halves its batches until they pass in time, and passes them all."""
    way = through_proxies(1)
    run = trial(kafka=way.kafka, partitions=6, max_batch=4_000)
    run.prepare()
    run.load(run.records(6_000), wait=True)
    (proxy,) = way.proxies
    proxy.slow(delay_s=0.05, bits_per_s=1_000_000)
    worker = way.start(run, 0, HEADRACE_KAFKA__PRODUCER_PROPERTIES='{"compression.type": "none"}')
    run.wait_drained(240)
    assert worker.said("transaction failed") or worker.said("transaction aborts")
    run.verdict()


@pytest.mark.faults
@pytest.mark.timeout(400)
def test_a_slow_line(through_proxies: MakeProxied, trial: Make) -> None:
    """T27: 2 workers, each over a line with 100 ms there and back and 3 Mbit/s, 200 events/s for 60 s."""
    way = through_proxies(2)
    run = trial(kafka=way.kafka, partitions=6, max_batch=200)
    run.prepare()
    for proxy in way.proxies:
        proxy.slow(delay_s=0.05, bits_per_s=3_000_000)
    loader = run.load(run.records(60_000), pace=lambda _: 200)
    for slot in range(2):
        way.start(run, slot)
    run.pass_time(60)
    loader.finish()
    run.wait_drained(120)
    run.verdict()
