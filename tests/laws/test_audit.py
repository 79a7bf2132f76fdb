"""The audit's own path, from events to answers, beside the fold: on any log, for every entry of the catalogue."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import headrace as hr
from headrace.audit.history import History, same, told, vector
from headrace.audit.wanted import wanted_before, wanted_of
from headrace.changes import definitions_fact
from headrace.definition import Pipeline
from headrace.features.aggregation import CATALOGUE
from headrace.features.view import FeatureView
from tests.laws.readings import LATENESS_MS, PARTS, SOURCE, cuts_of, logs
from tests.unit.features.folding import Folded, batch_of, offsets_of
from tests.unit.features.naive import Happening

DERIVED = FeatureView(
    "derived",
    entity="sensor",
    source=SOURCE,
    features=[
        hr.sum("y", over="1m"),
        hr.count(over="3s"),
        hr.mean("x", over="20s"),
        hr.ratio("sum_y_1m", "count_3s"),
        hr.difference("sum_y_1m", "mean_x_20s"),
        hr.ratio("mean_x_20s", "sum_y_1m"),
    ],
)
VIEWS = [*PARTS, DERIVED]


def pipeline_of(view: FeatureView) -> Pipeline:
    """A pipeline with one view."""
    return hr.Pipeline("p", views=[view], predictions="predictions.v1")


@settings(max_examples=150)
@given(st.data())
def test_the_audit_agrees_with_the_fold(drawn: st.DataObject) -> None:
    """Whatever the log and its batches: no served value of any aggregation is called wrong, and late events are the same ones."""
    happenings: list[Happening] = drawn.draw(logs())
    view = drawn.draw(st.sampled_from(VIEWS))
    folded = Folded([view], happenings)
    wanted = wanted_of(pipeline_of(view))
    history = History(share=1.0, lateness_ms=LATENESS_MS, span_ms=view.longest_window_ms + 2 * view.longest_pane_ms, pipelines=["p"])
    offsets = offsets_of(happenings)
    cuts = drawn.draw(cuts_of(len(happenings)))
    number = 0
    for begin, end in zip([0, *cuts], [*cuts, len(happenings)], strict=True):
        for life, place in history.take(batch_of(happenings[begin:end], offsets[begin:end])) if begin < end else ():
            life.settled["p"] = place + 1
            assert life.occurrences[place].late == folded.late[number]
            answers = vector(wanted, told(life.occurrences, place))
            for one, served in zip(wanted, folded.values[number].tolist(), strict=True):
                assert same(None if math.isnan(served) else served, answers[one.name]), (one.name, served, answers[one.name])
            number += 1
    assert number == len(happenings)


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_definitions_survive_the_facts(view: FeatureView) -> None:
    """What `apply` remembers of a view is enough to tell its features again: read back, they are the same."""
    fact = definitions_fact(hr.App("a", pipelines=[pipeline_of(view)]))
    newer = FeatureView(view.name, version=2, entity="sensor", source=SOURCE, features=[hr.count(over="1s")])
    ((called, found),) = wanted_before([b"{}", fact, None], [newer])
    assert called.startswith(f"{view.name} version 1 ")
    for read, declared in zip(found, wanted_of(pipeline_of(view)), strict=True):
        assert (read.name, read.key) == (declared.name, declared.key)
        assert read.feature is not None
        assert declared.feature is not None
        assert read.feature.aggregation is declared.feature.aggregation
        assert (read.feature.window_ms, read.feature.pane_ms) == (declared.feature.window_ms, declared.feature.pane_ms)
        assert read.feature.options == declared.feature.options
        assert read.feature.empty == pytest.approx(declared.feature.empty, nan_ok=True)


def test_every_entry_is_tried() -> None:
    """The views hold every aggregation there is."""
    assert {feature.aggregation.name for view in VIEWS for feature in view.features} == {entry.name for entry in CATALOGUE}
