"""Versions that fail, are lost or damaged, control topics that are made again, and owners that lag: who scores is who the facts say."""

from __future__ import annotations

from functools import partial

import pytest

import headrace as hr
from headrace import assembly
from headrace.consume.facts import Facts
from headrace.errors import ArtifactMissing, RegistryRefused
from headrace.loop import Loop
from headrace.memory_log import Hook, MemoryLog, MemoryReader
from headrace.memory_log.sink import MemoryAtLeastOnceSink
from headrace.models import signature_of
from headrace.parts import Limits
from headrace.predict.commands import FALLBACK
from headrace.predict.moves import Role
from headrace.publish.encoder import HeaderPolicy
from headrace.testing import Driver
from headrace.types import Delivery, Position, TopicPartition
from headrace.verify.casting import casting_by_facts
from headrace.verify.findings import Findings
from headrace.verify.subject import Subject
from headrace.verify.verification import Verification, Wishes
from tests.unit.apps.engineered import Payment, file_of
from tests.unit.test_roles import _nan_file, driver_of, falling_back, fraud, insist_on_the_facts, move, pay, register, told, versions


def _at_least_once(log: MemoryLog, *, transactional_id: str, pause: Hook) -> MemoryAtLeastOnceSink:
    del transactional_id
    return MemoryAtLeastOnceSink(log, pause=pause)


def verified(driver: Driver) -> Findings:
    """What `headrace verify` does."""
    subject = Subject(
        reader=lambda: MemoryReader(driver.log),
        written_end=driver.log.end_offset,
        committed=lambda name: driver.log.committed(driver.app.name, name),
        topic_id=driver.log.topic_id,
        store=driver.store,
        now_ms=driver.clock.now_ms,
        pause=driver.advance,
    )
    casting = partial(casting_by_facts, driver.app, driver.artifacts)
    return Verification(driver.app, subject, casting_of=casting, headers=HeaderPolicy.CLOUDEVENTS, limits=Limits()).run(Wishes())


def test_verify_holds_on_a_plain_run() -> None:
    """Control: shadows, a challenger, a failing shadow."""
    with driver_of(limits=Limits(refused_window=20)) as driver:
        register(driver, "1")
        register(driver, "2", content=_nan_file("2"))
        register(driver, "3")
        move(driver, "1", Role.CHAMPION)
        move(driver, "3", Role.SHADOW)
        move(driver, "2", Role.SHADOW)
        pay(driver, 30)
        move(driver, "3", Role.CHALLENGER, share=0.4)
        pay(driver, 30)
        found = verified(driver)
        assert found.counts.total() == 0, found.violations


def test_a_challenger_that_fails_never_stops_the_worker() -> None:
    """It is taken out of its role, however many of the results are its own."""
    with driver_of(limits=Limits(refused_window=20)) as driver:
        register(driver, "1")
        register(driver, "2", content=_nan_file("2"))
        move(driver, "1", Role.CHAMPION)
        move(driver, "2", Role.SHADOW)
        move(driver, "2", Role.CHALLENGER, share=0.9)
        pay(driver, 60, cards=20)
        assert driver.registry().commands.registry().version("fraud", "2").role is Role.REGISTERED


def test_a_control_topic_that_was_made_again_does_not_pass_for_the_old_one() -> None:
    """The epochs are the same numbers and the rosters are not: a switch is told all the same."""
    with driver_of() as driver:
        register(driver, "1")
        move(driver, "1", Role.CHAMPION)
        pay(driver, 6)
        driver.log.recreate_topic(driver.app.control)
        register(driver, "2")
        told(driver, "2", Role.CHAMPION)
        driver.crash()
        pay(driver, 6)
        found = driver.results("fraud")
        assert versions(found) == ["1"] * 6 + ["2"] * 6
        insist_on_the_facts(driver, found)


def test_after_a_control_topic_was_made_again_partitions_do_not_wait_for_ever() -> None:
    """Where more commands had been written before, the epoch that was committed is never reached: it is of another era."""
    with driver_of() as driver:
        for version in ("1", "2", "3"):
            register(driver, version)
        move(driver, "1", Role.CHAMPION)
        move(driver, "2", Role.SHADOW)
        pay(driver, 6)
        driver.log.recreate_topic(driver.app.control)
        register(driver, "1")
        told(driver, "1", Role.CHAMPION)
        driver.crash()
        pay(driver, 6)
        assert versions(driver.results("fraud")) == ["1"] * 12


def test_verify_of_an_app_that_began_behind_the_logs_start() -> None:
    """Events below the starting offsets were never scored: verify folds them, casts nobody, and compares nothing of them."""
    with driver_of() as driver:
        log = driver.log
        for number in range(6):
            driver.advance(1_000)
            driver.send("payments.v1", Payment(card=f"card-{number}", at=driver.clock.now_ms(), amount=1.0))
        for number in (0, 1):
            name = TopicPartition("payments.v1", number)
            log.group("cards").offsets[name] = Position(offset=log.end_offset(name), watermark_ms=None)
        driver.crash()
        register(driver, "1")
        move(driver, "1", Role.CHAMPION)
        pay(driver, 6)
        assert versions(driver.results("fraud")) == ["1"] * 6
        verified(driver)


def test_verify_after_a_pinned_pipeline_came_to_the_registry() -> None:
    """What a pinned model scored before the first switch is told as what nobody of the registry scored; nothing ends verify."""
    from headrace.predict.onnx_model import OnnxModel  # noqa: PLC0415

    pinned = OnnxModel.load(file_of("1", pipeline=fraud), fraud.feature_names)
    app = hr.App("cards", pipelines=[fraud])
    with Driver(app, models={"fraud": pinned}, partitions=2) as driver:
        pay(driver, 6)
        driver.deploy(app, models={})
        register(driver, "2")
        move(driver, "2", Role.CHAMPION)
        pay(driver, 6)
        assert versions(driver.results("fraud")) == ["1"] * 6 + ["2"] * 6
        verified(driver)


def test_no_version_may_be_named_as_the_fallback_is() -> None:
    """It would be taken for the score of nobody: the registration is refused."""
    signed = signature_of(falling_back, version=FALLBACK, output="score", kind="value")
    with driver_of(falling_back) as driver, pytest.raises(RegistryRefused, match="write another name"):
        driver.registry().commands.register(file_of(FALLBACK, pipeline=falling_back), signed)


def test_a_damaged_shadow_does_not_keep_the_champion_from_starting() -> None:
    """A shadow's file is lost: whoever restarts serves with the champion, which is whole."""
    with driver_of() as driver:
        register(driver, "1")
        register(driver, "2")
        move(driver, "1", Role.CHAMPION)
        move(driver, "2", Role.SHADOW)
        pay(driver, 3)
        lost = driver.registry().commands.registry().version("fraud", "2").sha256
        del driver.artifacts.kept[lost]
        driver.crash()
        pay(driver, 3)
        assert versions(driver.results("fraud")) == ["1"] * 6


def test_a_good_version_is_loaded_once_beside_one_that_cannot_be() -> None:
    """What is good is kept while another version of the roster is tried again."""
    with driver_of() as driver:
        for version in ("1", "2", "3"):
            register(driver, version)
        move(driver, "1", Role.CHAMPION)
        pay(driver, 1)
        registry = driver.registry().commands.registry()
        good, bad = registry.version("fraud", "2").sha256, registry.version("fraud", "3").sha256
        driver.artifacts.kept[bad] = b"something else"
        told(driver, "2", Role.SHADOW)
        told(driver, "3", Role.SHADOW)
        gotten: list[str] = []
        get = driver.artifacts.get

        def noted(sha256: str) -> bytes:
            gotten.append(sha256)
            return get(sha256)

        driver.artifacts.get = noted  # type: ignore[method-assign]
        for _ in range(20):
            driver.advance(250)
            driver.run()
        assert gotten.count(good) == 1


def test_what_is_sent_after_a_promotion_is_scored_by_it() -> None:
    """In the driver everything is over when a method returns, a promotion too."""
    with driver_of() as driver:
        for version in ("1", "2"):
            register(driver, version)
        move(driver, "1", Role.CHAMPION)
        told(driver, "2", Role.SHADOW)
        told(driver, "2", Role.CHAMPION)
        driver.send("payments.v1", Payment(card="c", at=driver.clock.now_ms(), amount=1.0))
        assert versions(driver.results("fraud")) == ["2"]


def test_verify_when_another_fallback_was_declared() -> None:
    """The score of a fallback is told with the switch, so another one that was declared later changes nothing of what was."""
    other = hr.Pipeline("fraud", views=falling_back.views, event_features=["amount"], predictions="fraud.v1", fallback=-2.0)
    with driver_of(falling_back) as driver:
        pay(driver, 3)
        driver.deploy(hr.App("cards", pipelines=[other]))
        pay(driver, 3)
        found = verified(driver)
        assert found.counts.total() == 0, found.counts


def test_a_failing_shadow_is_withdrawn_by_one_command() -> None:
    """The worker writes one command, although it has not read it before the next window is full."""
    with driver_of(limits=Limits(refused_window=20, max_batch=20)) as driver:
        register(driver, "1")
        register(driver, "2", content=_nan_file("2"))
        move(driver, "1", Role.CHAMPION)
        move(driver, "2", Role.SHADOW)
        before = len(driver.log.read(TopicPartition(driver.app.control, 0)))
        pay(driver, 200)
        assert len(driver.log.read(TopicPartition(driver.app.control, 0))) - before == 1


def test_a_damaged_shadow_does_not_keep_a_rollback_from_taking_effect() -> None:
    """Champion 2 is bad and is rolled back while the file of a shadow is lost: workers take the rollback up."""
    with driver_of() as driver:
        for version in ("1", "2", "3"):
            register(driver, version)
        move(driver, "1", Role.CHAMPION)
        move(driver, "2", Role.SHADOW)
        move(driver, "2", Role.CHAMPION)
        del driver.artifacts.kept[driver.registry().commands.registry().version("fraud", "3").sha256]
        move(driver, "3", Role.SHADOW)
        pay(driver, 3)
        commands = driver.registry().commands
        commands.carry_out(commands.rollback("fraud"))
        driver.advance(1_000)
        driver.run()
        pay(driver, 3)
        assert versions(driver.results("fraud")) == ["2"] * 3 + ["1"] * 3


def test_a_control_topic_without_its_beginning_is_refused_by_workers_too() -> None:
    """A worker does not take it for an empty registry, in which the fallback would answer in the champion's place."""
    with driver_of(falling_back) as driver:
        register(driver, "1", pipeline=falling_back)
        move(driver, "1", Role.CHAMPION)
        pay(driver, 3)
        control = TopicPartition(driver.app.control, 0)
        driver.log.delete_before(control, driver.log.end_offset(control))
        offsets = driver.log.group("cards").offsets
        for name in offsets:  # set by hand, or those of a partition that nobody has scored yet
            offsets[name] = Position(offset=offsets[name].offset, watermark_ms=None)
        driver.crash()
        try:
            pay(driver, 3)
        except hr.errors.HeadraceError:
            return  # it waits, or ends: both are honest
        assert FALLBACK not in versions(driver.results("fraud"))


def test_verify_names_the_file_it_cannot_have() -> None:
    """A version of long ago is lost: what it scored cannot be told again, and the error says how to put it back."""
    with driver_of() as driver:
        for version in ("1", "2"):
            register(driver, version)
        move(driver, "1", Role.CHAMPION)
        pay(driver, 3)
        move(driver, "2", Role.SHADOW)
        move(driver, "2", Role.CHAMPION)
        pay(driver, 30)
        del driver.artifacts.kept[driver.registry().commands.registry().version("fraud", "1").sha256]
        with pytest.raises(ArtifactMissing, match="headrace model mend"):
            verified(driver)
        register_again = file_of("1", pipeline=fraud, factor=1.0)
        driver.artifacts.put(register_again)
        assert verified(driver).checked["predictions"] == 33


def test_whatever_loading_raises_changes_nothing() -> None:
    """Bytes in the metadata that are no text make a version that is not loaded, as any other damage does."""
    with driver_of() as driver:
        register(driver, "1")
        move(driver, "1", Role.CHAMPION)
        content = bytearray(file_of("2", pipeline=fraud, factor=2.0))
        place = content.index(b'"spending') + 2
        content[place] = 0xFE
        register(driver, "2", content=bytes(content))
        move(driver, "2", Role.SHADOW)
        pay(driver, 3)
        assert versions(driver.results("fraud")) == ["1"] * 3


def test_at_least_once_who_comes_after_a_death_tells_by_whom_it_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fact and predictions of a switch are out, the offset is not: the next owner, who is behind, tells by whom it scores again."""
    monkeypatch.setattr(assembly, "MemorySink", _at_least_once)
    monkeypatch.setattr(assembly, "assemble", partial(assembly.assemble, delivery=Delivery.AT_LEAST_ONCE))
    with driver_of() as driver:
        for version in ("1", "2"):
            register(driver, version)
        move(driver, "1", Role.CHAMPION)
        pay(driver, 4)
        known = driver.log.end_offset(TopicPartition(driver.app.control, 0))
        told(driver, "2", Role.SHADOW)
        told(driver, "2", Role.CHAMPION)
        driver.advance(1_000)
        for number in range(4):
            driver.send("payments.v1", Payment(card=f"card-{number}", at=driver.clock.now_ms(), amount=1.0))
        behind, news, late = [True], Facts.news, []

        def slowly(self: Facts) -> list[tuple[int, bytes | None]]:
            late.extend(news(self))
            given = [one for one in late if not behind[0] or one[0] < known]
            late[:] = [one for one in late if one not in given]
            return given

        behind[0] = False
        driver.crash(before="offsets")
        monkeypatch.setattr(Facts, "news", slowly)
        original = driver._start

        def started(slot: str) -> Loop:
            behind[0] = True
            return original(slot)

        driver._start = started  # type: ignore[method-assign]
        driver.run()
        behind[0] = False
        driver.advance(1_000)
        pay(driver, 4)
        found = driver.results("fraud")
        insist_on_the_facts(driver, {one["id"]: one for one in found}.values())


def test_a_withdrawal_that_did_not_come_out_is_made_again() -> None:
    """Its transaction may be aborted: a version that fails on is withdrawn again when the worker has not heard of its command in time."""
    with driver_of(limits=Limits(refused_window=20)) as driver:
        for version in ("1", "2"):
            register(driver, version)
        move(driver, "1", Role.CHAMPION)
        move(driver, "2", Role.SHADOW)
        line_up = driver._workers[0]._path._line_up  # type: ignore[attr-defined]
        failing = {("fraud", "2"): (20, 20)}
        assert [one.version for one in line_up.observe(failing)] == ["2"]
        assert line_up.observe(failing) == []
        driver.advance(10_000)
        assert [one.version for one in line_up.observe(failing)] == ["2"]


def test_a_champion_that_cannot_be_loaded_is_tried_once_a_second() -> None:
    """However often a worker turns meanwhile: a store of files is not asked in every one."""
    with driver_of() as driver:
        for version in ("1", "2"):
            register(driver, version)
        move(driver, "1", Role.CHAMPION)
        pay(driver, 1)
        bad = driver.registry().commands.registry().version("fraud", "2").sha256
        driver.artifacts.kept[bad] = b"something else"
        told(driver, "2", Role.SHADOW)
        told(driver, "2", Role.CHAMPION)
        asked: list[str] = []
        get = driver.artifacts.get

        def noted(sha256: str) -> bytes:
            asked.append(sha256)
            return get(sha256)

        driver.artifacts.get = noted  # type: ignore[method-assign]
        for _ in range(30):
            driver._workers[0].turn()
            driver.clock.advance(100)
        assert 2 <= asked.count(bad) <= 4
