"""`make bench-fold`: what a feature costs. No server, no model: events as columns in, vectors and packed states out. Asserts nothing.

    kernel      the compiled fold alone, 20,000 entities in memory: moments by number of features, then each other kind of lane
    entities    the whole features stage (look up rows, fold, pack what was touched) by number of entities, drawn by Zipf's law with
                exponent 1.1 and evenly; only 200,000 are kept in memory, the others come packed from a dict that stands for the store
    windows     the same for the longest window, its panes the default sixtieth
    corrections the same with corrections, by the share of events that are up to 30 s out of order

Microseconds an event, the median of the repeats, which take turns. Writes build/fold.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

import headrace as hr
from headrace.features.aggregation import Declaration
from headrace.features.resident import ResidentStates
from headrace.features.retained_view import Kept, RetainedView
from headrace.features.view import FeatureView
from headrace.types import NO_WATERMARK_MS, EventBatch, RecordBatch, StatesPage, TopicPartition
from tests.bench.__main__ import BUILD, say
from tests.bench.cards import WINDOWS, Payment

FIRST_MS = 1_700_000_000_000
STEP_MS = 10
BATCH = 4_096
SOURCE = hr.Source("payments.v1", Payment, key="entity_id", time="ts", lateness="1m", historical=True)
PARTITION = TopicPartition(SOURCE.topic, 0)
RESIDENT = 200_000


def view_of(features: Sequence[Declaration]) -> FeatureView:
    """A view of cards."""
    return FeatureView("card", entity="entity_id", source=SOURCE, features=features)


def moments(count: int, windows: Sequence[tuple[str, str | None]] = WINDOWS) -> FeatureView:
    """So many features of moments over these windows: of the amount, then of parts of the payments."""
    words = (hr.sum, hr.mean, hr.min, hr.max, hr.std)
    found: list[Declaration] = []
    for part in range(count):
        where = None if not part else hr.col("amount") > 10.0 * part
        for window, pane in windows:
            found.append(hr.count(over=window, pane=pane, where=where))
            found += [word("amount", over=window, pane=pane, where=where) for word in words]
    return view_of(_evenly(found, count, len(windows)))


def _evenly(found: Sequence[Declaration], count: int, windows: int) -> list[Declaration]:
    """The first so many, from all windows alike."""
    each = len(found) // (windows * 6) and 6
    groups = [found[begin : begin + each] for begin in range(0, len(found), each)]
    if count < windows * each:
        return [one for group in groups[:windows] for one in group[: count // windows]]
    return list(found[:count])


OTHERS = {
    "first, 4 windows": [hr.first("amount", over=window, pane=pane) for window, pane in WINDOWS],
    "streak, 4 windows": [hr.streak(hr.col("amount") > 10, over=window, pane=pane) for window, pane in WINDOWS],
    "decayed sum and mean, 4 half-lives": [
        declare("amount", half_life=["5s", "1m", "10m", "1h"]) for declare in (hr.decayed_sum, hr.decayed_mean)
    ],
    "lag 1 to 4 and change": [*(hr.lag("amount", n, over="24h") for n in range(1, 5)), hr.change("amount", over="24h")],
    "three quantiles, 1 h": [hr.quantile("amount", q, over="1h", pane="5m") for q in (0.1, 0.5, 0.99)],
    "mode of 10, 1 h": [hr.mode(hr.col("amount").clip(0, 9), [float(one) for one in range(10)], over="1h", pane="5m")],
    "distinct, 1 h": [hr.distinct("amount", over="1h", pane="5m")],
}


class Dict:
    """The store: packed states in a dict."""

    def __init__(self, views: Sequence[Kept]) -> None:
        self.states: dict[str, dict[bytes, bytes]] = {view.fp: {} for view in views}

    def read(self, _: TopicPartition, keys: Sequence[bytes]) -> dict[str, list[bytes | None]]:
        """Those of some entities."""
        return {view: [states.get(key) for key in keys] for view, states in self.states.items()}

    def scan(self, _partition: TopicPartition, _view: str, _cursor: int) -> StatesPage:
        """Nothing to sweep."""
        return StatesPage(cursor=0, keys=[], states=[])


def batches(entities: int, count: int, law: str, step_ms: int = STEP_MS) -> list[EventBatch]:
    """Events of entities that are drawn by a law, in batches."""
    draw = np.random.default_rng(7)
    if law == "zipf":
        weights = 1.0 / np.arange(1, entities + 1) ** 1.1
        which = np.searchsorted(np.cumsum(weights) / weights.sum(), draw.random(count))
    else:
        which = draw.integers(0, entities, count)
    names = [f"u{number:07d}" for number in range(entities)]
    amounts = draw.exponential(50.0, count)
    found = []
    for begin in range(0, count, BATCH):
        rows = range(begin, min(begin + BATCH, count))
        cards = [names[number] for number in which[begin : begin + BATCH].tolist()]
        found.append(
            EventBatch(
                records=RecordBatch(
                    topic=SOURCE.topic,
                    partitions=np.zeros(len(rows), dtype=np.int32),
                    offsets=np.arange(rows.start, rows.stop),
                    timestamps_ms=FIRST_MS + step_ms * np.arange(rows.start, rows.stop),
                    keys=[None] * len(rows),
                    values=[None] * len(rows),
                    headers=[None] * len(rows),
                ),
                rows=np.arange(len(rows)),
                entities=cards,
                event_times_ms=FIRST_MS + step_ms * np.arange(rows.start, rows.stop),
                columns={"amount": amounts[rows.start : rows.stop]},
            )
        )
    return found


def disordered(found: Sequence[EventBatch], share: float) -> list[EventBatch]:
    """The same, with a share of the events up to 30 s older than their place."""
    draw = np.random.default_rng(8)
    return [
        replace(
            batch,
            event_times_ms=batch.event_times_ms - draw.integers(0, 30_000, len(batch)) * (draw.random(len(batch)) < share),
        )
        for batch in found
    ]


class Run:
    """One view through the same events."""

    def __init__(self, view: FeatureView, found: Sequence[EventBatch], *, packs: bool, corrections: bool = False) -> None:
        self.found, self.packs, self.times_us = found, packs, list[float]()
        self._view = view
        self._retained = [RetainedView("fraud", [view], extras=[], join=None)] if corrections else []
        self._begin()

    def _begin(self) -> None:
        self._store = Dict([self._view, *self._retained])
        self.states = ResidentStates(
            views=[self._view], retained=self._retained, read=self._store.read, scan=self._store.scan, capacity=RESIDENT
        )
        self.states.start(PARTITION, dict.fromkeys(self._store.states, 0), NO_WATERMARK_MS)

    def turn(self) -> None:
        """All events from nothing; the first half is warm-up."""
        self._begin()
        half, spent_ns, events = len(self.found) // 2, 0, 0
        for number, batch in enumerate(self.found):
            begun_ns = time.perf_counter_ns()
            self.states.fold(batch)
            if self.packs:
                self._pack(int(batch.records.offsets[-1]) + 1)
            if number >= half:
                spent_ns += time.perf_counter_ns() - begun_ns
                events += len(batch)
        self.times_us.append(spent_ns / events / 1000)

    def _pack(self, end: int) -> None:
        (write,) = self.states.pack({PARTITION: end})
        for view in write.views:
            for chunk in view.chunks:
                content, bounds = chunk.buffer.tobytes(), chunk.bounds.tolist()
                for place, key in enumerate(chunk.keys):
                    self._store.states[view.view][key] = content[bounds[place] : bounds[place + 1]]
        self.states.applied(PARTITION, end)


class KernelRun(Run):
    """The compiled code alone: all rows are there, the columns are made."""

    def turn(self) -> None:
        """As in the other, without looking anything up."""
        self._begin()
        table = self.states._table
        spent_ns, events, folded = 0, 0, table.fold

        def fold(batch: object) -> object:
            nonlocal spent_ns, events
            begun_ns = time.perf_counter_ns()
            found = folded(batch)  # type: ignore[arg-type]
            spent_ns += time.perf_counter_ns() - begun_ns
            events += len(found[0])
            return found

        half = len(self.found) // 2
        for batch in self.found[:half]:
            self.states.fold(batch)
        table.fold = fold  # type: ignore[method-assign,assignment]
        for batch in self.found[half:]:
            self.states.fold(batch)
        self.times_us.append(spent_ns / events / 1000)


def measured(runs: dict[str, Run], turns: int) -> dict[str, float]:
    """The median of so many turns of each."""
    for run in runs.values():
        run.turn()  # compiles
        run.times_us.clear()
    for _ in range(turns):
        for run in runs.values():
            run.turn()
    return {name: round(statistics.median(run.times_us), 3) for name, run in runs.items()}


def _corrections(events: int) -> dict[str, Run]:
    """The features stage with corrections, beside it without them."""
    found = batches(20_000, events, "zipf")
    runs = {"2 % out of order, no corrections": Run(moments(24), disordered(found, 0.02), packs=True)}
    for share in (0.0, 0.002, 0.02, 0.1):
        runs[f"{100 * share:g} % out of order, corrections"] = Run(moments(24), disordered(found, share), packs=True, corrections=True)
    return runs


def show(title: str, found: dict[str, float], against: str | None = None) -> None:
    """A table for people."""
    say(title)
    for name, each_us in found.items():
        ratio = f"   {each_us / found[against]:5.2f} x" if against else ""
        print(f"  {name:48} {each_us:7.3f} us{ratio}")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="make bench-fold ARGS=...", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--turns", type=int, default=5, help="of each (%(default)s)")
    parser.add_argument("--events", type=int, default=400_000, help="in a turn (%(default)s)")
    options = parser.parse_args()
    same = batches(20_000, options.events, "even")
    make: Callable[[FeatureView], Run] = lambda view: KernelRun(view, same, packs=False)  # noqa: E731 - short
    kernel = measured({f"{count} features of moments, 4 windows": make(moments(count)) for count in (8, 24, 100)}, options.turns)
    show("kernel", kernel)
    others = measured({name: make(view_of(features)) for name, features in OTHERS.items()}, options.turns)
    show("kernel, other lanes", others)
    entities = measured(
        {
            f"{count:,} entities, {law}": Run(moments(24), batches(count, options.events, law), packs=True)
            for law in ("zipf", "even")
            for count in (1_000, 20_000, 1_000_000)
        },
        options.turns,
    )
    show("features stage, by entities", entities, "1,000 entities, zipf")
    windows = measured(
        {
            f"24 features, windows up to {longest}": Run(
                moments(24, [(one, None) for one in spans]), batches(20_000, options.events, "zipf", 60_000), packs=True
            )
            for longest, spans in (
                ("1h", ("1m", "10m", "30m", "1h")),
                ("24h", ("1h", "6h", "12h", "24h")),
                ("30d", ("1d", "7d", "14d", "30d")),
            )
        },
        options.turns,
    )
    show("features stage, by windows", windows, "24 features, windows up to 1h")
    corrections = measured(_corrections(options.events), options.turns)
    show("features stage, corrections", corrections, "2 % out of order, no corrections")
    BUILD.mkdir(exist_ok=True)
    written = {"kernel_us": kernel, "other_lanes_us": others, "entities_us": entities, "windows_us": windows, "corrections_us": corrections}
    (BUILD / "fold.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
