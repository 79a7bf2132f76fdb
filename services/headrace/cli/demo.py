"""`headrace demo`: a year of real flights through the engine, in this process; feeding them to a broker; training their model."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    add_completion=False, rich_markup_mode=None, help="A year of real flights: replay them here, feed them to a broker, train their model."
)


class Output(StrEnum):
    """How the closing report is printed."""

    TEXT = "text"
    JSON = "json"


@app.callback(invoke_without_command=True)
def replay(
    ctx: typer.Context,
    bad: Annotated[int, typer.Option(min=0, help="Bad records planted among the flights.")] = 200,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many departures, from 1 January on; else the whole year.")] = None,
    output: Annotated[Output, typer.Option(help="The closing report for people, or as JSON and nothing else on stdout.")] = Output.TEXT,
) -> None:
    """Replay the flights of 2013 through the whole engine in one process, without network and servers."""
    if ctx.invoked_subcommand is not None:
        return
    from rich.console import Console

    from headrace.clock import SystemClock
    from headrace.demo import closing
    from headrace.demo.run import run
    from headrace.demo.screen import Stage

    console = Console(stderr=output is Output.JSON)
    clock = SystemClock()
    report = run(Stage(console, clock), clock, bad=bad, limit=limit)
    if output is Output.JSON:
        typer.echo(json.dumps(report.as_json(), indent=2))
    else:
        closing.show(report, console)
    if report.failures():
        raise typer.Exit(1)


@app.command()
def train(
    to: Annotated[Path | None, typer.Option(help="The folder for the models; else over those the demo uses.")] = None,
) -> None:
    """Train both versions of the model on January to June, on the features that serve it, and what it is compared with; needs
    headrace[dev].
    """
    from rich.console import Console

    from headrace.clock import SystemClock
    from headrace.demo import closing
    from headrace.demo.boarding import BARE_MODEL
    from headrace.demo.boarding import MODEL as BOARDING_MODEL
    from headrace.demo.events import read_departures
    from headrace.demo.flights import ALONE_MODEL, MODEL, SECOND_MODEL, aircraft_alone
    from headrace.demo.report import judge
    from headrace.demo.screen import Stage
    from headrace.demo.train import alone, frame_of, train, train_alone, train_boarding, train_second
    from headrace.predict.onnx_model import OnnxModel

    console = Console()
    stage = Stage(console, SystemClock())
    with stage.phase("reading", "reading the flights of 2013") as say:
        departures = read_departures()
        say(f"{len(departures):,} departures")
    with stage.phase("folding", "folding them into features") as say:
        frame = frame_of(departures)
        say(f"training frame of {len(frame):,} rows and {len(frame.names)} features")
    with stage.phase("training", "training") as say:
        content, second, compared = (make(frame, departures) for make in (train, train_second, train_alone))
        say(f"models of {len(content):,}, {len(second):,} and {len(compared):,} bytes")
    with stage.phase("boarding", "training what scores boardings") as say:
        boarding, bare = train_boarding(departures)
        say(f"models of {len(boarding):,} and {len(bare):,} bytes")
    folder = to or MODEL.parent
    paths = (MODEL, SECOND_MODEL, ALONE_MODEL, BOARDING_MODEL, BARE_MODEL)
    for path, found in zip(paths, (content, second, compared, boarding, bare), strict=True):
        (folder / path.name).write_bytes(found)
    model, other = OnnxModel.load(content, frame.names), OnnxModel.load(compared, aircraft_alone.feature_names)
    scores = other.score(alone(frame.values, frame.names)).scores
    judged = judge(departures, model.score(frame.values).scores, scores)
    if judged is not None:
        closing.show_judged(judged, f"{model.name} version {model.version}", console)
    console.print(f"written to {folder}", highlight=False, soft_wrap=True)


@app.command()
def load(
    speed: Annotated[float | None, typer.Option(min=0.001, help="So many times as fast as the year was: 3600 is an hour a second.")] = None,
    rate: Annotated[float | None, typer.Option(min=0, help="Or so many records a second; 0, the default, is as fast as it goes.")] = None,
    bad: Annotated[int, typer.Option(min=0, help="Bad records planted among the flights.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many departures, from 1 January on; else the whole year.")] = None,
    boardings: Annotated[bool, typer.Option("--boardings", help="Their boardings instead, for headrace.demo.boarding:app.")] = False,
    skip: Annotated[int, typer.Option(min=0, help="Records to leave out at the beginning: to go on where a load stopped.")] = 0,
    topic: Annotated[str | None, typer.Option(help="Another topic than the one the app reads.")] = None,
    bootstrap: Annotated[str | None, typer.Option(help="Brokers, host:port; else the setting kafka.bootstrap_servers.")] = None,
    config: Annotated[Path | None, typer.Option(help="The settings file; else HEADRACE_CONFIG names one, else headrace.toml.")] = None,
) -> None:
    """Send the flights to their source topic on a broker (`headrace apply --app headrace.demo.flights:app` makes it first)."""
    if speed is not None and rate is not None:
        raise typer.BadParameter("give --speed or --rate, not both")
    if boardings and bad:
        raise typer.BadParameter("--bad plants records among departures, not among --boardings")
    import time
    from dataclasses import replace

    from rich.console import Console

    from headrace import log
    from headrace.clock import SystemClock
    from headrace.demo import load as loading
    from headrace.demo.events import read_departures
    from headrace.demo.planted import TAKEN_BY_A_BROKER, plant
    from headrace.demo.screen import Meter
    from headrace.kafka_client import knock
    from headrace.publish.kafka_sink import KafkaAtLeastOnceSink
    from headrace.publish.record_sink import CommitResult
    from headrace.settings import load as read_settings

    settings = read_settings(config).settings
    log.set_up(level="error", style="console", secrets=settings.secrets())
    servers = bootstrap or settings.kafka.bootstrap_servers
    properties = {"bootstrap.servers": servers, **settings.kafka.properties, **settings.kafka.producer_properties}
    knock(properties)
    sink = KafkaAtLeastOnceSink(properties, name="demo-load", commit_offsets=lambda *_: True)
    console, clock = Console(), SystemClock()
    departures = read_departures(limit=limit)
    if boardings:
        everything = loading.records_of_boardings(departures)
    else:
        everything = loading.records_of_departures(departures, plant(departures, bad, TAKEN_BY_A_BROKER))
    records = loading.from_record(everything if topic is None else replace(everything, topic=topic), skip)
    console.print(f"{len(records):,} records to {records.topic} at {servers}", highlight=False)
    due_s = loading.due_by_rate(records, rate or 0.0) if speed is None else loading.due_by_speed(records, speed)
    sink.open()
    sink.begin()
    broker = loading.Broker(send=sink.send, delivered=lambda: sink.commit({}, None) is CommitResult.COMMITTED)
    meter = Meter(console, clock, len(records))
    try:
        for sent in loading.load(records, due_s, broker, clock=clock, sleep=time.sleep, skipped=skip):
            if meter.due() or sent.delivered == len(records):
                meter.show(sent.sent, sent.newest_ms, sent.sent / sent.seconds)
    finally:
        meter.stop()
        sink.close()
