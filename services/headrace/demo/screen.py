"""What the demo shows while it runs: on a terminal a bar with a live table under it, elsewhere plain lines without control characters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from math import isnan

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from headrace.clock import Clock
from headrace.demo.events import LATE_MINUTES, Departures
from headrace.demo.progress import Progress
from headrace.publish.records import Prediction

REFRESH_S, LINE_S = 0.12, 2.0
"""How often the live table is drawn; how often a plain line is written."""


def moves(console: Console) -> bool:
    """Whether what was drawn there can be drawn again: a terminal, and no dumb one."""
    return console.is_terminal and not console.is_dumb_terminal


class Meter:
    """How far something is that goes through the year: a bar, or a line now and then."""

    def __init__(self, console: Console, clock: Clock, total: int) -> None:
        self._console, self._clock, self._total = console, clock, total
        self._live: Live | None = None
        self._due_s = 0.0
        columns = (TextColumn("{task.fields[day]}"), BarColumn(bar_width=None), MofNCompleteColumn(), _Speed())
        self._bar = Bar(*columns, console=console, expand=True)
        self._task = self._bar.add_task("", total=total, day=" " * 11, speed=0.0)
        if moves(console):
            self._live = Live(self._bar, console=console, auto_refresh=False)
            self._live.start()

    def due(self) -> bool:
        """Whether it is time to show more."""
        now_s = self._clock.monotonic_ns() / 1e9
        if now_s < self._due_s:
            return False
        self._due_s = now_s + (LINE_S if self._live is None else REFRESH_S)
        return True

    def show(self, done: int, newest_ms: int, speed: float, below: RenderableType | None = None) -> None:
        """Draw it, with `below` under the bar while there is something left to do."""
        day = datetime.fromtimestamp(newest_ms / 1_000, UTC).strftime("%d %b %Y")
        if self._live is None:
            self._console.print(f"{day}: {done:,} of {self._total:,} records, {speed:,.0f}/s", highlight=False)
            return
        self._bar.update(self._task, completed=done, day=day, speed=speed)
        shown = self._bar if below is None or done >= self._total else Group(self._bar, Text(), below)
        self._live.update(shown, refresh=True)

    def stop(self) -> None:
        """Leave what is drawn and go on below it."""
        if self._live is not None:
            self._live.stop()


class Stage:
    """Shows the phases of the demo, the first prediction and the replay on a console."""

    def __init__(self, console: Console, clock: Clock) -> None:
        self.console = console
        self.seconds: dict[str, float] = {}
        """How long each phase took, by name."""
        self._clock = clock
        self._departures: Departures | None = None
        self._meter: Meter | None = None
        self._records = 0

    @contextmanager
    def phase(self, name: str, doing: str) -> Iterator[Callable[[str], None]]:
        """Show that something is being done; the block may say in a few words what came of it."""
        said: list[str] = []
        begun_s = self._now_s()
        waiting: AbstractContextManager[object] = self.console.status(f"{doing} ...") if moves(self.console) else nullcontext()
        with waiting:
            yield said.append
        self.seconds[name] = self._now_s() - begun_s
        self.console.print(Text.assemble((f"{self.seconds[name]:4.1f} s  ", "dim"), "; ".join(said) or doing))

    @contextmanager
    def replaying(self, departures: Departures, records: int) -> Iterator[None]:
        """The time in which `first` and `moved` are called."""
        self._departures, self._records = departures, records
        try:
            yield
        finally:
            if self._meter is not None:
                self._meter.stop()

    def first(self, row: int, prediction: Prediction, value: bytes) -> None:
        """Show the first prediction and begin to draw the others."""
        self.console.print()
        self.console.print(first_prediction(self._known(), row, prediction, len(value)))
        self.console.print()
        self._meter = Meter(self.console, self._clock, self._records)

    def due(self) -> bool:
        """Whether something should be drawn or written."""
        return self._meter is not None and self._meter.due()

    def moved(self, progress: Progress) -> None:
        """Draw the bar and the newest predictions, or write a line."""
        if self._meter is not None:
            self._meter.show(progress.records, progress.newest_ms, progress.per_second, newest_predictions(self._known(), progress))

    def _known(self) -> Departures:
        if self._departures is None:
            raise ValueError("replaying() comes first")
        return self._departures

    def _now_s(self) -> float:
        return self._clock.monotonic_ns() / 1e9


class _Speed(ProgressColumn):
    """Records a second since the beginning."""

    def render(self, task: Task) -> RenderableType:
        return Text(f"{task.fields['speed']:,.0f}/s", style="green")


def first_prediction(departures: Departures, row: int, prediction: Prediction, size: int) -> RenderableType:
    """The first prediction, in words and as the record it is."""
    left = datetime.fromtimestamp(prediction.event_time / 1_000, UTC).strftime("%d %b %Y %H:%M UTC")
    words = Text.assemble(
        ("First prediction: ", "bold"),
        f"flight {departures.flight_ids[row]}, aircraft {departures.keys[row].decode()}, left {left}, ",
        f"{_delay(departures.dep_delay[row])}. ",
        (f"{prediction.score:.1%}", "bold cyan"),
        f" chance that it arrives more than {LATE_MINUTES} minutes late",
        "." if isnan(departures.arr_delay[row]) else f"; it came {_delay(departures.arr_delay[row])}.",
    )
    fields = Table.grid(padding=(0, 2))
    for name, said in (
        ("id", prediction.id),
        ("entity", prediction.entity),
        ("event_time", str(prediction.event_time)),
        ("score", repr(prediction.score)),
        ("model", f"{prediction.model.name} version {prediction.model.version}, {prediction.model.role}"),
        ("late", str(prediction.late).lower()),
        ("features", f"{len(prediction.features or {})}, the record has {size:,} bytes"),
    ):
        fields.add_row(Text(name, style="dim"), Text(said))
    features = [
        Text.assemble((name + " ", "dim"), "null" if value is None else f"{value:g}") for name, value in (prediction.features or {}).items()
    ]
    return Group(words, Text(), fields, Columns(features, padding=(0, 2), column_first=True))


def newest_predictions(departures: Departures, progress: Progress) -> Table:
    """The newest predictions beside what became of their flights."""
    table = Table(
        box=None,
        padding=(0, 2, 0, 0),
        title=f"{progress.predictions:,} predictions, {progress.refused:,} dead letters",
        title_justify="left",
    )
    for name in ("flight", "aircraft", "left", "delay", "chance", "arrived"):
        table.add_column(name, justify="right" if name in ("delay", "chance", "arrived") else "left", no_wrap=True, header_style="dim")
    for row, prediction, _ in progress.newest:
        arrival = departures.arr_delay[row]
        arrived = Text("?") if isnan(arrival) else Text(f"{arrival:+.0f} min", style="red" if arrival > LATE_MINUTES else "green")
        table.add_row(
            departures.flight_ids[row],
            departures.keys[row].decode(),
            datetime.fromtimestamp(prediction.event_time / 1_000, UTC).strftime("%H:%M"),
            f"{departures.dep_delay[row]:+.0f} min",
            Text(f"{prediction.score:.0%}", style="bold"),
            arrived,
        )
    return table


def _delay(minutes: float) -> str:
    if minutes == 0:
        return "on time"
    return f"{abs(minutes):.0f} min {'late' if minutes > 0 else 'early'}"
