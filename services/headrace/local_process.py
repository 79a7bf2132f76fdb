"""A program that outlives the command which started it, and is ended by nobody else's mistake.

The pid and the moment the kernel started that process are written down; a process counts as ours only while both still agree, so a pid
that was given to another program since is never signalled. It runs in a session of its own, its output in a file.
Limit: start times are read from /proc, elsewhere by `ps`, whose resolution is a second.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from headrace.errors import FatalError

_PAUSE_S = 0.02


def wait_until(condition: Callable[[], bool], *, what: str, deadline_s: float) -> None:
    """Wait for a condition. Raises `FatalError` that names it when it has not come true `deadline_s` seconds from now."""
    until = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > until:
            raise FatalError(f"{what}: not so after {deadline_s:g} s")
        time.sleep(_PAUSE_S)


class LocalProcess:
    """One long-running program, known by a file: whoever opens the file later can ask, stop or kill it."""

    def __init__(self, record: Path) -> None:
        self._record = record

    @property
    def pid(self) -> int | None:
        """The pid while the process we started runs, paused or not; None when it never did or has ended."""
        try:
            known = json.loads(self._record.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        pid = int(known["pid"])
        _reap(pid)
        started = _started(pid)
        return pid if started is not None and started == known["started"] else None

    def start(self, arguments: Sequence[str | Path], *, environment: Mapping[str, str], output: Path) -> int:
        """Start it, output appended to a file. Raises `FatalError` when it runs already or cannot be started."""
        if self.pid is not None:
            raise FatalError(f"{self._record.parent.name} runs already, pid {self.pid}")
        words = [str(argument) for argument in arguments]
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        try:
            # Not subprocess.Popen: its object would complain, when collected, that the process lives on. That is the purpose.
            pid = os.posix_spawn(
                words[0],
                words,
                dict(environment),
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, str(output), append, 0o600),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                ],
                setsid=True,
                setsigmask=[],
                setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGPIPE],
            )
        except OSError as error:
            raise FatalError(f"cannot start {words[0]}: {error.strerror}") from error
        fresh = self._record.with_suffix(".new")
        fresh.write_text(json.dumps({"pid": pid, "started": _started(pid), "arguments": words}, indent=1), encoding="utf-8")
        fresh.replace(self._record)
        return pid

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal; False when the process has ended."""
        pid = self.pid
        if pid is None:
            return False
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return False
        return True

    def stop(self, deadline_s: float = 20.0) -> bool:
        """Ask it to end and wait, then kill it. False when it had ended before."""
        if not self.signal(signal.SIGTERM):
            return False
        self.signal(signal.SIGCONT)
        try:
            wait_until(lambda: self.pid is None, what=f"{self._record.parent.name} ends after SIGTERM", deadline_s=deadline_s)
        except FatalError:
            self.kill()
        return True

    def kill(self) -> bool:
        """End it with SIGKILL and wait until it is gone. False when it had ended before."""
        if not self.signal(signal.SIGKILL):
            return False
        wait_until(lambda: self.pid is None, what=f"{self._record.parent.name} ends after SIGKILL", deadline_s=20.0)
        return True


def _reap(pid: int) -> None:
    """A child that ended stays a zombie until its parent asks; a process that is no child of ours has another parent for that."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


def _started(pid: int) -> str | None:
    """When the kernel started a process, as text to compare; None when there is none, or only a zombie."""
    proc = Path("/proc")
    if (proc / "self" / "stat").exists():
        try:
            stat = (proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return None
        # The second field is the program's name in brackets and may hold anything, so count from the last bracket on.
        fields = stat.rpartition(")")[2].split()
        state, ticks_since_boot = fields[0], fields[19]
        if state in "ZX" and not _threads_left(proc / str(pid)):
            return None
        boot = (proc / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{ticks_since_boot} ticks after boot {boot}"
    answer = subprocess.run(["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, since = answer.stdout.strip().partition(" ")
    return None if not state or state.startswith("Z") else since.strip()


def _threads_left(process: Path) -> bool:
    """Whether a zombie still has threads that end: until they have, its ports and files are open (a killed JVM takes a moment)."""
    try:
        return len(list((process / "task").iterdir())) > 1
    except FileNotFoundError:
        return False
