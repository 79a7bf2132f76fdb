"""`headrace training-set --engine spark`: the same rows, made by Apache Spark."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from headrace.definition import App
    from headrace.training import Topics


def only_process(asked: Mapping[str, bool]) -> None:
    """Refuses what one process does alone."""
    instead = {"--from-topics": "archive them in Parquet and give --log", "--at": "leave out --engine"}
    for option, wanted in asked.items():
        if wanted:
            raise typer.BadParameter(f"Spark makes a row an event, out of files; {instead[option]}", param_hint=option)


def spark_settings(given: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE as settings of Spark."""
    settings = dict(one.partition("=")[::2] for one in given)
    if "" in settings or any("=" not in one for one in given):
        raise typer.BadParameter("write NAME=VALUE", param_hint="--spark-conf")
    return settings


def on_spark(
    definition: App,
    pipeline: str,
    events: Topics | str | None,
    to: Path,
    labels: tuple[str | None, str | None],
    spark: tuple[str | None, Mapping[str, str]],
) -> tuple[dict[str, Any], Path, float]:
    """Make them; gives lineage, place and seconds. `labels`: where they are and the column of their times; `spark`: master and settings."""
    from headrace.training.spark import write_training_set
    from headrace.training.spark_session import start

    began_s = time.monotonic()

    def told(what: str) -> None:
        typer.echo(f"{time.monotonic() - began_s:6.1f} s  {what}", err=True)

    told("starting Spark")
    session = start(spark[0], spark[1], progress=sys.stderr.isatty())
    try:
        from headrace.training.spark_labels import archived_outcomes

        files = write_training_set(
            definition,
            session=session,
            events=events or "",
            to=to,
            labels=labels[0] or archived_outcomes(session, definition, pipeline, events),
            pipeline=pipeline,
            label_time=labels[1],
            told=told,
        )
    finally:
        session.stop()
    return files.lineage, files.path, time.monotonic() - began_s
