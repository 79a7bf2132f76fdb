"""A Spark of one's own: started for a command, on this machine or on a cluster.

On this machine it listens on the loopback address alone, has no web page, and runs tasks with the Python that asks; a cluster is as its own
settings say. Whoever has a session already needs nothing of this.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from pyspark.errors import PySparkRuntimeError
from pyspark.sql import SparkSession

from headrace.errors import DefinitionError
from headrace.local_programs import JAVA_AT_LEAST, MissingProgram

_HERE = {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1", "spark.ui.enabled": "false"}
_QUIET = {"spark.log.level": "FATAL"}
"""What goes wrong is raised; Spark's own log says it ten times more, in Java."""
_ANY_PYTHON = "python3"
"""What PySpark runs tasks with when nobody says what to."""


def start(master: str | None, settings: Mapping[str, str], *, progress: bool) -> SparkSession:
    """A session; without `master` where Spark's own settings say, else on all cores here. `settings` come last and win.

    Raises `MissingProgram` without Java, `DefinitionError` for a master or a setting that Spark refuses.
    """
    own = {"spark.app.name": "headrace training-set", "spark.ui.showConsoleProgress": str(progress).lower(), **_QUIET}
    if master is None or master.startswith("local"):
        own |= _HERE
    if master is not None:
        own["spark.master"] = master
    builder = SparkSession.builder
    for name, value in (own | dict(settings)).items():
        builder = builder.config(name, value)
    try:
        session = builder.getOrCreate()
    except PySparkRuntimeError as error:
        if "JAVA_GATEWAY_EXITED" not in str(error):
            raise
        raise MissingProgram(
            f"Spark did not start; it needs Java {JAVA_AT_LEAST} or newer (what it said stands above): "
            "apt-get install openjdk-17-jre-headless (macOS: brew install openjdk@17)"
        ) from error
    except Exception as error:  # of Java, by way of the gateway
        if type(error).__module__.partition(".")[0] not in {"py4j", "pyspark"}:
            raise
        raise DefinitionError(f"Spark refuses its settings: {_first_line(error)}") from error
    spark = session.sparkContext
    if spark.pythonExec == _ANY_PYTHON:
        of_tasks = sys.executable if spark.master.startswith("local") else _ANY_PYTHON
        spark.pythonExec = spark.getConf().get("spark.pyspark.python") or of_tasks
    return session


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if "Exception" in line), str(error).partition("\n")[0])
