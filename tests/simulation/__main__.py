"""Run one schedule of the simulation again, by its seed or from its JSON, as the protocol stands or as one of its mutants.

    PYTHONPATH=services python -m tests.simulation 4711
    PYTHONPATH=services python -m tests.simulation 4711 --mutant V5 --shrink
    PYTHONPATH=services python -m tests.simulation --schedule failing.json

Exits with 1 when a promise was broken.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from tests.simulation.mutants import APP_OF, MUTANTS
from tests.simulation.replay import damage, sweeping_always, violations
from tests.simulation.schedule import Schedule, plain_schedule, schedule_of, shrunk
from tests.simulation.visits import APPS
from tests.simulation.world import Counters


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="Run one schedule of the simulation again.")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("seed", nargs="?", type=int, help="the seed of a plain schedule")
    which.add_argument("--schedule", help="a schedule as JSON, or the file that holds it; - reads it from the standard input")
    parser.add_argument("--mutant", choices=MUTANTS, help="run a weaker protocol instead")
    parser.add_argument("--app", choices=APPS, help="which pipeline: of one stage, chained, one that looks up, two with corrections")
    parser.add_argument("--shrink", action="store_true", help="look for a shorter schedule that still fails")
    return parser.parse_args(arguments)


def asked_for(options: argparse.Namespace) -> Schedule:
    """The schedule that the command line names."""
    if options.schedule is None:
        return plain_schedule(options.seed)
    if options.schedule == "-":
        return schedule_of(sys.stdin.read())
    return schedule_of(options.schedule if options.schedule.startswith("{") else Path(options.schedule).read_text(encoding="utf-8"))


def say(line: str) -> None:
    """One line of the report."""
    sys.stdout.write(f"{line}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, tell what happened, shrink if asked to; gives the exit code."""
    options = parsed(arguments)
    mutant: Callable[[], AbstractContextManager[object]] = MUTANTS[options.mutant] if options.mutant else nullcontext
    schedule, totals = asked_for(options), Counters()
    app = APPS[options.app or APP_OF.get(options.mutant, "sim")]

    def run(tried: Schedule, counters: Counters | None = None) -> list[str]:
        with mutant():
            found = violations(tried, counters, app=app)
        return damage(found) if options.mutant else found

    with sweeping_always():
        found = run(schedule, totals)
        say("  ".join(f"{name} {value}" for name, value in vars(totals).items()))
        for problem in found:
            say(problem)
        say(f"{len(found)} violations")
        if found and options.shrink:
            short = shrunk(schedule, lambda tried: bool(run(tried)))
            faults = sum(burst.fault != "none" for burst in short.bursts)
            say(f"\nfails with {len(short.bursts)} bursts and {faults} faults:")
            for burst in short.bursts:
                say(f"  {burst.steps:2} steps of order {burst.order}, then {burst.fault}")
            for problem in run(short):
                say(problem)
            say(short.command(options.mutant, app))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
