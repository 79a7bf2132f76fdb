"""The world of the simulation: the real loop on the log and the store in memory, driven through every order of events.

Each worker process is a set of greenlets: its hot loop and what its executors run. Every call to the outside world is a step: there the
greenlet hands over to the scheduler, which decides who goes on and whether a commit's request or reply is lost. A kill drops the
greenlets of a process without running their `finally`. A *schedule* is a list of bursts: so many steps, ordered by a drawn integer, then
one fault. Records arrive all the while, so that there is always something to lose.

What is wrong in the end is found by `tests.audit`; to that come *stuck* (not everything committed and applied) and *refused* (a
partition was given up although nobody reset anything). Retention takes away what no recovery can need, not a record less; the audit
folds the whole log all the same, so a rebuild by time must come to the state of one from the first offset.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import greenlet
import numpy as np

from headrace.assembly import Executors, Ports, assemble
from headrace.clock import ManualClock
from headrace.consume.facts import Facts
from headrace.consume.pace_group import Pace
from headrace.crashes import Attempt, condemned_offsets
from headrace.decode.decoder import Decoded
from headrace.definition import App
from headrace.errors import SlotTaken
from headrace.features.memory_store import MemoryStore, Snapshot
from headrace.loop import Loop
from headrace.memory_log import Fate, MemoryLog, MemoryReader, MemorySink, MemorySource
from headrace.parts import Limits, Watch
from headrace.paths import Paths
from headrace.predict.artifacts import MemoryArtifacts
from headrace.predict.commands import FALLBACK
from headrace.publish.record_sink import CommitResult
from headrace.switches import switches_in
from headrace.takeover import identity_of, is_newer
from headrace.timeline import Timeline
from headrace.types import Float64s, Position, Record, RecordBatch, TopicPartition
from tests.audit import Audit
from tests.corrections import compare_corrections
from tests.roles import compare_roles
from tests.simulation.schedule import Burst
from tests.simulation.visits import (
    FALLBACK_SCORE,
    PARTITIONS,
    POISON,
    POISON_AT_HOP,
    PREDICTIONS,
    REMEMBERED_MS,
    START_MS,
    TOPIC,
    BiasModel,
    SumModel,
    a_move,
    make_records,
    registrations,
    with_disorder,
    with_openings,
)
from tests.simulation.visits import app as one_stage

SLOTS = 3
SNAPSHOTS = 12


class Killed(BaseException):
    """Raised in a greenlet of a process that is dead, should it ever run again."""


class Task(greenlet.greenlet):
    """A line of execution of one process."""

    def __init__(self, process: Process, run: Callable[[], None]) -> None:
        super().__init__(run)
        self.process = process
        self.step = "start"
        self.waits_for: SimOutcome | None = None
        self.fate: Fate | None = None

    def runnable(self) -> bool:
        """Whether it could go on."""
        return not self.dead and (self.waits_for is None or self.waits_for.ready)


class SimOutcome:
    """The answer of a call that another greenlet runs."""

    def __init__(self) -> None:
        self.ready = False
        self.answer: Any = None
        self.error: Exception | None = None

    def done(self) -> bool:
        return self.ready

    def result(self) -> Any:
        task = greenlet.getcurrent()
        while not self.ready:
            assert isinstance(task, Task)
            if task.process.dead:
                raise Killed
            task.waits_for = self
            task.process.world.hub.switch()
            if task.process.dead:
                raise Killed
        if isinstance(task, Task):
            task.waits_for = None
        if self.error is not None:
            raise self.error
        return self.answer


class SimExecutor:
    """Runs calls one after another in a greenlet of its own."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._queue: list[tuple[Callable[..., Any], tuple[Any, ...], SimOutcome]] = []
        self.running = False
        self.began: dict[TopicPartition, Position] = {}
        """The committed positions when it began to run: whatever it asks is answered with these or later ones."""

    def submit(self, call: Callable[..., Any], /, *arguments: Any) -> SimOutcome:
        outcome = SimOutcome()
        self._queue.append((call, arguments, outcome))
        if not self.running:
            self.running = True
            self.began = self._process.world.positions()
            self._process.spawn(self._run)
        return outcome

    def close(self) -> None:
        """The process is dropped as a whole."""

    def _run(self) -> None:
        while self._queue:
            call, arguments, outcome = self._queue.pop(0)
            try:
                outcome.answer = call(*arguments)
            except Exception as error:  # noqa: BLE001 - it is raised again by result()
                outcome.error = error
            outcome.ready = True
        self.running = False


class SlowlyRead(Facts):
    """A control topic of which a process is told one record at a time: it is behind what others know already, as one may be that starts."""

    def __init__(self, world: World, process: Process) -> None:
        super().__init__(world.app.control, lambda: MemoryReader(world.log), process.source.written_end)
        self._world = world
        self._held: list[tuple[int, bytes | None]] = []

    def news(self) -> list[tuple[int, bytes | None]]:
        """The next record, or all when nothing is to go wrong any more."""
        self._held += super().news()
        told = self._held if self._world.calm else self._held[:1]
        self._held = self._held[len(told) :]
        return told


class Process:
    """One worker process in a slot."""

    def __init__(self, world: World, slot: int, number: int) -> None:
        self.world, self.slot = world, slot
        self.identity = identity_of(f"host:{number}", number)
        self.dead = False
        self.tasks: list[Task] = []
        self.commits, self.claims, self.models = SimExecutor(self), SimExecutor(self), SimExecutor(self)
        self.source = MemorySource(world.log, group=world.app.name, member=f"slot-{slot}-{number}", pause=world.pause)
        self.loop = world.assemble(self)
        self.spawn(self._run)

    def spawn(self, run: Callable[[], None]) -> None:
        """Begin a line of execution; it runs when the scheduler says so."""
        task = Task(self, run)
        task.parent = self.world.hub
        self.tasks.append(task)

    def _run(self) -> None:
        self.world.store.announce(str(self.slot), self.identity)
        try:
            self.loop.run([reads.topic for reads in self.world.app.inputs])
        except SlotTaken:
            self.dead = True
        except Killed:
            raise
        except Exception as error:  # noqa: BLE001 - whatever ends a worker in this world is a finding
            self.world.problems.append(f"a worker ended: {type(error).__name__}: {error}")
            self.dead = True


@dataclass
class Counters:
    """What a run went through; a run without damage proves nothing."""

    steps: int = 0
    kills: int = 0
    crashes: int = 0
    condemned: int = 0
    rebalances: int = 0
    aborted: int = 0
    unknown: int = 0
    fenced: int = 0
    catch_ups: int = 0
    rebuilds: int = 0
    overlapped: int = 0
    rollbacks: int = 0
    pages: int = 0
    switches: int = 0
    """Where the app has a registry."""
    corrections: int = 0
    """Where the app has them."""
    retained: int = 0
    """Records that retention took away."""
    shortened: int = 0
    """Rebuilds of a partition that no longer began at its first offset."""

    def add(self, other: Counters) -> None:
        """Add another run's."""
        for name in vars(self):
            setattr(self, name, getattr(self, name) + getattr(other, name))


class World:
    """Log, store, processes and the scheduler."""

    def __init__(self, *, seed: int = 0, count: int = 40, limits: Limits | None = None, app: App = one_stage) -> None:
        self.app = app
        self.hub = greenlet.getcurrent()
        self.clock = ManualClock(START_MS + 10_000_000)
        self.log = MemoryLog(self.clock)
        self.log.hold_markers = True
        for topic in (*(reads.topic for reads in app.inputs), *app.result_topics):
            self.log.create_topic(topic, PARTITIONS)
        self.log.create_topic(app.dead_letters, PARTITIONS)
        for topic in (app.facts, app.control):
            self.log.create_topic(topic, 1)
        self.store = MemoryStore(pause=self._before_store)
        self.snapshots: list[Snapshot] = []
        self.backups: list[Snapshot] = []
        self.problems: list[str] = []
        self.counters = Counters()
        self.calm = False
        self._limits = limits or Limits(
            max_batch=4, overlap_from=2, max_store_delay_ms=300, refused_share=1.0, resident_entities=1, registry_every_ms=20
        )
        self._seed, self._draw = seed, random.Random(seed)
        self._started = 0
        self._coming = make_records(seed, count)
        if len(app.sources) > 1:
            self._coming = with_openings(seed, self._coming)
        if any(pipeline.corrections for pipeline in app.pipelines):
            self._coming = with_disorder(seed, self._coming)
        self.partitions = [TopicPartition(reads.topic, number) for reads in app.inputs for number in range(PARTITIONS)]
        self.source_partitions = [TopicPartition(source.topic, number) for source in app.sources for number in range(PARTITIONS)]
        self._registers = any(pipeline.model is None and pipeline.fallback is not None for pipeline in app.pipelines)
        for command in registrations() if self._registers else ():
            self.log.append(app.control, 0, b"visit", command, None, 0)
        group = self.log.group(app.name)
        for partition in self.partitions:
            group.offsets[partition] = Position(offset=0, watermark_ms=None)
        self.ends: dict[TopicPartition, int] = {}
        self.produced: dict[TopicPartition, list[Record]] = {partition: [] for partition in self.partitions}
        """All that was ever in the log, also what retention took away; of a hop, as far as it was looked at."""
        self.processes: list[Process] = []
        self.slots: list[Process] = [self.start(slot) for slot in range(SLOTS)]

    # ------------------------------------------------------------------------------------------------------------ building

    def start(self, slot: int) -> Process:
        """A new process in a slot."""
        self._started += 1
        process = Process(self, slot, self._started)
        self.processes.append(process)
        return process

    def assemble(self, process: Process) -> Loop:
        """The real loop on this world's ports. In three of four worlds partitions do not keep pace: looking at those of others would take
        most of the steps there are.
        """
        pace = nullcontext() if self._seed % 4 == 3 else patch("headrace.assembly.rules_of", _no_rules)
        with (
            pace,
            patch("headrace.assembly.load_version", lambda _, __, sha256: BiasModel(str(int(sha256, 16)))),
        ):
            return self._assembled(process)

    def _assembled(self, process: Process) -> Loop:
        loop = assemble(
            self.app,
            ports=Ports(
                source=process.source,
                sink=MemorySink(self.log, transactional_id=f"{self.app.name}.{process.slot}", pause=self.pause),
                store=self.store,
                facts=Facts(self.app.facts, lambda: MemoryReader(self.log), process.source.written_end),
                control=SlowlyRead(self, process),
                artifacts=MemoryArtifacts(),
                reader=lambda: MemoryReader(self.log),
            ),
            models={} if self._registers else {"visit": SumModel()},
            clock=self.clock,
            executors=Executors(commits=process.commits, store=SimExecutor(process), claims=process.claims, models=process.models),
            watch=Watch(
                tick=_nothing,
                committed=_nothing,
                transaction=self._count_transaction,
                rebalanced=_nothing,
                roles=_nothing,
                say=self._hear,
                timeline=lambda: Timeline(self.clock.monotonic_ns),
            ),
            applied=_nothing,
            limits=self._limits,
            slot=str(process.slot),
            process=process.identity,
            taken_by=lambda: self._taken_by(process),
        )
        assert isinstance(loop._path, Paths)
        for topic, path in loop._path._paths.items():
            self._let_it_crash(path._decoder, POISON if topic == TOPIC else POISON_AT_HOP, process)
        return loop

    def _let_it_crash(self, decoder: Any, poison: bytes, process: Process) -> None:
        """Let decoding take the process with it at a record with the poison, as native code might."""
        decode = decoder.decode

        def crash_or_decode(records: RecordBatch) -> Decoded:
            if any(value and poison in value for value in records.values):
                self.crash(process)
            decoded: Decoded = decode(records)
            return decoded

        decoder.decode = crash_or_decode

    def _taken_by(self, process: Process) -> str | None:
        """As `apps.worker` asks: a store that was set back names somebody older."""
        holder = self.store.holder(str(process.slot))
        if is_newer(holder, process.identity):
            return holder
        self.store.announce(str(process.slot), process.identity)
        return None

    def _count_transaction(self, result: CommitResult) -> None:
        name = {CommitResult.ABORTED: "aborted", CommitResult.UNKNOWN: "unknown", CommitResult.FENCED: "fenced"}.get(result)
        if name is not None:
            setattr(self.counters, name, getattr(self.counters, name) + 1)

    def _hear(self, event: str, **fields: Any) -> None:
        if event == "partition given up":
            self.problems.append(f"refused: {fields['reason']}")
        elif event == "partition catches up":
            self.counters.catch_ups += 1
            self.counters.rebuilds += bool(fields["rebuilt"])
            self.counters.shortened += bool(fields["rebuilt"]) and self.log.log_range(fields["partition"]).start > 0

    # ----------------------------------------------------------------------------------------------------------- scheduling

    def pause(self, step: str) -> Fate | None:
        """A step of some process: hand over to the scheduler; what it answers is the step's fate."""
        task = greenlet.getcurrent()
        if not isinstance(task, Task):
            return None
        if task.process.dead:
            raise Killed
        task.step = step
        self.counters.overlapped += step == "fetch" and task.process.commits.running
        self.hub.switch()
        if task.process.dead:
            raise Killed
        fate, task.fate = task.fate, None
        return fate

    def _before_store(self, step: str) -> None:
        self.pause(step)
        self.counters.pages += step == "scan"
        if step in {"claim", "apply", "reset"}:
            self.snapshots = [*self.snapshots, self.store.snapshot()][-SNAPSHOTS:]

    def step(self, draw: random.Random) -> bool:
        """Let one line of execution, or one marker, go one step further; False when nothing can."""
        if self.log.undelivered and draw.random() < 0.3:
            self.log.deliver(draw.randrange(len(self.log.undelivered)))
            return True
        living = [task for process in self.processes if not process.dead for task in process.tasks if task.runnable()]
        if not living:
            return False
        task = draw.choice(living)
        if not self.calm:
            if task.step in {"end", "abort"}:
                chance = draw.random()
                task.fate = Fate.LOST_REQUEST if chance < 0.08 else Fate.LOST_REPLY if chance < 0.16 else None
            elif task.step in {"heartbeat", "drain"} and draw.random() < 0.5:
                task.fate = Fate.LOST_REQUEST
        self._go_on(task)
        return True

    def _go_on(self, task: Task) -> None:
        """Let one line of execution go on to its next step."""
        task.switch()
        self.clock.advance(7)
        self.counters.steps += 1
        if task.dead:
            task.process.tasks.remove(task)

    def run(self, schedule: Sequence[Burst]) -> None:
        """Run a schedule, then bring the world to rest."""
        for left, burst in zip(range(len(schedule), 0, -1), schedule, strict=True):
            self._produce(-(-len(self._coming) // left))
            draw = random.Random(burst.order)
            if self._registers and draw.random() < 0.5:
                self.log.append(self.app.control, 0, b"visit", a_move(draw), None, 0)
            for _ in range(burst.steps):
                self.step(draw)
            getattr(self, f"_{burst.fault}")(draw)
            if left % 20 == 0:
                self.backups.append(self.store.snapshot())
        self.ends = {partition: self.log.end_offset(partition) for partition in self.source_partitions}
        self._rest()

    def _produce(self, count: int) -> None:
        """The next records arrive: the log is never all there, so that there is always something to do."""
        for topic, number, key, value, timestamp_ms in self._coming[:count]:
            offset = self.log.append(topic, number, key, value, None, timestamp_ms)
            self.produced[TopicPartition(topic, number)].append(
                Record(topic=topic, partition=number, offset=offset, timestamp_ms=timestamp_ms, key=key, value=value, headers=[])
            )
        del self._coming[:count]

    # --------------------------------------------------------------------------------------------------------------- faults

    def positions(self) -> dict[TopicPartition, Position]:
        """What is committed."""
        return dict(self.log.group(self.app.name).offsets)

    def _living(self) -> list[Process]:
        return [process for process in self.processes if not process.dead]

    def _members(self) -> list[str]:
        return list(self.log.group(self.app.name).members)

    def _rebalance(self, draw: random.Random) -> None:
        """An orderly rebalance: everybody is told in time."""
        members = self._members()
        if not members:
            return
        targets: dict[str, list[TopicPartition]] = {member: [] for member in members}
        for partition in self.partitions:
            targets[draw.choice(members)].append(partition)
        self.log.group(self.app.name).reassign(targets)
        self.counters.rebalances += 1

    def _midway(self, draw: random.Random) -> None:
        """An orderly rebalance that an owner hears of in the middle of its drain, while the new owner is quick."""
        for _ in range(40):
            group = self.log.group(self.app.name)
            owners = {name for name, member in group.members.items() if member.owned}
            polling = [task for process in self._living() for task in process.tasks if task.step == "fetch" and task.runnable()]
            task = next((one for one in polling if one.process.source.member_id in owners), None)
            if task is not None:
                break
            self.step(draw)
        else:
            return
        self._produce(4)
        self._go_on(task)
        members = self._members()
        heir = draw.choice([member for member in members if member != task.process.source.member_id] or members)
        mine = task.process.source.member_id
        first = draw.choice(sorted(group.members[mine].owned) or self.partitions) if mine in group.members else self.partitions[0]
        order = [*(partition for partition in self.partitions if partition != first), first]
        kept = draw.choice([0, 1]) if heir != mine else 0  # who keeps a partition shows a membership that the group accepts
        group.reassign({mine: order[:kept], heir: order[kept:]} if kept else {heir: self.partitions})
        self.counters.rebalances += 1
        for _ in range(30):
            if task.step != "drain" or task.dead or task.process.dead:
                break
            self._go_on(draw.choice([one for one in task.process.tasks if one.runnable()]))
        for _ in range(draw.randrange(40)):
            others = [one for process in self._living() if process.source.member_id == heir for one in process.tasks if one.runnable()]
            if others:
                self._go_on(draw.choice(others))

    def _evict(self, draw: random.Random) -> None:
        """A session time-out: an owner is thrown out and not told; it goes on as a zombie."""
        members = self._members()
        owners = [member for member in members if self.log.group(self.app.name).members[member].owned]
        if owners and len(members) > 1:
            self.log.group(self.app.name).evict(draw.choice(owners))
            self.counters.rebalances += 1

    def _tell(self, draw: random.Random) -> None:
        """Every process hears of the group once, if it gets that far."""
        for process in self.processes:
            for task in list(process.tasks):
                if not process.dead and task.step in {"heartbeat", "drain"} and task.runnable():
                    task.fate = None
                    self._go_on(task)
        del draw

    def _kill(self, draw: random.Random) -> None:
        """Kill -9 of a process; a new one starts in its slot, the group learns of the death now or never."""
        slot = draw.randrange(SLOTS)
        old = self.slots[slot]
        if self._alone(old):
            return
        old.dead = True
        members = self.log.group(self.app.name).members
        if old.source.member_id in members:
            self.log.group(self.app.name).evict(old.source.member_id)
        self.slots[slot] = self.start(slot)
        self.counters.kills += 1

    def _alone(self, process: Process) -> bool:
        """Whether a process is in the middle of a record that it takes alone: who is killed there three times condemns it, as it should."""
        attempts = [Attempt.of(note) for note in self.store.snapshot().notes.values()]
        return any(attempt.process == process.identity and attempt.taking is not None for attempt in attempts)

    def crash(self, process: Process) -> None:
        """A process ends itself; a new one starts in its slot, if it was not replaced already. Never returns."""
        process.dead = True
        members = self.log.group(self.app.name).members
        if process.source.member_id in members:
            self.log.group(self.app.name).evict(process.source.member_id)
        if self.slots[process.slot] is process:
            self.slots[process.slot] = self.start(process.slot)
        self.counters.crashes += 1
        self.hub.switch()
        raise Killed

    def _twin(self, draw: random.Random) -> None:
        """A second process with a slot that is taken: the older one must give way."""
        slot = draw.randrange(SLOTS)
        if not self._alone(self.slots[slot]):
            self.slots[slot] = self.start(slot)

    def _expire(self, draw: random.Random) -> None:
        """The transaction time-out of a pending transaction."""
        pending = self.log.pending()
        if pending:
            self.log.expire(draw.choice(pending))

    def _rollback(self, draw: random.Random) -> None:
        """The store loses its last writes; half of the time just while a commit is in flight."""
        for _ in range(draw.choice([0, 60])):
            if any(process.commits.running for process in self.processes if not process.dead):
                break
            self.step(draw)
        if self.snapshots:
            index = draw.randrange(len(self.snapshots))
            self.store.restore(self.snapshots[index])
            del self.snapshots[index:]
            self.counters.rollbacks += 1

    def _backup(self, draw: random.Random) -> None:
        """The store comes back from a backup, perhaps of so long ago that the log has lost what came next."""
        if self.backups:
            self.store.restore(draw.choice(self.backups))
            self.snapshots.clear()
            self.counters.rollbacks += 1

    def _flush(self, draw: random.Random) -> None:
        """The store loses everything."""
        self.store.flush()
        self.snapshots.clear()
        del draw

    def _retention(self, draw: random.Random) -> None:
        """The log forgets all that no recovery can need; a claim under way may have been told an older position."""
        told = [self.positions(), *(process.claims.began for process in self._living() if process.claims.running)]
        for partition in self.partitions:
            oldest = min((positions[partition] for positions in told), key=lambda position: position.offset)
            if oldest.watermark_ms is None:
                continue
            first = self.log.offset_at(partition, oldest.watermark_ms - REMEMBERED_MS)
            needed = oldest.offset if first is None else min(first, oldest.offset)
            self._look_at(partition)
            before = self.log.log_range(partition).start
            # One record more stays: it shows that none of those needed is missing.
            self.log.delete_before(partition, needed - 1)
            self.counters.retained += self.log.log_range(partition).start - before
        del draw

    def _look_at(self, partition: TopicPartition) -> None:
        """Keep what came to a hop since it was looked at last."""
        if partition not in self.source_partitions:
            known = self.produced[partition]
            known += self.log.read(partition, known[-1].offset + 1 if known else 0)

    def _none(self, draw: random.Random) -> None:
        """No fault this time."""

    # ------------------------------------------------------------------------------------------------------------ the end

    def _rest(self) -> None:
        """No more losses: everything hears, expires and settles; one process of each slot lives on."""
        self.calm = True
        draw = random.Random(1)
        for process in self.processes:
            if process not in self.slots:
                process.dead = True
                if process.source.member_id in self.log.group(self.app.name).members:
                    self.log.group(self.app.name).evict(process.source.member_id)
        for name in self.log.pending():
            self.log.expire(name)
        for _ in range(40_000):
            if not self.step(draw) or (self.counters.steps % 50 == 0 and self._at_rest()):
                break
        while self.log.undelivered:
            self.log.deliver()

    def _at_rest(self) -> bool:
        group = self.log.group(self.app.name)
        if self.log.undelivered or self.log.pending():
            return False
        return all(self._done(partition, group.offsets[partition].offset) for partition in self.partitions)

    def _done(self, partition: TopicPartition, committed: int) -> bool:
        """Whether everything of a partition is committed, and applied to the store."""
        if committed < self.ends.get(partition, 0) or (partition not in self.ends and self.log.read(partition, committed)):
            return False
        reads = next(one for one in self.app.inputs if one.topic == partition.topic)
        heads = [self.store.head(partition, view.fp).offset for view in self.app.kept_of(reads)]
        return all(offset == committed or (committed == 0 and offset is None) for offset in heads)

    # -------------------------------------------------------------------------------------------------------------- checks

    def close(self) -> None:
        """Let go of every line of execution: one that hangs in a call would keep its whole process in memory."""
        for process in self.processes:
            process.dead = True
        for process in self.processes:
            for task in process.tasks:
                if task and not task.dead:  # a greenlet is true while it is running or stands in a call
                    with suppress(Killed):
                        task.throw(Killed)
            process.tasks.clear()

    def check(self) -> list[str]:
        """Everything that is wrong; empty when the promise was kept."""
        found = list(self.problems)
        group = self.log.group(self.app.name)
        facts = [record.value for record in self.log.read(TopicPartition(self.app.facts, 0))]
        audit = Audit(self.app, left_out=condemned_offsets(facts))
        self.counters.condemned += sum(map(len, audit.left_out.values()))
        for partition in self.partitions:
            self._look_at(partition)
            audit.fold(partition, self.produced[partition])
            if not self._done(partition, group.offsets[partition].offset):
                found.append(
                    f"stuck: {partition.topic}-{partition.partition} is committed to {group.offsets[partition].offset} of "
                    f"{self.log.end_offset(partition)}"
                )
        found += audit.compare_results({"visit": self._all(PREDICTIONS)}, self._all(self.app.dead_letters))
        for pipeline in (one for one in self.app.pipelines if one.corrections is not None):
            corrections = self._all(pipeline.corrections or "")
            self.counters.corrections += len(corrections)
            found += compare_corrections(self.app, pipeline, self.produced, corrections, audit.left_out)
        if not any(problem.startswith("stuck") for problem in found):
            for reads in self.app.inputs:
                fingerprints = [one.fp for one in self.app.views_of(reads)[:1]] + [one.fp for one in self.app.retained_of(reads)]
                for fp in fingerprints:
                    for number in range(PARTITIONS):
                        partition = TopicPartition(reads.topic, number)
                        stored, head = self.store.states(partition, fp), self.store.head(partition, fp)
                        found += audit.compare_states(partition, fp, stored, head)
        if self._registers:
            found += self._compare_roles(facts)
        return found

    def _compare_roles(self, facts: Sequence[bytes | None]) -> list[str]:
        """Every result has the version, role and score that the switches on the facts topic say, and so has what shadows scored."""
        self.counters.switches += sum(map(len, switches_in(facts).values()))
        (pipeline,) = self.app.pipelines
        return compare_roles(pipeline, facts, self._all(PREDICTIONS), self._all(pipeline.shadow or ""), _score, tolerance=0.0)

    def _all(self, topic: str) -> list[Record]:
        return [record for number in range(PARTITIONS) for record in self.log.read(TopicPartition(topic, number))]


def _score(version: str, vectors: Float64s) -> Float64s:
    return np.full(len(vectors), FALLBACK_SCORE) if version == FALLBACK else BiasModel(version).score(vectors).scores


def _no_rules(*_: Any, **__: Any) -> dict[str, Pace]:
    return {}


def _nothing(*_: Any) -> None:
    """Nobody listens."""
