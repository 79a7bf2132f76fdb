"""`headrace explain`: a prediction that was published, made again from the log, and told by its features.

    id --> the record of the source, and of the hop that the last stage read
       --> the prediction as it was published: version, role, what it looked up
       --> a fold of that one partition up to the record: the vector, bit for bit
       --> the version that scored it, by the facts: the score again, mean and contributions

Nobody's position is moved and nothing is written. Limits: one prediction at a time, folded from where its windows begin; what the log does
not hold any more cannot be told, and is refused. Corrections are not explained.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np

from headrace.assembly import explained_model, load_models
from headrace.consume.record_reader import RecordReader
from headrace.crashes import condemned_offsets
from headrace.decode.hop_decoder import HopDecoder
from headrace.definition import App, Pipeline, Stage
from headrace.errors import LookupRefused
from headrace.forgotten import erasures_in
from headrace.parts import Limits
from headrace.paths import decoder_of
from headrace.predict.additive import Link
from headrace.predict.artifacts import ArtifactStore
from headrace.predict.casting import Cast, Casting, Pinned
from headrace.predict.explain import Explainer
from headrace.predict.scores import Model, Scores, explainer_of
from headrace.publish.encoder import HeaderPolicy
from headrace.publish.records import Prediction, decode_prediction
from headrace.source import Hop
from headrace.switches import switches_in
from headrace.types import Float64s, Int32s, Int64s, Position, Record, Role, TopicPartition
from headrace.verify.casting import CastByFacts
from headrace.verify.compare import SCORE_TOLERANCE, is_of_these_definitions
from headrace.verify.fold import SourceFold
from headrace.verify.look_ups import LookUpAnswers
from headrace.verify.scope import Scope, facts_of, fold_start
from headrace.verify.shelf import Shelf
from headrace.verify.state import Unscored
from headrace.verify.subject import Subject

Facts = Sequence[bytes | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A prediction as it stands on its topic."""

    score: float
    version: str
    role: Role
    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Explanation:
    """A score, and what made it."""

    id: str
    entity: str
    model: str
    version: str
    role: Role
    score: float
    """What the version gives for the vector now."""
    published: Published | None
    """None: it is not on its topic any more."""
    units: Link
    mean: float
    features: Mapping[str, float]
    """The vector, by name; NaN where a feature has no value."""
    contributions: Mapping[str, float]
    """Of every feature, in the order of the vector."""
    notes: Sequence[str] = field(default_factory=list)
    """What is not as it was when it was published."""

    @property
    def margin(self) -> float:
        """What mean and contributions add up to."""
        return self.mean + sum(self.contributions.values())

    @property
    def same(self) -> bool | None:
        """Whether it scored the same when it was published; None where that is not known."""
        return None if self.published is None else abs(self.published.score - self.score) <= SCORE_TOLERANCE


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sought:
    """What an id names."""

    id: str
    pipeline: Pipeline
    stage: Stage
    source: TopicPartition
    offset: int
    shadow: str | None
    """The version of a shadow whose score it is."""


class _Vector:
    """Takes the place of a model in a fold, and keeps what it is given first."""

    name, version = "vector", "0"

    def __init__(self) -> None:
        self.values: Float64s | None = None

    def score(self, values: Float64s) -> Scores:
        """Nothing for everything."""
        if self.values is None:
            self.values = values.copy()
        return Scores(scores=np.zeros(len(values)), refused=[])


class Explaining:
    """Explains predictions of an app. `casting_of` says by the facts who scored what, with models that are explained; `told` hears how many
    records were read, and of how many.
    """

    def __init__(
        self, app: App, subject: Subject, *, casting_of: Callable[[Facts], Casting], told: Callable[[int, int], None] = lambda _, __: None
    ) -> None:
        self._app, self._subject, self._casting_of, self._told = app, subject, casting_of, told
        self._done = self._of = 0

    def explain(self, prediction: str) -> Explanation:
        """Explain the prediction of this id. Raises `LookupRefused` for what cannot be told, `TransientError` while a server is away."""
        facts = facts_of(self._app, self._subject)
        casting = self._casting_of(facts)
        sought = self._sought(prediction, casting)
        with closing(self._subject.reader()) as reader:
            sent = _record_at(reader, sought.source, sought.offset)
            if sent is None:
                raise LookupRefused(f"{_text(sought.source)} holds no record at offset {sought.offset} (any more), so nothing can be told")
            read = sent if not isinstance(sought.stage.reads, Hop) else self._on_the_hop(reader, sought.stage, sent)
            if sought.offset in condemned_offsets(facts).get(sought.source, ()):
                raise LookupRefused(f"offset {sought.offset} of {_text(sought.source)} was condemned (CRASH_LOOP) and never scored")
            topic = sought.pipeline.predictions if sought.shadow is None else sought.pipeline.shadow
            found = self._published(reader, topic or "", prediction, sent.timestamp_ms)
            vector = self._vector(reader, sought, read, casting, facts)
        return self._explained(sought, read, found, casting, vector)

    # ---------------------------------------------------------------------------------------------------------- what is meant

    def _sought(self, prediction: str, casting: Casting) -> _Sought:
        for pipeline in self._app.pipelines:
            name = re.escape(casting.model_name(pipeline.name))
            found = re.fullmatch(rf"{re.escape(pipeline.source.topic)}-(\d+)-(\d+)-{name}(?:@(.+))?", prediction)
            if found is not None:
                return _Sought(
                    id=prediction,
                    pipeline=pipeline,
                    stage=next(stage for stage in self._app.stages if stage.scores and stage.pipeline is pipeline),
                    source=TopicPartition(pipeline.source.topic, int(found[1])),
                    offset=int(found[2]),
                    shadow=found[3],
                )
        known = ", ".join(f"{one.source.topic}-<partition>-<offset>-{casting.model_name(one.name)}" for one in self._app.pipelines)
        raise LookupRefused(
            f"{prediction!r} is no prediction of app {self._app.name}: ids are {known}, of a shadow with @<version> behind it"
        )

    def _on_the_hop(self, reader: RecordReader, stage: Stage, sent: Record) -> Record:
        """The record of a hop that the last stage read of a record of the source."""
        decoder = decoder_of(self._app, stage.reads, fields=())
        if not isinstance(decoder, HopDecoder):
            raise TypeError(f"{stage.reads!r} is no hop")
        starts, ends = _since(reader, stage.reads.topic, sent.timestamp_ms)
        for batch in reader.batches(starts, ends):
            records, readable = decoder.sent(batch)
            (rows,) = np.nonzero(readable & (records.partitions == sent.partition) & (records.offsets == sent.offset))
            if len(rows):
                return next(iter(batch.select(rows[:1]).records()))
        raise LookupRefused(
            f"{stage.reads.topic} holds nothing of offset {sent.offset} of {sent.topic}-{sent.partition} (any more): it was refused before "
            "the last stage, as a dead letter tells, or Kafka has removed it"
        )

    def _published(self, reader: RecordReader, topic: str, prediction: str, timestamp_ms: int) -> tuple[Record, Prediction] | None:
        """The prediction of an id; its record has the timestamp of the source's record."""
        begins = b'{"id":"%b"' % prediction.encode()
        for batch in reader.batches(*_since(reader, topic, timestamp_ms)):
            for record in batch.records():
                if (record.value or b"").startswith(begins):
                    return record, decode_prediction(record.value or b"")
        return None

    # ---------------------------------------------------------------------------------------------------------- the vector

    def _vector(self, reader: RecordReader, sought: _Sought, read: Record, casting: Casting, facts: Facts) -> Float64s:
        """The vector that was scored, from a fold of the partition up to its record."""
        start, whole = fold_start(reader, self._app, sought.stage.reads, read)
        name = TopicPartition(read.topic, read.partition)
        if not whole:
            raise LookupRefused(f"{_text(name)} does not hold any more all that the windows of offset {read.offset} reach back to")
        scope = self._scope(reader, sought, read, facts)
        vector, self._of = _Vector(), self._of + read.offset - start
        with (
            closing(LookUpAnswers(self._app, self._subject, scope, casting, self._read_first)) as look_ups,
            closing(Shelf({reads.topic: [view.fp for view in self._app.kept_of(reads)] for reads in self._app.inputs})) as shelf,
        ):
            if sought.pipeline.look_up is not None:
                look_ups.gather()
                untold = look_ups.untold(sought.pipeline, (sought.source.partition, sought.offset))
                if untold:
                    raise LookupRefused(f"the log does not tell any more what was looked up in {', '.join(untold)}")
            models: dict[str, Model] = {one.name: Unscored() for one in self._app.pipelines}
            fold = SourceFold(
                self._app,
                sought.stage.reads,
                casting=Pinned({**models, sought.pipeline.name: vector}),
                shelf=shelf,
                starts={name: start},
                left_out=scope.left_out,
                erased=scope.erased,
                headers=HeaderPolicy.MINIMAL,
                limits=Limits(),
                partitions=len(scope.partitions[name.topic]),
                look_ups=look_ups.of,
            )
            for batch in reader.batches({name: start}, {name: read.offset}) if start < read.offset else ():
                fold.take(batch)
                self._done += len(batch)
                self._told(self._done, self._of)
            for batch in reader.batches({name: read.offset}, {name: read.offset + 1}):
                for _ in fold.results(batch):
                    """What it leads to was found published."""
        if vector.values is None:
            raise LookupRefused(
                f"offset {read.offset} of {_text(name)} was not scored by these definitions: it is no event of theirs (a dead letter says "
                "why), or brings features that others made"
            )
        return vector.values

    def _read_first(self, records: int) -> None:
        """Records that are read for what was looked up: how many there are shows as they come."""
        self._done, self._of = self._done + records, self._of + records
        self._told(self._done, self._of)

    def _scope(self, reader: RecordReader, sought: _Sought, read: Record, facts: Facts) -> Scope:
        """Of the deployment, this one record and its prediction: all that is needed to tell what it looked up."""
        inputs = [name for reads in self._app.inputs for name in reader.partitions(reads.topic)]
        partitions = {reads.topic: [name for name in inputs if name.topic == reads.topic] for reads in self._app.inputs}
        scope = Scope(
            partitions={**partitions, **{topic: [] for topic in (*self._app.result_topics, self._app.dead_letters)}}, committed={}
        )
        scope.committed = {name: Position(offset=reader.log_range(name).end, watermark_ms=None) for name in inputs}
        scope.starts, scope.ends = dict.fromkeys(inputs, 0), dict.fromkeys(inputs, 0)
        this = TopicPartition(read.topic, read.partition)
        scope.starts[this], scope.ends[this] = read.offset, read.offset + 1
        scope.left_out, scope.erased = condemned_offsets(facts), erasures_in(facts)
        if sought.pipeline.look_up is not None:
            found = self._published(reader, sought.pipeline.predictions, sought.id.partition("@")[0], read.timestamp_ms)
            if found is None:
                raise LookupRefused(
                    f"{sought.pipeline.predictions} does not hold {sought.id} (any more), and it alone says what it looked up"
                )
            at = TopicPartition(found[0].topic, found[0].partition)
            scope.partitions[at.topic], scope.begins, scope.until = [at], {at: found[0].offset}, {at: found[0].offset + 1}
        return scope

    # ---------------------------------------------------------------------------------------------------------- the score

    def _explained(
        self, sought: _Sought, read: Record, found: tuple[Record, Prediction] | None, casting: Casting, vector: Float64s
    ) -> Explanation:
        entity = found[1].entity if found is not None else (read.key or b"").decode(errors="replace")
        model, role = _who(sought, read, casting, entity)
        explainer = explainer_of(model)
        if not isinstance(explainer, Explainer):
            raise LookupRefused(f"{sought.id} was scored by {model.version!r}, which is no model: there is nothing to explain")
        answer = model.score(vector)
        if answer.refused:
            raise LookupRefused(f"version {model.version} of model {model.name} has no score for {sought.id}: {answer.refused[0][1]}")
        names = sought.pipeline.feature_names
        features = dict(zip(names, vector[0].tolist(), strict=True))
        contributions = dict(zip(names, explainer.contributions(vector)[0].tolist(), strict=True))
        return Explanation(
            id=sought.id,
            entity=entity,
            model=model.name,
            version=model.version,
            role=role,
            score=float(answer.scores[0]),
            published=None if found is None else _as_published(*found),
            units=explainer.link,
            mean=explainer.mean,
            features=features,
            contributions=contributions,
            notes=list(_notes(sought, found, model, float(answer.scores[0]), features)),
        )


def _who(sought: _Sought, read: Record, casting: Casting, entity: str) -> tuple[Model, Role]:
    """The version that scored a record, and its role."""
    places = np.array([read.partition], dtype=np.int32), np.array([read.offset], dtype=np.int64)
    ((cast, _),) = casting.casts(sought.pipeline.name, *places)
    for part in cast.parts(sought.pipeline.name, lambda: [entity]):
        meant = part.role == "shadow" and part.model.version == sought.shadow if sought.shadow else part.role != "shadow"
        if meant and (part.events is None or len(part.events)):
            return part.model, part.role
    raise LookupRefused(f"version {sought.shadow} was no shadow when offset {sought.offset} of {_text(sought.source)} was scored")


def _notes(
    sought: _Sought, found: tuple[Record, Prediction] | None, model: Model, score: float, features: Mapping[str, float]
) -> Sequence[str]:
    """What is not as it was when the prediction was published."""
    if found is None:
        return [f"it is not on {sought.pipeline.predictions} (any more), so nothing is compared"]
    record, prediction = found
    notes = []
    if not is_of_these_definitions(record, sought.pipeline.fingerprint):
        notes.append("it was published under other definitions (headrace-fingerprint): the vector here is that of these")
    if prediction.model.version != model.version:
        notes.append(f"version {prediction.model.version} published it, and what is explained is version {model.version}, the one at hand")
    if not abs(prediction.score - score) <= SCORE_TOLERANCE:
        notes.append(f"it was published with {prediction.score!r} and scores {score!r} now")
    if isinstance(prediction.features, dict):
        differing = [name for name, value in features.items() if not _same_bits(prediction.features.get(name), value)]
        notes += [f"feature {name} was published as {prediction.features.get(name)!r} and is {features[name]!r} here" for name in differing]
    return notes


def _same_bits(published: float | None, value: float) -> bool:
    return np.isnan(value) if published is None else np.float64(published).tobytes() == np.float64(value).tobytes()


def _as_published(record: Record, prediction: Prediction) -> Published:
    return Published(
        score=prediction.score,
        version=prediction.model.version,
        role=prediction.model.role,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
    )


def _record_at(reader: RecordReader, name: TopicPartition, offset: int) -> Record | None:
    if name not in reader.partitions(name.topic):
        raise LookupRefused(f"{name.topic} has no partition {name.partition}")
    log = reader.log_range(name)
    if not log.start <= offset < log.end:
        return None
    for batch in reader.batches({name: offset}, {name: offset + 1}):
        return next(iter(batch.records()))
    return None


def _since(reader: RecordReader, topic: str, time_ms: int) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
    """The partitions of a topic from the first record on that is as young as this, to their ends."""
    ends = {name: reader.log_range(name).end for name in reader.partitions(topic)}
    firsts = {name: reader.offset_at(name, time_ms) for name in ends}
    starts = {name: first for name, first in firsts.items() if first is not None}
    return starts, {name: ends[name] for name in starts}


def _text(name: TopicPartition) -> str:
    return f"{name.topic}-{name.partition}"


class ExplainedCasting:
    """Who scored what, by the facts, with models that are explained; only those are loaded so that are asked for."""

    def __init__(self, app: App, artifacts: ArtifactStore, facts: Facts) -> None:
        self._app, self._artifacts, self._facts = app, artifacts, facts
        self._pipelines = {one.name: one for one in app.pipelines}
        self._names = {name: model.name for name, model in load_models(app).items()}

    def casts(self, pipeline: str, partitions: Int32s, offsets: Int64s) -> Sequence[tuple[Cast, Int64s | None]]:
        """As `Casting` says. Raises `DefinitionError` for a model that cannot be explained."""
        chosen = self._pipelines[pipeline]
        pinned = {} if chosen.model is None else {pipeline: explained_model(chosen.model, chosen)}
        return CastByFacts(self._app, pinned=pinned, switches=switches_in(self._facts), load=self._load).casts(
            pipeline, partitions, offsets
        )

    def model_name(self, pipeline: str) -> str:
        """As `Casting` says."""
        return self._names.get(pipeline, pipeline)

    def _load(self, pipeline: Pipeline, sha256: str) -> Model:
        return explained_model(self._artifacts.get(sha256), pipeline)
