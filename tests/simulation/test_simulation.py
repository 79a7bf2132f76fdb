"""T01: the real loop through thousands of orders of events; and the mutants that it must catch."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from headrace.features import memory_store, sweep
from tests.simulation.mutants import MUTANTS
from tests.simulation.world import FAULTS, Burst, Counters, World

BURSTS = 100

bursts = st.builds(Burst, steps=st.integers(1, 30), order=st.integers(0, 2**32), fault=st.sampled_from(FAULTS))
schedules = st.lists(bursts, min_size=BURSTS, max_size=BURSTS)


@pytest.fixture(autouse=True, scope="module")
def _sweep_always() -> Iterator[None]:
    """All of the store is looked into with every batch."""
    with patch.multiple(sweep, SELDOM=1, OFTEN=1), patch.object(memory_store, "_SLICES", 1):
        yield


def plain_schedule(seed: int) -> list[Burst]:
    """A schedule drawn from a seed alone."""
    draw = random.Random(seed)
    return [Burst(draw.randint(1, 30), draw.getrandbits(32), draw.choice(FAULTS)) for _ in range(BURSTS)]


def violations(seed: int, totals: Counters) -> list[str]:
    """Run a plain schedule and check the world."""
    world = World(seed=seed)
    try:
        world.run(plain_schedule(seed))
        found = world.check()
        totals.add(world.counters)
        return found
    finally:
        world.close()


def keeps_its_promise(examples: int) -> Callable[[], None]:
    """A test of the protocol on so many drawn schedules; one that fails is shrunk."""

    @settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    )
    @given(seed=st.integers(0, 2**16), schedule=schedules)
    def promise(seed: int, schedule: list[Burst]) -> None:
        world = World(seed=seed)
        try:
            world.run(schedule)
            assert world.check() == []
        finally:
            world.close()

    return promise


@pytest.mark.timeout(1_200)
def test_the_protocol_keeps_its_promise() -> None:
    """Whatever dies, lies or comes late: one result per offset, features and state equal to the fold, everything done in the end."""
    keeps_its_promise(300)()


@pytest.mark.faults
@pytest.mark.timeout(3_600)
def test_the_protocol_keeps_its_promise_at_length(record_property: Callable[[str, object], None]) -> None:
    """The same, two thousand times."""
    keeps_its_promise(2_000)()
    record_property("figures", {"schedules": 2_000})


@pytest.mark.timeout(600)
def test_the_schedules_do_damage() -> None:
    """The schedules abort transactions, fence producers, lose replies, and make partitions catch up and be rebuilt: else they would prove
    nothing.
    """
    totals = Counters()
    for seed in range(20):
        assert violations(seed, totals) == [], f"seed {seed}"
    print(totals)  # noqa: T201 - the damage is shown
    assert min(vars(totals).values()) > 0


@pytest.mark.campaign
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught(name: str, record_property: Callable[[str, object], None]) -> None:
    """A weaker protocol is caught within 200 schedules."""
    mutant: Callable[[], AbstractContextManager[None]] = MUTANTS[name]  # type: ignore[assignment]
    totals = Counters()
    with mutant():
        for seed in range(200):
            found = [problem for problem in violations(seed, totals) if not problem.startswith("a worker ended")]
            if found:
                record_property("figures", {"mutant": name, "caught_by": seed, "damage": found[0].partition(":")[0]})
                return
    pytest.fail(f"{name} was not caught in 200 schedules")
