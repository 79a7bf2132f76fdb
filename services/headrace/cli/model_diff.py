"""`headrace model diff`: how two versions differ; mounted by the noun `model`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.output import Output

if TYPE_CHECKING:
    from headrace.apps.model_desk import Desk
    from headrace.predict.registry import Version
    from headrace.predict.version_diff import Difference, GoldenDifference


def add_to(app: typer.Typer) -> None:
    """Add the command to the noun."""
    app.command()(diff)


def diff(
    pipeline: Annotated[str, typer.Argument(metavar="PIPELINE", help="The pipeline.")],
    one: Annotated[str, typer.Argument(metavar="VERSION", help="A version.")],
    other: Annotated[str, typer.Argument(metavar="VERSION", help="Another one.")],
    app_reference: Annotated[str, typer.Option("--app", help="The app, as module:attribute.")],
    config: Annotated[Path | None, typer.Option(help="Settings file; else headrace.toml, if it is there.")] = None,
    output: Annotated[Output, typer.Option(help="Text for people or JSON for programs.")] = Output.TEXT,
) -> None:
    """Compare two versions: signature, card, and what each makes of the golden rows of the other."""
    from headrace.cli.model import opened
    from headrace.predict.version_diff import differences

    with opened(app_reference, config) as desk:
        registry = desk.commands.registry()
        a, b = registry.version(pipeline, one), registry.version(pipeline, other)
        golden, notes = golden_differences(desk, a, b)
    found = differences(a, b)
    if output is Output.JSON:
        told = {"same_bytes": a.sha256 == b.sha256, "differences": [asdict(each) for each in found]}
        typer.echo(json.dumps({**told, "golden": [asdict(each) for each in golden], "notes": notes}, indent=2))
        return
    typer.echo("\n".join([*_lines(a, b, found), *map(_golden_line, golden), *(f"  ! {note}" for note in notes)]))


def golden_differences(desk: Desk, one: Version, other: Version) -> tuple[list[GoldenDifference], list[str]]:
    """What each version makes of the other's golden rows, and what could not be compared."""
    from headrace.errors import HeadraceError
    from headrace.predict import onnx_file
    from headrace.predict.attached_rows import golden_in
    from headrace.predict.onnx_model import OnnxModel
    from headrace.predict.version_diff import golden_difference

    if one.signature.features != other.signature.features:
        return [], ["their features differ, so neither can score the golden rows of the other"]
    found, notes = [], []
    try:
        content = {version.version: desk.commands.artifacts.get(version.sha256) for version in (one, other)}
        models = {name: OnnxModel.load(held, one.signature.features) for name, held in content.items()}
        for rows_of, scored_by in ((one, other), (other, one)):
            golden = golden_in(onnx_file.metadata(content[rows_of.version]))
            if golden is None:
                notes.append(f"version {rows_of.version} carries no golden rows")
            else:
                found.append(golden_difference(rows_of, golden, scored_by, models[scored_by.version]))
    except HeadraceError as error:
        notes.append(f"their scores are not compared: {error}")
    return found, notes


def _lines(one: Version, other: Version, found: list[Difference]) -> list[str]:
    lines = [f"{one.pipeline}: version {one.version} ({one.role}) and version {other.version} ({other.role})"]
    if one.sha256 == other.sha256:
        return [*lines, "  the same bytes"]
    if not found:
        lines.append("  the same signature and card: only the weights differ")
    return [*lines, *(f"  {each.what}: {_shown(each.one)} -> {_shown(each.other)}" for each in found)]


def _shown(value: object) -> str:
    if value is None:
        return "-"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 100 else f"{text[:97]}..."  # noqa: PLR2004 - a line stays a line


def _golden_line(one: GoldenDifference) -> str:
    if one.mean_apart is None:
        return f"  {one.rows} golden rows of version {one.rows_of}: version {one.scored_by} gives none of them a score"
    missing = f", no score for {one.without_score}" if one.without_score else ""
    return (
        f"  {one.rows} golden rows of version {one.rows_of}, scored by version {one.scored_by}: {one.mean_apart:.4g} apart in the mean, "
        f"{one.most_apart:.4g} at most{missing}"
    )
