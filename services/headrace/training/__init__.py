"""From history to rows a model is trained on: the features as they were served, or as of any instant, with the outcomes beside them.

    history.py    where events come from: topics, files, frames in memory
    archive.py    topics in files
    tables.py     files and frames as columns of a contract
    look_ups.py   what would have been looked up in other sources
    served.py     how far that is from what was
    labels.py     which outcome belongs to which row
    frame.py      the rows and where they come from, as an Arrow table
    building.py   `training_frame`: all of it together
    files.py      a frame as a folder of files
    spark.py      `write_training_set`: the same by Apache Spark; its plan in spark_frame.py, what its tasks do in spark_tasks.py
    leakage.py    does a row know anything that came after it?
    skew.py       two frames of the same events, row by row
    grid.py       features on a grid of time, for analysts
    previewing.py `preview`: values, their distribution (distribution.py) and how they go with an outcome; preview_shown.py shows it
    scenarios.py  `scenario`: what another model, threshold or input would have changed; changed_inputs.py, span.py, versions.py say which,
                  replaying.py folds, served_scores.py compares with what was served, what_changed.py and grading.py tell it,
                  scenario_shown.py and scenario_chart.py show it
    retraining.py  a span of a frame, the recipe that trains on it, and how good the result is beside the version before
    course.py     one entity's features over time; chart.py draws them, the home of matplotlib

The fold itself is `features/training.py`. This folder is the home of pyarrow, which comes with `headrace[training]`.
"""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("pyarrow") is None:
    raise ModuleNotFoundError("training sets need pyarrow: pip install 'headrace[training]'", name="pyarrow")

from headrace.training.building import training_frame
from headrace.training.frame import TrainingFrame
from headrace.training.history import Topics
from headrace.training.previewing import Preview, preview
from headrace.training.scenarios import Scenario, scenario
from headrace.training.spark import write_training_set

__all__ = ["Preview", "Scenario", "Topics", "TrainingFrame", "preview", "scenario", "training_frame", "write_training_set"]
