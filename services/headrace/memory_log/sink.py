"""`RecordSink` on the log in memory: transactional, and at least once.

Steps: "init", "begin", "send", then in a commit "offsets" and "end", two separate ones as on Kafka; "abort". A lost "end" or "abort" is an
UNKNOWN result; a lost "offsets" is aborted, which is definite; any other lost step is a `TransientError`.
"""

from __future__ import annotations

from collections.abc import Mapping

from headrace.consume.record_source import GroupMetadata
from headrace.errors import TransientError
from headrace.memory_log.group import Membership
from headrace.memory_log.log import Fate, Fenced, Hook, MemoryLog, go_on
from headrace.publish.record_sink import CommitResult
from headrace.types import OutRecords, Position, TopicPartition


def _shown(group: GroupMetadata) -> Membership:
    if not isinstance(group, Membership):
        raise TypeError(f"group metadata of another log: {type(group).__name__}")
    return group


class MemorySink:
    """A transactional producer: whatever it sends is pending in the log until its transaction ends."""

    def __init__(self, log: MemoryLog, *, transactional_id: str, pause: Hook = go_on) -> None:
        self._log = log
        self._id = transactional_id
        self._hook = pause
        self._epoch: int | None = None
        self._begun = False

    def open(self) -> None:
        """Take a new epoch: older sinks are fenced, what they left pending is aborted."""
        self._epoch, self._begun = None, False
        fate = self._step("init")
        if fate is not Fate.LOST_REQUEST:
            epoch = self._log.init(self._id)
            if fate is Fate.GO:
                self._epoch = epoch
                return
        raise TransientError(f"no answer to the initialisation of {self._id}")

    def begin(self) -> None:
        """Begin a transaction. Raises `ValueError` unless the sink is open and idle."""
        if self._epoch is None or self._begun:
            raise ValueError("begin() needs an open sink without a transaction")
        self._step("begin")
        self._begun = True

    def send(self, records: OutRecords) -> None:
        """Write records into the log, pending."""
        epoch = self._inside()
        fate = self._step("send")
        try:
            if fate is not Fate.LOST_REQUEST:
                self._log.write(self._id, epoch, records)
        except Fenced as error:
            raise TransientError(str(error)) from error
        if fate is not Fate.GO:
            raise TransientError(f"no answer to what {self._id} sent")

    def commit(self, offsets: Mapping[TopicPartition, Position], group: GroupMetadata) -> CommitResult:
        """Send the offsets, then end the transaction."""
        epoch = self._inside()
        if offsets:
            fate = self._step("offsets")
            try:
                taken = fate is not Fate.LOST_REQUEST and self._log.add_offsets(self._id, epoch, offsets, _shown(group))
            except Fenced:
                return self._over(CommitResult.FENCED)
            if fate is not Fate.GO or not taken:
                return self.abort()
        return self._end("end", CommitResult.COMMITTED)

    def abort(self) -> CommitResult:
        """Abort what is pending; UNKNOWN when nothing was begun, so that `open` follows."""
        if self._epoch is None or not self._begun:
            return self._over(CommitResult.UNKNOWN)
        return self._end("abort", CommitResult.ABORTED)

    def close(self) -> None:
        """Go away; what is pending stays so until somebody opens a sink with our id, or it expires."""
        self._epoch, self._begun = None, False

    def _step(self, name: str) -> Fate:
        return self._hook(name) or Fate.GO

    def _inside(self) -> int:
        if self._epoch is None or not self._begun:
            raise ValueError("begin() comes first")
        return self._epoch

    def _end(self, step: str, result: CommitResult) -> CommitResult:
        epoch = self._inside()
        fate = self._step(step)
        if fate is Fate.LOST_REQUEST:
            return self._over(CommitResult.UNKNOWN)
        try:
            self._log.end(self._id, epoch, committed=result is CommitResult.COMMITTED)
        except Fenced:
            return self._over(CommitResult.FENCED if fate is Fate.GO else CommitResult.UNKNOWN)
        return self._over(result if fate is Fate.GO else CommitResult.UNKNOWN)

    def _over(self, result: CommitResult) -> CommitResult:
        """The transaction is over for us; after anything indefinite the sink must be opened again."""
        self._begun = False
        if result in {CommitResult.FENCED, CommitResult.UNKNOWN}:
            self._epoch = None
        return result


class MemoryAtLeastOnceSink:
    """A producer without transactions: records are visible when sent, offsets follow. Repeats are possible, losses are not."""

    def __init__(self, log: MemoryLog, *, pause: Hook = go_on) -> None:
        self._log = log
        self._hook = pause

    def open(self) -> None:
        """There is nobody to fence."""
        self._hook("init")

    def begin(self) -> None:
        """Nothing to begin."""
        self._hook("begin")

    def send(self, records: OutRecords) -> None:
        """Write records into the log, visible at once."""
        fate = self._hook("send") or Fate.GO
        if fate is not Fate.LOST_REQUEST:
            self._log.write_at_once(records)
        if fate is not Fate.GO:
            raise TransientError("no answer to what was sent")

    def commit(self, offsets: Mapping[TopicPartition, Position], group: GroupMetadata) -> CommitResult:
        """Commit the offsets; ABORTED when the group refuses them: what was sent stays visible and will be sent again."""
        fate = self._hook("offsets") or Fate.GO
        taken = fate is not Fate.LOST_REQUEST and self._log.commit_offsets(offsets, _shown(group))
        if fate is not Fate.GO:
            return CommitResult.UNKNOWN
        return CommitResult.COMMITTED if taken else CommitResult.ABORTED

    def abort(self) -> CommitResult:
        """Give up: what was sent stays visible, no offset is committed."""
        return CommitResult.ABORTED

    def close(self) -> None:
        """Nothing is held."""
