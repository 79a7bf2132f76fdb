"""Another address of a server, opened late: for a first contact; clients then go where the broker says that it is."""

from __future__ import annotations

import socket
import threading
from types import TracebackType
from typing import Self

LOOK_S = 0.1


class Door:
    """Listens on `port` while it is open and passes every connection on to `target`, both on this machine."""

    def __init__(self, port: int, target: int) -> None:
        self._port, self._target = port, target
        self._closed = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        """Open it."""
        listener = socket.create_server(("127.0.0.1", self._port))
        listener.settimeout(LOOK_S)
        self._run(self._serve, listener)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close it, with every connection."""
        self._closed.set()
        for thread in self._threads:
            thread.join(10)

    def _run(self, work: object, *arguments: socket.socket) -> None:
        assert callable(work)
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self, listener: socket.socket) -> None:
        with listener:
            while not self._closed.is_set():
                try:
                    inside, _ = listener.accept()
                except TimeoutError:
                    continue
                outside = socket.create_connection(("127.0.0.1", self._target))
                self._run(self._pump, inside, outside)
                self._run(self._pump, outside, inside)

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        try:
            source.settimeout(LOOK_S)
            while not self._closed.is_set():
                try:
                    piece = source.recv(65_536)
                except TimeoutError:
                    continue
                if not piece:
                    return
                target.sendall(piece)
        except OSError:  # the other direction has ended, and closed both
            return
        finally:
            source.close()
            target.close()
