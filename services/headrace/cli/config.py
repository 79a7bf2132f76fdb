"""`headrace config`: the settings, and where each value comes from."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from headrace.settings import load

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode=None, help="Settings: what they are and where they come from."
)


class Output(StrEnum):
    """How a command prints what it found."""

    TABLE = "table"
    JSON = "json"


@app.callback()
def config() -> None:
    """Settings: what they are and where they come from."""


@app.command()
def show(
    config: Annotated[Path | None, typer.Option(help="The settings file; else HEADRACE_CONFIG names one, else headrace.toml.")] = None,
    output: Annotated[Output, typer.Option(help="A table for people or JSON for programs.")] = Output.TABLE,
) -> None:
    """Print every setting, its value and where that was found; secrets are hidden."""
    rows = load(config).shown()
    if output is Output.JSON:
        typer.echo(json.dumps([{"name": row.name, "value": row.value, "source": row.source, "doc": row.doc} for row in rows], indent=2))
        return
    name_width = max(len(row.name) for row in rows)
    value_width = min(max(len(row.value) for row in rows), 60)
    typer.echo(f"{'SETTING':<{name_width}}  {'VALUE':<{value_width}}  SOURCE")
    for row in rows:
        typer.echo(f"{row.name:<{name_width}}  {row.value:<{value_width}}  {row.source}")
