"""Versions of the registry in the path: who scores what, what is published, what becomes of versions that fail or are damaged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from onnx import helper

import headrace as hr
from headrace.apps.model_commands import Done
from headrace.errors import FatalError, RegistryRefused
from headrace.models import signature_of
from headrace.parts import Limits
from headrace.predict import onnx_file
from headrace.predict.commands import FALLBACK
from headrace.predict.moves import Role
from headrace.predict.onnx_model import OnnxModel
from headrace.predict.roles import Roster, challenged
from headrace.switches import Switch, in_force, switch_fact, switches_in
from headrace.testing import Driver
from headrace.types import TopicPartition
from tests.unit.apps.engineered import Payment, file_of, spending
from tests.unit.predict import small_models

fraud = hr.Pipeline("fraud", views=[spending], event_features=["amount"], predictions="fraud.v1")
falling_back = hr.Pipeline("fraud", views=[spending], event_features=["amount"], predictions="fraud.v1", fallback=-1.0)


def driver_of(*pipelines: hr.Pipeline, limits: Limits | None = None) -> Driver:
    """An app whose models come from a registry in memory."""
    return Driver(hr.App("cards", pipelines=pipelines or (fraud,)), partitions=2, limits=limits)


def register(driver: Driver, version: str, *, pipeline: hr.Pipeline = fraud, content: bytes | None = None) -> None:
    """Register a version that scores its number times as high as version 1."""
    content = content or file_of(version, pipeline=pipeline, factor=float(version))
    commands = driver.registry().commands
    signed = signature_of(pipeline, version=version, output="score", kind="value")
    commands.carry_out(commands.register(content, signed))


def told(driver: Driver, version: str, to: Role, *, share: float | None = None, pipeline: str = "fraud") -> Done:
    """Move a version."""
    commands = driver.registry().commands
    return commands.carry_out(commands.move(pipeline, version, to, share=share))


def move(driver: Driver, version: str, to: Role, *, share: float | None = None, pipeline: str = "fraud") -> None:
    """Move a version, and let the workers hear of it."""
    told(driver, version, to, share=share, pipeline=pipeline)
    driver.advance(1_000)
    driver.run()


def pay(driver: Driver, count: int, cards: int = 7) -> None:
    """So many payments."""
    for number in range(count):
        driver.advance(1_000)
        driver.send("payments.v1", Payment(card=f"card-{number % cards}", at=driver.clock.now_ms(), amount=float(number + 1)))
    driver.run()


def versions(results: Sequence[dict[str, Any]]) -> list[str]:
    """Who scored, in the order in which it happened."""
    return [one["model"]["version"] for one in sorted(results, key=lambda one: one["event_time"])]


def facts(driver: Driver) -> list[bytes | None]:
    """The facts of the app."""
    return [record.value for record in driver.log.read(TopicPartition(driver.app.facts, 0))]


def insist_on_the_facts(driver: Driver, results: Iterable[dict[str, Any]]) -> None:
    """Each result is of the champion that the facts name at its offset."""
    switches = switches_in(facts(driver))
    for one in results:
        _, partition, offset, _ = one["id"].split("-")
        switch = in_force(switches["fraud", TopicPartition("payments.v1", int(partition))], int(offset))
        assert switch is not None
        assert switch.roster.champion == one["model"]["version"], f"{one['id']} was scored by {one['model']['version']}"


def test_a_promotion_and_a_rollback_take_effect_between_batches() -> None:
    """Each version scores what came while it was champion, and the facts say from which offsets on."""
    with driver_of() as driver:
        for version in ("1", "2"):
            register(driver, version)
        move(driver, "1", Role.CHAMPION)
        pay(driver, 10)
        move(driver, "2", Role.SHADOW)
        move(driver, "2", Role.CHAMPION)
        pay(driver, 10)
        commands = driver.registry().commands
        commands.carry_out(commands.rollback("fraud"))
        driver.advance(1_000)
        pay(driver, 10)
        found = driver.results("fraud")
        assert versions(found) == ["1"] * 10 + ["2"] * 10 + ["1"] * 10
        insist_on_the_facts(driver, found)
        for one in found:
            vector = one["features"]
            assert one["score"] == pytest.approx(int(one["model"]["version"]) * (2 * vector["spending.count_1h"] + 3 * vector["amount"]))


def test_a_challenger_answers_for_its_share_and_the_champion_shadows_it() -> None:
    """The entities are those of the hash, each event has one result in the partition's order, and all who score are told apart."""
    with driver_of() as driver:
        for version in ("1", "2", "3"):
            register(driver, version)
        move(driver, "1", Role.CHAMPION)
        move(driver, "3", Role.SHADOW)
        move(driver, "2", Role.SHADOW)
        move(driver, "2", Role.CHALLENGER, share=0.4)
        pay(driver, 60, cards=20)
        found, shadows = driver.results("fraud"), driver.shadows("fraud")
        drawn = set()
        for one in found:
            its = bool(challenged("fraud", "2", 0.4, [one["entity"]])[0])
            drawn.add(its)
            assert (one["model"]["version"], one["model"]["role"]) == (("2", "challenger") if its else ("1", "champion"))
            beside = sorted(shadow["model"]["version"] for shadow in shadows if shadow["id"].startswith(f"{one['id']}@"))
            assert beside == (["1", "3"] if its else ["3"])
        assert drawn == {True, False}
        for partition in (0, 1):
            offsets = [int(one["id"].split("-")[2]) for one in found if one["id"].startswith(f"payments.v1-{partition}-")]
            assert offsets == sorted(offsets)
        assert len(found) == 60


def test_roles_outlive_a_crash() -> None:
    """Who comes after a crash scores with the same versions, and tells no switch that was told."""
    with driver_of() as driver:
        for version in ("1", "2"):
            register(driver, version)
        move(driver, "1", Role.CHAMPION)
        pay(driver, 6)
        before = facts(driver)
        driver.crash()
        pay(driver, 6)
        assert versions(driver.results("fraud")) == ["1"] * 12
        assert facts(driver) == before


def test_without_a_champion_a_partition_waits_or_the_fallback_answers() -> None:
    """Nothing is scored by nobody: it waits, saying what to do; a declared fallback is told as what it is."""
    with driver_of() as driver:
        with pytest.raises(FatalError, match="has no champion"):
            pay(driver, 1)
        register(driver, "1")
        move(driver, "1", Role.CHAMPION)
        assert versions(driver.results("fraud")) == ["1"]
    with driver_of(falling_back) as driver:
        pay(driver, 3)
        register(driver, "1", pipeline=falling_back)
        move(driver, "1", Role.CHAMPION)
        pay(driver, 3)
        found = driver.results("fraud")
        assert versions(found) == [FALLBACK] * 3 + ["1"] * 3
        assert {one["score"] for one in found if one["model"]["version"] == FALLBACK} == {-1.0}


def _nan_file(version: str) -> bytes:
    """A version that gives NaN for everything."""
    content = small_models.graph_bytes(
        [helper.make_node("MatMul", ["X", "w"], ["score"], name="weigh")],
        [small_models.output("score", [None, 1])],
        tensors=[small_models.weights("w", [[float("nan")], [0.0]])],
    )
    return onnx_file.with_metadata(content, signature_of(fraud, version=version, output="score", kind="value").to_metadata())


def test_a_shadow_that_fails_is_taken_out_and_the_champion_is_not_touched() -> None:
    """A version without scores is refused row by row, then withdrawn by a command of the worker; the pipeline goes on as if it were not."""
    with driver_of(limits=Limits(refused_window=20)) as driver:
        register(driver, "1")
        register(driver, "2", content=_nan_file("2"))
        move(driver, "1", Role.CHAMPION)
        move(driver, "2", Role.SHADOW)
        pay(driver, 30)
        driver.advance(1_000)
        pay(driver, 10)
        assert versions(driver.results("fraud")) == ["1"] * 40
        letters = driver.dead_letters()
        assert 20 <= len(letters) < 40
        assert {dict(letter.headers)["headrace-model"] for letter in letters} == {b"fraud@2"}
        version = driver.registry().commands.registry().version("fraud", "2")
        assert version.role is Role.REGISTERED
        assert "no score for" in (version.history[-1].reason or "")
        assert "version taken out of its role" in driver.events()


def test_a_damaged_file_changes_nothing_and_other_pipelines_go_on() -> None:
    """T71 and T73: bytes that are not those registered are not loaded: the live version goes on; another pipeline switches all the same."""
    other = hr.Pipeline("limits", views=[spending], event_features=["amount"], predictions="limits.v1")
    with driver_of(fraud, other) as driver:
        for pipeline in (fraud, other):
            for version in ("1", "2"):
                register(driver, version, pipeline=pipeline)
            told(driver, "1", Role.CHAMPION, pipeline=pipeline.name)
        pay(driver, 4)
        damaged = driver.registry().commands.registry().version("fraud", "2").sha256
        driver.artifacts.kept[damaged] = b"something else"
        for pipeline in (fraud, other):
            move(driver, "2", Role.SHADOW, pipeline=pipeline.name)
            move(driver, "2", Role.CHAMPION, pipeline=pipeline.name)
        pay(driver, 4)
        assert versions(driver.results("fraud")) == ["1"] * 8
        assert versions(driver.results("limits")) == ["1"] * 4 + ["2"] * 4
        assert "version not loaded" in driver.events()
        driver.artifacts.kept[damaged] = file_of("2", pipeline=fraud, factor=2.0)
        driver.advance(1_000)
        driver.run()
        pay(driver, 4)
        assert versions(driver.results("fraud")) == ["1"] * 8 + ["2"] * 4


def test_a_pinned_pipeline_has_no_registry() -> None:
    """Where every pipeline pins its model the registry says so."""
    pinned = hr.Pipeline("limits", views=[spending], predictions="limits.v1", model="models/limits.onnx")
    app = hr.App("cards", pipelines=[pinned])
    assert pinned.shadow is None
    assert app.registry_pipelines == ()
    with pytest.raises(RegistryRefused, match="pins a model"):
        Driver(app, models={"limits": OnnxModel.load(file_of("1", pipeline=fraud), fraud.feature_names)}).registry()


def test_switches_survive_their_facts() -> None:
    """A switch is what its fact says; a later one of a lower offset makes void what stood behind it."""
    one = TopicPartition("payments.v1", 0)

    def switch(offset: int, champion: str) -> Switch:
        roster = Roster(champion=champion, challenger="c", share=0.25, shadows=("s",))
        return Switch(pipeline="fraud", partition=one, offset=offset, epoch=offset + 1, roster=roster, artifacts={champion: "ab"})

    told = [switch(0, "1"), switch(10, "2"), switch(20, "3"), switch(15, "4"), switch(15, "5")]
    held = switches_in([None, b"{}", *map(switch_fact, told)])["fraud", one]
    assert held == [told[0], told[1], told[4]]
    assert [in_force(held, offset) for offset in (0, 9, 10, 14, 15, 99)] == [told[0], told[0], told[1], told[1], told[4], told[4]]
    assert in_force(held[1:], 3) is None


def test_challengers_keep_their_entities_and_their_share() -> None:
    """Half a percentage point off at most at 100,000 entities, the same ones always, those of a smaller share among those of a larger."""
    entities = [f"N{number:05d}" for number in range(100_000)]
    few, many = challenged("fraud", "2", 0.01, entities), challenged("fraud", "2", 0.1, entities)
    assert abs(few.mean() - 0.01) < 0.005
    assert abs(many.mean() - 0.1) < 0.005
    assert not (few & ~many).any()
    assert np.array_equal(challenged("fraud", "2", 0.1, entities[::-1])[::-1], many)
    assert not np.array_equal(challenged("fraud", "3", 0.1, entities), many)
