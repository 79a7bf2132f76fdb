from __future__ import annotations

from typing import Any

import pytest

import headrace as hr
from headrace.errors import DefinitionError


class Departure(hr.Event):
    """A departure."""

    flight: str
    origin: str
    departed_at: hr.EventTime
    delay: float


class Arrival(hr.Event):
    """An arrival."""

    flight: str
    delay: float


DEPARTURES = hr.Source("departures.v1", Departure, key="origin", time="departed_at")
ACTIVITY = hr.FeatureView("activity", entity="origin", source=DEPARTURES, features=[hr.count(over="1h"), hr.mean("delay", over="3h")])
DELAYS = hr.FeatureView("delays", entity="origin", source=DEPARTURES, features=[hr.max("delay", over="3h")])


def pipeline(name: str = "late", **changed: Any) -> hr.Pipeline:
    """A pipeline with changes."""
    return hr.Pipeline(name, **{"views": [ACTIVITY, DELAYS], "predictions": f"{name}.predictions.v1", **changed})


def test_pipeline() -> None:
    """The feature vector is every view's features in order, then the event's own."""
    late = pipeline(event_features=["delay", hr.col("delay").log1p(), (hr.col("delay") > 15).alias("is_late")])
    assert late.feature_names == (
        "activity.count_1h",
        "activity.mean_delay_3h",
        "delays.max_delay_3h",
        "delay",
        "log1p_delay",
        "is_late",
    )
    assert [name for name, _ in late.event_features] == ["delay", "log1p_delay", "is_late"]
    assert late.source is DEPARTURES
    assert late.model is None
    assert late.publish_features


def test_pipeline_fingerprint() -> None:
    """A pipeline's fingerprint changes with what decides about its vectors, not with its topic or model."""
    assert pipeline().fingerprint == pipeline(predictions="elsewhere", model="late.onnx").fingerprint
    others = [pipeline(views=[DELAYS, ACTIVITY]), pipeline(views=[DELAYS]), pipeline(event_features=["delay"]), pipeline("other")]
    assert len({pipeline().fingerprint, *(other.fingerprint for other in others)}) == 5


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"name": "late.v1"}, "a name is up to 100 letters"),
        ({"views": []}, "has no views"),
        ({"views": [ACTIVITY, ACTIVITY]}, "has the view 'activity' twice"),
        ({"predictions": "no topic"}, "predictions: 'no topic' is no topic name"),
        ({"predictions": "departures.v1"}, "is read by this pipeline"),
        ({"event_features": ["gate"]}, "event feature gate: the event has no field 'gate'"),
        ({"event_features": ["flight"]}, "event feature flight is text; compare it"),
        ({"event_features": ["delay", "delay"]}, "has the feature 'delay' twice"),
        ({"outcomes": hr.Outcomes("late.predictions.v1", Arrival, join="flight", value=hr.col("delay"), within="1d")}, "is read by this"),
        ({"outcomes": hr.Outcomes("arrivals.v1", Departure, join="departed_at", value=hr.col("delay"), within="1d")}, None),
        (
            {
                "outcomes": hr.Outcomes(
                    "a", type("A", (Arrival,), {"__annotations__": {"gate": str}}), join="gate", value=hr.col("delay"), within="1d"
                )
            },
            "has no field 'gate' to join",
        ),
    ],
)
def test_refused_pipelines(changed: dict[str, Any], says: str | None) -> None:
    """A pipeline names what is wrong with it."""
    if says is None:
        assert pipeline(**changed).outcomes is changed["outcomes"]
    else:
        with pytest.raises(DefinitionError, match=rf"^Pipeline\(.*{says}"):
            pipeline(**changed)


def test_corrections_have_a_topic_of_their_own() -> None:
    """A pipeline with corrections retains events beside its views, under a name of its own in the store, and nothing else of it changes."""
    plain, with_them = pipeline(), pipeline(corrections=True)
    assert (plain.corrections, plain.retained) == (None, None)
    assert with_them.corrections == "late.predictions.v1.corrections"
    assert with_them.fingerprint == plain.fingerprint
    app = hr.App("flights", pipelines=[with_them])
    assert app.result_topics == ("late.predictions.v1", "late.predictions.v1.corrections", "late.predictions.v1.shadow")
    assert app.kept_of(DEPARTURES) == (ACTIVITY, DELAYS, with_them.retained)
    fingerprints = [
        one.retained.fp
        for one in (
            with_them,
            pipeline(corrections=True, views=[ACTIVITY]),
            pipeline(corrections=True, event_features=["delay"]),
            pipeline("later", corrections=True),
            pipeline(corrections=True, outcomes=hr.Outcomes("a", Arrival, join="flight", value=hr.col("delay"), within="1d")),
        )
        if one.retained is not None
    ]
    assert len({*fingerprints, ACTIVITY.fp, DELAYS.fp}) == 7


PUNCTUAL = hr.Source("departures.v1", Departure, key="origin", time="departed_at", lateness=0)
ANY_KEY = hr.Source("departures.v1", Departure, key="origin", time="departed_at", rekey=True)
ELSEWHERE = hr.Source("elsewhere.v1", Departure, key="origin", time="departed_at")


def counting(name: str, source: hr.Source = DEPARTURES, *, entity: str = "origin") -> hr.FeatureView:
    """A small view."""
    return hr.FeatureView(name, entity=entity, source=source, features=[hr.count(over="1h")])


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"views": [], "source": DEPARTURES, "event_features": ["delay"]}, r"needs views=\[...\]"),
        ({"look_up": hr.LookUp(counting("away", ELSEWHERE))}, "and look_up: .* leave one of the two out"),
        (
            {"views": [ACTIVITY, counting("flights", entity="flight")]},
            "FeatureView.'flights', .* keeps 'flight', to which events come by a hop",
        ),
        ({"views": [counting("any", ANY_KEY)]}, "keep only views of the key 'origin' of a source without rekey"),
        ({"views": [counting("now", PUNCTUAL)]}, "has lateness 0"),
        *(
            (
                {"views": [hr.FeatureView("v", entity="origin", source=DEPARTURES, features=[feature])]},
                f"{name} of .* follows the order of offsets",
            )
            for feature, name in (
                (hr.lag("delay", over="1h"), "lag1_delay_1h"),
                (hr.change("delay", over="1h"), "change_delay_1h"),
                (hr.streak(hr.col("delay") > 0, over="1h"), "streak_delay_gt_0_1h"),
            )
        ),
    ],
)
def test_corrections_that_cannot_be_told_are_refused(changed: dict[str, Any], says: str) -> None:
    """What could not be told again in the order of event time is refused, with the definition, the reason and the way out."""
    with pytest.raises(DefinitionError, match=rf"^Pipeline\('late'\): corrections=True.*{says}"):
        pipeline(corrections=True, **changed)


def test_views_of_two_sources() -> None:
    """All views of a pipeline come from one source."""
    other = hr.Source("departures.v2", Departure, key="origin", time="departed_at")
    view = hr.FeatureView("v", entity="origin", source=other, features=[hr.count(over="1h")])
    with pytest.raises(DefinitionError, match="use one source"):
        pipeline(views=[ACTIVITY, view])


def test_app() -> None:
    """An app knows its sources, each view once, and its dead-letter topic."""
    other = hr.Source("cards.v1", Departure, key="flight", time="departed_at")
    cards = hr.FeatureView("cards", entity="flight", source=other, features=[hr.count(over="1h")])
    one, two, three = pipeline("one"), pipeline("two", views=[DELAYS]), pipeline("three", views=[cards])
    app = hr.App("flights", pipelines=[one, two, three])
    assert app.sources == (DEPARTURES, other)
    assert app.views_of(DEPARTURES) == (ACTIVITY, DELAYS)
    assert app.views_of(other) == (cards,)
    assert app.pipelines_of(DEPARTURES) == (one, two)
    assert app.dead_letters == "flights.dead-letters.v1"


def test_refused_apps() -> None:
    """An app names what is wrong with it."""
    again = hr.FeatureView("delays", entity="origin", source=DEPARTURES, features=[hr.count(over="1h")])
    renamed = hr.Source("departures.v1", Departure, key="flight", time="departed_at")
    clash = hr.FeatureView("v", entity="flight", source=renamed, features=[hr.count(over="1h")])
    letters = hr.Source("flights.dead-letters.v1", Departure, key="flight", time="departed_at")
    reads_letters = hr.FeatureView("v", entity="flight", source=letters, features=[hr.count(over="1h")])
    for name, pipelines, says in (
        ("flights.v1", [pipeline()], "without dots"),
        ("flights", [], "has no pipelines"),
        ("flights", [pipeline(), pipeline()], "has the pipeline 'late' twice"),
        ("flights", [pipeline("one", predictions="p"), pipeline("two", predictions="p")], "has the prediction topic 'p' twice"),
        (
            "flights",
            [pipeline("one", corrections=True, predictions="p"), pipeline("two", predictions="p.corrections")],
            "'p.corrections' twice",
        ),
        ("flights", [pipeline("one"), pipeline("two", views=[again])], "has two different views named 'delays'"),
        ("flights", [pipeline("one"), pipeline("two", views=[clash])], "under two contracts"),
        ("flights", [pipeline(predictions="flights.dead-letters.v1")], "which the app uses already"),
        ("flights", [pipeline(views=[reads_letters])], "reads its own dead letters"),
    ):
        with pytest.raises(DefinitionError, match=rf"^App\(.*{says}"):
            hr.App(name, pipelines=pipelines)
