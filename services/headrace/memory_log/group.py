"""One consumer group of the log in memory.

    stands nowhere --join--> member --leave, evict--> stands nowhere
                               |  target: what the group wants it to have
                               |  owned:  what it was told it has
                               `- owned but no longer targeted: revoked in its next poll, free only when that callback has returned

Every change of members, and every release that somebody waits for, is a new generation, as with librdkafka, whose background thread
joins again unseen. The broker looks at member and generation when offsets are sent, never at who owns what (as on Kafka).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from headrace.types import Position, TopicPartition


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """What a member shows when it sends offsets; an empty member id is a consumer that never joined."""

    group: str
    member_id: str
    generation: int
    instance_id: str | None


@dataclass(slots=True, kw_only=True, eq=False)
class Member:
    """One member as the group sees it."""

    member_id: str
    instance_id: str | None
    topics: tuple[str, ...]
    target: set[TopicPartition] = field(default_factory=set)
    owned: set[TopicPartition] = field(default_factory=set)


class MemoryGroup:
    """Members, generation, assignment and offsets of one group: for tests and for the clients in memory."""

    def __init__(self, name: str, partitions_of: Callable[[Iterable[str]], list[TopicPartition]], lock: threading.RLock) -> None:
        self.name = name
        self.generation = 0
        self.members: dict[str, Member] = {}
        self.offsets: dict[TopicPartition, Position] = {}
        self.pending: dict[int, dict[TopicPartition, Position]] = {}
        """Pending transaction -> the offsets it holds."""
        self._partitions_of = partitions_of
        self._lock = lock
        self._joined = 0

    # ------------------------------------------------------------------------------------------------ who plays the broker

    def evict(self, member: str) -> None:
        """Play the session time-out of a member (id or instance id): others get its partitions at once, it is told in its next poll."""
        with self._lock:
            self._remove(self._find(member))

    def reassign(self, targets: Mapping[str, Iterable[TopicPartition]]) -> None:
        """Give each member (id or instance id) exactly these partitions: a rebalance in an orderly way. Others get nothing."""
        with self._lock:
            wanted = {self._find(member): set(partitions) for member, partitions in targets.items()}
            for member in self.members.values():
                member.target = wanted.get(member.member_id, set())
            self.generation += 1

    def owner(self, partition: TopicPartition) -> str | None:
        """The id of the member that was told it has the partition."""
        with self._lock:
            return next((member.member_id for member in self.members.values() if partition in member.owned), None)

    # -------------------------------------------------------------------------------------------------------- the clients

    def join(self, wish: str | None, instance_id: str | None, topics: Sequence[str]) -> str:
        """A consumer joins; returns its member id. A known instance id takes the place of the older member, without a new generation."""
        with self._lock:
            self._joined += 1
            member_id = wish if wish is not None and wish not in self.members else f"{wish or instance_id or 'member'}-{self._joined}"
            member = Member(member_id=member_id, instance_id=instance_id, topics=tuple(topics))
            older = self.static(instance_id)
            if older is None:
                self.members[member_id] = member
                self._balance()
                return member_id
            self.members = {one.member_id: one for one in (member if one is older else one for one in self.members.values())}
            member.target = older.target
            if older.topics != member.topics:
                self._balance()
            return member_id

    def static(self, instance_id: str | None) -> Member | None:
        """The member that holds an instance id."""
        return next((one for one in self.members.values() if instance_id is not None and one.instance_id == instance_id), None)

    def leave(self, member_id: str) -> None:
        """A member goes by itself."""
        with self._lock:
            if member_id in self.members:
                self._remove(member_id)

    def to_revoke(self, member_id: str) -> list[TopicPartition]:
        """What the member must give up in this poll."""
        with self._lock:
            member = self.members.get(member_id)
            return sorted(member.owned - member.target) if member else []

    def release(self, member_id: str, partitions: Iterable[TopicPartition]) -> None:
        """The member's `revoked` callback has returned."""
        with self._lock:
            member = self.members.get(member_id)
            if member is None:
                return
            given = member.owned & set(partitions)
            member.owned -= given
            if any(given & other.target for other in self.members.values()):
                self.generation += 1

    def take(self, member_id: str) -> list[TopicPartition]:
        """What the member gets in this poll: targeted, and held by nobody else."""
        with self._lock:
            member = self.members.get(member_id)
            if member is None:
                return []
            held = {partition for other in self.members.values() if other is not member for partition in other.owned}
            taken = sorted(member.target - member.owned - held)
            member.owned.update(taken)
            return taken

    def accepts(self, shown: Membership) -> bool:
        """Whether offsets sent with this proof are taken.

        They are from a member of this generation, and (the hole in the classic protocol) from a consumer that never joined and has no
        instance id.
        """
        if not shown.member_id:
            return shown.instance_id is None
        return shown.member_id in self.members and shown.generation == self.generation

    def refresh(self) -> None:
        """Partitions of subscribed topics have changed: balance again."""
        if self.members:
            self._balance()

    def _find(self, member: str) -> str:
        if member in self.members:
            return member
        static = self.static(member)
        if static is None:
            raise KeyError(f"group {self.name} has no member {member}")
        return static.member_id

    def _remove(self, member_id: str) -> None:
        del self.members[member_id]
        self._balance()

    def _balance(self) -> None:
        """A new generation; everyone keeps what it has as long as nobody has two partitions more than another who could take one."""
        self.generation += 1
        members = list(self.members.values())
        everything = self._partitions_of({topic for member in members for topic in member.topics})
        for member in members:
            member.target = {partition for partition in member.target if partition in everything and partition.topic in member.topics}
        for partition in everything:
            if not any(partition in member.target for member in members):
                able = [member for member in members if partition.topic in member.topics]
                min(able, key=lambda one: len(one.target)).target.add(partition)
        while members:
            poorest, richest = min(members, key=lambda one: len(one.target)), max(members, key=lambda one: len(one.target))
            movable = sorted(partition for partition in richest.target if partition.topic in poorest.topics)
            if len(richest.target) <= len(poorest.target) + 1 or not movable:
                return
            richest.target.remove(movable[-1])
            poorest.target.add(movable[-1])
