"""`headrace demo`: a year of real flights through the engine, in this process; feeding them to a broker; training their model."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, help="A year of real flights: replay them here, feed them to a broker, train their model.")


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
