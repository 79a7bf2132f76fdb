"""Trials on the servers of the run, or on servers of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.local_stack import KafkaServer, RedisServer
from tests.faults.harness import Figures, Make, Trial


@pytest.fixture
def trial(request: pytest.FixtureRequest, run_folder: Path, unique_name: str, seed: int) -> Iterator[Make]:
    """Makes trials, on the shared servers unless told otherwise, and ends all their processes; their figures are shown at the end."""
    made: list[Trial] = []

    def show(figures: Figures) -> None:
        request.node.user_properties.append(("figures", figures))

    def make(*, kafka: KafkaServer | None = None, redis: RedisServer | None = None, **wishes: Any) -> Trial:
        log, store = kafka or request.getfixturevalue("kafka"), redis or request.getfixturevalue("redis")
        folder = run_folder / f"trial-{unique_name}"
        made.append(Trial(folder, log, store, name=unique_name, seed=seed, record=show, **wishes))
        return made[-1]

    yield make
    for one in made:
        one.close()
