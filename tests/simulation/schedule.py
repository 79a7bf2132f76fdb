"""What a run is made of: bursts of steps, each followed by a fault; drawn by Hypothesis or from a seed, and written as JSON to be replayed.

The proportions of the faults are the decided design, so Hypothesis draws a list from them and no rules of a state machine: rules are drawn
evenly over their kinds, and evenly drawn schedules hardly ever catch V8.
"""

from __future__ import annotations

import json
import random
import shlex
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass

from headrace.definition import App
from tests.simulation.visits import app as one_stage

BURSTS = 100


@dataclass(frozen=True, slots=True)
class Burst:
    """So many steps in an order drawn from `order`, then a fault."""

    steps: int
    order: int
    fault: str


FAULTS: Sequence[str] = (
    ["none"] * 6  # the first is what Hypothesis shrinks to
    + ["rebalance"] * 10
    + ["evict"] * 10
    + ["tell"] * 10
    + ["kill"] * 10
    + ["expire"] * 10
    + ["rollback"] * 10
    + ["flush"] * 2
    + ["backup"] * 2
    + ["twin"] * 2
    + ["midway"] * 8
    + ["retention"] * 4
)
"""The faults, in the proportions in which schedules draw them."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A run: the records of a seed, and what happens meanwhile."""

    seed: int
    bursts: Sequence[Burst]

    def text(self) -> str:
        """One line of JSON."""
        return json.dumps({"seed": self.seed, "bursts": [astuple(burst) for burst in self.bursts]}, separators=(",", ":"))

    def command(self, mutant: str | None = None, app: App = one_stage) -> str:
        """The command that runs it again."""
        told = str(self.seed) if self == plain_schedule(self.seed) else f"--schedule {shlex.quote(self.text())}"
        return (
            f"PYTHONPATH=services python -m tests.simulation {told}"
            + (f" --mutant {mutant}" if mutant else "")
            + (f" --app {app.name}" * (app is not one_stage))
        )


def schedule_of(text: str) -> Schedule:
    """A schedule from its JSON. Raises `ValueError` for a fault that does not exist."""
    told = json.loads(text)
    bursts = [Burst(steps, order, fault) for steps, order, fault in told["bursts"]]
    unknown = {burst.fault for burst in bursts} - set(FAULTS)
    if unknown:
        raise ValueError(f"there is no fault {', '.join(sorted(unknown))}; there are {', '.join(sorted(set(FAULTS)))}")
    return Schedule(told["seed"], bursts)


def plain_schedule(seed: int) -> Schedule:
    """A schedule drawn from a seed alone."""
    draw = random.Random(seed)
    return Schedule(seed, [Burst(draw.randint(1, 30), draw.getrandbits(32), draw.choice(FAULTS)) for _ in range(BURSTS)])


def shrunk(schedule: Schedule, fails: Callable[[Schedule], bool]) -> Schedule:
    """A schedule that still fails and from which no burst can be taken, nor its fault, without it passing.

    Greedy: stretches of bursts first, the longest first; then single faults. Limit: steps and orders stay as they were drawn, as another
    order is another run.
    """
    size = len(schedule.bursts) // 2
    while size:
        at = 0
        while at < len(schedule.bursts):
            shorter = Schedule(schedule.seed, [*schedule.bursts[:at], *schedule.bursts[at + size :]])
            if fails(shorter):
                schedule = shorter
            else:
                at += size
        size //= 2
    for place, burst in enumerate(schedule.bursts):
        quieter = list(schedule.bursts)
        quieter[place] = Burst(burst.steps, burst.order, "none")
        if burst.fault != "none" and fails(Schedule(schedule.seed, quieter)):
            schedule = Schedule(schedule.seed, quieter)
    return schedule
