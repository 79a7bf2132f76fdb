"""`headrace.write_training_set`: a training frame of a log that is larger than one machine, made by Apache Spark.

    files -> decode -> watermark -> labels -> shuffle by entity -> fold -> rows in the order of partition and offset -> files

Spark reads, shuffles, sorts and writes; the fold in the middle is the one that serves (`spark_tasks.py`), so rows and hash are those of
`headrace.training_frame` on the same files, bit for bit. What needs more than the events of one entity is worked out before: the watermark
that each event finds is a running maximum over its partition, and decides what is late.

Limits: Parquet in, Parquet out; a row an event, no answers to questions (`at=`); views of several entities from a table only, as the hops
of a log have an order of their own; nothing of another source (`look_up`); the folder that is written is on a file system that driver and
executors share. PySpark comes with `headrace[spark]`, in an environment of its own, as it wants an older pandas.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.definition import App, Pipeline
from headrace.errors import DefinitionError
from headrace.expression import Expression
from headrace.training.building import chosen_pipeline
from headrace.training.frame import TrainingFrame, lineage_in
from headrace.training.history import Topics

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROWS_A_FILE = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingFiles:
    """What was written, and where it comes from."""

    path: Path
    lineage: dict[str, Any]
    """As that of a `TrainingFrame`."""

    def read(self) -> TrainingFrame:
        """All of it into memory; the hash is checked."""
        return TrainingFrame.read(self.path)


def write_training_set(
    app: App | Pipeline,
    *,
    session: SparkSession,
    events: Topics | str | Path,
    to: str | Path,
    labels: Topics | str | Path | Expression | None = None,
    pipeline: str | None = None,
    label_time: str | None = None,
    rows_a_file: int = ROWS_A_FILE,
    told: Callable[[str], None] = lambda _: None,
) -> TrainingFiles:
    """Point-in-time rows of a pipeline, a row an event, as `training_frame` makes them, into the new folder `to`.

    `session`: a classic Spark session; its settings stay as they are. `events`: `Topics.archived(...)`, or Parquet files with the fields of
    the source's contract: a path, a folder, a glob, or an address that Spark reads. `labels`: the same for outcomes, or an expression over
    columns of the events' files. `rows_a_file`: about so many. `told` hears what is being done. The folder appears when it is complete;
    until then it is `<to>.partial`. Raises `DefinitionError` for what does not fit the definitions, and for a folder that is there already.
    """
    if find_spec("pyspark") is None:
        raise ModuleNotFoundError("this needs pyspark: pip install 'headrace[spark]', in an environment of its own", name="pyspark")
    from headrace.training.spark_frame import Work  # noqa: PLC0415 - without Spark there is nothing to load

    target = Path(to)
    if target.exists():
        raise DefinitionError(f"{target} is there already; name another folder, or remove it")
    chosen = chosen_pipeline(app, pipeline)
    if chosen.look_up is not None:
        raise DefinitionError(f"{chosen!r} looks views of another source up, which Spark cannot do; make the frame in one process")
    work = Work(app, chosen, session=session, events=events, labels=labels, label_time=label_time, told=told)
    return TrainingFiles(path=target, lineage=lineage_in(work.write(target, rows_a_file)))
