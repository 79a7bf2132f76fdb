"""Models of trees for apps in memory, with what explains them; and a deployment as `headrace explain` sees it."""

from __future__ import annotations

import numpy as np

from headrace.assembly import explained_model
from headrace.definition import Pipeline
from headrace.memory_log import MemoryReader
from headrace.models import stamp
from headrace.predict.onnx_model import OnnxModel
from headrace.testing import Driver
from headrace.verify.subject import Subject
from tests.unit.predict.tree_files import grow, tree_file


def trees_for(pipeline: Pipeline, *, seed: int = 1, version: str = "1", scale: float = 20.0) -> bytes:
    """A stamped ensemble over the features of a pipeline, with a background; thresholds are a few times `scale`."""
    draw = np.random.default_rng(seed)
    width = len(pipeline.feature_names)
    forest = grow(draw, width, trees=8, depth=5)
    forest.values = [value * scale for value in forest.values]
    background = (draw.normal(size=(30, width)) * 2 * scale).astype(np.float32)
    background[draw.random(background.shape) < 0.2] = np.nan
    content = tree_file([forest.operator()], width)
    return stamp(content, pipeline, version=version, output="score", kind="value", background=background)


def model_for(pipeline: Pipeline, *, seed: int = 1, version: str = "1", scale: float = 20.0) -> OnnxModel:
    """The same, loaded."""
    return explained_model(trees_for(pipeline, seed=seed, version=version, scale=scale), pipeline)


def subject_of(driver: Driver) -> Subject:
    """The topics of a driver."""
    return Subject(
        reader=lambda: MemoryReader(driver.log),
        written_end=driver.log.end_offset,
        committed=lambda name: driver.log.committed(driver.app.name, name),
        topic_id=driver.log.topic_id,
        store=None,
        now_ms=lambda: driver.clock.monotonic_ns() // 1_000_000,
        pause=driver.clock.advance,
    )
