"""Whether a process lives and whether it is ready, and the small HTTP server that says so.

    /livez     200 while the loop has come round within 30 s, else 503: a restart would help. Never asks Kafka or Redis.
    /readyz    200 when nothing keeps it from serving, else 503; JSON with every reason and how far each catch-up is
    /metrics   what Prometheus scrapes

The server listens on 127.0.0.1 unless told otherwise, has threads of its own, and reads only what the loop has left behind for it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from headrace.errors import SettingsError
from headrace.types import TopicPartition

STALLED_AFTER_MS = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far one partition is on its way to go live."""

    topic: str
    partition: int
    position: int
    goes_live_at: int
    records_per_second: float
    seconds_left: float | None
    """None while it cannot be told."""

    @classmethod
    def of(cls, name: TopicPartition, *, start: int, position: int, goes_live_at: int, elapsed_ms: int) -> Progress:
        """Where a catch-up stands that began at offset `start`, `elapsed_ms` ago."""
        rate = (position - start) * 1_000 / elapsed_ms if elapsed_ms > 0 else 0.0
        left = max(goes_live_at - position, 0)
        return cls(
            topic=name.topic,
            partition=name.partition,
            position=position,
            goes_live_at=goes_live_at,
            records_per_second=round(rate, 1),
            seconds_left=round(left / rate, 1) if rate > 0 else None,
        )


class Health:
    """What the loop leaves behind for the probes. Written by the loop's thread, read by any."""

    def __init__(self, monotonic_ns: Callable[[], int], *, stalled_after_ms: int = STALLED_AFTER_MS) -> None:
        self._monotonic_ns = monotonic_ns
        self._stalled_after_ms = stalled_after_ms
        self._ticked_ns = monotonic_ns()
        self._waits_for: tuple[str, ...] = ("the worker is starting",)
        self._progress: tuple[Progress, ...] = ()

    def tick(self) -> None:
        """The loop has come round once more."""
        self._ticked_ns = self._monotonic_ns()

    def report(self, *, waits_for: Sequence[str], progress: Sequence[Progress] = ()) -> None:
        """What keeps the process from being ready (nothing: it is), and how far catch-ups are."""
        self._waits_for, self._progress = tuple(waits_for), tuple(progress)

    def quiet_ms(self) -> int:
        """How long ago the loop came round."""
        return (self._monotonic_ns() - self._ticked_ns) // 1_000_000

    def alive(self) -> bool:
        """Whether the loop has come round lately."""
        return self.quiet_ms() < self._stalled_after_ms

    def ready(self) -> bool:
        """Whether nothing keeps the process from serving."""
        return not self._waits_for and self.alive()

    def livez(self) -> tuple[bool, dict[str, object]]:
        """The answer of /livez."""
        return self.alive(), {"alive": self.alive(), "quiet_ms": self.quiet_ms()}

    def readyz(self) -> tuple[bool, dict[str, object]]:
        """The answer of /readyz."""
        alive = self.alive()
        reasons = [*self._waits_for, *([] if alive else [f"the loop has not come round for {self.quiet_ms() // 1000} s"])]
        return not reasons, {"ready": not reasons, "reasons": reasons, "catching_up": [asdict(progress) for progress in self._progress]}


class HealthServer:
    """Serves /livez, /readyz and /metrics from a thread until `close`.

    `exposition(accept)` gives content type and text of a scrape. `port` 0 takes a free one; `address` says where it listens.
    Raises `SettingsError` when the port is taken.
    """

    def __init__(
        self, health: Health, exposition: Callable[[str], tuple[str, bytes]], *, host: str = "127.0.0.1", port: int = 9464
    ) -> None:
        answers = _answers(health, exposition)
        try:
            self._server = _Server((host, port), type("_Handler", (_Requests,), {"answers": answers}))
        except OSError as error:
            text = f"cannot serve /metrics on {host}:{port} ({error.strerror}); set worker.http_port to a free port, or to 0"
            raise SettingsError(text) from error
        self.address: tuple[str, int] = (host, self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    status: HTTPStatus
    content_type: str
    body: bytes


def _answers(health: Health, exposition: Callable[[str], tuple[str, bytes]]) -> dict[str, Callable[[str], _Answer]]:
    """What is answered on each path, given the request's Accept header."""

    def told(probe: Callable[[], tuple[bool, dict[str, object]]]) -> _Answer:
        good, answer = probe()
        status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
        return _Answer(status=status, content_type="application/json", body=json.dumps(answer).encode() + b"\n")

    def scraped(accept: str) -> _Answer:
        content_type, body = exposition(accept)
        return _Answer(status=HTTPStatus.OK, content_type=content_type, body=body)

    return {"/livez": lambda _: told(health.livez), "/readyz": lambda _: told(health.readyz), "/metrics": scraped}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True


class _Requests(BaseHTTPRequestHandler):
    """One request. A client that sends nothing for five seconds is dropped."""

    answers: dict[str, Callable[[str], _Answer]]
    timeout = 5

    def do_GET(self) -> None:
        """Answer a path we know."""
        answer = self.answers.get(self.path.partition("?")[0])
        if answer is None:
            self.send_error(HTTPStatus.NOT_FOUND, "there are /livez, /readyz and /metrics")
            return
        told = answer(self.headers.get("Accept", ""))
        self.send_response(told.status)
        self.send_header("Content-Type", told.content_type)
        self.send_header("Content-Length", str(len(told.body)))
        self.end_headers()
        self.wfile.write(told.body)

    def log_message(self, *_: object) -> None:
        """Probes and scrapes come every few seconds; they are no events."""
