"""The demo's two versions: moved through the gate while flights run, told by the facts, compared on the same flights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headrace.clock import SystemClock
from headrace.demo.engineer import SKIPPED
from headrace.demo.flights import MODEL, SECOND_MODEL, aircraft_alone, app_with_registry
from headrace.demo.replay import Replay, Replayed
from headrace.errors import RegistryRefused
from headrace.predict import onnx_file
from tests.unit.apps.engineered import passes
from tests.unit.demo.small_year import small_year
from tests.unit.demo.test_replay import Listener

DEPARTURES = small_year(2_000)
CHANGES = ["promoted version 1", "shadowed version 2", "promoted version 2", "rolled back from version 2 to version 1"]


@pytest.fixture(scope="module")
def replayed() -> Replayed:
    """A year with the real gate in front of both versions."""
    files = (MODEL, SECOND_MODEL)
    return Replay(app_with_registry, DEPARTURES, {}, clock=SystemClock(), alone=aircraft_alone, files=files).run(Listener())


def test_both_versions_pass_the_gate(replayed: Replayed) -> None:
    """The files as they are committed; the second on vectors that were served."""
    first, second = replayed.versions.registered
    assert (first.version, first.gate, first.bytes) == ("1", "passed", MODEL.stat().st_size)
    assert (second.version, second.bytes) == ("2", SECOND_MODEL.stat().st_size)
    assert second.gate.startswith("passed, rehearsed on ")


def test_each_change_holds_from_offsets_on_that_the_facts_tell(replayed: Replayed) -> None:
    """Four changes in their order, each at an offset of every partition that has events, and about where it was asked for."""
    found = replayed.versions
    assert [switched.did for switched in found.switches] == CHANGES
    befores = [switched.held_after for switched in found.switches]
    assert befores == sorted(set(befores))
    for switched, share in zip(found.switches, (0, 1 / 3, 1 / 2, 3 / 4), strict=True):
        assert switched.topic == "flights.late_arrival.by-carrier.v1"
        assert switched.given_after >= share * len(DEPARTURES)
        assert abs(switched.held_after - share * len(DEPARTURES)) < 0.2 * len(DEPARTURES)
    for partition in found.switches[0].offsets:
        offsets = [switched.offsets[partition] for switched in found.switches]
        assert offsets == sorted(offsets)


def test_what_predictions_and_facts_say_of_versions_agrees(replayed: Replayed) -> None:
    """The counts of both are the same, and all there are; the shadow scored what stands between its two changes."""
    found = replayed.versions
    assert found.predictions == found.by_facts
    assert sum(found.predictions.values()) == len(DEPARTURES)
    shadowed, promoted = found.switches[1:3]
    assert found.shadowed == found.shadowed_by_facts == {"2": promoted.held_after - shadowed.held_after}
    assert found.predictions["2"] == found.switches[3].held_after - promoted.held_after
    assert found.failures() == []


def test_versions_are_compared_on_the_same_flights(replayed: Replayed) -> None:
    """Both have a figure for each set of flights, and the sets are those that version 2 scored and that arrived."""
    compared = replayed.versions.compared
    assert {one.which for one in compared} == {"version 2 in the shadow of 1", "version 2 as champion"}
    assert all(one.auc.keys() == {"1", "2"} and all(np.isfinite(list(one.auc.values()))) for one in compared)
    scored_by_second = replayed.versions.shadowed["2"] + replayed.versions.predictions["2"]
    assert 0.9 * scored_by_second < sum(one.flights for one in compared) < scored_by_second


def test_damage_is_named(replayed: Replayed) -> None:
    """Counts that differ from the facts, and a command that was not taken up, are said."""
    damaged = replace(replayed.versions, predictions={"1": 9}, shadowed={}, not_taken_up=["promoted version 2"])
    said = damaged.failures()
    assert said[0] == "promoted version 2, and not every partition took it up"
    assert said[1].startswith("predictions by version are {'1': 9}, by the facts {'1': ")
    assert said[2].startswith("shadow scores by version are {}, by the facts {'2': ")


def test_what_the_gate_refuses_is_not_registered(tmp_path: Path) -> None:
    """A file without golden rows ends the replay before anything is scored."""
    bare = onnx_file.with_metadata(MODEL.read_bytes(), {}, without=["headrace.golden_rows", "headrace.golden_scores"])
    path = tmp_path / "bare.onnx"
    path.write_bytes(bare)
    replay = Replay(app_with_registry, small_year(20), {}, clock=SystemClock(), alone=aircraft_alone, files=(path, SECOND_MODEL))
    with pytest.raises(RegistryRefused, match="golden"):
        replay.register()


def test_without_the_gates_package_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions are registered all the same, with the reason in place of a verdict."""
    monkeypatch.setattr(onnx_file, "installed", lambda: False)
    replay = Replay(app_with_registry, small_year(20), {}, clock=SystemClock(), alone=aircraft_alone, files=(MODEL, SECOND_MODEL))
    assert replay.register() == SKIPPED


@pytest.mark.parametrize("count", [1, 2, 17])
def test_a_short_replay_takes_every_change_up(count: int) -> None:
    """Where hardly anything comes, changes are told all the same, and nothing is wrong."""
    files = (MODEL, SECOND_MODEL)
    replay = Replay(app_with_registry, small_year(count), {}, clock=SystemClock(), alone=aircraft_alone, files=files, gate=passes)
    found = replay.run(Listener()).versions
    assert [switched.did for switched in found.switches] == CHANGES
    assert found.failures() == []
