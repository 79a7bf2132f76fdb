"""T50, the second oracle: the same features as SQL, from their canonical form alone, asked of DuckDB over a few thousand events."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import duckdb
import numpy as np
import pytest

from headrace.features.aggregation import BY_NAME, NEEDS_SQUARES
from headrace.features.streams import BinForm
from headrace.features.view import Feature
from headrace.types import Float64s
from tests.laws.readings import EVERYTHING, LATENESS_MS
from tests.unit.features.folding import Folded, offsets_of
from tests.unit.features.naive import Happening

EVENTS = 3_000

SEEN = f"""
    create table seen as
    with marked as (
        select *,
            max(at_ms) over (partition by part order by off rows between unbounded preceding and 1 preceding) as before_ms,
            max(at_ms) over (partition by part order by off) - {LATENESS_MS} as horizon_ms
        from events
    ), judged as (select *, coalesce(at_ms < before_ms - {LATENESS_MS}, false) as behind from marked
    ), newest as (
        select *, coalesce(max(case when not behind then at_ms end) over (partition by part, sensor order by off), at_ms) as newest_ms
        from judged
    )
    select *, greatest(at_ms, horizon_ms, newest_ms) as as_of_ms, at_ms = newest_ms as in_order from newest
"""

SYMBOLS = {"plus": "+", "minus": "-", "times": "*", "over": "/", "gt": ">", "ge": ">=", "lt": "<", "le": "<=", "eq": "=", "ne": "<>"}
SYMBOLS |= {"and": "and", "or": "or"}

AGGREGATES = {
    "count": "count(v)",
    "rate": "count(v) / {seconds}",
    "sum": "sum(v)",
    "mean": "avg(v)",
    "share": "avg(v)",
    "min": "min(v)",
    "max": "max(v)",
    "std": "stddev_pop(v)",
    "var": "var_pop(v)",
    "z_score": "(any_value(own) - avg(v)) / stddev_pop(v)",
    "last": "arg_max(v, (at_ms, off))",
    "seconds_since_last": "(any_value(as_of_ms) - max(at_ms)) / 1000.0",
    "first": "arg_min(v, (at_ms, off))",
    "streak": "coalesce(list_position(list_reverse({ordered}), 0.0) - 1, len({ordered}))",
    "decayed_count": "sum(pow(2, (at_ms - as_of_ms) / {life}))",
    "decayed_sum": "sum(v * pow(2, (at_ms - as_of_ms) / {life}))",
    "decayed_mean": "sum(v * pow(2, (at_ms - as_of_ms) / {life})) / sum(pow(2, (at_ms - as_of_ms) / {life}))",
    "lag": "{ordered}[-1 - {n}]",
    "change": "{ordered}[-1] - {ordered}[-2]",
    "quantile": "list_sort(list(v))[1 + floor({q} * (count(v) - 1))::int]",
    "mode": "{frequent}",
    "top_k": "{frequent}",
    "distinct": "count(distinct v)",
}
ORDERED = "coalesce(list(v order by off) filter (in_order), [])"
FREQUENT = """list_extract(list_transform(
    list_sort(list_transform(map_entries(histogram({place})), lambda one: {{'count': -one.value::int, 'place': one.key}})),
    lambda one: one.place
), {rank})"""
EXACT = {"count", "min", "max", "last", "first", "streak", "lag", "quantile", "mode", "top_k", "distinct"}


def sql_of(canonical: object) -> str:
    """The SQL of an expression."""
    if isinstance(canonical, str):
        return f"'{canonical}'"
    if not isinstance(canonical, dict):
        return str(canonical)
    if "field" in canonical:
        return str(canonical["field"])
    left, right = (sql_of(one) for one in canonical["of"])
    return f"({left} {SYMBOLS[canonical['op']]} {right})"


def asked_of_duckdb(database: duckdb.DuckDBPyConnection, feature: Feature) -> Float64s:
    """The feature as of every event, in the order of the log."""
    value = "1" if feature.value is None else sql_of(feature.value.canonical())
    where = "true" if feature.where is None else sql_of(feature.where.canonical())
    kind = feature.aggregation.of
    if feature.aggregation.paned:
        pane, panes = feature.pane_ms, feature.window_ms // feature.pane_ms
        sees = f"one.off <= seen.off and one.at_ms // {pane} between seen.as_of_ms // {pane} - {panes} and seen.as_of_ms // {pane}"
        wanted = "count(*) filter (in_order) > 0" if kind == "run" else "true"
    elif kind == "newest":
        # The newest event before, if the window sees it: not the newest that the window sees.
        sees = "one.off < seen.off"
        wanted = f"max(at_ms) > any_value(as_of_ms) - {feature.window_ms}"
    else:
        sees = "one.off <= seen.off"
        times = ORDERED.replace("list(v", "list(at_ms")
        wanted = f"{times}[-1 - {max(feature.options.n, 1)}] > any_value(as_of_ms) - {feature.window_ms}"
    number = "cast({} as double)" if feature.aggregation.takes != "anything" else "{}"
    finite = "isfinite(number)" if feature.aggregation.takes != "anything" else "number is not null"
    found = database.sql(f"""
        with given as (
            select part, sensor, off, at_ms, in_order, {number.format(value)} as number from seen where not behind and ({where})
        ), joined as (
            select seen.number_in_log, seen.as_of_ms, one.at_ms, one.off, one.in_order, one.number as v,
                case when {where} then {value} end as own
            from seen left join (from given where {finite}) as one on one.part = seen.part and one.sensor = seen.sensor and {sees}
        )
        select case when count(v) > 0 and {wanted} then cast({_aggregate(feature)} as double) end as found
        from joined group by number_in_log order by number_in_log
    """).fetchnumpy()["found"]
    return np.ma.filled(found.astype(np.float64), feature.empty) if np.ma.isMaskedArray(found) else found


def _aggregate(feature: Feature) -> str:
    vocabulary = feature.options.vocabulary
    place = " ".join(f"when v = {sql_of(symbol)} then {place}" for place, symbol in enumerate(vocabulary))
    return AGGREGATES[feature.aggregation.name].format(
        ordered=ORDERED,
        frequent=FREQUENT.format(place=f"case {place} else {len(vocabulary)} end", rank=feature.options.rank),
        seconds=feature.window_ms / 1000,
        life=feature.options.half_life_ms,
        n=feature.options.n,
        q=feature.options.q,
    )


def log_of(seed: int) -> list[Happening]:
    """Events of forty sensors, bursts and pauses, out of order and late, with absent values."""
    draw = random.Random(seed)
    time_ms, happenings = 1_700_000_000_000, []
    for _ in range(EVENTS):
        time_ms += draw.choice([0, 1, 40, 120, 700, draw.randrange(3_000)])
        columns: dict[str, float | str | None] = {
            "x": draw.choice([math.nan, 0.0, 0.5, draw.gauss(0, 1), draw.gauss(100, 1e-3), draw.lognormvariate(0, 3)]),
            "y": draw.choice([0.0, 1.0, draw.gauss(-5, 10)]),
            "ok": draw.choice([math.nan, 0.0, 1.0]),
            "word": draw.choice([None, "a", "b"]),
        }
        back_ms = draw.choice([0, 0, 0, 500, 5_000, LATENESS_MS, LATENESS_MS + 1, 40_000])
        sensor = f"s{min(int(draw.expovariate(0.15)), 39)}"
        happenings.append(Happening(entity=sensor, time_ms=time_ms - back_ms, partition=draw.randrange(2), columns=columns))
    return happenings


@pytest.fixture
def log(seed: int) -> list[Happening]:
    """A log of its own in every run."""
    return log_of(seed)


@pytest.fixture
def database(log: list[Happening]) -> duckdb.DuckDBPyConnection:
    """The log as a table, and what SQL makes of watermarks and as-of times."""
    database = duckdb.connect()
    database.execute(
        "create table events (number_in_log int, part int, off bigint, sensor text, at_ms bigint, x double, y double, ok bool, word text)"
    )
    offsets = offsets_of(log)
    rows = [
        (number, one.partition, offsets[number], one.entity, one.time_ms, *(_null_for_nan(cell) for cell in one.columns.values()))
        for number, one in enumerate(log)
    ]
    database.executemany("insert into events values (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    database.execute(SEEN)
    return database


def _null_for_nan(cell: float | str | None) -> float | str | None:
    return None if isinstance(cell, float) and math.isnan(cell) else cell


def test_duckdb_agrees(log: list[Happening], database: duckdb.DuckDBPyConnection) -> None:
    """SQL over the log and the fold give the same late marks, as-of times and features: exactly for counts and extremes, else to 1e-9."""
    folded = Folded([EVERYTHING], log, range(0, EVENTS, 250))
    judged = database.sql("select behind, as_of_ms from seen order by number_in_log").fetchnumpy()
    assert judged["behind"].tolist() == folded.late.tolist()
    assert judged["as_of_ms"].tolist() == folded.as_of_ms.tolist()
    for column, feature in enumerate(EVERYTHING.features):
        expected, found = asked_of_duckdb(database, feature), folded.values[:, column]
        if feature.aggregation.name == "distinct":
            expected = np.where(expected > feature.options.exact, found, expected)  # an estimate: its bound has a test of its own
        if isinstance(feature.form, BinForm):
            expected, found = feature.form.numbers(expected), feature.form.numbers(found)
        if feature.aggregation.name == "z_score":
            deviations = asked_of_duckdb(database, replace(feature, aggregation=BY_NAME["std"]))
            expected = np.where(deviations < 1e-6, found, expected)  # nothing but rounding
        if feature.aggregation.name in EXACT:
            assert np.array_equal(found, expected, equal_nan=True), feature.name
        else:
            near = 1e-6 if feature.aggregation.needs & NEEDS_SQUARES else 1e-9
            np.testing.assert_allclose(found, expected, rtol=max(1e-9, near / 100), atol=near, err_msg=feature.name)
