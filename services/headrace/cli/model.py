"""`headrace model`: the versions of an app's models, for the engineers who own them.

from headrace.cli import model_bench, model_diff, model_moves, model_register, model_retrain, model_who
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli import model_bench, model_diff, model_moves, model_register, model_retrain, model_who
from headrace.cli.output import Output

if TYPE_CHECKING:
    from headrace.apps.model_desk import Desk
    from headrace.predict.agreement import Agreement
    from headrace.predict.registry import Version
    from headrace.predict.versions import Change

AppReference = Annotated[str, typer.Option("--app", help="The app, as module:attribute.")]
Config = Annotated[Path | None, typer.Option(help="Settings file; else headrace.toml, if it is there.")]
As = Annotated[Output, typer.Option(help="Text for people or JSON for programs.")]
Name = Annotated[str, typer.Argument(metavar="PIPELINE", help="The pipeline.")]
Number = Annotated[str, typer.Argument(metavar="VERSION", help="The version.")]

app = typer.Typer(
    help="The versions of an app's models: register, shadow, challenge, promote, roll back.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def root() -> None:
    """Work with the versions of an app's models."""


@app.command("list")
def list_versions(
    app_reference: AppReference,
    pipeline: Annotated[str | None, typer.Argument(help="Only of this pipeline.")] = None,
    config: Config = None,
    output: As = Output.TEXT,
) -> None:
    """List the versions: their roles, since when, from whom."""
    with opened(app_reference, config) as desk:
        if pipeline is not None:
            desk.commands.pipeline(pipeline)
        registry = desk.commands.registry()
    versions = registry.versions(pipeline)
    if output is Output.JSON:
        typer.echo(json.dumps([one.as_plain() for one in versions], indent=2))
        return
    if not versions:
        typer.echo(
            f"nothing is registered {f'for {pipeline}' if pipeline else 'yet'}: headrace model register MODEL.onnx --app {app_reference}"
        )
        return
    for line in table(versions):
        typer.echo(line)


@app.command()
def show(pipeline: Name, version: Number, app_reference: AppReference, config: Config = None, output: As = Output.TEXT) -> None:
    """Show one version: role, file, what it takes and gives, and whether its file is in its place."""
    from headrace.errors import HeadraceError
    from headrace.predict.refusals import share_text

    with opened(app_reference, config) as desk:
        found = desk.commands.registry().version(pipeline, version)
        try:
            desk.commands.artifacts.get(found.sha256)
            artifact = "in its place, undamaged"
        except HeadraceError as error:
            artifact = str(error)
    if output is Output.JSON:
        typer.echo(json.dumps({**found.as_plain(), "artifact": artifact}, indent=2))
        return
    signature = found.signature
    share = "" if found.share is None else f", for {share_text(found.share)} of the entities"
    lines = [
        f"{pipeline} version {version}: {found.role}{share}",
        f"  registered {_time(found.registered_ms)} by {found.by}",
        f"  artifact {found.sha256} ({found.bytes:,} bytes): {artifact}",
        f"  gives {signature.kind} in output {signature.output!r}, from {len(signature.features)} features ({signature.dtype}):",
        *(f"    {place:>3}  {name}" for place, name in enumerate(signature.features)),
        "  of views " + (", ".join(f"{view.name} version {view.version} ({view.fingerprint[:16]})" for view in signature.views) or "none"),
    ]
    lines += [f"  {_moved(change)}" for change in found.history]
    typer.echo("\n".join(lines))


@app.command()
def history(
    pipeline: Name,
    app_reference: AppReference,
    version: Annotated[str | None, typer.Argument(help="Only of this version.")] = None,
    config: Config = None,
    output: As = Output.TEXT,
) -> None:
    """Tell who gave which role to which version, when and why, and which notice was given of it, the oldest first."""
    from headrace.notices import notice_text, notices_in
    from headrace.predict.registry import Role
    from headrace.publish.records import encode

    with opened(app_reference, config) as desk:
        registry = desk.commands.registry()
        if version is None:
            desk.commands.pipeline(pipeline)
        versions = registry.versions(pipeline) if version is None else [registry.version(pipeline, version)]
        notices = [one for one in notices_in(desk.facts(), pipeline) if version in {None, one.before, one.to}]
    # A notice stands before what was not known when it was given; of one command it is told first who goes, then who comes.
    lines: list[tuple[tuple[int, int], dict[str, Any], str]] = [
        ((one.expects, 0), {"version": one.to, "notice": json.loads(encode(one))}, notice_text(one)) for one in notices
    ]
    for one in versions:
        for change in one.history:
            place = change.offset, 1 if change.role is Role.RETIRED else 2
            lines.append((place, {"version": one.version, **plain(change)}, f"version {one.version}: {_moved(change)}"))
    lines.sort(key=lambda line: line[0])
    if output is Output.JSON:
        typer.echo(json.dumps([found for _, found, _ in lines], indent=2))
        return
    for _, _, text in lines:
        typer.echo(text)


@app.command("card")
def print_card(pipeline: Name, version: Number, app_reference: AppReference, config: Config = None, output: As = Output.TEXT) -> None:
    """Print the model card as Markdown: owner, contact, use, training, metrics, limits; and what the version was trained on."""
    from headrace.predict.model_card import ModelCard, markdown

    with opened(app_reference, config) as desk:
        found = desk.commands.registry().version(pipeline, version)
        agreement = agreement_of(desk, found)
    if output is Output.JSON:
        told = None if agreement is None else plain(agreement)
        typer.echo(json.dumps({"card": found.card, "lineage": found.lineage, "agreement": told}, indent=2))
        return
    card = None if found.card is None else ModelCard.from_plain(found.card)
    typer.echo(markdown(found.signature, card, found.lineage, agreement), nl=False)


@contextmanager
def opened(app_reference: str, config: Path | None, *, by: str | None = None) -> Iterator[Desk]:
    """Open the registry of an app."""
    from headrace import log
    from headrace.apps import model_desk
    from headrace.cli.definitions import load_app
    from headrace.settings import load

    settings = load(config).settings
    log.set_up(level="error", style="console", secrets=settings.secrets())
    with model_desk.opened(load_app(app_reference), settings, by=by) as desk:
        yield desk


def table(versions: Sequence[Version]) -> list[str]:
    """Versions as lines of text."""
    from headrace.predict.refusals import share_text

    rows = [("PIPELINE", "VERSION", "ROLE", "SINCE", "BY", "BYTES", "SHA256")]
    for one in versions:
        role = one.role if one.share is None else f"{one.role} {share_text(one.share)}"
        since = one.history[-1]
        rows.append((one.pipeline, one.version, role, _time(since.at_ms), since.by, f"{one.bytes:,}", one.sha256[:16]))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def agreement_of(desk: Desk, version: Version) -> Agreement | None:
    """How far the file is from the trained model; None where it does not say, or cannot be read now."""
    from headrace.errors import HeadraceError
    from headrace.predict import onnx_file
    from headrace.predict.agreement import agreement_in

    try:
        return agreement_in(onnx_file.metadata(desk.commands.artifacts.get(version.sha256)))
    except HeadraceError:
        return None


def plain(told: Change | Agreement) -> dict[str, Any]:
    """The same as a JSON object."""
    from dataclasses import asdict

    return asdict(told)


def _moved(change: Change) -> str:
    from headrace.predict.refusals import share_text

    share = "" if change.share is None else f" for {share_text(change.share)} of the entities"
    reason = "" if change.reason is None else f": {change.reason}"
    return f"{_time(change.at_ms)} {change.role}{share} by {change.by}{reason}"


def _time(at_ms: int) -> str:
    from headrace.predict.refusals import time_text

    return time_text(at_ms)


model_register.add_to(app)
model_retrain.add_to(app)
model_moves.add_to(app)
model_diff.add_to(app)
model_bench.add_to(app)
model_who.add_to(app)
