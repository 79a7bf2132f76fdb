"""One schedule from beginning to end, and what was wrong then."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from headrace.definition import App
from headrace.features import memory_store, sweep
from tests.simulation.schedule import Schedule
from tests.simulation.visits import app as one_stage
from tests.simulation.world import Counters, World


@contextmanager
def sweeping_always() -> Iterator[None]:
    """All of the store is looked into with every batch."""
    with patch.multiple(sweep, SELDOM=1, OFTEN=1), patch.object(memory_store, "_SLICES", 1):
        yield


def violations(schedule: Schedule, totals: Counters | None = None, *, app: App = one_stage) -> list[str]:
    """Run a schedule and check the world; `totals` grow by what it went through."""
    world = World(seed=schedule.seed, app=app)
    try:
        world.run(schedule.bursts)
        found = world.check()
        if totals is not None:
            totals.add(world.counters)
        return found
    finally:
        world.close()


def damage(found: list[str]) -> list[str]:
    """What a mutant is judged by: a worker that ends loudly has broken no promise yet."""
    return [problem for problem in found if not problem.startswith("a worker ended")]
