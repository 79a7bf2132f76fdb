"""`headrace state`: the online state of an app, for operators.

Each command opens the app's topics, group and store (`Desk`) and ends with exit code 0 when what was asked for is so.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli import state_forget
from headrace.cli.output import Output

if TYPE_CHECKING:
    from headrace.definition import App
    from headrace.features.redis_store import RedisStore
    from headrace.kafka_client import Properties
    from headrace.source import Source
    from headrace.types import TopicPartition
    from headrace.verify.entity import EntityState, Seen
    from headrace.verify.state import Told
    from headrace.verify.subject import Subject

TOLD_EVERY_S = 1.0
SETTINGS_HELP = "Settings file; else headrace.toml, if it is there."
APP_HELP = "The app, as module:attribute."
PARTITION_HELP = "Only this one, as <source topic>-<number>; may be repeated. Else all."

app = typer.Typer(
    help="The online state of an app.", no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
)


@app.callback()
def root() -> None:
    """Work on the state in the store."""


@app.command()
def verify(
    app_reference: Annotated[str, typer.Option("--app", help=APP_HELP)],
    partition: Annotated[list[str] | None, typer.Option("--partition", help=PARTITION_HELP)] = None,
    entity: Annotated[str | None, typer.Option(help="Only the entity with this key; workers may be at work then.")] = None,
    rest_seconds: Annotated[float, typer.Option("--wait", min=0, help="How long to wait for partitions to be at rest.")] = 10.0,
    limit: Annotated[int, typer.Option(min=1, help="List so many violations; all are counted.")] = 1_000,
    config: Annotated[Path | None, typer.Option(help=SETTINGS_HELP)] = None,
    output: Annotated[Output, typer.Option(help="Text for people or JSON for programs.")] = Output.TEXT,
) -> None:
    """Fold the source log and compare the stored state of every entity with it. Changes nothing.

    Exit code 0: it is equal. 1: it is not, or could not be compared. What was published is compared by `headrace verify`.
    """
    from headrace.cli.verify import Meter, as_json, as_text
    from headrace.verify.findings import Findings
    from headrace.verify.state import StateVerification
    from headrace.verify.verification import Progress

    one_of(partition, entity)
    meter = Meter()

    def told(events: int, of: int) -> None:
        meter.show(Progress(events=events, of=of))

    with opened(app_reference, config) as desk:
        seen: list[Seen] = []
        try:
            if entity is None:
                verification = StateVerification(desk.app, desk.subject, told=told)
                findings = verification.run(desk.wanted(partition), rest_ms=int(1_000 * rest_seconds), keep=limit)
            else:
                findings = Findings(keep=limit)
                for reads in desk.keeping:
                    with desk.entity(reads, entity, told) as state:
                        seen += state.check(findings)
        finally:
            meter.done()
        name = desk.app.name
    if output is Output.JSON:
        typer.echo(as_json(findings, meter, ["I4"], **({} if entity is None else {"features": features(seen)})))
    else:
        typer.echo(as_text(name, findings, meter, ["I4"]))
        for view, found in features(seen).items():
            typer.echo(f"  {view}: " + ", ".join(f"{feature} = {value}" for feature, value in found.items()))
    if findings.verdict("I4") != "passed":
        raise typer.Exit(1)


@app.command()
def rebuild(
    app_reference: Annotated[str, typer.Option("--app", help=APP_HELP)],
    partition: Annotated[list[str] | None, typer.Option("--partition", help=PARTITION_HELP)] = None,
    entity: Annotated[str | None, typer.Option(help="Only the entity with this key, here and now; nobody waits for it.")] = None,
    config: Annotated[Path | None, typer.Option(help=SETTINGS_HELP)] = None,
) -> None:
    """Drop the state of partitions, so that the workers fold it again from the log. Predictions wait meanwhile; none is lost or repeated.

    A worker notices within seconds; a partition that a worker has given up is taken up again when that worker is restarted. With --entity
    nothing is dropped: the log is folded here, and that one state is written under the worker's hands, which claims the partition again.
    """
    from headrace.cli.verify import Meter
    from headrace.features.state_store import aside
    from headrace.verify.verification import Progress

    one_of(partition, entity)
    meter = Meter()

    def told(events: int, of: int) -> None:
        meter.show(Progress(events=events, of=of))

    with opened(app_reference, config) as desk:
        if entity is not None:
            for reads in desk.keeping:
                with desk.entity(reads, entity, told) as state:
                    before = state.mend()
                meter.done()
                for one in before:
                    was = "was right and was written again" if one.same() else "was not the one of the log and is now"
                    typer.echo(f"the state of {entity} in view {one.view.name} {was}")
            return
        for name in desk.wanted(partition):
            views = [view.fp for view in desk.app.kept_of(desk.source(name))]
            desk.store.drop(name, [*views, *map(aside, views)])
            typer.echo(f"dropped the state of {text(name)}")
    typer.echo("the workers rebuild it from the log; `headrace state verify` tells when it equals the log again")


@app.command()
def snapshot(
    file: Annotated[Path, typer.Argument(help="The file to write; one that is there is replaced when the new one is whole.")],
    app_reference: Annotated[str, typer.Option("--app", help=APP_HELP)],
    partition: Annotated[list[str] | None, typer.Option("--partition", help=PARTITION_HELP)] = None,
    config: Annotated[Path | None, typer.Option(help=SETTINGS_HELP)] = None,
) -> None:
    """Save the state into a file, for `headrace state restore`. Workers go on meanwhile and notice nothing."""
    from headrace.apps.snapshots import save
    from headrace.apps.worker import own_version
    from headrace.features.snapshot_file import SnapshotWriter

    with opened(app_reference, config) as desk:
        wanted, meter = desk.wanted(partition), StateMeter()
        made_at = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            with SnapshotWriter(file, app=desk.app.name, headrace=own_version(), made_at=made_at) as writer:
                missing = save(desk.app, desk.subject, desk.store, writer, wanted, told=meter.show)
                size = writer.finish()
        except OSError as error:
            raise typer.BadParameter(f"{file} cannot be written: {error.strerror}", param_hint="FILE") from error
        finally:
            meter.done()
    for name in missing:
        typer.echo(f"{name} has no state yet and is not in the file")
    typer.echo(f"{file}: {meter.states:,} states of {writer.partitions} partitions, {size:,} bytes")


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="A file that `headrace state snapshot` wrote.")],
    app_reference: Annotated[str, typer.Option("--app", help=APP_HELP)],
    partition: Annotated[list[str] | None, typer.Option("--partition", help=PARTITION_HELP)] = None,
    config: Annotated[Path | None, typer.Option(help=SETTINGS_HELP)] = None,
) -> None:
    """Put a saved state in the place of what is there. Workers fold what came since from the log; no prediction is lost or repeated.

    A partition that a worker has given up is taken up again when that worker is restarted.
    """
    from headrace.apps.snapshots import plan
    from headrace.apps.snapshots import restore as restore_part
    from headrace.errors import SnapshotRefused
    from headrace.features.snapshot_file import SnapshotFile

    with opened(app_reference, config) as desk, SnapshotFile(file) as found:
        wanted = plan(desk.app, desk.subject, found, None if partition is None else desk.wanted(partition))
        for why in wanted.changed:
            typer.echo(why, err=True)
        if not wanted.parts:
            raise SnapshotRefused(f"{file} holds nothing that the app still has: nothing was changed")
        meter = StateMeter()
        try:
            for part, views in wanted.parts:
                erased = wanted.erased.get(part.partition, ())
                restore_part(desk.subject, desk.store, found, part, views, told=meter.show, erased=erased)
                offset = min(part.heads[view].offset or 0 for view in views)
                typer.echo(f"{text(part.partition)} has the state of {found.made_at}, at offset {offset}")
        finally:
            meter.done()
    typer.echo("the workers fold what came since from the log; `headrace state verify` tells when it equals the log again")


@app.command()
def fill(
    app_reference: Annotated[str, typer.Option("--app", help=APP_HELP)],
    partition: Annotated[list[str] | None, typer.Option("--partition", help=PARTITION_HELP)] = None,
    config: Annotated[Path | None, typer.Option(help=SETTINGS_HELP)] = None,
) -> None:
    """Fold new and changed views from the log, beside the workers that still serve the old ones; then restart those one after another.

    Workers with the new definitions go on from what was filled, so nobody waits for the log to be folded. A filling that was ended goes
    on where it stood.
    """
    from headrace.apps.filling import Filling, unfilled
    from headrace.cli.verify import Meter
    from headrace.verify.verification import Progress

    meter = Meter()
    filled = 0

    def told(events: int, of: int) -> None:
        meter.show(Progress(events=events, of=of))

    with opened(app_reference, config) as desk:
        try:
            for name in desk.wanted(partition):
                source = desk.source(name)
                views = unfilled(desk.app, desk.subject, desk.store, source, name)
                names = ", ".join(f"{view.name} ({view.fp})" for view in views)
                if views and Filling(desk.app, desk.subject, desk.store, source, name, views, told=told).run():
                    filled += 1
                    typer.echo(f"{text(name)}: filled {names} up to the commits")
                elif views:
                    typer.echo(f"{text(name)}: a worker has taken {names} over and goes on with what was filled")
        finally:
            meter.done()
    typer.echo(
        "start workers with these definitions in place of the others, one after another; then `headrace state prune` removes what is left"
        if filled
        else "nothing to fill: every view stands where the commits are, or a worker is at it"
    )


@app.command()
def prune(
    app_reference: Annotated[str, typer.Option("--app", help=APP_HELP)],
    partition: Annotated[list[str] | None, typer.Option("--partition", help=PARTITION_HELP)] = None,
    force: Annotated[bool, typer.Option("--force", help="Remove also what still follows the commits.")] = False,
    config: Annotated[Path | None, typer.Option(help=SETTINGS_HELP)] = None,
) -> None:
    """Remove the states of views that the app has no more. What a worker may still serve is left alone, without --force."""
    from headrace.apps.pruning import leftovers
    from headrace.apps.pruning import prune as prune_states

    with opened(app_reference, config) as desk:
        found = leftovers(desk.app, desk.subject, desk.store, desk.wanted(partition))
        wanted = [one for one in found if force or not one.followed]
        prune_states(desk.store, wanted)
    for one in wanted:
        typer.echo(f"{text(one.partition)}: removed the state of {one.view} ({one.fp})")
    left = len(found) - len(wanted)
    if left:
        typer.echo(
            f"left {left} alone that stand where the commits are: a worker with the old definitions may still serve them; restart it, or "
            "say --force when there is none"
        )
    if not found:
        typer.echo("nothing to remove: the store holds no state of a view that was applied once and is gone")


# ------------------------------------------------------------------------------------------------------------ what they share


@dataclass(frozen=True, kw_only=True)
class Desk:
    """An app, its topics and group, and its store."""

    app: App
    properties: Properties
    subject: Subject
    store: RedisStore
    partitions: dict[str, TopicPartition]

    def wanted(self, names: Sequence[str] | None) -> list[TopicPartition]:
        """The partitions of these names, or all."""
        wanted = list(self.partitions) if names is None else names
        unknown = [name for name in wanted if name not in self.partitions]
        if unknown:
            raise typer.BadParameter(f"{unknown[0]} is none of {', '.join(self.partitions)}", param_hint="--partition")
        return [self.partitions[name] for name in dict.fromkeys(wanted)]

    def source(self, name: TopicPartition) -> Source:
        """The source or hop of a partition."""
        return next(reads for reads in self.app.inputs if reads.topic == name.topic)

    @property
    def keeping(self) -> list[Source]:
        """The sources and hops that have views."""
        return [reads for reads in self.app.inputs if self.app.views_of(reads)]

    def partition_of(self, source: Source, entity: str) -> TopicPartition:
        """Where an entity of a source or hop is kept."""
        from headrace.partitioner import partition_of
        from headrace.types import TopicPartition

        count = sum(name.topic == source.topic for name in self.partitions.values())
        return TopicPartition(source.topic, partition_of(entity.encode(), count))

    @contextmanager
    def entity(self, source: Source, entity: str, told: Told) -> Iterator[EntityState]:
        """The state of an entity of a source."""
        from headrace.verify.entity import EntityState

        name = self.partition_of(source, entity)
        state = EntityState(self.app, self.subject, self.store, source, name=name, key=entity.encode(), told=told)
        try:
            yield state
        finally:
            state.close()


@contextmanager
def opened(app_reference: str, config: Path | None) -> Iterator[Desk]:
    """Open an app's topics, group and store."""
    from headrace import log
    from headrace.apps.worker import kafka_properties, redis_store
    from headrace.cli.definitions import load_app
    from headrace.kafka_client import knock
    from headrace.settings import load
    from headrace.verify.deployment import deployment

    settings = load(config).settings
    log.set_up(level="error", style="console", secrets=settings.secrets())
    definition = load_app(app_reference)
    properties = kafka_properties(settings)
    knock(properties)
    store = redis_store(definition, settings)
    try:
        store.check()
        with deployment(definition.name, properties, store) as subject:
            reader = subject.reader()
            try:
                topics = [reads.topic for reads in definition.inputs if definition.views_of(reads)]
                names = [name for topic in topics for name in reader.partitions(topic)]
            finally:
                reader.close()
            yield Desk(app=definition, properties=properties, subject=subject, store=store, partitions={text(name): name for name in names})
    finally:
        store.close()


class StateMeter:
    """Shows how many states are through, once a second, on standard error."""

    def __init__(self) -> None:
        self._of: dict[str, int] = {}
        self._told_s = time.monotonic()
        self._line = sys.stderr.isatty()
        self._shown = False

    @property
    def states(self) -> int:
        """How many in all."""
        return sum(self._of.values())

    def show(self, name: str, states: int) -> None:
        """So many of a partition."""
        self._of[name] = states
        if time.monotonic() - self._told_s >= TOLD_EVERY_S:
            self._told_s, self._shown = time.monotonic(), True
            line = f"{self.states:,} states, now of {name}"
            typer.echo(f"\r{line:<100}" if self._line else line, err=True, nl=not self._line)

    def done(self) -> None:
        """The end of the line."""
        if self._line and self._shown:
            typer.echo("", err=True)


def one_of(partition: Sequence[str] | None, entity: str | None) -> None:
    """An entity has a partition already."""
    if partition and entity is not None:
        raise typer.BadParameter("an entity is in the partition of its key: leave --partition out", param_hint="--entity")
    if entity is not None and not 0 < len(entity.encode()) <= 256:  # noqa: PLR2004 - as records' keys
        raise typer.BadParameter("a key has 1 to 256 bytes", param_hint="--entity")


def features(seen: Sequence[Seen]) -> dict[str, dict[str, float | None]]:
    """The stored features of an entity in each view as of now, as a look-up gives them; absent is None."""
    from headrace.features.reader import StateReader
    from headrace.features.state import unpack_state
    from headrace.features.view import FeatureView

    found: dict[str, dict[str, float | None]] = {}
    for one in seen:
        view = one.view
        if not isinstance(view, FeatureView):
            continue
        now_ms = time.time_ns() // 1_000_000
        as_of_ms = now_ms if one.stored is None else max(now_ms, unpack_state(view, one.stored).newest_ms)
        values = StateReader(view).features(one.stored, as_of_ms)
        found[view.name] = {name: None if value != value else value for name, value in values.items()}  # noqa: PLR0124 - absent is NaN
    return found


def text(name: TopicPartition) -> str:
    """A partition's name for people."""
    return f"{name.topic}-{name.partition}"


state_forget.add_to(app)
