"""`make bench-verify`: how fast and how small `headrace verify` is over a million events of a real stack. Asserts nothing."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from headrace.local_stack import Stack
from headrace.types import Delivery
from tests.bench.__main__ import BUILD, SOURCE, fill, say
from tests.bench.cards import JOB, Job
from tests.bench.worker import WorkerProcess, create_topics, python_path


def main() -> None:
    """Fill, let a worker work, verify, print."""
    parser = argparse.ArgumentParser(prog="make bench-verify ARGS=...", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000, help="events (%(default)s)")
    parser.add_argument("--features", action="store_true", help="publish the feature vector in each prediction")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="headrace-bench-"))
    stack: Stack | None = None
    try:
        stack = Stack.up(folder / "stack", say=say)
        create_topics(stack, SOURCE)
        say(f"writing {options.events:,} events")
        fill(stack, options.events)
        job = Job(name="verified", source=SOURCE, publish_features=options.features)
        with WorkerProcess(stack, job, Delivery.EXACTLY_ONCE, models=BUILD / "bench", settings={}) as worker:
            say(f"the worker: {worker.throughput(options.events).eps:,.0f} events/s")
            job = worker.job
        environment = {
            **python_path(),
            JOB: job.to_text(),
            "HEADRACE_KAFKA__BOOTSTRAP_SERVERS": stack.bootstrap,
            "HEADRACE_REDIS__URL": stack.redis.url,
        }
        command = [sys.executable, "-m", "headrace", "verify", "--app", "tests.bench.worker_app:app", "--output", "json"]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, cwd=folder)
        assert process.stdout is not None
        told = json.loads(process.stdout.read())
        _, status, used = os.wait4(process.pid, 0)
        seconds = told["seconds"]
        say(json.dumps({name: told[name] for name in ("sound", "invariants", "checked", "counts", "not_checked")}))
        rate, peak_mb = options.events / seconds, used.ru_maxrss // 1_024
        say(f"verify: exit code {os.waitstatus_to_exitcode(status)}, {seconds:.1f} s, {rate:,.0f} events/s, peak {peak_mb} MB")
    finally:
        if stack is not None:
            stack.down()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
