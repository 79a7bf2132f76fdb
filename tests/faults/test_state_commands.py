"""What operators do to the state while workers are at work."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.faults.harness import Make
from tests.faults.processes import KEPT, ROOT


def test_a_state_that_was_dropped_is_rebuilt(trial: Make) -> None:
    """`headrace state rebuild` under load: the workers fold everything again, and no prediction is lost, repeated or wrong."""
    run = trial()
    run.prepare()
    run.load(run.records(10_000), wait=True)
    for slot in range(2):
        run.start(slot)
    run.wait_passed(4_000)
    environment = {name: os.environ[name] for name in KEPT if name in os.environ} | run.settings
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (ROOT / "services", ROOT)))
    command = [sys.executable, "-m", "headrace", "state", "rebuild", "--app", "started:app"]
    wrong = subprocess.run(
        [*command, "--partition", "elsewhere-0"], cwd=run.folder, env=environment, capture_output=True, text=True, check=False
    )
    assert (wrong.returncode, f"{run.source}-0" in wrong.stderr) == (2, True), wrong.stderr
    done = subprocess.run(command, cwd=run.folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"dropped the state of {run.source}-3" in done.stdout
    run.wait_drained()
    figures = run.verdict()
    rebuilt = {line["partition"] for worker in run.workers for line in worker.said("partition catches up") if line["rebuilt"]}
    assert len(rebuilt) == run.partitions
    assert figures["catch_ups"] >= run.partitions
