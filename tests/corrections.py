"""The corrections of an app, found beside those that naive means give."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import isnan

import numpy as np

from headrace.definition import App, Pipeline
from headrace.features.resident import ResidentStates
from headrace.paths import decoder_of
from headrace.types import NO_WATERMARK_MS, Record, TopicPartition
from tests.audit import batch_of
from tests.retelling import Moment, Told, Vector, retold


def told_of(app: App, pipeline: Pipeline, partition: TopicPartition, records: Sequence[Record], left_out: Sequence[int] = ()) -> list[Told]:
    """The corrections that a partition of the source leads to; a vector has the features by name, absent ones None."""
    kept = [record for record in records if record.offset not in left_out]
    if pipeline.retained is None or not kept:
        return []
    decoder, batch = decoder_of(app, pipeline.source), batch_of(kept)
    events = decoder.decode(batch).events
    rows, offsets = events.rows, batch.offsets[events.rows].tolist()
    log = [Moment(partition.partition, *one) for one in zip(offsets, events.entities, events.event_times_ms.tolist(), strict=True)]

    def fold(numbers: Sequence[int]) -> list[Vector]:
        if not numbers:
            return []
        line = decoder.decode(batch.select(rows[np.array(numbers)])).events
        states = ResidentStates(views=pipeline.own_views, read=lambda _, __: {})
        states.start(partition, {view.fp: 0 for view in pipeline.own_views}, NO_WATERMARK_MS, empty=True)
        columns = [states.fold(line).values, *(one.evaluate(line.columns).reshape(-1, 1) for _, one in pipeline.event_features)]
        return [tuple(None if isnan(value) else value for value in row) for row in np.hstack(columns).tolist()]

    return retold(log, fold, lateness_ms=pipeline.source.lateness_ms, most=pipeline.retained.most)


def compare_corrections(
    app: App,
    pipeline: Pipeline,
    logs: Mapping[TopicPartition, Sequence[Record]],
    found: Sequence[Record],
    left_out: Mapping[TopicPartition, Sequence[int]],
) -> list[str]:
    """Everything wrong with the corrections of a pipeline, each of their partitions in offset order."""
    problems: list[str] = []
    wanted: dict[tuple[tuple[int, int], int], Told] = {}
    for partition, records in logs.items():
        if partition.topic == pipeline.source.topic:
            wanted |= {(one.about, one.revision): one for one in told_of(app, pipeline, partition, records, left_out.get(partition, ()))}
    seen: set[tuple[tuple[int, int], int]] = set()
    last: dict[tuple[int, int], tuple[int, int]] = {}
    for record in found:
        value = json.loads(record.value or b"")
        about, cause = ((value[place]["partition"], value[place]["offset"]) for place in ("source", "caused_by"))
        name = (about, value["revision"])
        one = wanted.get(name)
        begin = f"{pipeline.source.topic}-{about[0]}-{about[1]}-"
        if value["id"] != f"{value['corrects']}-r{value['revision']}" or not value["corrects"].startswith(begin):
            problems.append(f"made up: {value['id']} names {about}")
        if name in seen:
            problems.append(f"duplicate: correction {name}")
        elif one is None:
            problems.append(f"made up: correction {name}")
        elif one.cause != cause:
            problems.append(f"made up: correction {name} was caused by {cause}, expected {one.cause}")
        elif value["features"] != dict(zip(pipeline.feature_names, one.vector, strict=True)):
            problems.append(f"features: correction {name} has {value['features']}, expected {one.vector}")
        seen.add(name)
        step = (record.partition, cause[0])
        if last.get(step, cause) > cause:
            problems.append(f"order: correction {name} of {cause} stands behind one of {last[step]}")
        last[step] = cause
    return problems + [f"lost: correction {name}" for name in wanted if name not in seen]
