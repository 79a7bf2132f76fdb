"""Worker processes of a test: started, killed and ended by pid, everything written into a journal of JSON lines."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headrace.local_process import _started

ROOT = Path(__file__).resolve().parents[2]
KEPT = ("HOME", "LANG", "NUMBA_CACHE_DIR", "PATH", "TMPDIR", "TZ", "VIRTUAL_ENV", "XDG_CACHE_HOME")
RUN_WORKER = ("-m", "headrace", "run", "worker", "--app", "started:app", "--slot")
LEAVING = ("-m", "headrace", "run", "worker", "--leave", "--app", "started:app", "--slot")


class Journal:
    """What happened in a test, in order: every start, exit and fault."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def note(self, what: str, **fields: object) -> None:
        """Write a line."""
        with self.path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"at_ns": time.monotonic_ns(), "what": what, **fields}, default=str) + "\n")


class WorkerProcess:
    """One process that runs a slot; leads a process group of its own."""

    def __init__(
        self, *, number: int, slot: str, folder: Path, journal: Journal, command: tuple[str, ...], settings: Mapping[str, str]
    ) -> None:
        self.number, self.slot = number, slot
        self.log = folder / f"worker-{number}.log"
        self._ending = False
        self.killed_s: float | None = None
        self.peak_mb = 0.0
        self.begun_s = time.time()
        """When it was started, by the clock that its log shows."""
        self._journal = journal
        environment = {name: os.environ[name] for name in KEPT if name in os.environ}
        environment |= {"PYTHONPATH": os.pathsep.join(map(str, (ROOT / "services", ROOT))), **settings}
        with self.log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, *command, slot],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.pid = self._process.pid
        # The next run ends what is left of a dead one, by this.
        self._record = folder / f"worker-{number}.json"
        self._record.write_text(json.dumps({"pid": self.pid, "started": _started(self.pid)}), encoding="utf-8")
        journal.note("start", worker=number, slot=slot, pid=self.pid, command=command, log=self.log)

    @property
    def ending(self) -> bool:
        """Whether the test has asked for its end."""
        return self._ending

    @ending.setter
    def ending(self, asked: bool) -> None:
        if asked and not self._ending:
            self._journal.note("ending", worker=self.number)
        self._ending = asked

    @property
    def exit_code(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        self._look_at_memory()
        return self._process.poll()

    def kill(self) -> None:
        """Kill -9, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        self.gone()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal that is meant to end it."""
        self.ending = True
        self._look_at_memory()
        self._journal.note("fault", worker=self.number, pid=self.pid, signal=number.name)
        self._process.send_signal(number)

    def end(self) -> None:
        """Whatever became of it: gone, and its group with it."""
        if self._process.poll() is None:
            self.ending = True
            os.killpg(self.pid, signal.SIGKILL)
        self.gone()

    def pause(self) -> None:
        """Freeze it."""
        self._process.send_signal(signal.SIGSTOP)

    @property
    def frozen(self) -> bool:
        """Whether it is stopped."""
        return Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] == "T"

    def resume(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    def gone(self) -> None:
        """Wait until it is, and write that down."""
        self._process.wait(timeout=20)
        if not self._record.exists():
            return
        self._record.unlink()
        if self._process.returncode == -signal.SIGKILL:
            self.killed_s = time.monotonic()
        self._journal.note("exit", worker=self.number, pid=self.pid, code=self._process.returncode, peak_mb=self.peak_mb)

    def lines(self) -> list[dict[str, Any]]:
        """What it logged; a line that is no JSON (a traceback, a last word) is {"text": line}."""
        found: list[dict[str, Any]] = []
        for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                event = {"text": line}
            found.append(event if isinstance(event, dict) else {"text": line})
        return found

    def said(self, event: str) -> list[dict[str, Any]]:
        """The lines about one event."""
        return [line for line in self.lines() if line.get("event") == event]

    def ask(self, path: str) -> tuple[int, str]:
        """Ask its probes: status and text of the answer."""
        address = str(self.said("worker starts")[0]["probes"]).removeprefix("http://")
        connection = http.client.HTTPConnection(address, timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def last_words(self) -> str:
        """The end of its log, for people; of one that lives also where each of its threads is."""
        said = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-12:]
        if self.exit_code is None:
            before = self.log.stat().st_size
            self._process.send_signal(signal.SIGUSR1)
            until, seen, now = time.monotonic() + 5, -1, before
            while (now == before or now != seen) and time.monotonic() < until:
                time.sleep(0.05)
                seen, now = now, self.log.stat().st_size
            said += self.log.read_bytes()[before:].decode(errors="replace").splitlines()
        return "\n".join(said)

    def _look_at_memory(self) -> None:
        try:
            status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        except FileNotFoundError:
            return
        peak = next((line for line in status.splitlines() if line.startswith("VmHWM:")), None)
        if peak is not None:
            self.peak_mb = max(self.peak_mb, int(peak.split()[1]) / 1_024)
