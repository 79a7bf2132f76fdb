"""`headrace training-set`: the rows a model is trained on, as Parquet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.output import Output

if TYPE_CHECKING:
    from headrace.definition import App
    from headrace.training import Topics, TrainingFrame
    from headrace.training.skew import Skew

app = typer.Typer(help="Make the rows a model is trained on.", add_completion=False, rich_markup_mode=None)


@app.command()
def training_set(
    app_reference: Annotated[str, typer.Option("--app", help="The app, as module:attribute.")],
    to: Annotated[Path, typer.Option(help="The Parquet file to write.")],
    pipeline: Annotated[str | None, typer.Option(help="Which pipeline, if the app has several.")] = None,
    events: Annotated[str | None, typer.Option(help="Events: a Parquet or CSV file, a folder, or a glob.")] = None,
    from_topics: Annotated[
        bool, typer.Option("--from-topics", help="Events (and outcomes) from the app's topics; with --events, compared with that.")
    ] = False,
    labels: Annotated[str | None, typer.Option(help="Outcomes: a Parquet or CSV file, a folder, or a glob.")] = None,
    label_time: Annotated[str | None, typer.Option(help="The column of --labels that says when an outcome was known.")] = None,
    at: Annotated[str | None, typer.Option(help="A table of entities and instants (`as_of`): a row each, instead of one an event.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file; else headrace.toml, if it is there.")] = None,
    output: Annotated[Output, typer.Option(help="Text for people or JSON for programs.")] = Output.TEXT,
) -> None:
    """Write point-in-time rows of a pipeline: each event's features as they were served, with its outcome where that came in time.

    Every row that is left out is counted, by reason. The file carries what each feature means, fingerprints, offsets and a hash.
    """
    from headrace.cli.definitions import load_app
    from headrace.cli.progress import RecordMeter
    from headrace.training import training_frame
    from headrace.training.building import chosen_pipeline
    from headrace.training.skew import skew

    if events is None and not from_topics:
        raise typer.BadParameter("say where events come from: --events PATH or --from-topics", param_hint="--events")
    definition = load_app(app_reference)
    topics = topics_of(config) if from_topics else None
    chosen = chosen_pipeline(definition, pipeline)
    known = labels if labels is not None or topics is None else outcomes_there(definition, chosen.name, topics)
    meter = RecordMeter()
    differences = None
    try:
        frame = training_frame(
            definition,
            events=topics or events,
            labels=known,
            at=at,
            pipeline=chosen.name,
            label_time=label_time,
            told=meter.show,
        )
        if topics is not None and events is not None and at is None:
            differences = skew(frame, training_frame(definition, events=events, pipeline=chosen.name, told=meter.show))
    finally:
        meter.done()
    frame.to_parquet(to)
    typer.echo(as_json(frame, to, meter.seconds, differences) if output is Output.JSON else as_text(frame, to, meter.seconds, differences))


def topics_of(config: Path | None) -> Topics:
    """The topics of the cluster in the settings."""
    from headrace import log
    from headrace.apps.worker import kafka_properties
    from headrace.kafka_client import knock
    from headrace.settings import load
    from headrace.training import Topics

    settings = load(config).settings
    log.set_up(level="error", style="console", secrets=settings.secrets())
    properties = kafka_properties(settings)
    knock(properties)
    return Topics.on(properties)


def outcomes_there(definition: App, pipeline: str, topics: Topics) -> Topics | None:
    """The topics, if the pipeline's outcomes have one."""
    from contextlib import closing

    outcomes = next(one.outcomes for one in definition.pipelines if one.name == pipeline)
    if outcomes is None:
        return None
    with closing(topics.subject.reader()) as reader:
        return topics if reader.exists(outcomes.topic) else None


def as_text(frame: TrainingFrame, to: Path, seconds: float, differences: Skew | None) -> str:
    """For people: what was written and what was left out."""
    lineage = frame.lineage
    lines = [f"{len(frame):,} rows of {len(frame.names)} features in {seconds:.1f} s: {to}", f"  hash         {frame.hash}"]
    if "late" in lineage:
        lines.append(f"  late         {lineage['late']:,} rows, marked")
    lines += [f"  left out     {count:,} records: {reason}" for reason, count in lineage["refused"].items()]
    if lineage["incomplete"]:
        what = "left out" if "late" in lineage else "marked"
        lines.append(f"  {what:<12} {lineage['incomplete']:,} rows: their windows reach behind the beginning of the log")
    if lineage["labels"] is None:
        lines.append("  labels       none were given")
    else:
        counts = lineage["labels"]
        why = {
            "none": "no outcome known",
            "too_late": "it came too late",
            "before": "it came before the event",
            "unknown": "its value is absent",
        }
        missing = ", ".join(f"{counts[name]:,} {text}" for name, text in why.items() if counts[name])
        lines.append(f"  labels       {counts['labelled']:,} rows have one{f'; not: {missing}' if missing else ''}")
    if differences is not None:
        lines.append(
            f"  files        {differences.differing:,} of {differences.rows:,} rows differ from those of the topics by more than 1e-9; "
            f"{differences.only_one:,} are missing in the files, {differences.only_other:,} in the topics"
        )
    return "\n".join(lines)


def as_json(frame: TrainingFrame, to: Path, seconds: float, differences: Skew | None) -> str:
    """For programs."""
    told = {"to": str(to), "seconds": round(seconds, 3), "files": None if differences is None else differences.counts(), **frame.lineage}
    return json.dumps(told, indent=2)
