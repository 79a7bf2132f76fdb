"""How a command prints what it found: for people, or as JSON and nothing else on standard output."""

from __future__ import annotations

from enum import StrEnum


class Output(StrEnum):
    """Text for people, JSON for programs."""

    TEXT = "text"
    JSON = "json"
