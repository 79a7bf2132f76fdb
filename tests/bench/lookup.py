"""`make bench-lookup`: a look-up from Python beside Feast's, on the same Redis, in one run.

Both know the same 20,000 cards with the same 24 features. Ours merges panes as of the instant asked for; Feast reads values that were
written before. They take turns, so that the machine's moods meet both; the floor is a round trip of our client that asks nothing.
Nothing is asserted. Feast lives in an environment of its own under build/, which is made when it is not there. Prints a table, writes
build/lookup.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

import headrace as hr
from headrace.features.redis_connection import Conversation, packed
from headrace.features.redis_connection import RedisServer as Wire
from headrace.features.redis_store import RedisStore
from headrace.features.resident import ResidentStates
from headrace.features.state_store import ApplyResult
from headrace.features.view import FeatureView
from headrace.local_stack import Stack
from headrace.partitioner import Partitioner
from headrace.types import NO_WATERMARK_MS, EventBatch, RecordBatch, TopicPartition
from tests.bench.cards import PARTITIONS, Job, app_of
from tests.bench.events import ENTITIES, card, events
from tests.bench.worker import ROOT

FEAST = "feast[redis]==0.67.0"
BUILD = ROOT / "build"
JOB = Job(name="lookups", source="bench.payments.v1")
OWNER = b"the bench"
CHUNK = 16_384
SEED = 11


@dataclass(slots=True, kw_only=True)
class Took:
    """Microseconds of every look-up, by who took them."""

    single: dict[str, list[float]] = field(default_factory=dict)
    batch: dict[str, list[float]] = field(default_factory=dict)


def main() -> None:
    """Fill, take turns, print, write."""
    options = parsed()
    folder = Path(tempfile.mkdtemp(prefix="headrace-bench-"))
    stack: Stack | None = None
    try:
        stack = Stack.up(folder / "stack", brokers=0, say=say)
        app = app_of(JOB)
        say(f"folding {options.events:,} events of {ENTITIES:,} cards into Redis")
        now_ms = fill(stack.redis.url, app, options.events)
        features = hr.Features(stack.redis.url, app=app, now_ms=lambda: now_ms)
        features.warm_up()
        values = {one.entity: one.as_json()["values"] for one in features.get_many("card", [card(number) for number in range(ENTITIES)])}
        (folder / "values.json").write_text(json.dumps(values), encoding="utf-8")
        names = list(app.pipelines[0].views[0].feature_names)
        with feast(folder, f"127.0.0.1:{stack.redis.port}", names) as (version, ask_feast):
            took = measure(stack, features, ask_feast, options)
        written = summary(took, options, version)
        BUILD.mkdir(exist_ok=True)
        options.output.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
        print_table(took, options, version)
        print(f"\nwritten to {options.output}")
        features.close()
    finally:
        if stack is not None:
            stack.down()
        shutil.rmtree(folder, ignore_errors=True)


def parsed() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="make bench-lookup ARGS=...", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=400_000, help="events that are folded first (%(default)s)")
    parser.add_argument("--turns", type=int, default=5, help="how often each is measured (%(default)s)")
    parser.add_argument("--singles", type=int, default=2_000, help="single look-ups a turn (%(default)s)")
    parser.add_argument("--batches", type=int, default=100, help="batches a turn (%(default)s)")
    parser.add_argument("--batch", type=int, default=100, help="entities of a batch (%(default)s)")
    parser.add_argument("--output", type=Path, default=BUILD / "lookup.json", help="where the figures go (%(default)s)")
    return parser.parse_args()


# ------------------------------------------------------------------------------------------------------ the same for both


def fill(url: str, app: hr.App, count: int) -> int:
    """Fold the events of the bench and put the states into Redis, as a worker does; gives the time of the last event."""
    (view,) = app.pipelines[0].views
    topic = view.source.topic
    names = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    store = RedisStore(app=app.name, url=url, timeout_s=10)
    states = ResidentStates(views=[view], read=lambda _, keys: {view.fp: [None] * len(keys)}, capacity=2 * ENTITIES)
    store.set_partitions(topic, PARTITIONS)
    for name in names:
        store.claim(name, [view.fp], OWNER)
        store.reset(name, {view.fp: 0}, OWNER, "bench")
        states.start(name, {view.fp: 0}, NO_WATERMARK_MS, empty=True)
    ends = dict.fromkeys(names, 0)
    newest_ms = 0
    for batch in batches(view, count, ends):
        states.fold(batch)
        newest_ms = int(batch.event_times_ms[-1])
        for write in states.pack({name: end for name, end in ends.items() if end}):
            if store.apply(OWNER, write) is not ApplyResult.OK:
                raise SystemExit("the store does not take the states")
            states.applied(write.partition, write.views[0].end)
    store.close()
    return newest_ms


def batches(view: FeatureView, count: int, ends: dict[TopicPartition, int]) -> Iterator[EventBatch]:
    """The events, each in the partition of its key; moves the ends on."""
    partitioner, all_events = Partitioner(), events(count)
    while chunk := list(islice(all_events, CHUNK)):
        keys = [key for key, _, _ in chunk]
        numbers = partitioner.partitions(keys, PARTITIONS)
        offsets = []
        for number in numbers:
            name = TopicPartition(view.source.topic, number)
            offsets.append(ends[name])
            ends[name] += 1
        times_ms = np.array([time_ms for _, _, time_ms in chunk], dtype=np.int64)
        records = RecordBatch(
            topic=view.source.topic,
            partitions=np.array(numbers, dtype=np.int32),
            offsets=np.array(offsets, dtype=np.int64),
            timestamps_ms=times_ms,
            keys=list(keys),
            values=[value for _, value, _ in chunk],
            headers=[None] * len(chunk),
        )
        amounts = np.array([float(json.loads(value)["amount"]) for _, value, _ in chunk])
        yield EventBatch(
            records=records,
            rows=np.arange(len(chunk)),
            entities=[key.decode() for key in keys],
            event_times_ms=times_ms,
            columns={"amount": amounts},
        )


Ask = Callable[[Sequence[Sequence[str]]], list[float]]
"""Looks each group of entities up, and tells how many microseconds that took."""


@contextmanager
def feast(folder: Path, redis: str, names: Sequence[str]) -> Iterator[tuple[str, Ask]]:
    """Feast in a process of its own, with the same values in the same Redis."""
    place = folder / "feast"
    place.mkdir()
    asked = json.dumps({"folder": str(place), "redis": redis, "values": str(folder / "values.json"), "names": list(names)})
    environment = {**os.environ, "FEAST_USAGE": "False", "FEAST_TELEMETRY": "False"}
    values = json.loads((folder / "values.json").read_text(encoding="utf-8"))
    say("Feast writes the same values into the same Redis")
    log = folder / "feast.log"
    command = [str(feast_python()), str(Path(__file__).with_name("feast_lookups.py")), asked]
    with log.open("wb") as complaints:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints, env=environment, cwd=place, text=True
        )
    assert process.stdin is not None
    assert process.stdout is not None
    told, answers = process.stdin, process.stdout

    def answered() -> dict[str, Any]:
        line = answers.readline()
        if not line:
            raise SystemExit(f"Feast has ended:\n{log.read_text(errors='replace')[-2_000:]}")
        found: dict[str, Any] = json.loads(line)
        return found

    def ask(groups: Sequence[Sequence[str]]) -> list[float]:
        told.write(json.dumps({"entities": groups}) + "\n")
        told.flush()
        answer = answered()
        if answer["last"] != values[groups[-1][-1]]:
            raise SystemExit("Feast answers with other values than were written")
        return [float(one) for one in answer["took_us"]]

    try:
        yield str(answered()["version"]), ask
    finally:
        told.close()
        process.wait(timeout=30)


def feast_python() -> Path:
    """The Python of Feast's environment, which is made when it is not there."""
    place = BUILD / "feast"
    python = place / "bin" / "python"
    ready = place / FEAST.replace("[", "-").replace("]", "-")
    if not ready.exists():
        say(f"making build/feast with {FEAST}")
        venv.create(place, clear=True, with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", FEAST], check=True)
        ready.touch()
    return python


# ------------------------------------------------------------------------------------------------------------ measuring


def measure(stack: Stack, features: hr.Features, ask_feast: Ask, options: argparse.Namespace) -> Took:
    """All turns; the first, which warms everything up, is not counted."""
    draw = random.Random(SEED)
    wire = Wire(url=stack.redis.url)

    def floor(groups: Sequence[Sequence[str]]) -> list[float]:
        return timed(lambda _: wire.converse(b"", ping), groups)

    def ours(groups: Sequence[Sequence[str]]) -> list[float]:
        return timed(lambda group: features.get("card", group[0]) if len(group) == 1 else features.get_many("card", group), groups)

    took = Took()
    askers: dict[str, Ask] = {"round trip": floor, "headrace": ours, "feast": ask_feast}
    for turn in range(options.turns + 1):
        for name, ask in askers.items():
            singles = ask([[card(draw.randrange(ENTITIES))] for _ in range(options.singles)])
            together = [] if name == "round trip" else ask([drawn(draw, options.batch) for _ in range(options.batches)])
            if turn:
                took.single.setdefault(name, []).extend(singles)
                took.batch.setdefault(name, []).extend(together)
        say(f"turn {turn} of {options.turns}{'' if turn else ' (not counted)'}")
    wire.close()
    return took


def ping(conversation: Conversation) -> object:
    """Ask nothing."""
    return conversation.one(packed(b"PING"))


def drawn(draw: random.Random, count: int) -> list[str]:
    """So many different cards."""
    return [card(number) for number in draw.sample(range(ENTITIES), count)]


def timed(look: Callable[[Sequence[str]], object], groups: Sequence[Sequence[str]]) -> list[float]:
    """Microseconds each group takes."""
    found = []
    for group in groups:
        began = time.perf_counter_ns()
        look(group)
        found.append((time.perf_counter_ns() - began) / 1_000)
    return found


# ------------------------------------------------------------------------------------------------------------- what is told


def quantiles(took_us: Sequence[float]) -> dict[str, float]:
    """The median and the far end."""
    p50, p90, p99, p999 = np.percentile(took_us, [50, 90, 99, 99.9]).tolist()
    return {"p50_us": p50, "p90_us": p90, "p99_us": p99, "p999_us": p999, "largest_us": max(took_us), "count": len(took_us)}


def summary(took: Took, options: argparse.Namespace, version: str) -> dict[str, object]:
    """What goes into the file."""
    single = {name: quantiles(values) for name, values in took.single.items()}
    batch = {name: quantiles(values) for name, values in took.batch.items() if values}
    return {
        "single": single,
        f"batch_of_{options.batch}": batch,
        "ratio_single_p50": single["feast"]["p50_us"] / single["headrace"]["p50_us"],
        "ratio_single_p99": single["feast"]["p99_us"] / single["headrace"]["p99_us"],
        "ratio_batch_p50": batch["feast"]["p50_us"] / batch["headrace"]["p50_us"],
        "feast": version,
        "entities": ENTITIES,
        "options": {name: value for name, value in vars(options).items() if isinstance(value, int)},
        "machine": {"cpus": os.cpu_count(), "load": os.getloadavg()[0], "python": platform.python_version()},
    }


def print_table(took: Took, options: argparse.Namespace, version: str) -> None:
    """The figures for people."""
    print(f"\n{'microseconds a look-up':<44}{'p50':>9}{'p90':>9}{'p99':>9}{'p99.9':>9}{'largest':>10}")
    labels = {"round trip": "a round trip that asks nothing (PING)", "headrace": "headrace", "feast": f"Feast {version}"}
    for kind, values in (("one entity", took.single), (f"a batch of {options.batch}", took.batch)):
        for name, label in labels.items():
            if values[name]:
                found = quantiles(values[name])
                figures = "".join(f"{found[one]:>9,.0f}" for one in ("p50_us", "p90_us", "p99_us", "p999_us"))
                print(f"{f'{label}, {kind}' if name != 'round trip' else label:<44}{figures}{found['largest_us']:>10,.0f}")


def say(line: str) -> None:
    """How far it is."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
