"""Where calls that wait for the outside world run: in a thread of their own, or at once, in tests and in the embedded engine."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

Answer_co = TypeVar("Answer_co", covariant=True)


class Outcome(Protocol[Answer_co]):
    """The answer of a call that may still be running."""

    def done(self) -> bool:
        """Whether `result` answers without waiting."""

    def result(self) -> Answer_co:
        """Wait for the call; gives its answer or raises what it raised."""


class Executor(Protocol):
    """Runs calls one after another, in the order they were submitted."""

    def submit(self, call: Callable[..., Any], /, *arguments: object) -> Outcome[Any]:
        """Queue a call."""

    def close(self) -> None:
        """Wait for what is queued, then end."""


class ThreadExecutor:
    """One thread: calls run beside the hot thread, one after another."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"headrace-{name}")

    def submit(self, call: Callable[..., Any], /, *arguments: object) -> Outcome[Any]:
        """Queue a call for the thread."""
        return self._pool.submit(call, *arguments)

    def close(self) -> None:
        """Wait for what is queued, then end the thread."""
        self._pool.shutdown(wait=True)


class _Done:
    """An answer that is already there."""

    __slots__ = ("_answer", "_error")

    def __init__(self, answer: object, error: Exception | None) -> None:
        self._answer = answer
        self._error = error

    def done(self) -> bool:
        return True

    def result(self) -> object:
        if self._error is not None:
            raise self._error
        return self._answer


class InlineExecutor:
    """Runs each call when it is submitted, in the caller's thread."""

    def submit(self, call: Callable[..., Any], /, *arguments: object) -> Outcome[Any]:
        """Run the call now."""
        try:
            return _Done(call(*arguments), None)
        except Exception as error:  # noqa: BLE001 - it is raised again by result(), where a thread's would be
            return _Done(None, error)

    def close(self) -> None:
        """Nothing is ever queued."""
