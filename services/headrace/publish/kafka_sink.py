"""`RecordSink` on Kafka: with transactions, and at least once.

A transactional sink is as good as its handling of errors. A commit answers only what is certain:

    no error                                        COMMITTED
    the transaction must be aborted (a rebalance,   abort; ABORTED if that was certain
    a record that was not taken, a time-out ...)
    a right is missing                              abort, BrokerRefused: it would be missing for ever
    fatal, and it says that we are fenced           FENCED
    anything else                                   UNKNOWN

After FENCED and UNKNOWN nothing but `open` helps: a new producer with the same id aborts what may be pending. Why it came to that is told
to the log. An abort that comes while the first records of a transaction still wait to be let into it ends so too (INVALID_TXN_STATE).

librdkafka has no KIP-890: the request that ends a transaction, once delayed on a broken connection, can end the *next* one. So when a
connection broke or the commit took longer than a request may take, the answer stands, and `begin` makes a new producer first.

Limits: `commit` and `abort` try three times as long as `transaction.timeout.ms` for a broker that is away. Librdkafka may wait for ever
where a coordinator restarts meanwhile: for offsets it has no time-out (its issue 5456), and an abort was seen to hang for over a minute. So
each call has a deadline of ours; past it nothing is known, and the thread that waits is left alone with a producer that nobody will use.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from headrace import commit_metadata
from headrace.consume.record_source import GroupMetadata
from headrace.errors import TransientError
from headrace.kafka_client import NO_RIGHT, Properties, reason, refuse_fixed, translate
from headrace.publish.kafka_outbox import KafkaOutbox
from headrace.publish.record_sink import CommitResult
from headrace.types import OutRecords, Position, TopicPartition

_DEFAULTS: Properties = {
    "compression.type": "lz4",  # a commit of 16,384 predictions takes 27 ms; 47 uncompressed, 129 with zstd
    "linger.ms": 5,
    "queue.buffering.max.kbytes": 65_536,
}
_TRANSACTIONAL_DEFAULTS: Properties = {
    "transaction.timeout.ms": 8_000,
    "retry.backoff.ms": 1,  # the pause after "the last transaction still ends", which every small one meets: by default 100
    "retry.backoff.max.ms": 5,
}
_FIXED: Properties = {
    "enable.idempotence": True,
    "acks": "all",
    "partitioner": "murmur2_random",
    "delivery.report.only.error": True,
}
_TRIES = 3
_OPEN_S, _OPEN_SLICE_S = 20.0, 1.0
"""How long `open` tries, and after how long it looks whether it was refused."""
_FENCED = frozenset(
    {KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.TRANSACTION_COORDINATOR_FENCED}
)


class KafkaTransactionalSink:
    """A transactional producer. `transactional_id` is `<app>.<slot>`: stable, and nobody else's."""

    def __init__(self, properties: Properties, *, transactional_id: str, say: Callable[..., None]) -> None:
        """`say(event, **fields)` hears why a transaction did not end as it should."""
        refuse_fixed(properties)
        self._configuration: dict[str, Any] = {
            **_DEFAULTS,
            **_TRANSACTIONAL_DEFAULTS,
            "client.id": f"headrace-{transactional_id}",
            **properties,
            **_FIXED,
            "transactional.id": transactional_id,
        }
        timeout_ms = int(self._configuration["transaction.timeout.ms"])
        self._patience_s = _TRIES * timeout_ms / 1_000
        self._request_s = int(self._configuration.setdefault("socket.timeout.ms", max(1_000, timeout_ms - 100))) / 1_000
        self._id = transactional_id
        self._say = say
        self._outbox: KafkaOutbox | None = None
        self._let_in = False
        self._worn = False
        self._begun = False

    def open(self) -> None:
        """A new producer: it fences the older ones and aborts what they left pending."""
        self.close()
        opening = KafkaOutbox(self._configuration, let_in=self._let_in)
        doing = f"opening {self._id}"
        deadline = time.monotonic() + _OPEN_S
        while True:
            try:
                opening.producer.init_transactions(_OPEN_SLICE_S)
            except KafkaException as error:
                opening.serve()
                opening.raise_refused()
                if not reason(error).retriable():
                    raise translate(reason(error), doing, was_let_in=self._let_in) from error
                if time.monotonic() > deadline:
                    raise TransientError(f"{doing}: {reason(error).str()}") from error
            else:
                break
        self._let_in = True
        self._outbox, self._worn = opening, False

    def begin(self) -> None:
        """Begin a transaction, with a new producer where the old one may have a request out there. Raises `TransientError`."""
        if self._outbox is None or self._begun:
            raise ValueError("begin() needs an open sink without a transaction")
        if self._worn:
            self.open()
        self._outbox.serve()
        self._outbox.shaken = False
        try:
            self._outbox.producer.begin_transaction()
        except KafkaException as error:
            raise TransientError(f"beginning a transaction of {self._id}: {reason(error).str()}") from error
        self._begun = True

    def send(self, records: OutRecords) -> None:
        """Queue records of one topic."""
        outbox = self._inside()
        try:
            outbox.send(records)
        except TransientError:
            try:
                outbox.producer.begin_transaction()  # a transaction that has failed says why; nothing can begin inside of one
            except KafkaException as why:
                self._raise_without_right(outbox, reason(why))
            raise

    def commit(self, offsets: Mapping[TopicPartition, Position], group: GroupMetadata) -> CommitResult:
        """Send the offsets, then end the transaction. Raises `BrokerRefused` when it was aborted and would be again, for ever."""
        outbox = self._inside()
        wanted = [KafkaPartition(*name, found.offset, commit_metadata.as_text(found)) for name, found in offsets.items()]
        began = time.monotonic()
        failure: KafkaError | None = None

        steps = [(self._patience_s, partial(_insist, outbox.producer.commit_transaction))]
        if wanted:
            steps.insert(0, (self._request_s, partial(_insist, lambda: outbox.producer.send_offsets_to_transaction(wanted, group))))
        try:
            _within(*steps)
        except KafkaException as error:
            failure = reason(error)
            result = self._failed(failure)
        else:
            result = self._over(CommitResult.COMMITTED)
        outbox.serve()
        self._worn = self._worn or outbox.shaken or time.monotonic() - began > self._request_s
        if result is not CommitResult.COMMITTED:
            outbox.raise_refused()
        if failure is not None:
            self._raise_without_right(outbox, failure)
        return result

    def abort(self) -> CommitResult:
        """Abort what was sent; UNKNOWN when there is no transaction that could be, so that `open` follows."""
        if self._outbox is None or not self._begun:
            return self._over(CommitResult.UNKNOWN)
        try:
            _within((self._patience_s, partial(_insist, self._outbox.producer.abort_transaction)))
        except KafkaException as error:
            fenced = reason(error).code() in _FENCED
            return self._over(CommitResult.FENCED if fenced else CommitResult.UNKNOWN, reason(error))
        self._outbox.serve()
        self._worn = self._worn or self._outbox.shaken
        self._outbox.forget_failures()
        return self._over(CommitResult.ABORTED)

    def close(self) -> None:
        """Throw the producer away; what is pending stays so until somebody opens a sink with our id, or it expires."""
        if self._outbox is not None:
            self._outbox.discard()
        self._outbox, self._begun = None, False

    def _inside(self) -> KafkaOutbox:
        if self._outbox is None or not self._begun:
            raise ValueError("begin() comes first")
        return self._outbox

    def _raise_without_right(self, outbox: KafkaOutbox, error: KafkaError) -> None:
        """Raise `BrokerRefused` when a transaction failed for want of a right, as the next one would; it does not say on which topic."""
        if error.code() in NO_RIGHT:
            raise translate(error, f"transaction of {self._id}, which sends to {' and '.join(outbox.topics)}")

    def _failed(self, error: KafkaError) -> CommitResult:
        if error.fatal():
            return self._over(CommitResult.FENCED if error.code() in _FENCED else CommitResult.UNKNOWN, error)
        if not error.txn_requires_abort():
            return self._over(CommitResult.UNKNOWN, error)
        self._say("transaction aborts", reason=error.str(), code=error.name())
        return self.abort()

    def _over(self, result: CommitResult, error: KafkaError | None = None) -> CommitResult:
        """The transaction is over for us; after anything indefinite the producer is of no more use."""
        self._begun = False
        if error is not None:
            self._say("transaction failed", result=result.value, reason=error.str(), code=error.name())
        if result in {CommitResult.FENCED, CommitResult.UNKNOWN}:
            self.close()
        return result


class KafkaAtLeastOnceSink:
    """A producer without transactions: records are visible when delivered, offsets follow. Repeats are possible, losses are not.

    `commit_offsets` commits for the group and says whether it took them: `KafkaSource.commit`.
    """

    def __init__(
        self, properties: Properties, *, name: str, commit_offsets: Callable[[Mapping[TopicPartition, Position], GroupMetadata], bool]
    ) -> None:
        refuse_fixed(properties)
        self._configuration: dict[str, Any] = {
            **_DEFAULTS,
            "message.timeout.ms": 8_000,
            "client.id": f"headrace-{name}",
            **properties,
            **_FIXED,
        }
        self._commit_offsets = commit_offsets
        self._let_in = False
        self._outbox: KafkaOutbox | None = None

    def open(self) -> None:
        """A new producer; there is nobody to fence."""
        self.close()
        self._outbox = KafkaOutbox(self._configuration, let_in=self._let_in)

    def begin(self) -> None:
        """Nothing to begin; failures of an older batch are forgotten."""
        self._opened().forget_failures()

    def send(self, records: OutRecords) -> None:
        """Queue records of one topic."""
        self._opened().send(records)

    def commit(self, offsets: Mapping[TopicPartition, Position], group: GroupMetadata) -> CommitResult:
        """Wait until everything is delivered, then commit the offsets.

        ABORTED: something was not delivered, or the group has moved on; no offset is committed and the batch will be sent again.
        UNKNOWN: the offsets may be committed or not. Raises `BrokerRefused` when a record would be refused for ever.
        """
        outbox = self._opened()
        while outbox.producer.flush(1.0):
            outbox.raise_refused()
        outbox.raise_refused()
        if outbox.forget_failures():
            return self.abort()
        self._let_in = True
        try:
            return CommitResult.COMMITTED if self._commit_offsets(offsets, group) else CommitResult.ABORTED
        except TransientError:
            return CommitResult.UNKNOWN

    def abort(self) -> CommitResult:
        """Throw away what is still queued, and the producer with it; what was delivered stays, no offset is committed.

        An idempotent producer that was purged would use the same sequence numbers again, and the broker would take the next records for
        repeats and drop them: seen in 7 of 12 tries.
        """
        self.open()
        return CommitResult.ABORTED

    def close(self) -> None:
        """Throw the producer away with what is queued."""
        if self._outbox is not None:
            self._outbox.discard()
        self._outbox = None

    def _opened(self) -> KafkaOutbox:
        if self._outbox is None:
            raise ValueError("open() comes first")
        return self._outbox


def _within(*steps: tuple[float, Callable[[], None]]) -> None:
    """Do one step after the other, and stop waiting when one takes longer than its seconds, whatever becomes of it; then raise that it
    timed out. No step begins after that.

    See https://github.com/confluentinc/librdkafka/issues/5456.
    """
    ends: list[Future[None]] = [Future() for _ in steps]
    given_up = threading.Event()

    def work() -> None:
        for (_, step), end in zip(steps, ends, strict=True):
            if given_up.is_set():
                return
            try:
                step()
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                end.set_exception(error)
                return
            end.set_result(None)

    threading.Thread(target=work, name="transaction", daemon=True).start()
    for (limit_s, _), end in zip(steps, ends, strict=True):
        try:
            end.result(limit_s)
        except TimeoutError as error:
            given_up.set()
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"the transaction got no further within {limit_s:g} s")) from error


def _insist(call: Callable[[], None]) -> None:
    """Call again what may be called again, as librdkafka says; it goes on where it was."""
    for _ in range(_TRIES - 1):
        try:
            call()
        except KafkaException as error:
            if not reason(error).retriable():
                raise
        else:
            return
    call()
