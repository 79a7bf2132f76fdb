"""A trial: one app with topics of its own on real servers, a loader, workers that are hurt, a reader that looks on, and a verdict.

Nothing is waited for by sleeping: `wait` looks at a condition until its deadline, which names the condition, and meanwhile fails as soon as
a worker ended that nobody asked to, or something beside it broke. The verdict compares everything there is with the source log
(`verdict.py`); the figures say how real the faults were.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AdminClient

from headrace.consume.kafka_reader import Isolation, KafkaReader
from headrace.errors import BrokerRefused, TransientError
from headrace.features.redis_connection import RedisServer as RedisConnections
from headrace.features.redis_store import RedisStore
from headrace.local_stack import KafkaServer, RedisServer
from headrace.parts import Limits
from headrace.predict.casting import Casting, Pinned
from headrace.predict.onnx_model import OnnxModel
from headrace.predict.redis_artifacts import RedisArtifacts
from headrace.publish.encoder import HeaderPolicy
from headrace.publish.kafka_topics import KafkaTopics, TopicWish
from headrace.switches import switches_in
from headrace.types import Position, TopicPartition
from headrace.verify.casting import casting_by_facts
from headrace.verify.deployment import deployment
from headrace.verify.findings import Findings
from headrace.verify.journal import MID_BATCH
from headrace.verify.verification import Verification, Wishes
from tests.faults.app import Sent, records, version_of, write_app
from tests.faults.processes import RUN_WORKER, Journal, WorkerProcess
from tests.faults.traffic import Loader, Pace, Progress, Seen
from tests.faults.verdict import Found, collect, heard, judge
from tests.roles import compare_roles

Figures = dict[str, Any]
SETTLED_S = 0.5
"""Longer than a transaction of small batches takes to end, or an apply to arrive, also where others keep both cores busy."""


class Moment(Enum):
    """When a worker is killed."""

    ANY = "anywhere"
    IN_TRANSACTION = MID_BATCH
    BEFORE_STORE = "between a commit and the store"


class Trial:
    """Everything one test needs; `close` ends all of it, whatever happened."""

    def __init__(
        self,
        folder: Path,
        kafka: KafkaServer,
        redis: RedisServer,
        *,
        name: str,
        seed: int,
        record: Callable[[Figures], None],
        partitions: int = 4,
        max_batch: int = 50,
        bootstrap: str | None = None,
        chained: bool = False,
        corrections: bool = False,
        roles: bool = False,
    ) -> None:
        """`chained`: the app has two stages; `corrections`: it has them; `roles`: its models come from the registry. `record` gets the
        figures of the run; `bootstrap` are the addresses of a cluster, if there are more than `kafka`'s.
        """
        folder.mkdir(parents=True)
        self._record = record
        self.folder, self.kafka, self.redis, self.partitions = folder, kafka, redis, partitions
        self.rng = random.Random(seed)
        self.seed = seed
        self.journal = Journal(folder / "journal.jsonl")
        self.app = write_app(folder, name, chained=chained, corrections=corrections, roles=roles)
        self.models = {} if roles else {"fraud": OnnxModel.load(self.app.pipelines[0].model or "", self.app.pipelines[0].feature_names)}
        self.properties = {"bootstrap.servers": bootstrap or kafka.address}
        self.settings = {
            "HEADRACE_KAFKA__BOOTSTRAP_SERVERS": bootstrap or kafka.address,
            "HEADRACE_REDIS__URL": redis.url,
            "HEADRACE_WORKER__MAX_BATCH": str(max_batch),
            "HEADRACE_WORKER__HTTP_PORT": "0",
        }
        self.source = self.app.sources[0].topic
        self.source_partitions = [TopicPartition(self.source, number) for number in range(partitions)]
        self.workers: list[WorkerProcess] = []
        self.topics = KafkaTopics(self.properties)
        self._admin = AdminClient(dict(self.properties))
        self._store = RedisStore(app=name, url=redis.url)
        self._stable, self._written = KafkaReader(self.properties), KafkaReader(self.properties, isolation=Isolation.UNCOMMITTED)
        self._beside: list[Loader | Progress | Seen] = []
        self._ends: dict[TopicPartition, int] | None = None
        self._begun_s = time.monotonic()
        self.takeovers = False
        """Whether every killed worker is replaced at once, so that takeovers can be timed."""

    # ------------------------------------------------------------------------------------------------------------- set-up

    def make_topics(self) -> None:
        """What `headrace apply` makes, kept for ever: the records' timestamps are of long ago."""
        forever = {"retention.ms": "-1"}
        names = (*(reads.topic for reads in self.app.inputs), self.app.dead_letters, *self.app.result_topics)
        wishes = [TopicWish(name=name, partitions=self.partitions, settings=forever) for name in names]
        small = [self.app.facts, *([] if self.models else [self.app.control])]
        self.topics.create([*wishes, *(TopicWish(name=name, partitions=1, settings=forever) for name in small)])
        for name in small:
            self.wait(partial(self._led, name), f"{name} has a leader")

    def _led(self, topic: str) -> bool:
        """Whether a topic that was just made has a leader."""
        try:
            self._stable.log_range(TopicPartition(topic, 0))
        except (TransientError, BrokerRefused):
            return False
        return True

    def prepare(self) -> None:
        """Topics, starting offsets, and somebody who watches results and offsets."""
        self.make_topics()
        self.topics.start_group(self.app.name, {name: Position(offset=0, watermark_ms=None) for name in self._read_partitions()})
        self.watch()

    def _read_partitions(self) -> list[TopicPartition]:
        return [TopicPartition(reads.topic, number) for reads in self.app.inputs for number in range(self.partitions)]

    def watch(self) -> None:
        """Begin to look at results and offsets."""
        self.progress = Progress(self.properties, self.app.name, self.source_partitions)
        self.seen = Seen(self.properties, [self.app.dead_letters, *self.app.result_topics])
        self._beside += [self.progress, self.seen]

    def records(self, count: int) -> list[Sent]:
        """A drawn log of so many records."""
        return list(records(self.rng, count))

    def load(self, wanted: Sequence[Sent], *, pace: Pace = lambda _: 0, wait: bool = False) -> Loader:
        """Send records; `wait` until the broker has all of them."""
        loader = Loader(self.properties, self.source, wanted, pace=pace)
        self._beside.append(loader)
        self.loader = loader
        self._ends = None
        if wait:
            self.wait(lambda: loader.done, "the broker has all source records")
        return loader

    def start(self, slot: str | int, *, command: tuple[str, ...] = RUN_WORKER, **settings: str) -> WorkerProcess:
        """Start a worker process for a slot; `settings` are variables of its environment."""
        worker = WorkerProcess(
            number=len(self.workers),
            slot=str(slot),
            folder=self.folder,
            journal=self.journal,
            command=command,
            settings={**self.settings, **settings},
        )
        self.workers.append(worker)
        return worker

    # ------------------------------------------------------------------------------------------------------------ conditions

    def wait(self, condition: Callable[[], bool], what: str, deadline_s: float = 60.0) -> None:
        """Look at a condition until it holds. The deadline is an error that names it, and shows how far things are."""
        until = time.monotonic() + deadline_s
        while not condition():
            self.check()
            assert time.monotonic() < until, f"{what}: not so after {deadline_s:g} s\n{self.state()}"
            time.sleep(0.005)

    def check(self) -> None:
        """Nothing has broken that the test did not break."""
        for one in self._beside:
            one.check()
        for worker in self.workers:
            assert worker.ending or worker.exit_code is None, (
                f"worker {worker.number} (slot {worker.slot}) ended by itself with {worker.exit_code}:\n{worker.last_words()}"
            )

    def state(self) -> str:
        """How far things are, for people."""
        newest = {worker.slot: worker for worker in self.workers}.values()
        ends = [f"worker {worker.number} (slot {worker.slot}):\n{worker.last_words()}" for worker in newest]
        since_s = time.monotonic() - self.progress.history[-1][0] if self.progress.history else None
        stored = {partition.partition: self.applied(partition) for partition in self.source_partitions}
        committed = {partition.partition: offset for partition, offset in self.progress.offsets.items()}
        seen = {f"{name.topic}-{name.partition}": end for name, end in self.seen.ends().items()}
        far = f"seed {self.seed}; sent {self.loader.sent}; committed {committed}, the last of it {since_s} s ago; stored {stored}"
        return f"{far}; seen up to {seen}; journal {self.journal.path}\n" + "\n".join(ends)

    def passed(self, offset: int) -> Callable[[], bool]:
        """Whether so many source records are committed."""
        return lambda: self.progress.total >= offset

    def wait_death(self, worker: WorkerProcess, what: str) -> None:
        """Wait until a worker has ended that is bound to end by itself."""
        worker.ending = True
        self.wait(lambda: worker.exit_code is not None, what)
        worker.gone()

    def wait_left(self) -> None:
        """Wait until the group has no member: a static one that ended counts as one until its session is over."""
        self.wait(lambda: self.members() == 0, "the group has no member")

    def members(self) -> int:
        """How many members the broker counts."""
        found = self._admin.describe_consumer_groups([self.app.name])[self.app.name].result()
        return len(found.members)

    def metric(self, worker: WorkerProcess, series: str) -> float:
        """The value of one series that a worker exposes now."""
        _, text = worker.ask("/metrics")
        return float(next(line for line in text.splitlines() if line.startswith(f"{series} ")).rpartition(" ")[2])

    def pass_time(self, seconds: float) -> None:
        """Let the world go on for a drawn time: it paces the faults."""
        until = time.monotonic() + seconds
        self.wait(lambda: time.monotonic() >= until, f"{seconds} s go by", seconds + 60)

    def alive(self) -> list[WorkerProcess]:
        """The workers nobody has asked to end."""
        return [worker for worker in self.workers if not worker.ending]

    def wait_victim(self) -> WorkerProcess:
        """A drawn worker that serves a partition with source records left, as soon as there is one."""
        found: list[WorkerProcess] = []

        def look() -> bool:
            left = {name for name, end in self.ends().items() if self.progress.offsets.get(name, 0) < end}
            found[:] = [worker for worker in self.alive() if left & self.owned(worker) & self.served(worker)]
            return bool(found)

        self.wait(look, "a worker serves and has work left")
        return self.rng.choice(found)

    def kill(self, victim: WorkerProcess, moment: Moment) -> None:
        """Kill -9, in the middle of what is asked for."""
        if moment is not Moment.ANY:
            self.freeze(victim, moment)
        self.journal.note("moment", worker=victim.number, moment=moment.value)
        victim.kill()

    def freeze(self, victim: WorkerProcess, moment: Moment) -> None:
        """SIGSTOP. But for `ANY`, the process is looked at and let go on until it is in the middle of what is asked for."""
        if moment is Moment.ANY:
            victim.pause()
        else:
            look = self._pending if moment is Moment.IN_TRANSACTION else partial(self._behind, victim)
            self.wait(lambda: self._caught(victim, look), f"worker {victim.number} is caught {moment.value}")
        self.journal.note("frozen", worker=victim.number, moment=moment.value)

    def _caught(self, victim: WorkerProcess, look: Callable[[], dict[TopicPartition, int]]) -> bool:
        """Freeze the worker; what somebody else does is over in a moment, what stays as it is belongs to the frozen one."""
        assert victim.exit_code is None, victim.last_words()
        victim.pause()
        found = look()
        until = time.monotonic() + SETTLED_S
        while found and time.monotonic() < until:
            found = dict(found.items() & look().items())
        if not found:
            victim.resume()
        return bool(found)

    def _pending(self) -> dict[TopicPartition, int]:
        """Where partitions have results or hops that are written, and neither committed nor aborted."""
        names = {*self.app.result_topics, *(reads.topic for reads in self.app.inputs)} - {self.source}
        written = [TopicPartition(name, number) for name in sorted(names) for number in range(self.partitions)]
        ends = {partition: self._stable.log_range(partition).end for partition in written}
        return {partition: end for partition, end in ends.items() if self._written.log_range(partition).end > end}

    def _behind(self, victim: WorkerProcess) -> dict[TopicPartition, int]:
        """Where the store stands in those partitions of a worker whose committed offset is further."""
        owned = sorted(self.owned(victim))
        committed = self.topics.group_offsets(self.app.name, owned)
        stored = {partition: self.applied(partition) for partition in owned}
        return {name: offset for name, offset in stored.items() if (position := committed[name]) and position.offset > offset}

    def applied(self, partition: TopicPartition) -> int:
        """Where the view that is furthest behind stands in the store; 0 without any state."""
        reads = next(one for one in self.app.inputs if one.topic == partition.topic)
        views = [view.fp for view in self.app.kept_of(reads)]
        return min(head.offset or 0 for head in self._store.read(partition, views, ()).heads.values())

    def stored(self, partition: TopicPartition, view: str) -> dict[bytes, bytes]:
        """All states of a view of a partition in the store; exact while nobody writes."""
        return self._store.states(partition, view)

    def wait_taken_over(self, victim: WorkerProcess) -> None:
        """Wait until others have brought every partition of a killed worker live."""
        lost = self.owned(victim)

        def taken() -> bool:
            return lost <= {name for worker in self.alive() for name in self.owned(worker) & self.served(worker)}

        self.wait(taken, f"the partitions of worker {victim.number} are served by others")

    def owned(self, worker: WorkerProcess) -> set[TopicPartition]:
        """The partitions a worker was given and has not lost."""
        found: set[str] = set()
        for line in worker.said("rebalanced"):
            found = found | set(line["partitions"]) if line["kind"] == "assigned" else found - set(line["partitions"])
        return {name for name in self.source_partitions if f"{name.topic}-{name.partition}" in found}

    def served(self, worker: WorkerProcess) -> set[TopicPartition]:
        """The partitions a worker has brought live."""
        found = {line["partition"] for line in (*worker.said("partition live"), *worker.said("partition caught up"))}
        return {name for name in self.source_partitions if f"{name.topic}-{name.partition}" in found}

    def wait_settled(self, deadline_s: float = 60.0) -> None:
        """Wait until each partition is live in exactly one worker, and each worker has some."""

        def settled() -> bool:
            live = [self.owned(worker) & self.served(worker) for worker in self.alive()]
            return all(live) and sum(map(len, live)) == self.partitions == len(set().union(*live))

        self.wait(settled, "each partition is live in one worker", deadline_s)

    def longest_gap_s(self, begin_s: float) -> float:
        """The longest time since then in which a partition of the predictions showed nothing new to the reader that looks on."""
        results = [TopicPartition(pipeline.predictions, number) for pipeline in self.app.pipelines for number in range(self.partitions)]
        return self.seen.longest_gap_s(results, begin_s, time.monotonic())

    def wait_passed(self, offset: int) -> None:
        """Wait until so many source records are committed."""
        self.wait(self.passed(offset), f"{offset} source records are committed")

    def wait_served(self, worker: WorkerProcess) -> None:
        """Wait until a worker has taken over: it serves some partition."""
        self.wait(lambda: bool(self.served(worker)), f"worker {worker.number} serves")

    def ends(self) -> dict[TopicPartition, int]:
        """Where the source partitions end; once the loader is done, for good."""
        if self._ends is not None:
            return self._ends
        final = self.loader.done  # asked first: what a loader sends while the ends are looked at may lie behind them
        ends = {partition: self._stable.log_range(partition).end for partition in self.source_partitions}
        if final:
            self._ends = ends
        return ends

    def drained(self) -> bool:
        """Whether every source record sent is committed and in the store."""
        if not self.loader.done:
            return False
        if any(self.progress.offsets.get(partition, 0) < end for partition, end in self.ends().items()):
            return False
        if not all(self.applied(partition) == end for partition, end in self.ends().items()):
            return False
        return not self.app.hops or self._hops_drained()

    def _hops_drained(self) -> bool:
        """Whether everything on the hops has its result, and is in the store."""
        if self.seen.count < sum(self.ends().values()):
            return False
        read = [name for name in self._read_partitions() if name.topic != self.source]
        committed = self.topics.group_offsets(self.app.name, read)
        return all(position is not None and self.applied(name) == position.offset for name, position in committed.items())

    def wait_drained(self, deadline_s: float = 60.0) -> None:
        """Wait until everything that was sent is committed and stored."""
        self.wait(self.drained, "every source record is committed and stored", deadline_s)

    # ------------------------------------------------------------------------------------------------------------ the end

    def stop_workers(self) -> None:
        """SIGTERM: each finishes its batch and exits 0."""
        running = [worker for worker in self.workers if worker.exit_code is None]
        for worker in running:
            self.wait(lambda: bool(worker.lines()), f"worker {worker.number} can be told to end")  # noqa: B023 - waited for at once
            worker.signal(signal.SIGTERM)
        for worker in running:
            self.wait(lambda: worker.exit_code is not None, f"worker {worker.number} ends after SIGTERM", 30)  # noqa: B023 - waited for at once
            assert worker.exit_code == 0, worker.last_words()
            worker.gone()

    def verdict(self, **measured: object) -> Figures:
        """Stop everybody, compare everything; the figures of the run, with what the test measured. Fails with all that is wrong (its first
        twenty).
        """
        self.stop_workers()
        found = collect(self.app, self.properties, self._store)
        results = len(found.results())
        self.wait(lambda: self.seen.count >= results, f"the reader that looked on has seen all {results} results")
        self.check()
        for one in self._beside:
            one.close()
        found.see(self.seen.results())
        problems = judge(self.app, found, self.models, partitions=self.partitions)
        problems += [violation.text() for violation in self.verified().violations]
        problems += heard(self.app, self.properties, self._store, self.seen.lines(), self.journal.path)
        condemned = sum(map(len, found.left_out.values()))
        if not self.models:
            problems += self._roles(found)
        figures = {**self.figures(found.aborted), "condemned": condemned, **measured, "violations": len(problems)}
        if found.corrections:
            figures["corrections"] = sum(map(len, found.corrections.values()))
        self._record(figures)
        assert not problems, f"{len(problems)} problems, journal {self.journal.path}\n" + "\n".join(problems[:20])
        return figures

    def _roles(self, found: Found) -> list[str]:
        """What the facts say of who scored what."""
        (pipeline,) = self.app.pipelines
        with closing(KafkaReader(self.properties)) as reader:
            facts = [record.value for record in reader.records(self.app.facts)]
        names = {version for some in switches_in(facts).values() for switch in some for version in switch.artifacts}
        models = {name: OnnxModel.load(version_of(pipeline, int(name)), pipeline.feature_names) for name in names}
        again = lambda version, vectors: models[version].score(vectors).scores  # noqa: E731 - short
        return compare_roles(pipeline, facts, found.predictions["fraud"], found.shadows["fraud"], again, tolerance=1e-6)

    def artifacts(self) -> RedisArtifacts:
        """Where the versions' files are."""
        return RedisArtifacts(RedisConnections(url=self.redis.url), self.app.name)

    def _casting(self, facts: Sequence[bytes | None]) -> Casting:
        return Pinned(self.models) if self.models else casting_by_facts(self.app, self.artifacts(), facts)

    def verified(self) -> Findings:
        """What `headrace verify` says."""
        with deployment(self.app.name, self.properties, self._store) as subject:
            verification = Verification(self.app, subject, casting_of=self._casting, headers=HeaderPolicy.CLOUDEVENTS, limits=Limits())
            findings = verification.run(Wishes())
        assert findings.not_checked == {}
        return findings

    def figures(self, aborted: int) -> Figures:
        """What the run was like."""
        catch_ups = [line for worker in self.workers for line in worker.said("partition catches up")]
        figures: Figures = {
            "seed": self.seed,
            "events": sum(self.ends().values()),
            "kills": self.kills(),
            "aborted_records": aborted,
            "catch_ups": len(catch_ups),
            "caught_up_events": sum(int(line["live_from"]) - int(line["start"]) for line in catch_ups),
            "peak_mb": round(max(worker.peak_mb for worker in self.workers)),
            "seconds": round(time.monotonic() - self._begun_s, 1),
        }
        if self.takeovers:
            figures["slowest_takeover_s"] = round(max(self.takeovers_s(), default=0.0), 2)
        return figures

    def kills(self) -> int:
        """How many workers were killed so far."""
        return sum(worker.killed_s is not None for worker in self.workers)

    def felt_s(self) -> list[list[float]]:
        """For each kill, in their order, how long after it each partition of the worker was first committed again, the quickest first."""
        killed = sorted((worker.killed_s, worker.number) for worker in self.workers if worker.killed_s is not None)
        felt = [[self.progress.first_after(at_s, name) for name in self.owned(self.workers[number])] for at_s, number in killed]
        return [sorted(seconds for seconds in after if seconds is not None) for after in felt]

    def takeovers_s(self) -> list[float]:
        """For each killed worker the time from the kill to the next commit for one of its partitions."""
        return [after[0] for after in self.felt_s() if after]

    def close(self) -> None:
        """End every process and thread."""
        for worker in self.workers:
            worker.end()
        try:
            for one in self._beside:
                one.close()
        finally:
            self._store.close()
            self._stable.close()
            self._written.close()
            # The traceback of a test that failed keeps the trial. An admin client whose broker is gone never ends with the interpreter.
            del self.topics, self._admin


Make = Callable[..., Trial]
