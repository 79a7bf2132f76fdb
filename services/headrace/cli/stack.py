"""`headrace stack`: a real Kafka and a real Redis on this machine, without Docker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.output import Output
from headrace.local_programs import fetch_jars
from headrace.local_stack import KAFKA_PORT, REDIS_PORT, Server, Stack, default_folder

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode=None, help="A real Kafka and a real Redis on this machine, without Docker."
)

Folder = Annotated[Path | None, typer.Option(help="Where the stack lives; else below XDG_STATE_HOME (~/.local/state/headrace/stack).")]


As = Annotated[Output, typer.Option(help="Text for people or JSON for programs.")]


@app.command()
def up(
    brokers: Annotated[int, typer.Option(min=1, max=3, help="1, or 3: then every topic has 3 copies, 2 of them in sync.")] = 1,
    kafka_port: Annotated[
        int, typer.Option(min=1, max=65_533, help="Port of the first broker; the others take the next ones.")
    ] = KAFKA_PORT,
    redis_port: Annotated[int, typer.Option(min=1, max=65_535, help="Port of Redis.")] = REDIS_PORT,
    folder: Folder = None,
    output: As = Output.TEXT,
) -> None:
    """Start Kafka and Redis on 127.0.0.1, or those of them that do not run; the first time Kafka is fetched (43 MB)."""
    if brokers == 2:  # noqa: PLR2004 - two brokers are worse than one: none may be lost
        raise typer.BadParameter("1 or 3", param_hint="--brokers")
    stack = Stack.up(
        folder or default_folder(),
        brokers=brokers,
        kafka_ports=[kafka_port + node for node in range(brokers)],
        redis_port=redis_port,
        say=lambda line: typer.echo(line, err=True),
    )
    _show(stack, output)


@app.command()
def status(folder: Folder = None, output: As = Output.TEXT) -> None:
    """Say what runs and answers; exit code 1 unless all of it does."""
    stack = Stack(folder or default_folder())
    _show(stack, output)
    if not all(server.ready() for server in stack.servers):
        raise typer.Exit(1)


@app.command()
def down(folder: Folder = None) -> None:
    """End the servers and remove their state. Only processes that `stack up` started are ended."""
    where = folder or default_folder()
    if not (where / "stack.json").exists():
        typer.echo(f"no stack in {where}")
        return
    ended = Stack(where).down()
    typer.echo(f"ended {', '.join(server.name for server in ended) or 'nothing, none was running'}; removed {where}")


@app.command()
def fetch() -> None:
    """Fetch Apache Kafka (43 MB), once, without starting anything."""
    typer.echo(str(fetch_jars(lambda line: typer.echo(line, err=True))))


def _show(stack: Stack, output: Output) -> None:
    rows = [(server, _state(server)) for server in stack.servers]
    variables = {"HEADRACE_KAFKA__BOOTSTRAP_SERVERS": stack.bootstrap, "HEADRACE_REDIS__URL": stack.redis.url}
    if output is Output.JSON:
        servers = [{"name": server.name, "address": server.address, "pid": server.pid, "state": state} for server, state in rows]
        typer.echo(json.dumps({"folder": str(stack.folder), "servers": servers, "environment": variables}, indent=2))
        return
    for server, state in rows:
        pid = "" if server.pid is None else f"  pid {server.pid}"
        typer.echo(f"{server.name:<8} {server.address:<16} {state}{pid}  {server.program}, log {server.log}")
    usual = stack.layout.kafka_ports[0] == KAFKA_PORT and len(stack.kafka) == 1 and stack.layout.redis_port == REDIS_PORT
    if usual:
        typer.echo("headrace looks there by default; other programs may want:")
    else:
        typer.echo("to let headrace find them:")
    for name, value in variables.items():
        typer.echo(f"  export {name}={value}")


def _state(server: Server) -> str:
    if server.pid is None:
        return "not running"
    return "ready" if server.ready() else "runs, does not answer"
