"""`headrace run worker`: serve an app until SIGTERM."""

from __future__ import annotations

import faulthandler
import signal
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Run a worker.", no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.callback()
def root() -> None:
    """Run what serves."""


@app.command()
def worker(
    app_reference: Annotated[str, typer.Option("--app", help="The app, as module:attribute.")],
    slot: Annotated[str | None, typer.Option(help="The stable number of this worker; over the setting worker.slot.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file; else headrace.toml, if it is there.")] = None,
    leave: Annotated[
        bool, typer.Option("--leave", help="On SIGTERM leave the group at once (a scale-down), instead of being expected back.")
    ] = False,
    drain: Annotated[
        bool,
        typer.Option("--drain", help="Take nothing from the sources, finish what is on the hops between stages, then end."),
    ] = False,
) -> None:
    """Score the events of an app until SIGTERM (or, with --drain, until the hops are empty); the batch at hand is finished and stored. On
    SIGUSR1 say where each thread is.
    """
    from headrace import log
    from headrace.apps.worker import build
    from headrace.cli.definitions import load_app
    from headrace.settings import load

    settings = load(config).settings
    if slot is not None:
        settings = settings.model_copy(update={"worker": settings.worker.model_validate({**settings.worker.model_dump(), "slot": slot})})
    log.set_up(level=settings.log.level, style=settings.log.format, secrets=settings.secrets())
    definition = load_app(app_reference)
    say = log.logger("worker", app=definition.name, slot=settings.worker.slot).info
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    found = build(definition, settings, say=say)
    if drain:
        found.drain()
    else:
        found.run(leave=leave)
