"""`headrace training-set`: the rows a model is trained on, as Parquet."""

from __future__ import annotations

import json
import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.output import Output

if TYPE_CHECKING:
    from headrace.definition import App
    from headrace.training import Topics
    from headrace.training.served import ServedSkew
    from headrace.training.skew import Skew

app = typer.Typer(help="Make the rows a model is trained on.", add_completion=False, rich_markup_mode=None)


_OF_A_TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}=")


class Engine(StrEnum):
    """Who does the work; the rows are the same."""

    PROCESS = "process"
    SPARK = "spark"


@app.command()
def training_set(
    app_reference: Annotated[str, typer.Option("--app", help="The app, as module:attribute.")],
    to: Annotated[Path, typer.Option(help="The Parquet file to write; with --engine spark, a new folder of Parquet files.")],
    pipeline: Annotated[str | None, typer.Option(help="Which pipeline, if the app has several.")] = None,
    events: Annotated[
        list[str] | None,
        typer.Option(
            help="Events: a Parquet or CSV file, a folder, or a glob; of a pipeline that looks others up, TOPIC=PATH for each source."
        ),
    ] = None,
    from_topics: Annotated[
        bool, typer.Option("--from-topics", help="Events (and outcomes) from the app's topics; with --events, compared with that.")
    ] = False,
    log: Annotated[
        list[str] | None,
        typer.Option(
            help="Events (and outcomes) of topics archived in Parquet, a row a record: PATH with a column `topic`, or TOPIC=PATH for each."
        ),
    ] = None,
    labels: Annotated[str | None, typer.Option(help="Outcomes: a Parquet or CSV file, a folder, or a glob.")] = None,
    label_time: Annotated[str | None, typer.Option(help="The column of --labels that says when an outcome was known.")] = None,
    at: Annotated[str | None, typer.Option(help="A table of entities and instants (`as_of`): a row each, instead of one an event.")] = None,
    engine: Annotated[
        Engine,
        typer.Option(
            help="Who does the work: this process, or Spark, for logs larger than one machine. Spark reads Parquet, by --events or --log."
        ),
    ] = Engine.PROCESS,
    spark_master: Annotated[
        str | None, typer.Option(help="Where Spark works: local[4], spark://..., yarn; else as Spark's own settings say, or here.")
    ] = None,
    spark_conf: Annotated[list[str] | None, typer.Option(help="A setting of Spark, NAME=VALUE; several times.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file; else headrace.toml, if it is there.")] = None,
    output: Annotated[Output, typer.Option(help="Text for people or JSON for programs.")] = Output.TEXT,
) -> None:
    """Write point-in-time rows of a pipeline: each event's features as they were served, with its outcome where that came in time.

    Every row that is left out is counted, by reason. The file carries what each feature means, fingerprints, offsets and a hash.
    `--engine spark` makes the same rows with the same hash, bit for bit, on Apache Spark (pip install 'headrace[spark]', and Java 17).
    """
    from headrace.cli.definitions import load_app
    from headrace.cli.progress import RecordMeter
    from headrace.cli.training_spark import on_spark, only_process, spark_settings
    from headrace.training import training_frame
    from headrace.training.building import chosen_pipeline
    from headrace.training.served import served_skew
    from headrace.training.skew import skew

    ways = [events is not None, from_topics, bool(log)]
    if sum(ways) != 1 and ways != [True, True, False]:
        raise typer.BadParameter("say where events come from: --events PATH, --from-topics, or --log PATH", param_hint="--events")
    definition = load_app(app_reference)
    chosen = chosen_pipeline(definition, pipeline)
    tables = None if events is None else tables_of(events)
    if engine is Engine.SPARK:
        only_process({"--from-topics": from_topics, "--at": at is not None, "--events TOPIC=PATH": isinstance(tables, dict)})
        settings = spark_settings(spark_conf or [])
        made = on_spark(
            definition,
            chosen.name,
            archived(log) if log else tables if isinstance(tables, str) else None,
            to,
            (labels, label_time),
            (spark_master, settings),
        )
        typer.echo(as_json(*made, None) if output is Output.JSON else as_text(*made, None))
        return
    if spark_master is not None or spark_conf:
        raise typer.BadParameter("this is for --engine spark", param_hint="--spark-conf" if spark_conf else "--spark-master")
    topics = archived(log) if log else topics_of(config) if from_topics else None
    known = labels if labels is not None or topics is None else outcomes_there(definition, chosen.name, topics)
    meter = RecordMeter()
    differences, served = None, None
    try:
        frame = training_frame(
            definition,
            events=topics or tables,
            labels=known,
            at=at,
            pipeline=chosen.name,
            label_time=label_time,
            told=meter.show,
        )
        if topics is not None and tables is not None and at is None:
            differences = skew(frame, training_frame(definition, events=tables, pipeline=chosen.name, told=meter.show))
        if from_topics and topics is not None and chosen.look_up is not None and at is None:
            served = served_skew(chosen, topics, frame)
    finally:
        meter.done()
    frame.to_parquet(to)
    made = frame.lineage, to, meter.seconds
    typer.echo(as_json(*made, differences, served) if output is Output.JSON else as_text(*made, differences, served))


def tables_of(given: list[str]) -> str | dict[str, str]:
    """The tables that --events names: one, or one for each topic."""
    named = dict(one.partition("=")[::2] for one in given if _OF_A_TOPIC.match(one))
    if not named and len(given) == 1:
        return given[0]
    if len(named) < len(given):
        raise typer.BadParameter("give one PATH, or TOPIC=PATH for each source", param_hint="--events")
    return named


def archived(given: list[str]) -> Topics:
    """The topics in files, as --log names them."""
    from headrace.training import Topics

    named = [one.partition("=")[::2] for one in given if _OF_A_TOPIC.match(one)]
    if not named and len(given) == 1:
        return Topics.archived(given[0])
    if len(named) < len(given):
        raise typer.BadParameter("give one PATH with a column `topic`, or TOPIC=PATH for each topic", param_hint="--log")
    return Topics.archived(dict(named))


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


def as_text(lineage: dict[str, Any], to: Path, seconds: float, differences: Skew | None, served: ServedSkew | None = None) -> str:
    """For people: what was written and what was left out."""
    lines = [
        f"{lineage['rows']:,} rows of {len(lineage['features'])} features in {seconds:.1f} s: {to}",
        f"  hash         {lineage['hash']}",
    ]
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
    if served is not None:
        lines.append(
            f"  served       {served.differing:,} of {served.rows:,} rows differ from what was looked up when they were scored; of these "
            f"{served.stale:,} were marked stale, {served.ahead:,} ahead"
        )
        if served.foreign:
            lines.append(f"               {served.foreign:,} records there are no predictions of this pipeline")
    return "\n".join(lines)


def as_json(lineage: dict[str, Any], to: Path, seconds: float, differences: Skew | None, served: ServedSkew | None = None) -> str:
    """For programs."""
    told = {
        "to": str(to),
        "seconds": round(seconds, 3),
        "files": None if differences is None else differences.counts(),
        "served": None if served is None else served.counts(),
        **lineage,
    }
    return json.dumps(told, indent=2)
