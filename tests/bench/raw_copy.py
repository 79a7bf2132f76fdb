"""The limit: the client library copies the records of a topic and does nothing else, with a transaction a batch or without.

Run with a `Copy` as JSON for its argument, it prints one line of JSON. Settings and batch sizes are those of its best case: nothing is
looked at but key and value, positions are the client's own, no headers, no timestamps, no compression, no checks.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, Message, Producer, TopicPartition

from tests.bench.cards import PARTITIONS

NAME = "raw-copy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """What to copy."""

    bootstrap: str
    source: str
    target: str
    records: int
    batch: int
    transactions: bool


def consumer(bootstrap: str) -> Consumer:
    """A consumer that fetches ahead as much as it can."""
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": NAME,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.queue.backoff.ms": 5,
            "queued.min.messages": 100_000,
            "fetch.wait.max.ms": 10,
        }
    )


def producer(bootstrap: str, *, transactions: bool) -> Producer:
    """A producer that batches as much as it can."""
    only: dict[str, Any] = {"transactional.id": NAME} if transactions else {"enable.idempotence": True}
    settings: dict[str, Any] = {
        "bootstrap.servers": bootstrap,
        "linger.ms": 0,
        "retry.backoff.ms": 1,
        "retry.backoff.max.ms": 5,
        "queue.buffering.max.messages": 1_000_000,
        "batch.num.messages": 10_000,
        "acks": "all",
    }
    return Producer(settings | only)


def rate(wanted: Copy) -> float:
    """Records a second."""
    source, sink = consumer(wanted.bootstrap), producer(wanted.bootstrap, transactions=wanted.transactions)
    if wanted.transactions:
        sink.init_transactions(10)
    source.assign([TopicPartition(wanted.source, number, 0) for number in range(PARTITIONS)])
    first: Message | None = None
    while first is None:
        first = source.poll(0.1)
    copied = 0
    began = time.perf_counter()
    while copied < wanted.records - 1:
        messages = source.consume(wanted.batch, 0.02)
        if not messages:
            continue
        if wanted.transactions:
            sink.begin_transaction()
        produce = sink.produce
        for message in messages:
            produce(wanted.target, message.value(), message.key())
        sink.poll(0)
        if wanted.transactions:
            sink.send_offsets_to_transaction(source.position(source.assignment()), source.consumer_group_metadata(), 10)
            sink.commit_transaction(10)
        copied += len(messages)
    sink.flush()
    return copied / (time.perf_counter() - began)


if __name__ == "__main__":
    print(json.dumps({"eps": rate(Copy(**json.loads(sys.argv[1])))}), flush=True)
    os._exit(0)  # what is still queued is of no use to anybody
