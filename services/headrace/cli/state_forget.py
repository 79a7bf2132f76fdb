"""`headrace state forget`: take away what is kept of one entity, and say what is not taken away; mounted by the noun `state`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.output import Output

if TYPE_CHECKING:
    from headrace.apps.forgetting import Forgotten
    from headrace.apps.remains import Remains
    from headrace.cli.state import Desk
    from headrace.source import Source

WHAT_STAYS = (
    "Records stay on their topics until Kafka removes them: after the retention of the topic, or, where it is compacted, after a tombstone "
    "that whoever owns the topic sends. Snapshots, training sets and other files made before still know the entity; so does a hash of its "
    "key on the facts topic, for ever."
)


def add_to(app: typer.Typer) -> None:
    """Add the command to the noun."""
    app.command("forget")(forget)


def forget(
    entity: Annotated[str, typer.Argument(help="The key of the entity.")],
    app_reference: Annotated[str, typer.Option("--app", help="The app, as module:attribute.")],
    view: Annotated[
        list[str] | None,
        typer.Option(help="Only where this view is kept, and those of the same entity beside it; may be repeated. Else everywhere."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    wait_seconds: Annotated[float, typer.Option("--wait", min=0, help="How long to wait for workers that have ended to be gone.")] = 15.0,
    scan: Annotated[int, typer.Option(min=0, help="Count its records among so many of the newest of a partition.")] = 1_000_000,
    config: Annotated[Path | None, typer.Option(help="Settings file; else headrace.toml, if it is there.")] = None,
    output: Annotated[Output, typer.Option(help="Text for people or JSON for programs.")] = Output.TEXT,
) -> None:
    """Take away the state of one entity from the store. No worker of the app may be at work: end them first, and start them again after it.

    A rebuild does not bring it back, and `headrace verify` knows of it: that it was taken away is a fact on the facts topic. What stands on
    topics is not touched; where, how much and how long is said.
    """
    from headrace.apps.cluster import Cluster, Wishes
    from headrace.apps.forgetting import Forgetting
    from headrace.apps.remains import remains_of
    from headrace.cli.state import one_of, opened
    from headrace.publish.kafka_topics import KafkaTopics

    one_of(None, entity)
    with opened(app_reference, config) as desk:
        wanted = wanted_inputs(desk, view)
        topics = KafkaTopics(desk.properties)
        cluster = Cluster(desk.app, desk.properties, Wishes())
        forgetting = Forgetting(
            desk.app,
            desk.subject,
            desk.store,
            members=lambda: topics.members(desk.app.name),
            remember=lambda fact: cluster.remember(b"forgotten", fact),
        )
        forgetting.wait_for_nobody(int(1_000 * wait_seconds))
        if not yes:
            names = ", ".join(one.name for reads in wanted for one in desk.app.views_of(reads))
            typer.confirm(f"Forget {entity!r} in {names} of app {desk.app.name}? This cannot be undone", abort=True, err=True)
        done = [forgetting.forget(reads, desk.partition_of(reads, entity), entity) for reads in wanted]
        remains = remains_of(desk.app, desk.subject.reader, topics.describe, wanted, entity, most=scan)
    typer.echo(as_json(entity, done, remains) if output is Output.JSON else as_text(entity, done, remains))


def wanted_inputs(desk: Desk, views: Sequence[str] | None) -> list[Source]:
    """The sources and hops whose partitions keep these views."""
    known = {one.name: reads for reads in desk.keeping for one in desk.app.views_of(reads)}
    unknown = [name for name in views or () if name not in known]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]} is none of {', '.join(known)}", param_hint="--view")
    return [reads for reads in desk.keeping if not views or any(one.name in views for one in desk.app.views_of(reads))]


def as_text(entity: str, done: Sequence[Forgotten], remains: Sequence[Remains]) -> str:
    """For people."""
    lines = []
    for one in done:
        where = f"{one.partition.topic}-{one.partition.partition}, at offset {one.offset:,}"
        had = ", ".join(f"{view} ({size:,} bytes)" for view, size in one.states.items()) or "there was no state of it"
        lines.append(f"forgot {entity} in {where}: {had}")
    lines += ["", "What remains on topics:", *(f"  {one.text()}" for one in remains), "", WHAT_STAYS]
    return "\n".join([*lines, "Start the workers again."])


def as_json(entity: str, done: Sequence[Forgotten], remains: Sequence[Remains]) -> str:
    """For programs."""
    forgotten: list[dict[str, Any]] = [{**one.partition._asdict(), "offset": one.offset, "states": dict(one.states)} for one in done]
    return json.dumps({"entity": entity, "forgotten": forgotten, "remains": [asdict(one) for one in remains]}, indent=2)
