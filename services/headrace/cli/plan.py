"""`headrace plan` and `headrace apply`: what an app needs that is not there yet; and making it.

Exit codes of plan are Terraform's: 0 nothing to do, 1 an error, 2 something to do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.output import Output
from headrace.duration import duration_ms, duration_text

if TYPE_CHECKING:
    from headrace.apps.cluster import Cluster, Start
    from headrace.changes import Changes, ViewChange
    from headrace.definition import App, Pipeline
    from headrace.features.view import FeatureView

CHANGES_WANTED = 2

AppReference = Annotated[str, typer.Option("--app", help="The app, as module:attribute.")]
Config = Annotated[Path | None, typer.Option(help="Settings file; else headrace.toml, if it is there.")]
Partitions = Annotated[int, typer.Option(min=1, help="Partitions of a source topic that is made.")]
Replication = Annotated[int, typer.Option(min=-1, help="Copies of each topic that is made; -1 is the broker's default.")]
Retention = Annotated[str, typer.Option(help="How long records of the topics that are made are kept: 7d, 72h, ... or 'for ever'.")]
As = Annotated[Output, typer.Option(help="Text for people or JSON for programs.")]

app = typer.Typer(help="Show what an app needs that is not there yet.", add_completion=False, rich_markup_mode=None)


@app.command()
def plan(
    app_reference: AppReference,
    partitions: Partitions = 4,
    replication: Replication = -1,
    retention: Retention = "for ever",
    config: Config = None,
    output: As = Output.TEXT,
) -> None:
    """Show what `headrace apply` would do. Exit code 0: nothing; 2: something; 1: an error."""
    from headrace.apps.cluster import Start
    from headrace.apps.filling import to_fill
    from headrace.verify.deployment import deployment

    definition, cluster = open_cluster(app_reference, config, partitions, replication, retention, Start.EARLIEST)
    wanted = cluster.compare()
    with deployment(definition.name, cluster.properties, None) as subject:
        new = {name.topic for name in wanted.offsets}
        fills = to_fill(definition, subject, {view.name for view in wanted.views if view.rebuilds}, new)
    show(definition, wanted, retention, output, fills=fills)
    if wanted.any():
        raise typer.Exit(CHANGES_WANTED)


def open_cluster(
    reference: str, config: Path | None, partitions: int, replication: int, retention: str, start: Start
) -> tuple[App, Cluster]:
    """The app and the cluster that the settings name."""
    from headrace import log
    from headrace.apps.cluster import Cluster, Wishes
    from headrace.apps.worker import kafka_properties
    from headrace.cli.definitions import load_app
    from headrace.kafka_client import knock
    from headrace.settings import load

    settings = load(config).settings
    log.set_up(level="error", style="console", secrets=settings.secrets())
    definition = load_app(reference)
    retention_ms = -1 if retention == "for ever" else duration_ms(retention, of="--retention")
    wishes = Wishes(partitions=partitions, replication=replication, retention_ms=retention_ms, start=start)
    knock(kafka_properties(settings))
    return definition, Cluster(definition, kafka_properties(settings), wishes)


def show(definition: App, wanted: Changes, retention: str, output: Output, *, fills: Mapping[str, int] = MappingProxyType({})) -> None:
    """Print what is missing, what each entity will cost, and how many events a view is filled from (`fills`)."""
    from headrace.apps.filling import EVENTS_A_SECOND

    if output is Output.JSON:
        costs = {view.name: view.bytes_per_entity()["total"] for view in definition.views}
        costs |= {one.retained.name: one.retained.bytes_per_entity() for one in definition.pipelines if one.retained is not None}
        events = {name: {"events": count, "seconds": round(count / EVENTS_A_SECOND, 1)} for name, count in fills.items()}
        typer.echo(json.dumps({**asdict(wanted), "bytes_per_entity": costs, "fills": events}, indent=2))
        return
    typer.echo(f"app {definition.name}")
    for topic in wanted.topics:
        typer.echo(f"  + topic {topic.name}: {topic.partitions} partitions, kept {retention} ({topic.role})")
    for view in definition.views:
        show_view(view, next((one for one in wanted.views if one.name == view.name), None))
        if fills.get(view.name):
            typer.echo(
                f"      filled from {fills[view.name]:,} events of the log, some {fills[view.name] / EVENTS_A_SECOND:,.0f} s at "
                f"{EVENTS_A_SECOND:,} a second: after `headrace apply`, `headrace state fill` does it beside the workers at work"
            )
    for pipeline in definition.pipelines:
        show_pipeline(pipeline)
    for gone in (one for one in wanted.views if one.what == "gone"):
        typer.echo(f"  - view {gone.name}: its state stays in the store until `headrace state prune` removes it")
    if wanted.offsets:
        typer.echo(f"  + starting offsets of group {definition.name} for {len(wanted.offsets)} partitions")
    for warning in [*wanted.problems, *model_warnings(definition)]:
        typer.echo(f"  ! {warning}")
    typer.echo("run `headrace apply` with the same options to do this" if wanted.any() else "nothing to do")


def show_pipeline(pipeline: Pipeline) -> None:
    """Print what a pipeline does beside scoring the features of its views."""
    if pipeline.look_up is not None:
        looked = pipeline.look_up
        waits = f", waits for that up to {duration_text(looked.wait_ms)}" if looked.wait_ms else ""
        names = ", ".join(view.name for view in looked.views)
        typer.echo(f"    pipeline {pipeline.name} looks up {names}: stale after {duration_text(looked.stale_after_ms)}{waits}")
    if pipeline.retained is not None:
        typer.echo(
            f"    pipeline {pipeline.name} publishes corrections to {pipeline.corrections}: for them up to {pipeline.retained.most} "
            f"events of an entity are retained, at most {pipeline.retained.bytes_per_entity():,} bytes more"
        )


def show_view(view: FeatureView, change: ViewChange | None) -> None:
    """Print a view, what changes in it, and what each of its features means."""
    sign = {"new": "+", "changed": "~"}.get(change.what if change else "", " ")
    most = view.bytes_per_entity()["total"]
    typer.echo(f"  {sign} view {view.name} version {view.version} ({view.fp}): at most {most:,} bytes an entity")
    for feature in view.features:
        mark = "+" if change is not None and feature.name in change.added else " "
        typer.echo(f"      {mark} {feature.name}: {feature.description}")
    if change is not None:
        for name in change.removed:
            typer.echo(f"      - {name}")
        if change.what == "changed":
            typer.echo("      its state is filled anew from the log, beside the old one")


def model_warnings(definition: App) -> list[str]:
    """Pipelines whose model gives no score for an entity without history: each such event would be a dead letter."""
    import math

    import numpy as np

    from headrace.assembly import load_models

    if any(pipeline.model is None for pipeline in definition.pipelines):
        return []
    answer = []
    models = load_models(definition)
    for pipeline in definition.pipelines:
        empties = [feature.empty for view in pipeline.views for feature in view.features] + [0.0] * len(pipeline.event_features)
        refused = models[pipeline.name].score(np.array([empties, empties])).refused
        absent = [name for name, empty in zip(pipeline.feature_names, empties, strict=True) if math.isnan(empty)]
        if refused:
            answer.append(
                f"the model of {pipeline.name} gives no score for an entity without history ({refused[0][1]}): every such event "
                "becomes a dead letter MODEL_OUTPUT; say what an empty window is with empty=..., "
                f"first of all for {absent[0] if absent else 'its features'}"
            )
    return answer
