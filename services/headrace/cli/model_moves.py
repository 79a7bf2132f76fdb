"""`headrace model shadow|challenge|promote|rollback|retire|withdraw`: who scores; mounted by the noun `model`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.output import Output

if TYPE_CHECKING:
    from headrace.apps.model_commands import Done, ModelCommands, Prepared
    from headrace.predict.roles import Roster

Name = Annotated[str, typer.Argument(metavar="PIPELINE", help="The pipeline.")]
Number = Annotated[str, typer.Argument(metavar="VERSION", help="The version.")]
AppReference = Annotated[str, typer.Option("--app", help="The app, as module:attribute.")]
Reason = Annotated[str | None, typer.Option(help="Why, in a line; kept for ever.")]
By = Annotated[str | None, typer.Option(help="Who says so; else the user of this process and its host.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")]
Config = Annotated[Path | None, typer.Option(help="Settings file; else headrace.toml, if it is there.")]
As = Annotated[Output, typer.Option(help="Text for people or JSON for programs.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the noun."""
    for command in (shadow, challenge, promote, rollback, retire, withdraw):
        app.command(command.__name__)(command)


def shadow(
    pipeline: Name,
    version: Number,
    app_reference: AppReference,
    reason: Reason = None,
    by: By = None,
    dry_run: DryRun = False,
    config: Config = None,
    output: As = Output.TEXT,
) -> None:
    """Let a version score every event beside the others, published apart to <predictions>.shadow; also takes a challenger back."""

    def then(commands: ModelCommands) -> str:
        return f"its scores, as they come: headrace tail {commands.pipeline(pipeline).shadow} --follow"

    _carry_out(app_reference, config, by, output, _moving(pipeline, version, "shadow", reason=reason), dry_run=dry_run, then=then)


def challenge(
    pipeline: Name,
    version: Number,
    app_reference: AppReference,
    share: Annotated[str, typer.Option(help="Of the entities, for example 5%; which ones is fixed by a hash of their keys.")],
    reason: Reason = None,
    by: By = None,
    dry_run: DryRun = False,
    config: Config = None,
    output: As = Output.TEXT,
) -> None:
    """Let a shadow answer in the champion's place for a share of the entities, or give the challenger another share."""
    from headrace.apps.model_commands import share_of

    _carry_out(
        app_reference, config, by, output, _moving(pipeline, version, "challenger", share=share_of(share), reason=reason), dry_run=dry_run
    )


def promote(
    pipeline: Name,
    version: Number,
    app_reference: AppReference,
    reason: Reason = None,
    by: By = None,
    dry_run: DryRun = False,
    config: Config = None,
    output: As = Output.TEXT,
) -> None:
    """Let a version answer as champion; the one before is retired, and `rollback` brings it back."""
    _carry_out(app_reference, config, by, output, _moving(pipeline, version, "champion", reason=reason), dry_run=dry_run)


def rollback(
    pipeline: Name,
    app_reference: AppReference,
    reason: Reason = None,
    by: By = None,
    dry_run: DryRun = False,
    config: Config = None,
    output: As = Output.TEXT,
) -> None:
    """Let the champion before the last promotion answer again; the present one is retired."""
    _carry_out(app_reference, config, by, output, lambda commands: commands.rollback(pipeline, reason=reason), dry_run=dry_run)


def retire(
    pipeline: Name,
    version: Number,
    app_reference: AppReference,
    reason: Reason = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask, even where nobody is left to answer.")] = False,
    by: By = None,
    dry_run: DryRun = False,
    config: Config = None,
    output: As = Output.TEXT,
) -> None:
    """End a version: it scores nothing any more. Its file is kept, and `shadow` or `withdraw` bring it back."""

    def ask(prepared: Prepared) -> None:
        if not yes and prepared.before.champion is not None and prepared.after.champion is None:
            question = f"{pipeline} is left without a champion, and its events wait or get the fallback score. Retire version {version}"
            typer.confirm(question, abort=True, err=True)

    _carry_out(app_reference, config, by, output, _moving(pipeline, version, "retired", reason=reason), dry_run=dry_run, ask=ask)


def withdraw(
    pipeline: Name,
    version: Number,
    app_reference: AppReference,
    reason: Reason = None,
    by: By = None,
    dry_run: DryRun = False,
    config: Config = None,
    output: As = Output.TEXT,
) -> None:
    """Let a version score nothing for now: it is registered, as it was at first."""
    _carry_out(app_reference, config, by, output, _moving(pipeline, version, "registered", reason=reason), dry_run=dry_run)


# ------------------------------------------------------------------------------------------------------------ what they share


def show_prepared(prepared: Prepared, output: Output, *, more: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Print what a command would do; `more` is for programs."""
    told = _told(prepared.said, prepared.version.pipeline, prepared.version.version, prepared.before, prepared.after)
    if output is Output.JSON:
        typer.echo(json.dumps({"dry_run": True, **told, "role": prepared.version.role, "warnings": [], **more}, indent=2))
        return
    typer.echo("\n".join([f"would do: {prepared.said}", *_changes(prepared.before, prepared.after)]))


def show_done(done: Done, output: Output, *, more: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Print what a command did; `more` is for programs."""
    told = _told(done.outcome.said, done.version.pipeline, done.version.version, done.before, done.after)
    if output is Output.JSON:
        place = {"offset": done.outcome.offset, "id": done.outcome.command_id}
        typer.echo(
            json.dumps({"dry_run": False, **told, "role": done.version.role, "warnings": list(done.warnings), **place, **more}, indent=2)
        )
        return
    typer.echo("\n".join([done.outcome.said, *_changes(done.before, done.after), *(f"  ! {warning}" for warning in done.warnings)]))


def _carry_out(
    app_reference: str,
    config: Path | None,
    by: str | None,
    output: Output,
    prepare: Callable[[ModelCommands], Prepared],
    *,
    dry_run: bool,
    ask: Callable[[Prepared], None] = lambda _: None,
    then: Callable[[ModelCommands], str] | None = None,
) -> None:
    from headrace.cli.model import opened

    with opened(app_reference, config, by=by) as desk:
        prepared = prepare(desk.commands)
        if dry_run:
            show_prepared(prepared, output)
            return
        ask(prepared)
        show_done(desk.commands.carry_out(prepared), output)
        if then is not None and output is Output.TEXT:
            typer.echo(then(desk.commands))


def _moving(
    pipeline: str, version: str, to: str, *, share: float | None = None, reason: str | None = None
) -> Callable[[ModelCommands], Prepared]:
    from headrace.predict.registry import Role

    return lambda commands: commands.move(pipeline, version, Role(to), share=share, reason=reason)


def _told(said: str, pipeline: str, version: str, before: Roster, after: Roster) -> dict[str, Any]:
    from dataclasses import asdict

    return {"said": said, "pipeline": pipeline, "version": version, "before": asdict(before), "after": asdict(after)}


def _changes(before: Roster, after: Roster) -> list[str]:
    """Who scores now, and who did where that has changed."""
    if before == after:
        return []
    lines = []
    for title, old, new in (
        ("champion", before.champion or "nobody", after.champion or "nobody"),
        ("challenger", _challenger(before), _challenger(after)),
        ("shadows", ", ".join(before.shadows) or "none", ", ".join(after.shadows) or "none"),
    ):
        lines.append(f"  {title:<11}{new}{'' if old == new else f'  (was {old})'}")
    return lines


def _challenger(roster: Roster) -> str:
    from headrace.predict.refusals import share_text

    return "nobody" if roster.challenger is None else f"{roster.challenger} for {share_text(roster.share)} of the entities"
