"""`headrace tail TOPIC`: the records of a topic, readably."""

from __future__ import annotations

import json
import signal
import threading
from contextlib import closing
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.output import Output

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from headrace.consume.kafka_reader import KafkaReader
    from headrace.types import LogRange, Record, RecordBatch, TopicPartition

SHOWN_BYTES, LAST = 2_000, 10

app = typer.Typer(help="Print the records of a topic readably.", add_completion=False, rich_markup_mode=None)


@app.command()
def tail(
    topic: Annotated[str, typer.Argument(help="The topic.")],
    limit: Annotated[int | None, typer.Option(min=1, help="End after so many records; else after 10, with --follow never.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for records to come, until interrupted.")] = False,
    beginning: Annotated[bool, typer.Option("--from-beginning", help="Begin at the oldest record instead of the last ones.")] = False,
    uncommitted: Annotated[bool, typer.Option("--uncommitted", help="Show aborted and pending records too.")] = False,
    config: Annotated[Path | None, typer.Option(help="Settings file; else headrace.toml, if it is there.")] = None,
    output: Annotated[Output, typer.Option(help="Text for people or a JSON object a line for programs.")] = Output.TEXT,
) -> None:
    """Print the last records of a topic (as a `read_committed` reader sees them), or those that come."""
    from headrace import log
    from headrace.apps.worker import kafka_properties
    from headrace.consume.kafka_reader import Isolation, KafkaReader
    from headrace.kafka_client import knock
    from headrace.settings import load

    settings = load(config).settings
    log.set_up(level="error", style="console", secrets=settings.secrets())
    knock(kafka_properties(settings))
    reader = KafkaReader(kafka_properties(settings), isolation=Isolation.UNCOMMITTED if uncommitted else Isolation.COMMITTED)
    try:
        ranges = {partition: reader.log_range(partition) for partition in reader.partitions(topic)}
        if follow:
            starts = {partition: found.start if beginning else found.end for partition, found in ranges.items()}
            with closing(reader.follow(starts, until_interrupted())) as coming:
                show(islice(one_by_one(coming), limit), output)
        else:
            show(those_there(reader, ranges, limit or LAST, beginning=beginning), output)
    except KeyboardInterrupt:
        return
    finally:
        reader.close()


def those_there(reader: KafkaReader, ranges: Mapping[TopicPartition, LogRange], most: int, *, beginning: bool) -> Iterable[Record]:
    """The first or the last records of what the partitions hold now."""
    # A marker may stand behind the last record of a transaction, so two offsets more are looked at.
    starts = {name: found.start if beginning else max(found.start, found.end - most - 2) for name, found in ranges.items()}
    records = one_by_one(reader.batches(starts, {partition: found.end for partition, found in ranges.items()}))
    return islice(records, most) if beginning else sorted(records, key=lambda record: record.timestamp_ms)[-most:]


def one_by_one(batches: Iterable[RecordBatch]) -> Iterator[Record]:
    """The records of batches."""
    return (record for batch in batches for record in batch.records())


def show(records: Iterable[Record], output: Output) -> None:
    """Print records as they come."""
    for record in records:
        typer.echo(line(record) if output is Output.JSON else text(record))


def until_interrupted() -> Callable[[], bool]:
    """Whether Ctrl-C was pressed, or SIGTERM came, since: asked for, as an exception may be raised where nobody takes it on."""
    interrupted = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: interrupted.set())
    return interrupted.is_set


def text(record: Record) -> str:
    """A record on a few lines: where, when and whose it is, its headers, its value; of a notice what it says, too."""
    from headrace.notices import notice_in, notice_text

    when = datetime.fromtimestamp(record.timestamp_ms / 1_000, UTC).isoformat(timespec="milliseconds")
    head = f"{record.topic}-{record.partition} offset {record.offset} {when} key {readable(record.key)}"
    headers = [f"    {name}: {readable(value)}" for name, value in record.headers]
    notice = notice_in(record.value)
    said = [] if notice is None else [f"    = {notice_text(notice)}"]
    return "\n".join([head, *headers, f"    {readable(record.value)}", *said])


def line(record: Record) -> str:
    """A record as one JSON object; the hash is of all its bytes, also those that are not shown, for `headrace verify --seen`."""
    from headrace.verify.seen import fingerprint

    return json.dumps(
        {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "timestamp_ms": record.timestamp_ms,
            "key": readable(record.key),
            "headers": [[name, readable(value)] for name, value in record.headers],
            "value": readable(record.value),
            "sha256": fingerprint(record.key, record.value, record.headers, record.timestamp_ms),
        }
    )


def readable(value: bytes | None) -> str:
    """Bytes as text without control characters; long ones are cut."""
    if value is None:
        return "(null)"
    cut = value[:SHOWN_BYTES].decode(errors="backslashreplace")
    shown = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in cut)
    return shown + (f"... ({len(value):,} bytes)" if len(value) > SHOWN_BYTES else "")
