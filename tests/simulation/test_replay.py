"""A schedule that failed is run again, and made shorter, by one command."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.mutants import MUTANTS
from tests.simulation.replay import damage, sweeping_always, violations
from tests.simulation.schedule import Burst, Schedule, plain_schedule, schedule_of, shrunk
from tests.simulation.world import Counters

ROOT = Path(__file__).resolve().parents[2]


def ran(command: str) -> tuple[int, str]:
    """What a command of ours says; the Python of this run stands for the one on the path."""
    given, *arguments = shlex.split(command.replace(" python ", f" {shlex.quote(sys.executable)} ", 1))
    name, _, value = given.partition("=")
    done = subprocess.run(arguments, cwd=ROOT, env={**os.environ, name: value}, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_schedule_is_the_same_after_a_turn_as_text() -> None:
    """JSON keeps a schedule, and a fault that does not exist is named."""
    schedule = Schedule(7, [Burst(3, 2**32, "kill"), Burst(30, 0, "none")])
    assert schedule_of(schedule.text()) == schedule
    with pytest.raises(ValueError, match="there is no fault fire"):
        schedule_of('{"seed": 1, "bursts": [[1, 2, "fire"]]}')


def test_the_same_schedule_runs_the_same() -> None:
    """Two runs of one schedule take the same steps and suffer the same damage."""
    one, two = Counters(), Counters()
    with sweeping_always():
        for totals in (one, two):
            assert violations(plain_schedule(3), totals) == []
    assert one == two


def test_shrinking_leaves_what_the_failure_needs() -> None:
    """Of a hundred bursts the two that matter are left, and only the fault that matters."""

    def fails(schedule: Schedule) -> bool:
        orders = [burst.order for burst in schedule.bursts]
        return {17, 80} <= set(orders) and schedule.bursts[orders.index(80)].fault == "kill"

    long = Schedule(1, [Burst(1, order, "kill") for order in range(100)])
    assert shrunk(long, fails) == Schedule(1, [Burst(1, 17, "none"), Burst(1, 80, "kill")])


def test_the_command_replays_a_failure_and_a_pass() -> None:
    """The command in a failure's text runs that schedule: it ends with 1 and the violations for a mutant, with 0 for the protocol."""
    with sweeping_always(), MUTANTS["V1"]():
        schedule = next(one for one in map(plain_schedule, range(100)) if damage(violations(one)))
    code, said = ran(schedule.command("V1"))
    assert code == 1, said
    assert said.splitlines()[-1].endswith(" violations")
    assert not said.endswith("\n0 violations\n")
    code, said = ran(Schedule(schedule.seed, schedule.bursts[:10]).command())
    assert (code, said.splitlines()[-1]) == (0, "0 violations"), said
