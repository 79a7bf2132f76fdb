"""The log of a process: one line per event, JSON for machines or aligned text for people, on standard error.

    say = logger("worker").info
    say("partition live", partition="flights-3", caught_up_events=1200)

What other libraries log through the standard library takes the same way out. Secrets are kept out twice: fields with a telling name
are blanked, and every known secret value is cut out of every text, exceptions included.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable
from typing import IO, Any
from urllib.parse import quote

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

HIDDEN = "***"

_TELLING = re.compile(r"passw|passphrase|secret|token|credential|private.?key", re.IGNORECASE)
_SHORTEST = 3


class Redaction:
    """Cuts known secrets out of texts. A secret shorter than three characters cannot be cut out without eating the text, and is not."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {form for secret in secrets if len(secret) >= _SHORTEST for form in (secret, quote(secret, safe=""))}
        longest_first = sorted(forms, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if forms else None

    def text(self, text: str) -> str:
        """The text without any known secret."""
        return self._known.sub(HIDDEN, text) if self._known else text

    def fields(self, found: object) -> object:
        """The same for everything inside of dicts and lists; what has a telling name is blanked whole."""
        if isinstance(found, str):
            return self.text(found)
        if isinstance(found, dict):
            return {key: HIDDEN if _telling(key) and value is not None else self.fields(value) for key, value in found.items()}
        if isinstance(found, list | tuple | set | frozenset):
            return [self.fields(value) for value in found]
        if found is None or isinstance(found, bool | int | float):
            return found
        return self.text(str(found))

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        """A step in structlog's chain."""
        kept = {key: value for key, value in event.items() if key.startswith("_") or key == "exc_info"}
        told = {key: value for key, value in event.items() if key not in kept}
        told = {key: HIDDEN if _telling(key) and value is not None else self.fields(value) for key, value in told.items()}
        return told | kept


_known = Redaction()


def without_secrets(text: str) -> str:
    """A text without the secrets that `set_up` was told, for what is said beside the log."""
    return _known.text(text)


def set_up(*, level: str = "info", style: str = "json", secrets: Iterable[str] = (), stream: IO[str] | None = None) -> None:
    """Send every event of `level` and above to `stream` (standard error), as "json" or as text for a "console"."""
    global _known  # noqa: PLW0603 - one log a process, as everything that is set up here
    _known = redaction = Redaction(secrets)
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        structlog.processors.format_exc_info,
        redaction,
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _first_things_first, _renderer(style), _one_line],
    )
    outlet = logging.StreamHandler(stream or sys.stderr)
    outlet.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [outlet]
    root.setLevel(level.upper())
    logging.captureWarnings(capture=True)
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def logger(name: str, **fields: object) -> structlog.stdlib.BoundLogger:
    """A logger whose events carry `name` and `fields`: `logger("worker", slot="0").info("event", field=...)`."""
    bound: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(f"headrace.{name}").bind(**fields)
    return bound


def _renderer(style: str) -> Processor:
    if style == "json":
        return structlog.processors.JSONRenderer(default=str, sort_keys=False)
    return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=28)


def _first_things_first(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """When, how grave, what; then the fields in the order they were given."""
    head = {key: event[key] for key in ("at", "level", "event", "logger") if key in event}
    return {**head, **event}


def _one_line(_logger: WrappedLogger, _method: str, rendered: Any) -> str:  # noqa: ANN401 - structlog has no type for what a renderer made
    """No text breaks the line: an event is a line, whoever reads them."""
    return str(rendered).replace("\r", "\\r").replace("\n", "\\n")


def _telling(key: object) -> bool:
    return isinstance(key, str) and _TELLING.search(key) is not None
