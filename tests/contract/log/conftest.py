"""The suite of this folder runs on the log in memory and on a real Kafka."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.log.kits import KafkaKit, Kit, MemoryKit


@pytest.fixture(params=["memory", "kafka"])
def kit(request: pytest.FixtureRequest) -> Iterator[Kit]:
    """One of the two implementations."""
    kit: Kit = MemoryKit() if request.param == "memory" else KafkaKit(request.getfixturevalue("kafka").address)
    yield kit
    kit.close()


@pytest.fixture(params=["classic", "consumer"])
def kafka_kit(request: pytest.FixtureRequest) -> Iterator[KafkaKit]:
    """A real Kafka, with each group protocol."""
    kit = KafkaKit(request.getfixturevalue("kafka").address, group_protocol=request.param)
    yield kit
    kit.close()
