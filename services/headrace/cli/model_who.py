"""`headrace model who`: which version scored an offset, by the facts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.output import Output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.definition import App, Pipeline
    from headrace.switches import Switch


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(who)


def who(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="The source, or the hop that the last stage reads.")],
    partition: Annotated[int, typer.Argument(metavar="PARTITION", min=0)],
    offset: Annotated[int, typer.Argument(metavar="OFFSET", min=0)],
    app_reference: Annotated[str, typer.Option("--app", help="The app, as module:attribute.")],
    entity: Annotated[str | None, typer.Option(help="Its entity key: says whether the challenger answers for it.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file; else headrace.toml, if it is there.")] = None,
    output: Annotated[Output, typer.Option(help="Text for people or JSON for programs.")] = Output.TEXT,
) -> None:
    """Say which versions score a record of a source, and in which roles, by the log of switches."""
    from headrace.cli.model import opened
    from headrace.switches import in_force, switches_in
    from headrace.types import TopicPartition

    with opened(app_reference, config) as desk:
        pipelines = _scored_there(desk.app, topic)
        switches = switches_in(desk.facts())
    found = [(one, in_force(switches.get((one.name, TopicPartition(topic, partition)), ()), offset)) for one in pipelines]
    if output is Output.JSON:
        typer.echo(json.dumps([_plain(one, switch, entity) for one, switch in found], indent=2))
        return
    for one, switch in found:
        typer.echo("\n".join(_text(one, switch, entity, f"{topic}-{partition} offset {offset}")))


def _scored_there(app: App, topic: str) -> Sequence[Pipeline]:
    """The pipelines of the registry whose events are scored where they stand on a topic. Raises `DefinitionError`."""
    from headrace.errors import DefinitionError

    found = [stage.pipeline for stage in app.stages if stage.scores and stage.reads.topic == topic and stage.pipeline.model is None]
    if not found:
        known = ", ".join(dict.fromkeys(stage.reads.topic for stage in app.stages if stage.scores and stage.pipeline.model is None))
        raise DefinitionError(f"no pipeline of {app!r} with models of the registry scores what stands on {topic!r}: say {known}")
    return found


def _roles(switch: Switch, entity: str | None) -> list[tuple[str, str]]:
    """Version and role of everybody who scores, for an entity if one is named."""
    from headrace.predict.commands import FALLBACK
    from headrace.predict.roles import challenged

    roster = switch.roster
    champion = roster.champion or FALLBACK
    shadows = [(version, "shadow") for version in roster.shadows]
    if roster.challenger is None:
        return [(champion, "champion"), *shadows]
    if entity is None:
        return [(champion, "champion"), (roster.challenger, f"challenger for {100 * roster.share:.12g}% of the entities"), *shadows]
    if challenged(switch.pipeline, roster.challenger, roster.share, [entity])[0]:
        return [(roster.challenger, "challenger"), (champion, "shadow"), *shadows]
    return [(champion, "champion"), *shadows]


def _plain(pipeline: Pipeline, switch: Switch | None, entity: str | None) -> dict[str, Any]:
    told: dict[str, Any] = {"pipeline": pipeline.name, "since_offset": None, "epoch": 0, "versions": []}
    if switch is not None:
        versions = [
            {"version": version, "role": role.partition(" ")[0], "sha256": switch.artifacts.get(version)}
            for version, role in _roles(switch, entity)
        ]
        told |= {"since_offset": switch.offset, "epoch": switch.epoch, "share": switch.roster.share, "versions": versions}
    return told


def _text(pipeline: Pipeline, switch: Switch | None, entity: str | None, place: str) -> list[str]:
    if switch is None:
        nobody = "the fallback" if pipeline.fallback is not None else "nobody"
        return [f"{pipeline.name}: {place} is scored by {nobody}: no version was live yet"]
    lines = [f"{pipeline.name}: {place} is scored by"]
    lines += [f"  version {version:12} {role:12} {switch.artifacts.get(version, '-')[:16]}" for version, role in _roles(switch, entity)]
    return [*lines, f"  since offset {switch.offset} of the partition, by the command before offset {switch.epoch} of the control topic"]
