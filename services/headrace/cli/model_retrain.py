"""`headrace model retrain`: a version's recipe on a newer span, through the gate into the registry; mounted by the noun `model`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.output import Output

if TYPE_CHECKING:
    from headrace.apps.model_desk import Desk
    from headrace.definition import App, Pipeline
    from headrace.predict.registry import Version
    from headrace.training import TrainingFrame
    from headrace.training.retraining import Graded


def add_to(app: typer.Typer) -> None:
    """Add the command to the noun."""
    app.command()(retrain)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Which rows are meant, in the words of the command line."""

    events: list[str] | None
    from_topics: bool
    log: list[str] | None
    labels: str | None
    label_time: str | None
    begin: list[str] | None
    end: list[str] | None
    config: Path | None


def retrain(
    pipeline: Annotated[str, typer.Argument(metavar="PIPELINE", help="The pipeline.")],
    app_reference: Annotated[str, typer.Option("--app", help="The app, as module:attribute.")],
    named: Annotated[str, typer.Option("--as", help="The version that the result gets.")],
    version: Annotated[str | None, typer.Argument(metavar="VERSION", help="Whose recipe; else the champion's.")] = None,
    events: Annotated[list[str] | None, typer.Option(help="Events: a Parquet or CSV file, a folder, a glob, or TOPIC=PATH.")] = None,
    from_topics: Annotated[bool, typer.Option("--from-topics", help="Events (and outcomes) from the app's topics.")] = False,
    log: Annotated[list[str] | None, typer.Option(help="Topics archived in Parquet: PATH, or TOPIC=PATH for each.")] = None,
    labels: Annotated[str | None, typer.Option(help="Outcomes: a Parquet or CSV file, a folder, or a glob.")] = None,
    label_time: Annotated[str | None, typer.Option(help="The column of --labels that says when an outcome was known.")] = None,
    begin: Annotated[list[str] | None, typer.Option("--from", help="Where the span begins, as for `headrace scenario`.")] = None,
    end: Annotated[list[str] | None, typer.Option("--to", help="Where it ends, not with that.")] = None,
    hold_out: Annotated[
        float, typer.Option(min=0, max=0.9, help="Keep this share of the newest rows from the recipe, to grade both versions on.")
    ] = 0.0,
    changed_definitions: Annotated[
        bool, typer.Option("--changed-definitions", help="Train although the features have changed since VERSION was trained.")
    ] = False,
    shadow: Annotated[bool, typer.Option("--shadow", help="Let the result score beside the others at once.")] = False,
    rehearse: Annotated[int, typer.Option(min=0, help="On how many of the last real events it is tried.")] = 1_000,
    by: Annotated[str | None, typer.Option(help="Who says so; else the user of this process and its host.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Train, examine and compare it, and register nothing.")] = False,
    config: Annotated[Path | None, typer.Option(help="Settings file; else headrace.toml, if it is there.")] = None,
    output: Annotated[Output, typer.Option(help="Text for people or JSON for programs.")] = Output.TEXT,
) -> None:
    """Train a version again on a newer span by the recipe it was stamped with, examine the result as `register` does, and register it.

    What changed is told: span, rows, hash, and where outcomes are known how good both versions are on the same newest rows.
    """
    from headrace.cli.model import opened
    from headrace.cli.model_moves import show_done, show_prepared
    from headrace.cli.model_register import of_gate, report_lines, show_refusals
    from headrace.predict.registry import Role
    from headrace.training.retraining import followed, insist_on_definitions, load_recipe, recipe_in, split

    asked = Asked(
        events=events, from_topics=from_topics, log=log, labels=labels, label_time=label_time, begin=begin, end=end, config=config
    )
    with opened(app_reference, config, by=by) as desk:
        definition, wanted, old, content = desk.app, desk.commands.pipeline(pipeline), *_old(desk, pipeline, version)
    called = f"version {old.version} of {pipeline}"
    reference = recipe_in(old.lineage, called)
    if not changed_definitions:
        insist_on_definitions(old.lineage or {}, wanted, called)
    recipe = load_recipe(reference)
    whole = frame_of(definition, wanted, asked)
    frame, newest = split(whole, hold_out) if hold_out else (whole, whole)
    made = stamped(wanted, followed(reference, recipe, frame), frame, old, named, reference)
    grades = grades_of(wanted, content, made, newest, held_out=hold_out > 0)
    told = changes(old, frame, grades)
    with opened(app_reference, config, by=by) as desk:
        examined = desk.examine(made, pipeline=pipeline, rehearse=rehearse)
        if examined.verdict.refusals:
            show_refusals(f"what recipe {reference} made", examined, output)
            raise typer.Exit(1)
        if output is Output.TEXT:
            typer.echo("\n".join([*lines(old, named, told, grades), *report_lines(examined)]))
        prepared = desk.registration(examined)
        more = {"retrained": {"recipe": reference, "from": old.version, **told}, **of_gate(examined)}
        if dry_run:
            show_prepared(prepared, output, more=more)
            return
        done = desk.commands.carry_out(prepared)
        if shadow:
            if output is Output.TEXT:
                show_done(done, output)
            done = desk.change(desk.commands.move(pipeline, named, Role.SHADOW, reason=f"{called} trained again"))
        show_done(done, output, more=more)


def frame_of(definition: App, pipeline: Pipeline, asked: Asked) -> TrainingFrame:
    """The training frame of the span. Raises `DefinitionError`."""
    from headrace.cli.progress import RecordMeter
    from headrace.cli.training_set import archived, outcomes_there, tables_of, topics_of
    from headrace.training import training_frame
    from headrace.training.retraining import rows_within
    from headrace.training.span import span_of

    if sum((asked.events is not None, asked.from_topics, bool(asked.log))) != 1:
        raise typer.BadParameter("say where events come from: --events PATH, --from-topics, or --log PATH", param_hint="--events")
    span = span_of(asked.begin or None, asked.end or None, of="retrain")
    topics = archived(asked.log) if asked.log else topics_of(asked.config) if asked.from_topics else None
    known = asked.labels if asked.labels is not None or topics is None else outcomes_there(definition, pipeline.name, topics)
    meter = RecordMeter()
    try:
        frame = training_frame(
            definition,
            events=topics or tables_of(asked.events or []),
            labels=known,
            pipeline=pipeline.name,
            label_time=asked.label_time,
            told=meter.show,
        )
    finally:
        meter.done()
    return rows_within(frame, span)


def stamped(pipeline: Pipeline, made: bytes, frame: TrainingFrame, old: Version, named: str, recipe: str) -> bytes:
    """What a recipe made, stamped anew: its own stamp, else the old version's, says which output is the score, and whose it is."""
    from headrace.models import stamp
    from headrace.predict import onnx_file
    from headrace.predict.model_card import ModelCard, card_in
    from headrace.predict.signature import METADATA_KEY, Signature

    metadata = onnx_file.metadata(made)
    of = Signature.from_metadata(metadata) if METADATA_KEY in metadata else old.signature
    card = card_in(metadata)
    if card is None and old.card is not None:
        card = ModelCard.from_plain({**old.card, "metrics": {}})  # those of the old one are not its own
    return stamp(
        made,
        pipeline,
        version=named,
        output=of.output if of.output in onnx_file.output_names(made) else None,
        kind="probability" if of.kind == "probability" else "value",
        class_index=of.class_index,
        golden_rows=frame,
        background=frame,
        card=card,
        lineage={**frame.lineage, "retrained_from": old.version},
        recipe=recipe,
    )


def grades_of(pipeline: Pipeline, old: bytes, new: bytes, frame: TrainingFrame, *, held_out: bool) -> Graded | None:
    """How good both versions are on the newest rows; None where nothing is known, or they cannot score the same rows."""
    from headrace.errors import SignatureMismatch
    from headrace.predict.onnx_model import OnnxModel
    from headrace.training.retraining import NEWEST, graded, split

    newest = frame if held_out else split(frame, NEWEST)[1]
    try:
        before = OnnxModel.load(old, pipeline.feature_names)
    except SignatureMismatch:
        return None
    after = OnnxModel.load(new, pipeline.feature_names)
    return graded(newest, before, after, after.signature.kind, held_out=held_out) if before.signature.kind is after.signature.kind else None


def changes(old: Version, frame: TrainingFrame, grades: Graded | None) -> dict[str, Any]:
    """What is different from the old version, for programs."""
    before, after = old.lineage or {}, frame.lineage
    found: dict[str, Any] = {name: [before.get(name), after.get(name)] for name in ("rows", "hash", "fingerprint", "offsets", "span_ms")}
    if grades is None:
        return {**found, "grades": None}
    finite = {name: {key: value if isfinite(value) else None for key, value in of.items()} for name, of in _both(grades).items()}
    return {**found, "grades": {"rows": grades.rows, "held_out": grades.held_out, **finite}}


def lines(old: Version, named: str, told: Mapping[str, Any], grades: Graded | None) -> list[str]:
    """The same for people."""
    found = [f"version {named} beside version {old.version}, by the same recipe"]
    for name in ("rows", "hash", "offsets", "span_ms"):
        before, after = told[name]
        if before is not None or after is not None:
            found.append(f"  {name:<9}{_short(before)} -> {_short(after)}{'  (the same)' if before == after else ''}")
    if grades is None:
        return [*found, "  no grades: there are no outcomes of rows that both give a score for"]
    seen = "which neither has seen" if grades.held_out else f"which version {named} was trained on: see --hold-out"
    found.append(f"  on the newest {grades.rows:,} rows with an outcome, {seen}:")
    return found + [f"    {name:<10}{grades.old[name]:.4g} -> {grades.new[name]:.4g}" for name in grades.new]


def _both(grades: Graded) -> dict[str, Mapping[str, float]]:
    return {"old": grades.old, "new": grades.new}


def _old(desk: Desk, pipeline: str, version: str | None) -> tuple[Version, bytes]:
    """The version whose recipe is meant, and its file. Raises `RegistryRefused`, `ArtifactRefused`."""
    content = desk.content(pipeline, version)
    registry = desk.commands.registry()
    return registry.version(pipeline, version or registry.roster(pipeline).champion or ""), content


def _short(told: object) -> str:
    text = "not known" if told is None else told if isinstance(told, str) else json.dumps(told)
    return text[:16] if isinstance(told, str) else text if len(text) <= 100 else f"{text[:97]}..."  # noqa: PLR2004 - a line stays a line
