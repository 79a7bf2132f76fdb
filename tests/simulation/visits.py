"""The app of the simulation and the records it is fed: small windows, so that a short log is longer than what a rebuild needs."""

from __future__ import annotations

import json
import random
from itertools import count as count_up

import numpy as np

import headrace as hr
from headrace.features.retained_view import RetainedView
from headrace.partitioner import partition_of
from headrace.predict.scores import Scores
from headrace.predict.signature import METADATA_KEY, Signature
from headrace.types import Float64s

TOPIC, OPENINGS, PREDICTIONS = "visits", "openings", "visit.predictions"
PARTITIONS = 2
FALLBACK_SCORE = 0.25
START_MS = 1_700_000_000_000
POISON, POISON_AT_HOP = b'"poison"', b'"poison at hop"'
"""A record with it takes the process with it that decodes it (`world.World.assemble`): at the source, or not before the hop."""
WHERE = ("attic", "barn", "cellar", "dairy", "eaves")
REMEMBERED_MS = 28_000
"""How far below the watermark an event can matter to the views below: lateness, max_ahead, the longest window and the longest pane."""


class Visit(hr.Event):
    """The contract of the simulated source."""

    who: str
    where: str
    at: hr.EventTime
    seq: int


visits = hr.Source(TOPIC, Visit, key="who", time="at", lateness="2s", max_ahead="1s")
recent = hr.FeatureView(
    "recent",
    entity="who",
    source=visits,
    features=[
        hr.count(over=["5s", "20s"]),
        hr.sum("seq", over="20s", pane="5s"),
        hr.mean(hr.col("seq") * hr.col("seq") / 7.0, over=["5s", "20s"]),
        hr.std("seq", over="20s"),
        hr.last("seq"),
        hr.seconds_since_last(),
    ],
)
brief = hr.FeatureView("brief", entity="who", source=visits, features=[hr.count(over="1s"), hr.sum("seq", over="1s")])
app = hr.App("sim", pipelines=[hr.Pipeline("visit", views=[recent, brief], predictions=PREDICTIONS)])

crowd = hr.FeatureView(
    "crowd",
    entity="where",
    source=visits,
    features=[hr.count(over=["5s", "20s"]), hr.mean("seq", over="20s"), hr.max("seq", over="5s"), hr.seconds_since_last()],
)
chained = hr.App("chain", pipelines=[hr.Pipeline("visit", views=[brief, crowd], predictions=PREDICTIONS)])
"""The same visits in two stages: of who comes, then of where."""

correcting = hr.App(
    "correct",
    pipelines=[hr.Pipeline("visit", views=[recent, brief], event_features=["seq"], predictions=PREDICTIONS, corrections=True)],
)
"""The same visits; what comes out of order corrects what was told before."""
forgetting = hr.App(
    "few",
    pipelines=[hr.Pipeline("visit", views=[recent, brief], event_features=["seq"], predictions=PREDICTIONS, corrections=True)],
)
"""The same, but no more than two events of an entity are retained."""
forgetting.pipelines[0].retained = RetainedView("visit", [recent, brief], extras=forgetting.pipelines[0].event_features, join=None, most=2)


class Opening(hr.Event):
    """The contract of the source that visits are scored by, but that is not scored itself: a door was opened."""

    where: str
    who: str
    at: hr.EventTime
    seq: int


openings = hr.Source(OPENINGS, Opening, key="where", time="at", lateness="2s", max_ahead="1s")
door = hr.FeatureView(
    "door",
    entity="where",
    source=openings,
    features=[hr.count(over=["5s", "20s"]), hr.mean("seq", over="20s"), hr.last("seq"), hr.lag("seq", n=1, over="20s")],
)
hand = hr.FeatureView(
    "hand", entity="who", source=openings, features=[hr.count(over="20s"), hr.max("seq", over="5s"), hr.seconds_since_last()]
)
looking = hr.App(
    "look",
    pipelines=[
        hr.Pipeline("visit", views=[brief], look_up=hr.LookUp(door, hand, stale_after="3s", wait="400ms"), predictions=PREDICTIONS),
    ],
)
"""The same visits, scored by what the doors did: one view is kept where the openings are read, the other behind a hop."""
registered = hr.App("roles", pipelines=[hr.Pipeline("visit", views=[recent, brief], predictions=PREDICTIONS, fallback=FALLBACK_SCORE)])
"""The same visits, scored by whom the registry says, while roles are moved."""
VERSIONS = ("1", "2", "3", "4")
APPS = {"roles": registered, "sim": app, "chain": chained, "look": looking, "correct": correcting, "few": forgetting}


class SumModel:
    """A model that is nothing but arithmetic."""

    name, version = "sum", "1"

    def score(self, values: Float64s) -> Scores:
        """The sum of what is there."""
        return Scores(scores=np.nansum(values, axis=1), refused=[])


class BiasModel:
    """A version of the registry's: the same arithmetic, and a score that shows which version it was."""

    name = "visit"

    def __init__(self, version: str) -> None:
        self.version = version

    def score(self, values: Float64s) -> Scores:
        """The sum of what is there, and a million for each number of the version."""
        return Scores(scores=np.nansum(values, axis=1) + 1e6 * int(self.version), refused=[])


def registrations() -> list[bytes]:
    """The commands that register all versions; the file of each is named by its number."""
    answer = []
    for version in VERSIONS:
        signature = Signature(name="visit", version=version, features=("f",), views=(), event_features="", output="score")
        told = json.loads(signature.to_metadata()[METADATA_KEY])
        answer.append(command_of("register", version=version, sha256=f"{int(version):064x}", bytes=1, signature=told))
    return answer


def a_move(draw: random.Random) -> bytes:
    """A command that moves a role or takes the last promotion back; many are not legal, and then change nothing."""
    if draw.random() < 0.15:
        return command_of("rollback")
    to = draw.choice(["shadow", "shadow", "challenger", "champion", "champion", "registered", "retired"])
    share = {"share": draw.choice([0.3, 0.7])} if to == "challenger" else {}
    return command_of("move", version=draw.choice(VERSIONS), to=to, **share)


_COMMANDS = count_up()


def command_of(kind: str, **fields: object) -> bytes:
    """A command whose author has seen everything."""
    told = {"v": 1, "kind": kind, "id": f"{next(_COMMANDS):032x}", "at_ms": 0, "by": "op", "pipeline": "visit", "expects": 1 << 40}
    if kind == "register":
        told |= {"card": None, "lineage": None}
    return json.dumps(told | fields).encode()


def make_records(seed: int, count: int) -> list[tuple[str, int, bytes, bytes, int]]:
    """(topic, partition, key, value, timestamp) of a small log: four entities, some events out of order, some late, a few refused,
    over about twice the time that a rebuild must look back.
    """
    draw = random.Random(seed)
    answer = []
    now_ms = START_MS
    for seq in range(count):
        now_ms += draw.choice([0, 40, 300, 700, 2_500] if seq % 9 else [9_000])
        entity = draw.randrange(4)
        at_ms = now_ms - draw.choice([0, 0, 0, 0, 900, 2_600, -1_000])
        value = json.dumps({"who": f"e{entity}", "where": WHERE[seq * seq % 5], "at": at_ms, "seq": seq}).encode()
        if draw.random() < 0.05:
            value = b"{"
        elif seq == count // 3 and seed % 4 == 0:
            value = value[:-1] + b', "x": ' + (POISON if seed % 8 == 0 else POISON_AT_HOP) + b"}"
        answer.append((TOPIC, entity % PARTITIONS, f"e{entity}".encode(), value, now_ms))
    return answer


def with_openings(seed: int, records: list[tuple[str, int, bytes, bytes, int]]) -> list[tuple[str, int, bytes, bytes, int]]:
    """The same with openings of doors before and behind them, where look-ups look for them; some are out of order, a few refused."""
    draw = random.Random(seed + 1)
    answer = []
    for seq, record in enumerate(records):
        answer.append(record)
        for _ in range(draw.choice([0, 1, 2])):
            at_ms = record[-1] - draw.choice([0, 0, 700, 2_600, -900])
            where = WHERE[draw.randrange(len(WHERE))]
            value = json.dumps({"where": where, "who": f"e{draw.randrange(4)}", "at": at_ms, "seq": seq}).encode()
            if draw.random() < 0.05:
                value = b"{"
            answer.append((OPENINGS, partition_of(where.encode(), PARTITIONS), where.encode(), value, record[-1]))
    return answer


def with_disorder(seed: int, records: list[tuple[str, int, bytes, bytes, int]]) -> list[tuple[str, int, bytes, bytes, int]]:
    """The same, many of them some seconds older: most of those still in time."""
    draw = random.Random(seed + 2)
    answer = []
    for topic, partition, key, value, sent_ms in records:
        back_ms = draw.choice([0, 0, 300, 700, 1_100, 1_600])
        event = {} if value == b"{" else json.loads(value)
        older = json.dumps({**event, "at": event["at"] - back_ms}).encode() if event else value
        answer.append((topic, partition, key, older, sent_ms))
    return answer
