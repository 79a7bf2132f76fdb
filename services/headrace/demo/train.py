"""Trains the demo's models: gradient boosted trees on January to June, features from the fold that serves them.

The result is deterministic: one thread, fixed seeds, exact sums. Run it with `headrace demo train`; it needs the packages of the `dev`
extra. A test trains again and compares scores with the committed file.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headrace.decode.decoder import Decoder
from headrace.demo.boarding import app as boarding_app
from headrace.demo.boarding import before_departure, boardings, by_timetable
from headrace.demo.boarding_events import boardings_of
from headrace.demo.events import LAST_MONTH_OF_TRAINING, Departures
from headrace.demo.flights import aircraft_alone, late_arrival
from headrace.features.training import EventVectors, event_vectors
from headrace.models import stamp
from headrace.types import EventBatch, Float64s, RecordBatch

if TYPE_CHECKING:
    import lightgbm

VERSION, SECOND_VERSION = "1", "2"
TREES, LEAVES, LEARNING_RATE, LEAST_IN_LEAF = 120, 8, 0.15, 200
SECOND_TREES, SECOND_LEAVES = 40, 6
"""Version 2 is to answer faster: a quarter of the leaves."""
GOLDEN = 64
"""Golden rows of a model that is registered, evenly over the year."""
OPSET = 15
BATCH = 16_384
PARAMETERS = {
    "objective": "binary",
    "num_leaves": LEAVES,
    "learning_rate": LEARNING_RATE,
    "min_data_in_leaf": LEAST_IN_LEAF,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "seed": 20_130_101,
    "verbose": -1,
}


def train(frame: EventVectors, departures: Departures) -> bytes:
    """The stamped model. `frame` is that of all departures, in their order; float32 from here on, as when scoring."""
    return _with_golden_rows(frame, departures, VERSION, TREES, PARAMETERS)


def train_second(frame: EventVectors, departures: Departures) -> bytes:
    """Its version 2: smaller, and not as good."""
    return _with_golden_rows(frame, departures, SECOND_VERSION, SECOND_TREES, {**PARAMETERS, "num_leaves": SECOND_LEAVES})


def train_alone(frame: EventVectors, departures: Departures) -> bytes:
    """The same of the aircraft and the flight alone, for comparison."""
    content = _fitted(alone(frame.values, frame.names), departures.late, departures.months, late_arrival.name)
    return stamp(content, aircraft_alone, version=VERSION, output="probabilities")


def alone(values: Float64s, names: Sequence[str]) -> Float64s:
    """The features that the comparison has, out of all."""
    return values[:, [names.index(name) for name in aircraft_alone.feature_names]]


def train_boarding(departures: Departures) -> tuple[bytes, bytes]:
    """The stamped models of the second application: of all it looks up, and of the timetable alone. Its frame is that of
    `hr.training_frame`, the rows in the order of the boardings.
    """
    from headrace.training import training_frame  # noqa: PLC0415 - it needs pyarrow

    boarded = boardings_of(departures, np.arange(len(departures)))
    events = {
        boardings.topic: _columns(boarded.events),
        late_arrival.source.topic: _columns([json.loads(value) for value in departures.values]),
    }
    frame = training_frame(boarding_app, events=events)
    rows = boarded.rows[frame.table["_offset"].to_numpy()]
    late, months = departures.late[rows], departures.months[rows]
    plain = frame.values[:, [frame.names.index(name) for name in by_timetable.feature_names]]
    return (
        stamp(_fitted(frame.values, late, months, before_departure.name), before_departure, version=VERSION, output="probabilities"),
        stamp(_fitted(plain, late, months, by_timetable.name), by_timetable, version=VERSION, output="probabilities"),
    )


def _columns(events: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [event[name] for event in events] for name in events[0]}


def _with_golden_rows(frame: EventVectors, departures: Departures, version: str, trees: int, parameters: Mapping[str, object]) -> bytes:
    booster = _booster(frame.values, departures.late, departures.months, trees, parameters)
    golden: NDArray[np.float32] = frame.values[np.linspace(0, len(frame) - 1, GOLDEN).astype(np.int64)].astype(np.float32)
    return stamp(
        _onnx(booster, golden.shape[1], late_arrival.name),
        late_arrival,
        version=version,
        output="probabilities",
        golden_rows=golden,
        golden_scores=booster.predict(golden),
    )


def _fitted(values: Float64s, late: Float64s, months: NDArray[np.int8], name: str) -> bytes:
    return _onnx(_booster(values, late, months, TREES, PARAMETERS), values.shape[1], name)


def _booster(values: Float64s, late: Float64s, months: NDArray[np.int8], trees: int, parameters: Mapping[str, object]) -> lightgbm.Booster:
    import lightgbm  # noqa: PLC0415 - training is for those who have the `dev` extra

    known = ~np.isnan(late) & (months <= LAST_MONTH_OF_TRAINING)
    rows: NDArray[np.float32] = values[known].astype(np.float32)
    return lightgbm.train(dict(parameters), lightgbm.Dataset(rows, late[known]), num_boost_round=trees)


def _onnx(booster: lightgbm.Booster, features: int, name: str) -> bytes:
    """The trees as ONNX, probabilities as a tensor [rows, 2]."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter warns of its own dependencies
        from onnxmltools import convert_lightgbm  # noqa: PLC0415
        from onnxmltools.convert.common.data_types import FloatTensorType  # noqa: PLC0415

        converted = convert_lightgbm(
            booster,
            name=name,
            initial_types=[("features", FloatTensorType([None, features]))],
            zipmap=False,
            target_opset=OPSET,
        )
    return bytes(converted.SerializeToString())


def frame_of(departures: Departures) -> EventVectors:
    """The feature vector of every departure as of its own time: the fold that serves them, over the log from its start."""
    return event_vectors(late_arrival, _events(departures))


def _events(departures: Departures) -> Iterator[EventBatch]:
    decoder = Decoder(late_arrival.source)
    for first in range(0, len(departures), BATCH):
        end = min(first + BATCH, len(departures))
        batch = RecordBatch(
            topic=late_arrival.source.topic,
            partitions=np.zeros(end - first, np.int32),
            offsets=np.arange(first, end),
            timestamps_ms=departures.departed_ms[first:end],
            keys=list(departures.keys[first:end]),
            values=list(departures.values[first:end]),
            headers=[None] * (end - first),
        )
        yield decoder.decode(batch).events
