"""The app that is killed again and again: payments of cards, two views, a small model; and a log of its events as the world sends it.

The log has late events, events out of order, equal times and bad records. Its records' timestamps advance steadily and its windows are
short against it, so that a rebuild begins in the middle of the log and not at its start.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from onnx import TensorProto, helper, numpy_helper

import headrace as hr
from headrace.models import stamp

BEGIN_MS = 1_700_000_000_000
STEP_MS = 60
"""Between two records of the log, all partitions together."""

MODULE = """\
from pathlib import Path

from tests.faults.app import app_named

app = app_named({name!r}, Path({model!r}), habits={habits!r}, chained={chained!r}, corrections={corrections!r}, roles={roles!r})
"""


class Payment(hr.Event):
    """A card was used."""

    card: str
    shop: str
    paid_at: hr.EventTime
    amount: float
    online: bool
    country: Literal["AT", "BE", "CH", "DE"] | None = None


def app_named(
    name: str, model: Path | None = None, *, habits: int = 1, chained: bool = False, corrections: bool = False, roles: bool = False
) -> hr.App:
    """The app, with topics of its own; another version of the view `habits` is another view with the same features. `chained`: of two
    stages, with the features of the shop behind those of the card; `roles`: its models come from the registry.
    """
    payments = hr.Source(f"{name}.payments.v1", Payment, key="card", time="paid_at", lateness="20s", max_ahead="10s")
    spending = hr.FeatureView(
        "spending",
        entity="card",
        source=payments,
        features=[
            hr.count(over=["1m", "5m"]),
            hr.sum("amount", over="1m"),
            hr.mean("amount", over=["1m", "5m"]),
            hr.std("amount", over="5m"),
            hr.max("amount", over="5m"),
            hr.last("amount"),
            hr.seconds_since_last(),
        ],
    )
    of_cards = hr.FeatureView(
        "habits",
        version=habits,
        entity="card",
        source=payments,
        features=[
            hr.share(hr.col("online"), over="2m"),
            hr.count(over="2m", where=hr.col("country") == "CH"),
            hr.min("amount", over="2m", where=hr.col("online")),
        ],
    )
    of_shops = hr.FeatureView(
        "business",
        entity="shop",
        source=payments,
        features=[
            hr.count(over=["1m", "5m"]),
            hr.mean("amount", over="5m"),
            hr.max("amount", over="2m"),
            hr.seconds_since_last(),
        ],
    )
    fraud = hr.Pipeline(
        "fraud",
        views=[spending, of_cards, *([of_shops] if chained else [])],
        event_features=["amount"],
        predictions=f"{name}.fraud.predictions.v1",
        model=None if model is None or roles else str(model),
        publish_features=True,
        corrections=corrections,
    )
    return hr.App(name, pipelines=[fraud])


def write_app(
    folder: Path,
    name: str,
    *,
    module: str = "started",
    habits: int = 1,
    chained: bool = False,
    corrections: bool = False,
    roles: bool = False,
) -> hr.App:
    """The app with a model, and beside that a module that holds the same app, for `--app started:app`."""
    shape = {"habits": habits, "chained": chained, "corrections": corrections, "roles": roles}
    (pipeline,) = app_named(name, habits=habits, chained=chained, corrections=corrections).pipelines
    model = folder / f"{module}.onnx"
    model.write_bytes(stamp(_model(len(pipeline.feature_names)), pipeline, version="1", output="score"))
    (folder / f"{module}.py").write_text(MODULE.format(name=name, model=str(model), **shape), encoding="utf-8")
    return app_named(name, model, habits=habits, chained=chained, corrections=corrections, roles=roles)


def version_of(pipeline: hr.Pipeline, version: int) -> bytes:
    """A version of its model: each scores otherwise."""
    return stamp(_model(len(pipeline.feature_names), steepness=float(version)), pipeline, version=str(version), output="score")


def _model(width: int, *, steepness: float = 1.0) -> bytes:
    """A logistic regression in which what is absent counts nothing."""
    weights = numpy_helper.from_array(steepness * np.linspace(-0.02, 0.03, width, dtype=np.float32).reshape(width, 1), "weights")
    zero = numpy_helper.from_array(np.zeros(1, dtype=np.float32), "zero")
    nodes = [
        helper.make_node("IsNaN", ["X"], ["absent"]),
        helper.make_node("Where", ["absent", "zero", "X"], ["known"]),
        helper.make_node("MatMul", ["known", "weights"], ["margin"]),
        helper.make_node("Sigmoid", ["margin"], ["score"]),
    ]
    takes = helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, width])
    gives = helper.make_tensor_value_info("score", TensorProto.FLOAT, [None, 1])
    model = helper.make_model(
        helper.make_graph(nodes, "fraud", [takes], [gives], [weights, zero]), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 9
    return bytes(model.SerializeToString())


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A record as its sender sees it."""

    key: bytes | None
    value: bytes | None
    timestamp_ms: int


def records(rng: random.Random, count: int, *, cards: int = 300) -> Iterator[Sent]:
    """So many records: 2 % late, 2 % out of order but in time, 1 % bad in one of seven ways, some at equal times."""
    now_ms = BEGIN_MS
    for _ in range(count):
        now_ms += rng.choice((0, STEP_MS, 2 * STEP_MS))
        card = f"card-{min(int(rng.paretovariate(0.4)), cards)}"
        kind = rng.random()
        if kind < 0.01:
            yield _bad(rng, card, now_ms)
            continue
        delay_ms = rng.randrange(25_000, 90_000) if kind < 0.03 else rng.randrange(15_000) if kind < 0.05 else 0
        yield Sent(key=card.encode(), value=_value(rng, card, now_ms - delay_ms), timestamp_ms=now_ms)


def _value(rng: random.Random, card: str, paid_at: int) -> bytes:
    amount = round(rng.lognormvariate(3, 1), 2)
    fields: dict[str, object] = {
        "card": card,
        "shop": f"shop-{int(amount * 100) % 23}",
        "paid_at": paid_at,
        "amount": amount,
        "online": rng.random() < 0.3,
    }
    if rng.random() < 0.8:
        fields["country"] = rng.choice(("AT", "BE", "CH", "DE"))
    return json.dumps(fields).encode()


def _bad(rng: random.Random, card: str, now_ms: int) -> Sent:
    good = _value(rng, card, now_ms)
    key: bytes | None = card.encode()
    value: bytes | None
    match rng.randrange(7):
        case 0:
            value = good[:-5]
        case 1:
            value = good.replace(b'"amount"', b'"cost"')
        case 2:
            value = good.replace(b'"online": ', b'"online": 1')
        case 3:
            value = None
        case 4:
            key, value = b"somebody-else", good
        case 5:
            value = _value(rng, card, now_ms + 60_000)
        case _:
            value = _value(rng, card, 1_000)
    return Sent(key=key, value=value, timestamp_ms=now_ms)
