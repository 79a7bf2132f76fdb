"""The model: 100 boosted trees over the job's own features, trained by the same fold that serves them; deterministic, kept in build/."""

from __future__ import annotations

import hashlib
import itertools
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper, numpy_helper

from headrace.decode.decoder import Decoder
from headrace.definition import App, Pipeline
from headrace.features.training import event_vectors
from headrace.models import stamp
from headrace.types import EventBatch, RecordBatch
from tests.bench.cards import Job, app_of
from tests.bench.events import SEED, events

if TYPE_CHECKING:
    import lightgbm

TREES, LEAVES = 100, 31
EVENTS, BATCH = 60_000, 4_096
PARAMETERS = {
    "objective": "binary",
    "num_leaves": LEAVES,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "seed": SEED,
    "verbose": -1,
}


def stamped_model(app: App, kept: Path) -> bytes:
    """The model with the signature of this app's pipeline; the trees are trained once and kept in the folder `kept`."""
    (pipeline,) = app.pipelines
    (reference,) = app_of(Job(name="training", source="training")).pipelines
    recipe = json.dumps([PARAMETERS, TREES, EVENTS, reference.fingerprint, Path(__file__).read_text(encoding="utf-8")])
    file = kept / f"trees-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}.onnx"
    if not file.exists():
        kept.mkdir(parents=True, exist_ok=True)
        file.write_bytes(_trained(reference))
    first = len(reference.feature_names)
    trees = file.read_bytes() if len(pipeline.feature_names) == first else _of_the_first(file, first, len(pipeline.feature_names))
    return stamp(trees, pipeline, version="1", output="probabilities")


def _of_the_first(file: Path, taken: int, given: int) -> bytes:
    """The same trees for a vector that is longer behind: they look at its first features."""
    model = onnx.load(file)
    (vector,) = model.graph.input
    inside = f"first_{vector.name}"
    for node in model.graph.node:
        node.input[:] = [inside if name == vector.name else name for name in node.input]
    places = numpy_helper.from_array(np.arange(taken, dtype=np.int64), "taken")
    model.graph.initializer.append(places)
    model.graph.node.insert(0, helper.make_node("Gather", [vector.name, "taken"], [inside], axis=1))
    vector.type.tensor_type.shape.dim[1].dim_value = given
    return bytes(model.SerializeToString())


def _trained(pipeline: Pipeline) -> bytes:
    import lightgbm  # noqa: PLC0415 - only where there is no model yet

    frame = event_vectors(pipeline, _batches(pipeline))
    draw = np.random.default_rng(SEED)
    amounts = frame.values[:, [name.endswith("max_amount_1h") for name in frame.names]].sum(axis=1)
    chance = 1 / (1 + np.exp(-(amounts - 120) / 40))
    rows = frame.values.astype(np.float32)
    booster = lightgbm.train(PARAMETERS, lightgbm.Dataset(rows, draw.random(len(rows)) < chance), num_boost_round=TREES)
    return _onnx(booster, rows.shape[1])


def _onnx(booster: lightgbm.Booster, features: int) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter warns of its own dependencies
        from onnxmltools import convert_lightgbm  # noqa: PLC0415
        from onnxmltools.convert.common.data_types import FloatTensorType  # noqa: PLC0415

        initial = [("features", FloatTensorType([None, features]))]
        converted = convert_lightgbm(booster, name="fraud", initial_types=initial, zipmap=False, target_opset=15)
    return bytes(converted.SerializeToString())


def _batches(pipeline: Pipeline) -> Iterator[EventBatch]:
    decoder = Decoder(pipeline.source)
    source = events(EVENTS)
    first = 0
    while rows := list(itertools.islice(source, BATCH)):
        keys, values, times_ms = zip(*rows, strict=True)
        batch = RecordBatch(
            topic=pipeline.source.topic,
            partitions=np.zeros(len(rows), np.int32),
            offsets=np.arange(first, first + len(rows)),
            timestamps_ms=np.array(times_ms),
            keys=list(keys),
            values=list(values),
            headers=[None] * len(rows),
        )
        first += len(rows)
        yield decoder.decode(batch).events
