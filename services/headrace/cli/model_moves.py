"""`headrace model shadow|challenge|promote|rollback|retire|withdraw`: who scores; mounted by the noun `model`.

Of a pipeline with notice=... what changes who answers is announced first (`notices.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.output import Output

if TYPE_CHECKING:
    from headrace.apps.model_commands import Done, ModelCommands, Prepared
    from headrace.apps.model_desk import Desk
    from headrace.notices import Given
    from headrace.predict.roles import Roster
    from headrace.publish.records import Notice

Name = Annotated[str, typer.Argument(metavar="PIPELINE", help="The pipeline.")]
Number = Annotated[str, typer.Argument(metavar="VERSION", help="The version.")]
AppReference = Annotated[str, typer.Option("--app", help="The app, as module:attribute.")]
Reason = Annotated[str | None, typer.Option(help="Why, in a line; kept for ever.")]
By = Annotated[str | None, typer.Option(help="Who says so; else the user of this process and its host.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")]
Announce = Annotated[
    bool, typer.Option("--announce", help="Change nothing yet: give notice on the facts topic, as long before as the pipeline declares.")
]
Elsewhere = Annotated[
    bool, typer.Option("--notice-given", help="Notice was given in another way: do not wait for one on the facts topic; needs --reason.")
]
Emergency = Annotated[bool, typer.Option("--emergency", help="Do not wait for a notice: it cannot wait; needs --reason.")]
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
    announce: Announce = False,
    notice_given: Elsewhere = False,
    by: By = None,
    dry_run: DryRun = False,
    config: Config = None,
    output: As = Output.TEXT,
) -> None:
    """Let a shadow answer in the champion's place for a share of the entities, or give the challenger another share."""
    from headrace.apps.model_commands import share_of

    _carry_out(
        app_reference,
        config,
        by,
        output,
        _moving(pipeline, version, "challenger", share=share_of(share), reason=reason),
        dry_run=dry_run,
        announce=announce,
        given=_given(notice_given=notice_given),
    )


def promote(
    pipeline: Name,
    version: Number,
    app_reference: AppReference,
    reason: Reason = None,
    announce: Announce = False,
    notice_given: Elsewhere = False,
    by: By = None,
    dry_run: DryRun = False,
    config: Config = None,
    output: As = Output.TEXT,
) -> None:
    """Let a version answer as champion; the one before is retired, and `rollback` brings it back."""
    _carry_out(
        app_reference,
        config,
        by,
        output,
        _moving(pipeline, version, "champion", reason=reason),
        dry_run=dry_run,
        announce=announce,
        given=_given(notice_given=notice_given),
    )


def rollback(
    pipeline: Name,
    app_reference: AppReference,
    reason: Reason = None,
    announce: Announce = False,
    notice_given: Elsewhere = False,
    emergency: Emergency = False,
    by: By = None,
    dry_run: DryRun = False,
    config: Config = None,
    output: As = Output.TEXT,
) -> None:
    """Let the champion before the last promotion answer again; the present one is retired."""
    _carry_out(
        app_reference,
        config,
        by,
        output,
        lambda commands: commands.rollback(pipeline, reason=reason),
        dry_run=dry_run,
        announce=announce,
        given=_given(notice_given=notice_given, emergency=emergency),
    )


def retire(
    pipeline: Name,
    version: Number,
    app_reference: AppReference,
    reason: Reason = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask, even where nobody is left to answer.")] = False,
    announce: Announce = False,
    notice_given: Elsewhere = False,
    emergency: Emergency = False,
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

    _carry_out(
        app_reference,
        config,
        by,
        output,
        _moving(pipeline, version, "retired", reason=reason),
        dry_run=dry_run,
        ask=ask,
        announce=announce,
        given=_given(notice_given=notice_given, emergency=emergency),
    )


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


def show_prepared(
    prepared: Prepared, output: Output, *, warnings: Sequence[str] = (), more: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Print what a command would do; `more` is for programs."""
    told = _told(prepared.said, prepared.version.pipeline, prepared.version.version, prepared.before, prepared.after)
    if output is Output.JSON:
        typer.echo(json.dumps({"dry_run": True, **told, "role": prepared.version.role, "warnings": list(warnings), **more}, indent=2))
        return
    changes = _changes(prepared.before, prepared.after)
    typer.echo("\n".join([f"would do: {prepared.said}", *changes, *(f"  ! {warning}" for warning in warnings)]))


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
    announce: bool = False,
    given: Given | None = None,
) -> None:
    from headrace.apps.model_notices import command_text
    from headrace.cli.model import opened

    if announce and given is not None:
        raise typer.BadParameter("a change is announced, or made without; say one of the two", param_hint="--announce")
    with opened(app_reference, config, by=by) as desk:
        prepared = prepare(desk.commands)
        if dry_run:
            show_prepared(prepared, output, warnings=() if announce or given is not None else _waits(desk, prepared))
            return
        if announce:
            show_notice(desk.announce(prepared), command_text(prepared), output)
            return
        ask(prepared)
        show_done(desk.change(prepared, given=given), output)
        if then is not None and output is Output.TEXT:
            typer.echo(then(desk.commands))


def show_notice(notice: Notice, command: str, output: Output) -> None:
    """Print a notice that was given, and the command to come."""
    from headrace.notices import notice_text
    from headrace.predict.refusals import time_text
    from headrace.publish.records import encode

    if output is Output.JSON:
        typer.echo(json.dumps({"notice": json.loads(encode(notice)), "then": command}, indent=2))
        return
    typer.echo(f"{notice_text(notice)}\n  from {time_text(notice.at_ms)} on: {command}")


def _waits(desk: Desk, prepared: Prepared) -> list[str]:
    """Why a command would not be carried out now, though it is legal."""
    from headrace.errors import RegistryRefused

    try:
        desk.insist_on_notice(prepared)
    except RegistryRefused as refused:
        return [str(refused)]
    return []


def _given(*, notice_given: bool, emergency: bool = False) -> Given | None:
    """How notice was given, by the options."""
    if notice_given and emergency:
        raise typer.BadParameter("notice was given, or there is no time for it; say one of the two", param_hint="--emergency")
    return "emergency" if emergency else "elsewhere" if notice_given else None


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
