"""`headrace features export`: features on a grid of time as Parquet, for analysts; mounted by the noun `features`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.output import Output


def add_to(app: typer.Typer) -> None:
    """Add the command to the noun."""
    app.command("export")(export)


def export(
    app_reference: Annotated[str, typer.Option("--app", help="The app, as module:attribute.")],
    to: Annotated[Path, typer.Option(help="The folder for one Parquet file a view.")],
    grid: Annotated[str, typer.Option(help="As of every so often, for example 15m, 1h or 1d; aligned to the epoch (UTC).")] = "1h",
    view: Annotated[list[str] | None, typer.Option(help="Only this view; may be repeated. Else all.")] = None,
    events: Annotated[str | None, typer.Option(help="Events: a Parquet or CSV file, a folder, or a glob. Else the app's topics.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file; else headrace.toml, if it is there.")] = None,
    output: Annotated[Output, typer.Option(help="Text for people or JSON for programs.")] = Output.TEXT,
) -> None:
    """Write every feature of every entity as of a grid of instants: what a look-up would have answered then.

    An entity has rows while some window can see an event of it. Names, descriptions and units stand in the schema of each file.
    """
    from headrace.cli.definitions import load_app
    from headrace.cli.progress import RecordMeter
    from headrace.cli.training_set import topics_of
    from headrace.training.grid import export_features

    definition = load_app(app_reference)
    given = topics_of(config) if events is None else events
    meter = RecordMeter()
    try:
        found = export_features(definition, events=given, grid=grid, to=to, views=view or (), told=meter.show)
    finally:
        meter.done()
    if output is Output.JSON:
        files = [{"view": one.view, "path": str(one.path), "rows": one.rows, "refused": one.refused} for one in found]
        typer.echo(json.dumps({"grid": grid, "seconds": round(meter.seconds, 3), "files": files}, indent=2))
        return
    for one in found:
        left_out = ", ".join(f"{count:,} {reason}" for reason, count in one.refused.items())
        typer.echo(f"{one.view}: {one.rows:,} rows in {one.path}{f'; left out: {left_out}' if left_out else ''}")
