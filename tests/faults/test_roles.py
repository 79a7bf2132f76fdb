"""Versions are promoted, shadowed, challenged and rolled back under load, by several hands, while workers are killed."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from headrace.apps import model_desk
from headrace.apps.model_commands import ModelCommands, Prepared
from headrace.errors import RegistryRefused
from headrace.predict.moves import Role
from headrace.predict.onnx_file import metadata
from headrace.predict.signature import METADATA_KEY, Signature
from headrace.settings import Settings
from tests.faults.app import version_of
from tests.faults.harness import Make, Moment, Trial
from tests.faults.test_worker_kills import drawn_moments

VERSIONS = 4


def register(run: Trial, commands: ModelCommands) -> None:
    """Register all versions, and let the first be champion."""
    (pipeline,) = run.app.pipelines
    for number in range(1, VERSIONS + 1):
        content = version_of(pipeline, number)
        signature = Signature.from_metadata({METADATA_KEY: metadata(content)[METADATA_KEY]})
        commands.carry_out(commands.register(content, signature))
    commands.carry_out(commands.move("fraud", "1", Role.CHAMPION))


def a_move(draw: random.Random, commands: ModelCommands) -> Prepared:
    """A move that is legal as things stand."""
    moves: list[Callable[[], Prepared]] = []
    for one in commands.registry().versions("fraud"):
        moves += [
            lambda to=to, one=one: commands.move("fraud", one.version, to, share=0.4 if to is Role.CHALLENGER else None)  # type: ignore[misc]
            for to in (Role.SHADOW, Role.CHALLENGER, Role.CHAMPION, Role.CHAMPION)
        ]
    moves += [lambda: commands.rollback("fraud")] * 3
    draw.shuffle(moves)
    for move in moves:
        try:
            return move()
        except RegistryRefused:
            continue
    raise AssertionError("no move is legal")


def switched(trial: Trial, kills: dict[Moment, int], moves: int) -> None:
    """Move roles all the while, and kill workers between the moves."""
    settings = Settings.model_validate({"kafka": {"bootstrap_servers": trial.kafka.address}, "redis": {"url": trial.redis.url}})
    trial.prepare()
    with model_desk.opened(trial.app, settings, by="ann") as desk:
        register(trial, desk.commands)
        loader = trial.load(trial.records(200_000), pace=lambda sent: 0 if sent < 2_000 else 400)
        for slot in range(2):
            trial.start(slot)
        trial.wait_passed(500)
        moments = drawn_moments(trial, kills)
        every = moves // len(moments)
        for number in range(moves):
            desk.commands.carry_out(a_move(trial.rng, desk.commands))
            trial.wait_passed(trial.progress.total + 150)
            if moments and number % every == every - 1:
                victim = trial.wait_victim()
                trial.kill(victim, moments.pop())
                trial.start(victim.slot)
        loader.finish()
        trial.wait_drained(120)
        figures = trial.verdict(moves=moves)
    assert figures["kills"] == sum(kills.values())


@pytest.mark.faults
@pytest.mark.timeout(400)
def test_roles_move_under_load(trial: Make) -> None:
    """T72, small: 8 moves of roles and 2 kills: one result each, of the version that the facts say, and exactly its shadows."""
    switched(trial(roles=True), {Moment.IN_TRANSACTION: 1, Moment.BEFORE_STORE: 1}, moves=8)


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_roles_move_again_and_again_under_load(trial: Make) -> None:
    """T72: 100 moves of roles and 10 kills."""
    switched(trial(roles=True), {Moment.IN_TRANSACTION: 4, Moment.BEFORE_STORE: 3, Moment.ANY: 3}, moves=100)
