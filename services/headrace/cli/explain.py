"""`headrace explain`: why one prediction is what it is.

Exit codes: 0 it was explained, and scores as it was published, as far as that is known; 1 it scores otherwise now (or an error).
"""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.output import Output
from headrace.cli.waterfall import svg_waterfall, text_waterfall

if TYPE_CHECKING:
    from headrace.apps.explaining import Explanation

app = typer.Typer(help="Say what each feature contributed to a prediction.", add_completion=False, rich_markup_mode=None)


@app.command()
def explain(
    prediction: Annotated[
        str,
        typer.Argument(metavar="ID", help="The id of a prediction: <source topic>-<partition>-<offset>-<model>, for a shadow @<version>."),
    ],
    app_reference: Annotated[str, typer.Option("--app", help="The app, as module:attribute.")],
    most: Annotated[int, typer.Option("--top", min=1, help="Show so many features; the others are one bar.")] = 12,
    svg: Annotated[Path | None, typer.Option(help="Draw it into this file, too.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file; else headrace.toml, if it is there.")] = None,
    output: Annotated[Output, typer.Option(help="Text for people or JSON for programs.")] = Output.TEXT,
) -> None:
    """Tell the vector of a prediction from the log again, score it, and say what each feature contributed to the score.

    Contributions are Shapley values over the background rows in the model's file: they and the mean add up to the margin. The model must
    be one of trees or a weighted sum; which others are refused is said, and why.
    """
    from headrace import log
    from headrace.apps.artifacts import artifact_store
    from headrace.apps.explaining import ExplainedCasting, Explaining
    from headrace.apps.worker import kafka_properties
    from headrace.cli.definitions import load_app
    from headrace.cli.progress import RecordMeter
    from headrace.kafka_client import knock
    from headrace.settings import load
    from headrace.verify.deployment import deployment

    settings = load(config).settings
    log.set_up(level="error", style="console", secrets=settings.secrets())
    definition = load_app(app_reference)
    properties = kafka_properties(settings)
    knock(properties)
    casting_of = partial(ExplainedCasting, definition, artifact_store(definition, settings))
    meter = RecordMeter()
    try:
        with deployment(definition.name, properties, None) as subject:
            found = Explaining(definition, subject, casting_of=casting_of, told=meter.show).explain(prediction)
    finally:
        meter.done()
    if svg is not None:
        svg.write_text(svg_waterfall(found, most), encoding="utf-8")
    typer.echo(as_json(found) if output is Output.JSON else as_text(found, most))
    if found.same is False:
        raise typer.Exit(1)


def as_text(found: Explanation, most: int) -> str:
    """For people."""
    published = found.published
    said = {None: "not compared with the published one", True: "as published, within 1e-6", False: "NOT as published"}[found.same]
    where = "" if published is None else f", at {published.topic}-{published.partition} offset {published.offset}"
    return "\n".join(
        [
            f"{found.id}{where}",
            f"entity {found.entity}, model {found.model} version {found.version} ({found.role}): score {found.score:.9g}, {said}",
            *(f"! {note}" for note in found.notes),
            "",
            f"contributions, in units of the {found.units}:",
            *text_waterfall(found, most),
        ]
    )


def as_json(found: Explanation) -> str:
    """For programs."""
    published = found.published
    return json.dumps(
        {
            "id": found.id,
            "entity": found.entity,
            "model": {"name": found.model, "version": found.version, "role": found.role},
            "score": found.score,
            "published": None
            if published is None
            else {
                "score": published.score,
                "version": published.version,
                "role": published.role,
                "topic": published.topic,
                "partition": published.partition,
                "offset": published.offset,
            },
            "same": found.same,
            "units": str(found.units),
            "mean": found.mean,
            "margin": found.margin,
            "features": {name: value if math.isfinite(value) else None for name, value in found.features.items()},
            "contributions": dict(found.contributions),
            "notes": list(found.notes),
        },
        indent=2,
    )
