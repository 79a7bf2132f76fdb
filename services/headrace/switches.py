"""From which offset on which versions score: switches, as facts.

Whoever moves a role moves it in the registry, at no offset of anybody's log. A worker takes it up between two batches, and from where it
does is no function of the source. So it is a fact on the app's facts topic, written in the transaction of the first batch that the new
roster scores, or in one of its own where nothing comes:

    from offset X of this partition on the events of this pipeline are scored by these versions in these roles, up to the next fact

Of two facts about one partition the later one holds from its offset on; what the earlier one said of offsets behind that is void, as when
a group's offsets were set back by hand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.predict.roles import Roster
from headrace.types import TopicPartition

FACT_KIND = "switch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """From `offset` of `partition` on, a source's or a hop's, these versions score the events of a pipeline."""

    pipeline: str
    partition: TopicPartition
    offset: int
    epoch: int
    """The state of the registry that says so: the offset behind the command that changed it last."""
    roster: Roster
    artifacts: Mapping[str, str]
    """The sha256 of each version."""
    fallback: float | None = None
    """The score where there is no champion."""


def switch_fact(switch: Switch) -> bytes:
    """The record that remembers a switch."""
    roster = switch.roster
    told = {
        "kind": FACT_KIND,
        **switch.partition._asdict(),
        "offset": switch.offset,
        "pipeline": switch.pipeline,
        "epoch": switch.epoch,
        "champion": roster.champion,
        "challenger": roster.challenger,
        "share": roster.share,
        "shadows": list(roster.shadows),
        "artifacts": dict(switch.artifacts),
        "fallback": switch.fallback,
    }
    return json.dumps(told, separators=(",", ":")).encode()


Where = tuple[str, TopicPartition]
"""A pipeline, and a partition of what its last stage reads."""


def switches_in(facts: Sequence[bytes | None]) -> dict[Where, list[Switch]]:
    """The switches that hold, by what `switch_fact` wrote: for each pipeline and partition in the order of offsets."""
    found: dict[Where, list[Switch]] = {}
    for value in facts:
        fact = json.loads(value or b"{}")
        if fact.get("kind") == FACT_KIND:
            switch = _switch(fact)
            before = found.setdefault((switch.pipeline, switch.partition), [])
            while before and before[-1].offset >= switch.offset:
                before.pop()
            before.append(switch)
    return found


def in_force(switches: Sequence[Switch], offset: int) -> Switch | None:
    """The switch by which an offset is scored; None where none was told before it."""
    return next((switch for switch in reversed(switches) if switch.offset <= offset), None)


def _switch(fact: Mapping[str, Any]) -> Switch:
    roster = Roster(champion=fact["champion"], challenger=fact["challenger"], share=fact["share"], shadows=tuple(fact["shadows"]))
    return Switch(
        pipeline=fact["pipeline"],
        partition=TopicPartition(fact["topic"], fact["partition"]),
        offset=fact["offset"],
        epoch=fact["epoch"],
        roster=roster,
        artifacts=fact["artifacts"],
        fallback=fact["fallback"],
    )
