"""Who scored what, compared with the switches on the facts topic: written without what the worker scores with."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from headrace.definition import Pipeline
from headrace.predict.commands import FALLBACK
from headrace.predict.roles import Roster, challenged
from headrace.switches import Switch, Where, in_force, switches_in
from headrace.types import Float64s, Record, TopicPartition

Scores = Callable[[str, Float64s], Float64s]
"""What a version makes of some vectors."""


def compare_roles(
    pipeline: Pipeline,
    facts: Sequence[bytes | None],
    predictions: Iterable[Record],
    shadows: Iterable[Record],
    scores: Scores,
    *,
    tolerance: float,
) -> list[str]:
    """Every result has the version, role and score that the facts say, and exactly the shadows."""
    found, topic, switches = [], pipeline.source.topic, switches_in(facts)
    shadowed: dict[tuple[int, int], list[tuple[str, float]]] = {}
    for record in shadows:
        value = json.loads(record.value or b"")
        number, offset, model = value["id"].removeprefix(f"{topic}-").split("-")
        if value["model"]["role"] != "shadow" or model.partition("@")[2] != value["model"]["version"]:
            found.append(f"roles: {value['id']} says it is from {value['model']}")
        shadowed.setdefault((int(number), int(offset)), []).append((value["model"]["version"], value["score"]))
    asked: dict[str, list[tuple[tuple[int, int], float, list[float]]]] = {}
    for record in predictions:
        value = json.loads(record.value or b"")
        number, offset, _ = value["id"].removeprefix(f"{topic}-").split("-")
        place = int(number), int(offset)
        (version, role), wanted = expected(switches, pipeline.name, TopicPartition(topic, place[0]), place[1], value["entity"])
        if (value["model"]["version"], value["model"]["role"]) != (version, role):
            found.append(f"roles: {place} was scored by {value['model']}, the facts say {role} {version}")
        came = shadowed.pop(place, [])
        if sorted(one for one, _ in came) != wanted:
            found.append(f"roles: {place} has the shadows {sorted(one for one, _ in came)}, the facts say {wanted}")
        vector = [np.nan if one is None else one for one in value["features"].values()]
        for who, score in [(version, value["score"]), *came]:
            asked.setdefault(who, []).append((place, score, vector))
    for version, answers in asked.items():
        again = scores(version, np.array([vector for _, _, vector in answers]))
        for (place, score, _), other in zip(answers, again.tolist(), strict=True):
            if not abs(score - other) <= tolerance:
                found.append(f"roles: {place} was given {score}, version {version} gives {other}")
    return found + [f"roles: {place} has shadows {some} and no prediction" for place, some in shadowed.items()]


def expected(
    switches: Mapping[Where, Sequence[Switch]], pipeline: str, partition: TopicPartition, offset: int, entity: str
) -> tuple[tuple[str, str], list[str]]:
    """Version and role of who answers for an entity at an offset, and the versions that shadow it."""
    switch = in_force(switches.get((pipeline, partition), ()), offset)
    roster = Roster() if switch is None else switch.roster
    champion = roster.champion or FALLBACK
    if roster.challenger is not None and challenged(pipeline, roster.challenger, roster.share, [entity])[0]:
        return (roster.challenger, "challenger"), sorted([*roster.shadows, champion])
    return (champion, "champion"), sorted(roster.shadows)
