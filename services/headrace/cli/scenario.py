"""`headrace scenario`: what would have changed with another model, threshold or input."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.output import Output

if TYPE_CHECKING:
    from headrace.definition import Pipeline

app = typer.Typer(help="Say what another model, threshold or input would have changed.", add_completion=False, rich_markup_mode=None)

_BOUND = "instant of event time (ISO 8601, UTC without a zone, or milliseconds), or PARTITION:OFFSET, once for each partition meant"


@app.command()
def scenario(
    app_reference: Annotated[str, typer.Option("--app", help="The app, as module:attribute.")],
    pipeline: Annotated[str | None, typer.Option(help="Which pipeline, if the app has several.")] = None,
    events: Annotated[
        list[str] | None,
        typer.Option(
            help="Events: a Parquet or CSV file, a folder, or a glob; of a pipeline that looks others up, TOPIC=PATH for each source."
        ),
    ] = None,
    from_topics: Annotated[
        bool, typer.Option("--from-topics", help="Events (and outcomes) from the app's topics, beside the scores that were served.")
    ] = False,
    log: Annotated[
        list[str] | None,
        typer.Option(help="The same of topics archived in Parquet: PATH with a column `topic`, or TOPIC=PATH for each."),
    ] = None,
    begin: Annotated[list[str] | None, typer.Option("--from", help=f"Where the span begins: an {_BOUND}.")] = None,
    end: Annotated[list[str] | None, typer.Option("--to", help=f"Where it ends, not with that: an {_BOUND}.")] = None,
    labels: Annotated[str | None, typer.Option(help="Outcomes: a Parquet or CSV file, a folder, or a glob.")] = None,
    label_time: Annotated[str | None, typer.Option(help="The column of --labels that says when an outcome was known.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Another version: a file (.onnx), or one of the registry. Else the model stays.")
    ] = None,
    baseline_model: Annotated[str | None, typer.Option(help="What it is compared with; else the declared model, or the champion.")] = None,
    threshold: Annotated[float | None, typer.Option(help="From which score on the answer is yes; else as now.")] = None,
    baseline_threshold: Annotated[
        float | None, typer.Option(help="The threshold that holds now; of probabilities 0.5 unless said.")
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="FIELD=EXPRESSION over the fields of the event as it was, such as 'dep_delay=dep_delay + 10': changed before the fold, so "
            "rolling features change as well; several times.",
        ),
    ] = None,
    drop_input: Annotated[list[str] | None, typer.Option(help="A field that no event has, before the fold; several times.")] = None,
    empty_feature: Annotated[
        list[str] | None, typer.Option(help="A feature, or a view, that is empty after the fold; several times.")
    ] = None,
    by: Annotated[
        str | None, typer.Option(help="Tell it by segments: a field of the event, or an expression such as 'amount > 100'.")
    ] = None,
    examples: Annotated[int, typer.Option(min=0, help="How many of the most changed events are named.")] = 5,
    svg: Annotated[Path | None, typer.Option(help="Draw it as SVG, too.")] = None,
    png: Annotated[Path | None, typer.Option(help="Draw it as PNG, too.")] = None,
    rows: Annotated[Path | None, typer.Option(help="Write the rows, too: Parquet, an event a row, with both scores.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file; else headrace.toml, if it is there.")] = None,
    output: Annotated[Output, typer.Option(help="Text for people or JSON for programs.")] = Output.TEXT,
) -> None:
    """Replay a span of the log through another model, threshold or input, and say what would have changed.

    Told are scores, flipped decisions, and how good both are where outcomes are known. Before is the declared model over the events as they
    were; from topics it is first compared with what was served. Inputs change within the span only: what lies before is history. Without
    --model, --threshold and changes nothing changes, and what was served is compared with what the model gives.
    """
    from headrace.cli.definitions import load_app
    from headrace.cli.progress import RecordMeter
    from headrace.cli.training_set import archived, outcomes_there, tables_of, topics_of
    from headrace.training import scenario as replayed
    from headrace.training.building import chosen_pipeline
    from headrace.training.changed_inputs import assignments

    if sum((events is not None, from_topics, bool(log))) != 1:
        raise typer.BadParameter("say where events come from: --events PATH, --from-topics, or --log PATH", param_hint="--events")
    pictures = [path for path in (checked(svg, ".svg", "--svg"), checked(png, ".png", "--png")) if path is not None]
    definition = load_app(app_reference)
    chosen = chosen_pipeline(definition, pipeline)
    inputs = assignments(sets or [], where="--set")
    topics = archived(log) if log else topics_of(config) if from_topics else None
    meter = RecordMeter()
    try:
        found = replayed(
            definition,
            events=topics or tables_of(events or []),
            labels=labels if labels is not None or topics is None else outcomes_there(definition, chosen.name, topics),
            pipeline=chosen.name,
            label_time=label_time,
            model=model,
            baseline=baseline_model,
            threshold=threshold,
            baseline_threshold=baseline_threshold,
            inputs=inputs,
            drop_inputs=drop_input or (),
            empty_features=empty_feature or (),
            by=by,
            begin=begin or None,
            end=end or None,
            examples=examples,
            fetch=partial(fetched, app_reference, config),
            told=meter.show,
        )
    finally:
        meter.done()
    for path in pictures:
        found.draw(path)
    if rows is not None:
        found.to_parquet(rows)
    typer.echo(json.dumps({**found.to_json(), "seconds": round(meter.seconds, 3)}, indent=2) if output is Output.JSON else str(found))


def fetched(app_reference: str, config: Path | None, pipeline: Pipeline, named: str | None) -> bytes:
    """The bytes of a version: a file, or what the registry keeps under that name, or its champion."""
    from headrace.cli.model import opened
    from headrace.training.versions import from_files

    if pipeline.model is not None or (named is not None and named.endswith(".onnx")):
        return from_files(pipeline, named)
    with opened(app_reference, config) as desk:
        return desk.content(pipeline.name, named)


def checked(path: Path | None, ending: str, option: str) -> Path | None:
    """The path, if it says what it will be; and that pictures can be drawn here is known before the log is read."""
    if path is not None:
        from headrace.training import chart

        if path.suffix.lower() != ending or ending not in chart.FORMATS:
            raise typer.BadParameter(f"{path} does not end with {ending}", param_hint=option)
    return path
