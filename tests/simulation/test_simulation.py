"""T01: the real loop through thousands of orders of events; and the mutants that it must catch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from headrace.definition import App
from tests.simulation.mutants import APP_OF, MUTANTS, control
from tests.simulation.replay import damage, sweeping_always, violations
from tests.simulation.schedule import BURSTS, FAULTS, Burst, Schedule, plain_schedule
from tests.simulation.visits import APPS, chained, correcting, forgetting, looking, registered
from tests.simulation.visits import app as one_stage
from tests.simulation.world import Counters

AT_LENGTH_S = 8 * 60

bursts = st.builds(Burst, steps=st.integers(1, 30), order=st.integers(0, 2**32), fault=st.sampled_from(FAULTS))
schedules = st.builds(Schedule, seed=st.integers(0, 2**16), bursts=st.lists(bursts, min_size=BURSTS, max_size=BURSTS))


@pytest.fixture(autouse=True, scope="module")
def _sweep_always() -> Iterator[None]:
    with sweeping_always():
        yield


def keeps_its_promise(examples: int, app: App = one_stage) -> Callable[[], None]:
    """A test of the protocol on so many drawn schedules; one that fails is shrunk, and the command that runs it again is shown."""

    @settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    )
    @given(schedule=schedules)
    def promise(schedule: Schedule) -> None:
        note(f"the same again: {schedule.command(app=app)}")
        assert violations(schedule, app=app) == []

    return promise


@pytest.mark.timeout(1_200)
def test_the_protocol_keeps_its_promise() -> None:
    """Whatever dies, lies or comes late: one result per offset, features and state equal to the fold, everything done in the end."""
    keeps_its_promise(300)()


@pytest.mark.timeout(1_200)
def test_chained_stages_keep_the_promise() -> None:
    """The same for a pipeline of two stages: each hop is exactly once, and its state is the fold of its log."""
    keeps_its_promise(100, chained)()


@pytest.mark.timeout(1_200)
def test_look_ups_keep_the_promise() -> None:
    """The same for a pipeline that is scored by another source: what it looked up is what the fold of that log gives, where it says."""
    keeps_its_promise(60, looking)()


@pytest.mark.timeout(1_200)
def test_corrections_keep_the_promise() -> None:
    """The same for a pipeline with corrections: what changed is published once, and is what sorting everything gives."""
    keeps_its_promise(60, correcting)()
    keeps_its_promise(40, forgetting)()


@pytest.mark.timeout(1_200)
def test_moving_roles_keep_the_promise() -> None:
    """The same while versions are promoted, shadowed and taken back: each record is scored by whom the facts say, once, and shadowed so."""
    keeps_its_promise(60, registered)()


@pytest.mark.faults
@pytest.mark.timeout(3_600)
def test_moving_roles_keep_the_promise_at_length(record_property: Callable[[str, object], None]) -> None:
    """The same, a thousand times."""
    keeps_its_promise(1_000, registered)()
    record_property("figures", {"schedules": 1_000})


@pytest.mark.faults
@pytest.mark.timeout(3_600)
def test_corrections_keep_the_promise_at_length(record_property: Callable[[str, object], None]) -> None:
    """The same, a thousand times."""
    keeps_its_promise(700, correcting)()
    keeps_its_promise(300, forgetting)()
    record_property("figures", {"schedules": 1_000})


@pytest.mark.faults
@pytest.mark.timeout(3_600)
def test_look_ups_keep_the_promise_at_length(record_property: Callable[[str, object], None]) -> None:
    """The same, a thousand times."""
    keeps_its_promise(1_000, looking)()
    record_property("figures", {"schedules": 1_000})


@pytest.mark.faults
@pytest.mark.timeout(3_600)
def test_chained_stages_keep_the_promise_at_length(record_property: Callable[[str, object], None]) -> None:
    """The same, a thousand times."""
    keeps_its_promise(1_000, chained)()
    record_property("figures", {"schedules": 1_000})


@pytest.mark.faults
@pytest.mark.timeout(3_600)
def test_the_protocol_keeps_its_promise_at_length(seed: int, record_property: Callable[[str, object], None]) -> None:
    """The same, two thousand times, and on plain schedules for the rest of eight minutes."""
    end = time.monotonic() + AT_LENGTH_S
    keeps_its_promise(2_000)()
    tried = 0
    found: list[str] = []
    while not found and time.monotonic() < end:
        found = violations(plain_schedule(seed + tried))
        tried += 1
    record_property("figures", {"schedules": 2_000 + tried, "plain_seeds": f"{seed} to {seed + tried - 1}" if tried else "none"})
    assert found == [], f"the same again: {plain_schedule(seed + tried - 1).command()}"


@pytest.mark.timeout(600)
def test_the_schedules_do_damage() -> None:
    """The schedules abort transactions, fence producers, lose replies, shorten logs, and make partitions catch up and be rebuilt: else
    they would prove nothing.
    """
    totals = Counters()
    for seed in range(20):
        schedule = plain_schedule(seed)
        assert violations(schedule, totals) == [], f"the same again: {schedule.command()}"
    for seed in range(3):
        assert violations(plain_schedule(seed), totals, app=correcting) == []
        assert violations(plain_schedule(seed), totals, app=registered) == []
    print(totals)  # noqa: T201 - the damage is shown
    assert min(vars(totals).values()) > 0


@pytest.mark.faults
@pytest.mark.timeout(1_200)
def test_the_control_keeps_its_promise(record_property: Callable[[str, object], None]) -> None:
    """The compare-and-set on the offset carries the promise: it is kept without a look at the owner, on the schedules of the mutants."""
    with control():
        for seed in range(200):
            assert damage(violations(plain_schedule(seed))) == [], f"seed {seed}"
    record_property("figures", {"schedules": 200})


@pytest.mark.campaign
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught(name: str, record_property: Callable[[str, object], None]) -> None:
    """A weaker protocol is caught within 200 schedules."""
    with MUTANTS[name]():
        for seed in range(200):
            found = damage(violations(plain_schedule(seed), app=APPS[APP_OF.get(name, "sim")]))
            if found:
                record_property("figures", {"mutant": name, "caught_by": seed, "damage": found[0].partition(":")[0]})
                return
    record_property("figures", {"mutant": name})
    pytest.fail(f"{name} was not caught in 200 schedules")
