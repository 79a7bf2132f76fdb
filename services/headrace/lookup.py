"""Look-ups from Python: the features of an entity here and now, by the definition that scores and trains.

    features = hr.Features("redis://127.0.0.1:6379/0", app=app)
    found = features.get("aircraft", "N14228")
    found.values["mean_dep_delay_6h"], found.known, found.staleness_ms

One round trip: state, applied offset and watermark of one instant (a MULTI), panes merged here as of the instant asked for. What a
look-up gives as of T is what an event at T that adds nothing would see, bit for bit.

**What cannot be answered exactly is refused** (`LookupRefused`): an instant before the entity's newest event, or before the horizon of its
partition (watermark - lateness), as what was true then is not kept; a partition whose state is not filled yet, or being rebuilt. An entity
that is not there is answered: `known` is False and the values are those of an empty state.

Limits: an entity that was swept because all its windows were empty is not told from one that was never seen; its values are the same. In a
cluster the node that keeps the numbers of partitions is asked in every look-up.
"""

from __future__ import annotations

import difflib
import operator
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from headrace.decode.decoder import EARLIEST_MS, LATEST_MS
from headrace.definition import App
from headrace.errors import LookupRefused
from headrace.features.finder import AT_ONCE, Finder, Found, Sought
from headrace.features.reader import StateReader
from headrace.features.redis_connection import Tls
from headrace.features.redis_store import RedisStore
from headrace.features.state_store import LookupStore
from headrace.features.view import FeatureView
from headrace.features.warm_up import warm_up as compile_fold
from headrace.types import MAX_KEY_BYTES, NO_WATERMARK_MS, HopWatermark, TopicPartition, ViewHead


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityFeatures:
    """The features of one entity in one view, and what they are made from."""

    view: str
    version: int
    fingerprint: str
    """Of the view, as in every prediction that was made with it."""
    entity: str
    known: bool
    """False: never seen, or nothing of it lies in any window any more; the values are those of an empty state."""
    values: Mapping[str, float]
    """By name, in declared order; absent is NaN."""
    as_of_ms: int
    partition: TopicPartition
    """Where its events come from."""
    offset: int
    """The applied offset: every event of the partition below it is in the values, none from it on."""
    watermark_ms: int | None
    """The newest event time of the partition below that offset; None while it has shown no event, or, of a view kept behind a hop, while
    not all partitions of the source have.
    """

    @property
    def staleness_ms(self) -> int | None:
        """How much event time before `as_of_ms` the store has not seen: as_of - watermark, not below 0; None while there is no watermark.

        Events of this stretch are missing, or there are none: a quiet topic and a worker that is behind look alike from here (the lag
        tells them apart). So it is the most by which the answer can be out of date, never an underestimate but for late events.
        """
        return None if self.watermark_ms is None else max(0, self.as_of_ms - self.watermark_ms)

    def as_json(self) -> dict[str, object]:
        """All of it for JSON; absent values are None."""
        return {
            "view": self.view,
            "version": self.version,
            "fingerprint": self.fingerprint,
            "entity": self.entity,
            "known": self.known,
            "values": {name: None if value != value else value for name, value in self.values.items()},  # noqa: PLR0124 - absent is NaN
            "as_of_ms": self.as_of_ms,
            "staleness_ms": self.staleness_ms,
            "watermark_ms": self.watermark_ms,
            "topic": self.partition.topic,
            "partition": self.partition.partition,
            "offset": self.offset,
        }


class FeatureLookups:
    """Looks features up in any store. May be called from several threads."""

    def __init__(self, app: App, store: LookupStore, *, now_ms: Callable[[], int]) -> None:
        self._name = app.name
        self._store = store
        self._now_ms = now_ms
        self._readers = {view.name: StateReader(view) for view in app.views}
        self._topics = {view.name: app.kept_at(view.name).topic for view in app.views}
        self._finder = Finder(store)
        self._lock = threading.Lock()
        """Held while states are merged, never while the store is waited for."""

    def get(self, view: str, entity: str, as_of_ms: int | None = None) -> EntityFeatures:
        """The features of one entity as of an instant (milliseconds UTC).

        Without one it is now, or the newest event of the entity where that is later. Of a historical source, whose event times have nothing
        to do with the clock, it is the watermark of the partition. Raises `LookupRefused` for what cannot be answered exactly,
        `TransientError` while the store is away, `StoreRefused` when it must not be used.
        """
        (found,) = self.get_many(view, [entity], as_of_ms)
        return found

    def get_many(self, view: str, entities: Sequence[str], as_of_ms: int | None = None) -> list[EntityFeatures]:
        """The features of several entities, in their order, as `get` gives them; all or, where one is refused, none."""
        reader = self._reader(view)
        instant_ms = None if as_of_ms is None else _instant(as_of_ms)
        keys = [_key(entity) for entity in entities]
        found: list[EntityFeatures] = []
        for begin in range(0, len(keys), AT_ONCE):
            found += self._some(reader, entities[begin : begin + AT_ONCE], keys[begin : begin + AT_ONCE], instant_ms)
        return found

    def warm_up(self) -> None:
        """Connect, and load the compiled fold (a second or so, the first time on a machine several), so that no look-up waits for it."""
        compile_fold(reader.view for reader in self._readers.values())
        for reader in self._readers.values():
            self._finder.find([Sought(self._topics[reader.view.name], reader.view.fp, [])])

    def close(self) -> None:
        """Close the connections."""
        self._store.close()

    def _reader(self, name: str) -> StateReader:
        reader = self._readers.get(name)
        if reader is None:
            near = difflib.get_close_matches(name, self._readers, n=3, cutoff=0.5)
            hint = f"near it are {', '.join(near)}" if near else f"it has {', '.join(sorted(self._readers))}"
            raise LookupRefused(f"app {self._name!r} has no view {name!r}; {hint}")
        return reader

    def _some(self, reader: StateReader, entities: Sequence[str], keys: Sequence[bytes], as_of_ms: int | None) -> list[EntityFeatures]:
        view = reader.view
        found = self._found(view, keys)
        now_ms = self._now_ms()
        begin_ms = np.array([_from_ms(view, place.head, as_of_ms, now_ms) for place in found.places], dtype=np.int64)
        with self._lock:
            values, seen_ms = reader.vectors_from(found.packed, begin_ms[found.at])
        for entity, newest_ms in zip(entities, seen_ms.tolist(), strict=True):
            if as_of_ms is not None and newest_ms > as_of_ms:
                raise LookupRefused(
                    f"{entity!r} in {view.name} has an event at {_time(newest_ms)}: it cannot be looked up as of {_time(as_of_ms)}, "
                    "only as of then or later"
                )
        names = view.feature_names
        return [
            EntityFeatures(
                view=view.name,
                version=view.version,
                fingerprint=view.fingerprint,
                entity=entity,
                known=state is not None,
                values=dict(zip(names, vector, strict=True)),
                as_of_ms=instant_ms,
                partition=TopicPartition(self._topics[view.name], place.partition),
                offset=place.head.offset or 0,
                watermark_ms=_shown(place.head.watermark_ms),
            )
            for entity, place, state, vector, instant_ms in zip(
                entities, [found.places[one] for one in found.at.tolist()], found.packed, values.tolist(), seen_ms.tolist(), strict=True
            )
        ]

    def _found(self, view: FeatureView, keys: Sequence[bytes]) -> Found:
        topic = self._topics[view.name]
        (found,) = self._finder.find([Sought(topic, view.fp, keys)])
        if found is None:
            raise LookupRefused(
                f"the store knows nothing of topic {topic}: no worker of app {self._name!r} has served it there; start one, or see "
                "whether this is the right Redis"
            )
        for place in found.places:
            if place.head.offset is None:
                raise LookupRefused(
                    f"the store has no state of {view.name} for {view.source.topic}-{place.partition} yet: a worker that serves it with "
                    "this definition of the view fills it from the log"
                )
        return found


class Features(FeatureLookups):
    """The features of an app's entities, looked up in its Redis. May be called from several threads; connects when first asked.

    URL, credentials and TLS are those of `headrace config show`; one node of a cluster is enough, and so is a replica. A user who only
    looks up needs `-@all +@read -@dangerous +watch +multi +exec +ping %R~hr:*`. Not to be used in a process that was forked after its
    first look-up.
    """

    def __init__(
        self,
        redis_url: str,
        *,
        app: App,
        username: str | None = None,
        password: str | None = None,
        tls_ca: str | Path | None = None,
        tls_certificate: str | Path | None = None,
        tls_key: str | Path | None = None,
        timeout_s: float = 2.0,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        tls = Tls(ca=tls_ca, certificate=tls_certificate, key=tls_key)
        store = RedisStore(app=app.name, url=redis_url, username=username, password=password, tls=tls, timeout_s=timeout_s)
        super().__init__(app, store, now_ms=now_ms)


def _key(entity: str) -> bytes:
    key = entity.encode()
    if not 0 < len(key) <= MAX_KEY_BYTES:
        raise LookupRefused(f"{entity[:40]!r} is no entity: a key has 1 to {MAX_KEY_BYTES} bytes")
    return key


def _instant(as_of_ms: int) -> int:
    """The instant, of Python's or numpy's integers; raises `LookupRefused` for what is none."""
    try:
        instant_ms = operator.index(as_of_ms)
    except TypeError:
        instant_ms = -1
    if isinstance(as_of_ms, bool) or not EARLIEST_MS <= instant_ms <= LATEST_MS:
        raise LookupRefused(f"as_of_ms={as_of_ms!r} is no instant; write milliseconds UTC between the years 2000 and 2100")
    return instant_ms


def _from_ms(view: FeatureView, head: ViewHead, as_of_ms: int | None, now_ms: int) -> int:
    """The instant asked for, or the one that is meant where none is."""
    if _shown(head.watermark_ms) is None or head.watermark_ms is None:
        if as_of_ms is not None:
            return as_of_ms
        newest_ms = max(head.watermark_ms.parts) if isinstance(head.watermark_ms, HopWatermark) else NO_WATERMARK_MS
        return newest_ms if view.source.historical and newest_ms != NO_WATERMARK_MS else now_ms
    horizon_ms = head.watermark_ms - view.source.lateness_ms
    if as_of_ms is None:
        return head.watermark_ms if view.source.historical else max(now_ms, horizon_ms)
    if as_of_ms < horizon_ms:
        raise LookupRefused(
            f"{view.name} cannot be looked up as of {_time(as_of_ms)}: what no event can change any more is not kept, which is what lies "
            f"before {_time(horizon_ms)} (watermark less lateness)"
        )
    return as_of_ms


def _shown(watermark_ms: int | None) -> int | None:
    """The watermark as people know it: minus infinity is none."""
    return None if watermark_ms is None or watermark_ms == NO_WATERMARK_MS else int(watermark_ms)


def _time(instant_ms: int) -> str:
    return datetime.fromtimestamp(instant_ms / 1_000, UTC).isoformat(timespec="milliseconds")
