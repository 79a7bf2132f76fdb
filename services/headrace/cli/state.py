"""`headrace state`: the online state of an app, for operators."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="The online state of an app.", no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
)


@app.callback()
def root() -> None:
    """Work on the state in the store."""


@app.command()
def rebuild(
    app_reference: Annotated[str, typer.Option("--app", help="The app, as module:attribute.")],
    partition: Annotated[
        list[str] | None, typer.Option("--partition", help="Only this one, as <source topic>-<number>; may be repeated. Else all.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file; else headrace.toml, if it is there.")] = None,
) -> None:
    """Drop the state of partitions, so that the workers fold it again from the log. Predictions wait meanwhile; none is lost or repeated.

    A worker notices within seconds; a partition that a worker has given up is taken up again when that worker is restarted.
    """
    from headrace import log
    from headrace.apps.worker import kafka_properties, redis_store
    from headrace.cli.definitions import load_app
    from headrace.consume.kafka_reader import KafkaReader
    from headrace.kafka_client import knock
    from headrace.settings import load

    settings = load(config).settings
    log.set_up(level="error", style="console", secrets=settings.secrets())
    definition = load_app(app_reference)
    knock(kafka_properties(settings))
    reader, store = KafkaReader(kafka_properties(settings)), redis_store(definition, settings)
    try:
        names = {
            f"{name.topic}-{name.partition}": (name, [view.fp for view in definition.views_of(source)])
            for source in definition.sources
            for name in reader.partitions(source.topic)
        }
        wanted = partition or list(names)
        unknown = [text for text in wanted if text not in names]
        if unknown:
            raise typer.BadParameter(f"{unknown[0]} is none of {', '.join(names)}", param_hint="--partition")
        store.check()
        for text in wanted:
            store.drop(*names[text])
            typer.echo(f"dropped the state of {text}")
    finally:
        reader.close()
        store.close()
    typer.echo("the workers rebuild it from the log; `headrace verify` tells when it equals the log again")
