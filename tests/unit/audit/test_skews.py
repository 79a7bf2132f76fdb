"""T61: mistakes put into what is served are flagged, and named by the recomputation that makes the same one; a clean run has none."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest

import headrace as hr
from headrace.audit.findings import Findings, Kind
from headrace.changes import definitions_fact
from headrace.features import training, watermark
from headrace.testing import Driver
from tests.unit.audit.sales import EVENTS, SOURCE, Sale, Served, Sold, app, audited, folded, pipeline, run, sold


@pytest.fixture(scope="module")
def driver() -> Driver:
    """A clean run."""
    return run()


@pytest.fixture(scope="module")
def events(driver: Driver) -> list[Sold]:
    """Its events."""
    return sold(driver)


@pytest.fixture(scope="module")
def true(events: list[Sold]) -> Served:
    """What should be served."""
    return folded(events)


def named(findings: Findings, kind: Kind) -> str:
    """What the one explanation says; it is of that kind and explains nearly everything."""
    found = findings.pipelines["demand"].explanations
    assert [one.kind for one in found] == [kind], found
    assert found[0].explained >= 0.95 * found[0].of
    assert not findings.clean()
    return found[0].says


def test_a_clean_run_raises_nothing(driver: Driver) -> None:
    """After kills and a roll-back every feature of every prediction is what the twins say."""
    findings = audited(driver)
    found = findings.pipelines["demand"]
    assert findings.differences == []
    assert findings.clean()
    assert found.explanations == []
    assert found.vectors > 0.9 * EVENTS
    assert max(found.unjudged.values(), default=0) < 0.2 * found.vectors
    assert findings.sampled == findings.events - EVENTS // 97 - 1


def test_the_fold_of_the_tests_is_what_is_served(driver: Driver, true: Served) -> None:
    """What the following tests put a mistake into is clean itself."""
    assert audited(driver, true).clean()


Bug = Callable[[list[Sold]], Served]


def _of(change: Callable[[Sold], Sold]) -> Bug:
    return lambda events: folded([change(one) for one in events])


def _absent_is_zero(one: Sold) -> Sold:
    return one.with_fields(**{name: one.event[name] or 0 for name in ("amount", "pieces")}, paid=bool(one.event["paid"]))


def _by_time(events: list[Sold]) -> Served:
    return folded(sorted(events, key=lambda one: (one.record.partition, one.event["at"])), pipeline(source=PATIENT))


def _stretch(events: list[Sold]) -> list[Sold]:
    """A stretch of the log of partition 1."""
    mine = [one for one in events if one.record.partition == 1]
    return mine[len(mine) // 3 :][:60]


def _without(events: list[Sold]) -> Served:
    gone = {one.place for one in _stretch(events)}
    return folded([one for one in events if one.place not in gone])


def _twice(events: list[Sold]) -> Served:
    stretch = _stretch(events)
    behind = events.index(stretch[-1]) + 1
    return folded([*events[:behind], *stretch, *events[behind:]])


def _behind(events: list[Sold]) -> Served:
    """Every vector of the views is that of the entity's event before."""
    before: dict[object, dict[str, float | None]] = {}
    found = {}
    true = folded(events)
    for one in events:
        own = {name: value for name, value in true[one.place].items() if "." not in name}
        found[one.place] = {**before.get(one.event["shop"], true[one.place]), **own}
        before[one.event["shop"]] = true[one.place]
    return found


def _float32(events: list[Sold]) -> Served:
    def rounded(value: float | None) -> float | None:
        return None if value is None else float(np.float32(value))

    return {place: {name: rounded(value) for name, value in vector.items()} for place, vector in folded(events).items()}


def _in_milliseconds(events: list[Sold]) -> Served:
    def scaled(name: str, value: float | None) -> float | None:
        return value * 1_000 if name.endswith("seconds_since_last_6h") and value is not None else value

    return {place: {name: scaled(name, value) for name, value in vector.items()} for place, vector in folded(events).items()}


PATIENT = hr.Source(SOURCE, Sale, key="shop", time="at", lateness="3000d", max_ahead="5m")

BUGS: dict[str, tuple[Bug, Kind, str]] = {
    "time zone": (lambda events: folded(events, pipeline(zone="UTC")), Kind.TIME_ZONE, "hours and weekdays are read 5 h ahead"),
    "null handling": (_of(_absent_is_zero), Kind.NULL_HANDLING, "absent fields are taken as 0"),
    "late data": (lambda events: folded(events, pipeline(source=PATIENT)), Kind.LATE_TAKEN, "late events are folded, as if"),
    "wrong order": (_by_time, Kind.WRONG_ORDER, "events are applied by event time, late ones too"),
    "duplicate events": (_twice, Kind.DUPLICATE, "partition 1"),
    "missing events": (_without, Kind.MISSING, "partition 1"),
    "a pane too long": (lambda events: folded(events, pipeline(reach_m=1)), Kind.WINDOW, "too long"),
    "a pane too short": (lambda events: folded(events, pipeline(reach_m=-1)), Kind.WINDOW, "too short"),
    "stale state": (_behind, Kind.STALE, "the event before"),
    "unit of a field": (_of(lambda one: one.with_fields(weight=float(str(one.event["weight"])) * 1_000)), Kind.UNIT, "field weight"),
    "unit of a feature": (_in_milliseconds, Kind.UNIT, "the feature is multiplied by 1000"),
    "32 bits": (_float32, Kind.FLOAT32, "features are rounded"),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_mistake_is_named(bug: str, driver: Driver, events: list[Sold]) -> None:
    """Each seeded mistake is flagged, and named as what it is and nothing else."""
    served, kind, says = BUGS[bug]
    assert says in named(audited(driver, served(events)), kind)


def test_a_mistake_that_begins_later(driver: Driver, events: list[Sold]) -> None:
    """A mistake of a version that found the state of the one before is named as well, although windows hold events of both."""
    begin_ms = sorted(int(str(one.event["at"])) for one in events)[len(events) // 2]
    grams = [
        one.with_fields(weight=float(str(one.event["weight"])) * 1_000) if one.record.timestamp_ms >= begin_ms else one for one in events
    ]
    assert named(audited(driver, folded(grams)), Kind.UNIT) == "field weight is multiplied by 1000, from some event on"


def test_two_mistakes_at_once(driver: Driver, events: list[Sold]) -> None:
    """Mistakes in different features are named one by one."""
    served = folded(events, pipeline(zone="UTC"))
    hours = ("hour", "recent.mean_amount_where_hour_at_ge_12_360m")
    both = {
        place: {name: served[place][name] if name in hours else value for name, value in vector.items()}
        for place, vector in _in_milliseconds(events).items()
    }
    findings = audited(driver, both)
    found = {one.kind: one.features for one in findings.pipelines["demand"].explanations}
    assert found == {Kind.TIME_ZONE: sorted(hours), Kind.UNIT: ["recent.seconds_since_last_6h"]}


def test_late_events_that_are_folded(driver: Driver, events: list[Sold], monkeypatch: pytest.MonkeyPatch) -> None:
    """A fold that forgets to leave late events out is named, although watermarks are right."""

    def never_late(*given: object) -> watermark.Advance:
        true = watermark.advance(*given)  # type: ignore[arg-type]
        return watermark.Advance(late=np.zeros_like(true.late), horizons_ms=true.horizons_ms, watermarks_ms=true.watermarks_ms)

    with monkeypatch.context() as patched:
        patched.setattr(training, "watermark", type("Patched", (), {"advance": staticmethod(never_late)}))
        served = folded(events)
    assert named(audited(driver, served), Kind.LATE_TAKEN) == "late events are folded"


def test_changed_code(driver: Driver, events: list[Sold]) -> None:
    """Values of a version that was applied earlier, under the fingerprint of this one, are named by that version."""
    before = pipeline(version=7, amount=hr.col("amount") * 2)
    driver.log.append(app.facts, None, b"definitions", definitions_fact(hr.App("shops", pipelines=[before])))
    says = named(audited(driver, folded(events, before)), Kind.CHANGED_CODE)
    assert says.startswith("served is recent version 7 as it was applied earlier")


def test_what_nobody_knows_stays_unexplained(driver: Driver, true: Served) -> None:
    """A mistake that is none of the known ones is flagged with its values, and not named."""
    draw = random.Random(5)
    strange = {place: {**vector, "recent.count_60m": draw.uniform(100, 900)} for place, vector in true.items()}
    findings = audited(driver, strange)
    assert not findings.clean()
    assert findings.pipelines["demand"].mismatches.keys() == {"recent.count_60m"}
    assert findings.pipelines["demand"].explanations == []
    assert {one.feature for one in findings.differences} == {"recent.count_60m"}
    assert findings.pipelines["demand"].ratio("recent.count_60m") > 0.9
