"""`headrace features`: what an app knows of an entity, for whoever wants to look."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli import feature_docs, feature_export, feature_plot
from headrace.cli.output import Output

if TYPE_CHECKING:
    from headrace.definition import App
    from headrace.lookup import EntityFeatures, Features
    from headrace.settings import Settings

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)

app = typer.Typer(
    help="The features of an app.", no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
)


@app.callback()
def root() -> None:
    """Work with the features of an app."""


@app.command()
def get(
    view: Annotated[str, typer.Argument(help="The feature view.")],
    entity: Annotated[str, typer.Argument(help="The key of the entity.")],
    app_reference: Annotated[str, typer.Option("--app", help="The app, as module:attribute.")],
    as_of: Annotated[
        str | None,
        typer.Option(help="ISO 8601 (without a zone it is UTC) or milliseconds UTC. Else now; of a historical source its watermark."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file; else headrace.toml, if it is there.")] = None,
    output: Annotated[Output, typer.Option(help="Text for people or JSON for programs.")] = Output.TEXT,
) -> None:
    """Look the features of one entity up in the online store, as of now or a given instant.

    An entity that was never seen is answered with the values of an empty state, and the answer says so. Exit code 1: it could not be
    answered exactly (an instant before its newest event, a view that is not there), and why.
    """
    from headrace import log
    from headrace.cli.definitions import load_app
    from headrace.settings import load

    instant_ms = None if as_of is None else ms_of(as_of)
    settings = load(config).settings
    log.set_up(level="error", style="console", secrets=settings.secrets())
    features = opened(load_app(app_reference), settings)
    try:
        found = features.get(view, entity, instant_ms)
    finally:
        features.close()
    typer.echo(json.dumps(found.as_json(), indent=2) if output is Output.JSON else as_text(found))


def opened(definition: App, settings: Settings) -> Features:
    """Look-ups in the store that the settings name."""
    from headrace.lookup import Features

    redis = settings.redis
    return Features(
        redis.url,
        app=definition,
        username=redis.username,
        password=None if redis.password is None else redis.password.get_secret_value(),
        tls_ca=redis.tls_ca,
        tls_certificate=redis.tls_certificate,
        tls_key=redis.tls_key,
        timeout_s=redis.timeout_ms / 1_000,
    )


def ms_of(text: str, *, of: str = "--as-of") -> int:
    """Milliseconds of an instant as people write it; `of`: in which option."""
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no instant: write for example 2026-01-31T12:00, 2026-01-31T12:00:00+01:00 or 1769860800000", param_hint=of
        ) from None
    return ((found if found.tzinfo else found.replace(tzinfo=UTC)) - EPOCH) // MILLISECOND


def as_text(found: EntityFeatures) -> str:
    """For people: what was asked, where it comes from, the values."""
    width = max(map(len, found.values))
    stale = "the partition has shown no event yet"
    if found.staleness_ms is not None and found.watermark_ms is not None:
        stale = f"watermark {_time(found.watermark_ms)}, staleness {_duration(found.staleness_ms)}"
    lines = [
        f"{found.view} (version {found.version}), entity {found.entity}, as of {_time(found.as_of_ms)}",
        f"from {found.partition.topic}-{found.partition.partition} below offset {found.offset:,}; {stale}",
    ]
    if not found.known:
        lines.append("not known: never seen, or nothing of it lies in any window; these are the values of an empty state")
    return "\n".join([*lines, "", *(f"  {name:<{width}}  {_number(value)}" for name, value in found.values.items())])


def _number(value: float) -> str:
    return "absent" if value != value else f"{value:.12g}"  # noqa: PLR0124 - absent is NaN


def _time(instant_ms: int) -> str:
    return (EPOCH + instant_ms * MILLISECOND).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def _duration(length_ms: int) -> str:
    """As people read it, two units at most: 1d 3h, 12.5s."""
    seconds, rest_ms = divmod(length_ms, 1_000)
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds}.{rest_ms // 100}s"
    units = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))
    place = next(place for place, (_, length) in enumerate(units) if seconds >= length)
    (large, length), *smaller = units[place : place + 2]
    words = [f"{seconds // length:,}{large}"] + [f"{seconds % length // one}{unit}" for unit, one in smaller]
    return " ".join(words)


feature_docs.add_to(app)
feature_export.add_to(app)
feature_plot.add_to(app)
