"""`headrace model register`: a file through the gate into the registry; and `mend`: a file that was lost, put back; mounted by `model`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.output import Output

if TYPE_CHECKING:
    from headrace.apps.model_desk import Desk, Examined
    from headrace.predict.model_card import ModelCard

MOST_CARD_BYTES = 65_536


def add_to(app: typer.Typer) -> None:
    """Add the commands to the noun."""
    app.command()(register)
    app.command()(mend)


def register(
    model: Annotated[Path, typer.Argument(help="The .onnx file, stamped by headrace.models.stamp().")],
    app_reference: Annotated[str, typer.Option("--app", help="The app, as module:attribute.")],
    pipeline: Annotated[str | None, typer.Option(help="The pipeline; else the one that the file is stamped for.")] = None,
    rehearse: Annotated[int, typer.Option(min=0, help="On how many of the last real events it is tried.")] = 1_000,
    picture: Annotated[Path | None, typer.Option(help="Draw its scores beside the champion's into this SVG file.")] = None,
    allow: Annotated[
        list[str] | None, typer.Option(help="Let this operator pass, which is refused otherwise: Loop, Scan, If; may be repeated.")
    ] = None,
    card: Annotated[Path | None, typer.Option(help="A model card as JSON or TOML, in place of the one in the file.")] = None,
    version: Annotated[str | None, typer.Option(help="Stamp the file first, as this version: for one that is not stamped.")] = None,
    output_name: Annotated[str | None, typer.Option(help="With --version: the output that holds the score.")] = None,
    kind: Annotated[str, typer.Option(help="With --version: probability or value.")] = "probability",
    class_index: Annotated[int, typer.Option(help="With --version: the column of an output of one column a class.")] = 1,
    by: Annotated[str | None, typer.Option(help="Who says so; else the user of this process and its host.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Examine it, and register nothing.")] = False,
    config: Annotated[Path | None, typer.Option(help="Settings file; else headrace.toml, if it is there.")] = None,
    output: Annotated[Output, typer.Option(help="Text for people or JSON for programs.")] = Output.TEXT,
) -> None:
    """Examine a model, and register it where nothing is wrong with it. It scores nothing until `shadow` or `promote`.

    Exit code 1: the gate refuses it; each reason has a code, and says what to do.
    """
    from dataclasses import replace

    from headrace.cli.model import opened
    from headrace.cli.model_moves import show_done, show_prepared
    from headrace.predict.gate_limits import DEFAULT_LIMITS

    content = read(model)
    told = None if card is None else card_from(card)
    with opened(app_reference, config, by=by) as desk:
        if version is not None:
            content = stamped(desk, content, pipeline, version, output_name, kind, class_index)
        limits = replace(DEFAULT_LIMITS, operators=tuple(allow or ()))
        examined = desk.examine(content, pipeline=pipeline, rehearse=rehearse, limits=limits)
        if picture is not None:
            draw(examined, picture)
        if examined.verdict.refusals:
            show_refusals(model, examined, output)
            raise typer.Exit(1)
        if output is Output.TEXT:
            typer.echo("\n".join(report_lines(examined)))
        prepared = desk.registration(examined, card=told)
        if dry_run:
            show_prepared(prepared, output, more=of_gate(examined))
        else:
            done = desk.commands.carry_out(prepared)
            show_done(done, output, more=of_gate(examined))
            if output is Output.TEXT:
                about = f"{done.version.pipeline} {done.version.version} --app {app_reference}"
                typer.echo(f"it scores nothing yet; beside the others it would by: headrace model shadow {about}")


def mend(
    model: Annotated[Path, typer.Argument(help="The .onnx file, byte for byte as it was registered.")],
    app_reference: Annotated[str, typer.Option("--app", help="The app, as module:attribute.")],
    config: Annotated[Path | None, typer.Option(help="Settings file; else headrace.toml, if it is there.")] = None,
    output: Annotated[Output, typer.Option(help="Text for people or JSON for programs.")] = Output.TEXT,
) -> None:
    """Put the file of a registered version back where it was lost or damaged, after a flush of Redis for example."""
    from headrace.cli.model import opened

    content = read(model)
    with opened(app_reference, config) as desk:
        mended = desk.commands.mend(content)
    if output is Output.JSON:
        typer.echo(
            json.dumps({"mended": [{"pipeline": one.pipeline, "version": one.version, "sha256": one.sha256} for one in mended]}, indent=2)
        )
        return
    for one in mended:
        typer.echo(f"the file of version {one.version} of {one.pipeline} ({one.role}) is in its place")


def read(path: Path) -> bytes:
    """The bytes of a file. Raises `DefinitionError`."""
    from headrace.errors import DefinitionError

    try:
        return path.read_bytes()
    except OSError as error:
        raise DefinitionError(f"model {str(path)!r} cannot be read ({error.strerror}): name an .onnx file") from error


def card_from(path: Path) -> ModelCard:
    """A card from a file. Raises `DefinitionError`."""
    import tomllib

    from headrace.errors import DefinitionError
    from headrace.predict.model_card import ModelCard

    content = read(path)
    try:
        text = content[:MOST_CARD_BYTES].decode()
        found = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DefinitionError(f"card {str(path)!r} is no JSON or TOML of at most {MOST_CARD_BYTES:,} bytes ({error})") from error
    if not isinstance(found, dict):
        raise DefinitionError(f'card {str(path)!r} is no table: write for example owner = "the fraud team"')
    try:
        return ModelCard.from_plain(found)
    except DefinitionError as error:
        raise DefinitionError(f"card {str(path)!r}: {error}") from error


def stamped(desk: Desk, content: bytes, pipeline: str | None, version: str, output_name: str | None, kind: str, class_index: int) -> bytes:
    """The file with a signature of the pipeline as it is defined now. Raises `DefinitionError`, `RegistryRefused`."""
    from headrace.models import stamp

    pipelines = desk.app.registry_pipelines
    if pipeline is None and len(pipelines) > 1:
        raise typer.BadParameter(f"say which it is stamped for: {', '.join(one.name for one in pipelines)}", param_hint="--pipeline")
    if kind not in {"probability", "value"}:
        raise typer.BadParameter(f"{kind!r} is neither probability nor value", param_hint="--kind")
    wanted = desk.commands.pipeline(pipeline or pipelines[0].name)
    return stamp(
        content,
        wanted,
        version=version,
        output=output_name,
        kind="value" if kind == "value" else "probability",
        class_index=class_index,
    )


def show_refusals(model: object, examined: Examined, output: Output) -> None:
    """Print why the gate refuses a file."""
    refusals = examined.verdict.refusals
    if output is Output.JSON:
        told = [{"code": one.code, "said": one.said, "fix": one.fix} for one in refusals]
        typer.echo(json.dumps({"refused": told, "pipeline": examined.pipeline, "report": examined.verdict.report}, indent=2))
        return
    for one in refusals:
        typer.echo(f"headrace: {model} is refused for pipeline {examined.pipeline}: {one}", err=True)


def of_gate(examined: Examined) -> dict[str, Any]:
    """What the gate measured, for programs."""
    return {"rehearsed": examined.rehearsed, "report": examined.verdict.report, "notes": list(examined.notes)}


def report_lines(examined: Examined) -> list[str]:
    """What the gate measured, for people: figures, how the scores are spread, what it could not look at."""
    from headrace.predict.score_spread import histogram_text

    report = examined.verdict.report
    lines = [f"the gate passes it for pipeline {examined.pipeline}, rehearsed on {examined.rehearsed:,} real events"]
    lines += [f"  {name}: {_short(report[name])}" for name in ("golden", "latency", "memory") if report.get(name)]
    if report.get("rehearsal"):
        lines += [f"  {line}" for line in histogram_text(report["rehearsal"], **_names(report)).splitlines()]
    return [*lines, *(f"  ! {note}" for note in (*report.get("notes", ()), *examined.notes))]


def draw(examined: Examined, picture: Path) -> None:
    """Draw the scores of the rehearsal, the champion's beside. Raises `DefinitionError` where there was none."""
    from headrace.errors import DefinitionError
    from headrace.predict.score_spread import picture_svg

    report = examined.verdict.report
    if not report.get("rehearsal"):
        raise DefinitionError(
            f"--picture: it was not rehearsed, so there are no scores to draw ({'; '.join(examined.notes) or 'refused before'})"
        )
    picture.write_text(picture_svg(report["rehearsal"], **_names(report)), encoding="utf-8")


def _names(report: Mapping[str, Any]) -> dict[str, str]:
    """What the two are called: by their versions, where they are told."""
    signature, champion = report.get("signature"), report["rehearsal"].get("champion_version")
    return {
        "candidate": f"version {signature['version']}" if signature else "candidate",
        "champion": f"champion {champion}" if champion else "champion",
    }


def _short(told: Any) -> str:  # noqa: ANN401 - whatever the gate tells
    if not isinstance(told, dict):
        return json.dumps(told)
    return ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {json.dumps(value)}" for name, value in told.items())
