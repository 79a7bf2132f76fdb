"""`headrace apply`: make what `headrace plan` shows."""

from __future__ import annotations

from typing import Annotated

import typer

from headrace.apps.cluster import Start
from headrace.cli.output import Output
from headrace.cli.plan import AppReference, As, Config, Partitions, Replication, Retention, open_cluster, show

app = typer.Typer(help="Make the topics of an app and commit its starting offsets.", add_completion=False, rich_markup_mode=None)


@app.command()
def apply(
    app_reference: AppReference,
    partitions: Partitions = 4,
    replication: Replication = -1,
    retention: Retention = "for ever",
    start: Annotated[Start, typer.Option(help="Where a new app begins to score: at the first or behind the last record.")] = Start.EARLIEST,
    config: Config = None,
    output: As = Output.TEXT,
) -> None:
    """Make the missing topics, commit the missing starting offsets, remember the definitions. Doing it twice does nothing more."""
    definition, cluster = open_cluster(app_reference, config, partitions, replication, retention, start)
    wanted = cluster.compare()
    cluster.apply(wanted)
    show(definition, wanted, retention, output)
    left = cluster.compare()
    if left.offsets:
        # The partitions of a source topic that was just made are known only now.
        cluster.apply(left)
    if output is Output.TEXT:
        typer.echo("applied" if wanted.any() else "")
