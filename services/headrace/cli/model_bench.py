"""`headrace model bench`: what a model costs, the champion beside; mounted by the noun `model`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.output import Output

if TYPE_CHECKING:
    from headrace.apps.model_desk import Benched, Desk

MEGABYTE = 1_000_000


def add_to(app: typer.Typer) -> None:
    """Add the command to the noun."""
    app.command()(bench)


def bench(
    subject: Annotated[str, typer.Argument(metavar="FILE|PIPELINE", help="A stamped .onnx file; or, with a version, a pipeline.")],
    app_reference: Annotated[str, typer.Option("--app", help="The app, as module:attribute.")],
    version: Annotated[str | None, typer.Argument(metavar="[VERSION]", help="The version of the pipeline.")] = None,
    rehearse: Annotated[int, typer.Option(min=0, help="On how many of the last real events; else on the rows the file carries.")] = 1_000,
    config: Annotated[Path | None, typer.Option(help="Settings file; else headrace.toml, if it is there.")] = None,
    output: Annotated[Output, typer.Option(help="Text for people or JSON for programs.")] = Output.TEXT,
) -> None:
    """Measure the time a row takes in batches of 1, 64, 1,024 and 16,384, and memory, in a process of its own; the champion beside.

    Exit code 1: it cannot be measured, as the gate would refuse it.
    """
    from headrace.cli.model import opened

    with opened(app_reference, config) as desk:
        found = desk.benched(chosen(desk, subject, version), pipeline=None if version is None else subject, rehearse=rehearse)
    if output is Output.JSON:
        typer.echo(json.dumps([plain(one) for one in found], indent=2))
    else:
        typer.echo("\n".join(table(found)))
    for one in found:
        for refusal in one.verdict.refusals:
            typer.echo(f"headrace: {one.title} cannot be measured: {refusal}", err=True)
    if not found[0].verdict.passed:
        raise typer.Exit(1)


def chosen(desk: Desk, subject: str, version: str | None) -> bytes:
    """The bytes of a file, or of a version of a pipeline. Raises `DefinitionError`, `RegistryRefused`."""
    from headrace.cli.model_register import read
    from headrace.errors import DefinitionError

    if version is not None:
        desk.commands.pipeline(subject)
        return desk.content(subject, version)
    if not Path(subject).exists() and subject in {pipeline.name for pipeline in desk.app.registry_pipelines}:
        raise DefinitionError(f"{subject} is a pipeline: name the version too, of those that `headrace model list {subject}` shows")
    return read(Path(subject))


def plain(one: Benched) -> dict[str, Any]:
    """What was measured, for programs."""
    report = one.verdict.report
    refused = [{"code": refusal.code, "said": refusal.said, "fix": refusal.fix} for refusal in one.verdict.refusals]
    parts = {name: report.get(name) for name in ("sha256", "bytes", "ordinary", "latency", "memory")}
    return {"title": one.title, **parts, "notes": report.get("notes", []), "refused": refused}


def table(found: list[Benched]) -> list[str]:
    """What was measured, a row for each size and a column for each model."""
    sizes = list(dict.fromkeys(size for one in found for size in one.verdict.report.get("latency", ())))
    rows = [("rows in a call", *(one.title for one in found))]
    rows += [(f"{int(size):,}", *(_time(one, size) for one in found)) for size in sizes]
    rows += [
        (title, *(_memory(one, name) for one in found)) for title, name in (("memory held", "held_bytes"), ("at its peak", "peak_bytes"))
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(text.rjust(width) if place else text.ljust(width) for place, (text, width) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    notes = [f"  ! {one.title}: {note}" for one in found for note in one.verdict.report.get("notes", ())]
    return [*lines, "times are of one row: the least of several calls, and (their median); one thread, this machine", *notes]


def _time(one: Benched, size: str) -> str:
    told = one.verdict.report.get("latency", {}).get(size)
    if told is None:
        return "-"
    return f"{told['row_us']:,.2f} us ({told['median_us'] / int(size):,.2f})"


def _memory(one: Benched, name: str) -> str:
    told = one.verdict.report.get("memory")
    return "-" if told is None else f"{told[name] / MEGABYTE:,.1f} MB"
