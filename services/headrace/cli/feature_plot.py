"""`headrace features plot`: a chart of one entity's features over time; mounted by the noun `features`."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.output import Output

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INSTANT = "ISO 8601 (without a zone it is UTC) or milliseconds UTC"


def add_to(app: typer.Typer) -> None:
    """Add the command to the noun."""
    app.command("plot")(plot)


def plot(
    view: Annotated[str, typer.Argument(help="The feature view.")],
    entity: Annotated[str, typer.Argument(help="The key of the entity.")],
    app_reference: Annotated[str, typer.Option("--app", help="The app, as module:attribute.")],
    to: Annotated[Path, typer.Option(help="The chart to write: .svg or .png.")],
    events: Annotated[
        str | None, typer.Option(help="Events: a Parquet or CSV file, a folder, or a glob. Else the topics of the app.")
    ] = None,
    begin: Annotated[str | None, typer.Option("--from", help=f"Begin at this instant: {_INSTANT}. Else the entity's first event.")] = None,
    end: Annotated[str | None, typer.Option("--until", help=f"End at this instant: {_INSTANT}. Else the entity's last event.")] = None,
    grid: Annotated[
        str | None, typer.Option(help="As of every so often, for example 1m or 1h, and behind each event. Else about 600 times.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file; else headrace.toml, if it is there.")] = None,
    output: Annotated[Output, typer.Option(help="Text for people or JSON for programs.")] = Output.TEXT,
) -> None:
    """Draw the features of one entity over time: what a look-up would have answered then, a row a feature.

    Where a window holds no event of the entity the ground is grey: there it is what is declared for nothing, or there is a gap.
    Needs matplotlib: pip install 'headrace[plot]'.
    """
    from headrace.cli.definitions import load_app
    from headrace.cli.features import ms_of
    from headrace.cli.progress import RecordMeter
    from headrace.cli.training_set import topics_of
    from headrace.training import chart
    from headrace.training.course import entity_course

    if to.suffix.lower() not in chart.FORMATS:
        raise typer.BadParameter(f"{to} is neither {' nor '.join(chart.FORMATS)}", param_hint="--to")
    bounds = [None if text is None else ms_of(text, of=option) for text, option in ((begin, "--from"), (end, "--until"))]
    definition = load_app(app_reference)
    given = topics_of(config) if events is None else events
    meter = RecordMeter()
    try:
        found = entity_course(definition, view, entity, events=given, from_ms=bounds[0], until_ms=bounds[1], grid=grid, told=meter.show)
        chart.draw(found, to)
    finally:
        meter.done()
    first_ms, last_ms = found.instants_ms[[0, -1]].tolist()
    count = int(((found.event_times_ms >= first_ms) & (found.event_times_ms <= last_ms)).sum())
    if output is Output.JSON:
        told = {"to": str(to), "view": view, "entity": entity, "from_ms": first_ms, "until_ms": last_ms}
        typer.echo(json.dumps({**told, "instants": len(found.instants_ms), "events": count, "seconds": round(meter.seconds, 3)}, indent=2))
        return
    typer.echo(f"{to}: {len(found.view.features)} features of {entity} from {_text(first_ms)} to {_text(last_ms)}, {count:,} events")


def _text(instant_ms: int) -> str:
    return (_EPOCH + timedelta(milliseconds=instant_ms)).strftime("%Y-%m-%dT%H:%MZ")
