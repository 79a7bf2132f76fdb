"""A version is trained again by its recipe on a newer span, examined, compared, and registered, on a registry in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from headrace.apps.model_desk import Desk, embedded
from headrace.assembly import prepare_embedded
from headrace.cli import model
from headrace.clock import ManualClock
from headrace.errors import DefinitionError
from headrace.memory_log import MemoryLog
from headrace.models import ModelCard, lineage_of, stamp
from headrace.predict import onnx_file
from headrace.predict.artifacts import MemoryArtifacts
from headrace.predict.attached_rows import background_in, golden_in
from headrace.predict.gate import Code, Verdict
from headrace.predict.gate_codes import refusal
from headrace.predict.registry import Role, Version
from headrace.training import TrainingFrame, retraining, training_frame
from tests.unit.apps.engineered import passes
from tests.unit.training import shop, shop_models

RECIPE = "tests.unit.cli.test_model_retrain:fit"
(FRAUD,) = shop.app.pipelines
ROWS = shop.rows(200)
BEGIN_MS = ROWS[100]["at"]


def fit(frame: TrainingFrame) -> bytes:
    """Train on the mean of the newest rows' amounts: the recipe of the tests."""
    return shop_models.looking_at("amount", times=1 / float(np.nanmean(frame.labels * frame.values[:, 6]) + 1), version="ours")


def fails(frame: TrainingFrame) -> bytes:
    """A recipe that cannot."""
    raise ZeroDivisionError(f"no positive among {len(frame)} rows")


def fitted(_: TrainingFrame) -> object:
    """A recipe that forgets to export."""
    return {"coefficients": [1.0]}


def junk(_: TrainingFrame) -> bytes:
    """A recipe that returns other bytes."""
    return b"pickled"


@dataclass
class Registry:
    """The registry, and what its gate says."""

    desk: Desk
    verdict: Verdict

    def version(self, name: str) -> Version:
        return self.desk.commands.registry().version("fraud", name)

    def register(self, name: str, *, recipe: str | None = RECIPE, lineage: dict[str, Any] | None = None) -> None:
        """Register version `name`, and let it answer where nobody does."""
        content = shop_models.looking_at("amount", times=-0.1, version=name)
        told = lineage or {"pipeline": "fraud", "fingerprint": FRAUD.fingerprint, "rows": 50, "hash": "a" * 64}
        card = ModelCard(owner="ann", limits="small amounts", metrics={"auc": 0.9})
        content = stamp(content, FRAUD, version=name, lineage=told, recipe=recipe, card=card)
        commands = self.desk.commands
        commands.carry_out(self.desk.registration(self.desk.examine(content, rehearse=0)))
        if commands.registry().roster("fraud").champion is None:
            commands.carry_out(commands.move("fraud", name, Role.CHAMPION))


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Champion 1, which says how it was trained."""
    clock = ManualClock(shop.START_MS)
    log = MemoryLog(clock)
    prepare_embedded(shop.app, log, 1)

    def gate(*_: object, **__: object) -> Verdict:
        return found.verdict

    found = Registry(desk=embedded(shop.app, log, MemoryArtifacts(), clock, gate=gate), verdict=passes())

    @contextmanager
    def opened(*_: object, **__: object) -> Iterator[Desk]:
        yield found.desk

    monkeypatch.setattr("headrace.cli.model.opened", opened)
    found.register("1")
    return found


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """The options that name events and outcomes: large amounts are disputed."""
    pq.write_table(shop.table(ROWS), tmp_path / "payments.parquet")
    outcomes = [{"id": row["id"], "known_at": row["at"] + 1_000, "disputed": float(row["amount"] > 8)} for row in ROWS]
    pq.write_table(pa.Table.from_pylist(outcomes), tmp_path / "chargebacks.parquet")
    return ["--events", str(tmp_path / "payments.parquet"), "--labels", str(tmp_path / "chargebacks.parquet")]


def invoked(*arguments: str) -> Result:
    """Give the command."""
    return CliRunner().invoke(model.app, ["retrain", "fraud", *arguments, "--app", "anything:app"])


def run(*arguments: str) -> str:
    """What it prints where it succeeds."""
    done = invoked(*arguments)
    assert done.exit_code == 0, f"{done.output} {done.exception!r}"
    return done.stdout


def refused(*arguments: str) -> str:
    """The error with which it ends."""
    done = invoked(*arguments)
    assert isinstance(done.exception, DefinitionError), f"{done.output} {done.exception!r}"
    return str(done.exception)


def test_a_newer_span_gives_a_new_version(registry: Registry, files: list[str]) -> None:
    """The champion's recipe gets the rows of the span; the result is stamped anew, knows where it comes from, and is registered."""
    printed = run("--as", "2", *files, "--from", str(BEGIN_MS))
    version = registry.version("2")
    lineage = version.lineage or {}
    assert (version.role, lineage["recipe"], lineage["retrained_from"], lineage["rows"]) == (Role.REGISTERED, RECIPE, "1", 100)
    assert lineage["rows_of_log"] == 200
    assert lineage["span_ms"] == [BEGIN_MS, ROWS[-1]["at"]]
    assert version.signature.version == "2"
    assert version.card == ModelCard(owner="ann", limits="small amounts").as_plain()
    content = registry.desk.content("fraud", "2")
    assert lineage_of(content) == lineage
    golden, background = golden_in(onnx_file.metadata(content)), background_in(onnx_file.metadata(content))
    assert golden is not None
    assert background is not None
    assert (len(golden[0]), len(background)) == (100, 100)
    lines = printed.splitlines()
    assert lines[0] == "version 2 beside version 1, by the same recipe"
    assert "  rows     50 -> 100" in lines
    assert any(line.startswith("    auc       0 -> 1") for line in lines)
    assert "which version 2 was trained on: see --hold-out" in printed
    assert lines[-1].endswith("registered version 2 of fraud")


def test_the_result_may_be_trained_again(registry: Registry, files: list[str]) -> None:
    """The recipe goes on from version to version, and with --shadow the result scores beside the others at once."""
    run("--as", "2", *files)
    printed = run("2", "--as", "3", *files, "--shadow")
    assert "shadowed version 3" in printed
    assert "(the same)" in printed
    version = registry.version("3")
    assert (version.role, (version.lineage or {})["retrained_from"]) == (Role.SHADOW, "2")


def test_rows_may_be_held_out(registry: Registry, files: list[str]) -> None:
    """The recipe does not see the newest rows, and both versions are graded on them."""
    told = json.loads(run("--as", "2", *files, "--hold-out", "0.25", "--output", "json"))
    assert (told["retrained"]["grades"]["rows"], told["retrained"]["grades"]["held_out"]) == (50, True)
    assert told["retrained"]["rows"] == [50, 150]
    assert (registry.version("2").lineage or {})["rows"] == 150


def test_a_dry_run_trains_and_registers_nothing(registry: Registry, files: list[str]) -> None:
    """What would be registered and how good it is is told."""
    told = json.loads(run("--as", "2", *files, "--dry-run", "--output", "json"))
    assert (told["dry_run"], told["retrained"]["from"], told["retrained"]["grades"]["new"]["auc"]) == (True, "1", 1.0)
    assert [one.version for one in registry.desk.commands.registry().versions()] == ["1"]


def test_what_the_gate_refuses_is_not_registered(registry: Registry, files: list[str]) -> None:
    """Exit code 1 and the gate's reasons, as for `register`."""
    registry.verdict = Verdict(refusals=(refusal(Code.INPUT_DTYPE, "input X is float64"),), report={})
    done = invoked("--as", "2", *files)
    assert done.exit_code == 1
    assert f"what recipe {RECIPE} made is refused for pipeline fraud: input X is float64" in done.stderr
    assert [one.version for one in registry.desk.commands.registry().versions()] == ["1"]


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (None, "version 2 of fraud says not how it was trained: stamp a version with recipe='module:function'"),
        ("nowhere.at_all:fit", "recipe 'nowhere.at_all:fit' cannot be imported"),
        ("json:fit", "module json has no function 'fit'"),
        (RECIPE.replace("fit", "fails"), "ZeroDivisionError: no positive among 200 rows"),
        (RECIPE.replace("fit", "fitted"), "returned a dict, not the bytes of an exported model"),
        (RECIPE.replace("fit", "junk"), "returned 7 bytes that are no model"),
    ],
)
def test_a_recipe_that_is_none_is_named(registry: Registry, files: list[str], recipe: str | None, said: str) -> None:
    """None recorded, none to import, one that raises with its traceback, one that returns something else: nothing is registered."""
    registry.register("2", recipe=recipe)
    assert said in refused("2", "--as", "3", *files)
    assert len(registry.desk.commands.registry().versions()) == 2


def test_changed_definitions_are_named(files: list[str]) -> None:
    """A lineage of other features says which changed, and what to say where the recipe takes them; one that tells none is believed."""
    old = {"fingerprint": "0" * 64, "views": {"spending": {"fingerprint": "1" * 64}}, "features": [*FRAUD.feature_names[:-1], "gone"]}
    with pytest.raises(DefinitionError) as found:
        retraining.insist_on_definitions(old, FRAUD, "version 1 of fraud")
    assert "view spending, feature books is new, feature gone is gone" in str(found.value)
    assert "say --changed-definitions" in str(found.value)
    retraining.insist_on_definitions({}, FRAUD, "version 1 of fraud")
    assert files


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--from", "2100-01-01"], "no row of the training frame lies in the span, of 200"),
        (["--from", "soon"], "retrain: begin='soon' is neither an instant"),
    ],
)
def test_a_span_without_rows_is_refused(files: list[str], given: list[str], said: str) -> None:
    """What is no instant, and what holds no row, is said with what to do."""
    assert said in refused("--as", "2", *files, *given)


def test_without_outcomes_nothing_is_graded(registry: Registry, files: list[str]) -> None:
    """A recipe that needs no labels is followed; that there are no grades is said."""
    registry.register("2", recipe=RECIPE.replace("fit", "constant"))
    assert "no grades: there are no outcomes" in run("2", "--as", "3", *files[:2])


def constant(_: TrainingFrame) -> bytes:
    """A recipe that looks at no row."""
    return shop_models.looking_at("amount", times=0.5)


def test_parts_of_a_frame_are_frames(files: list[str]) -> None:
    """Older and newer rows are all rows, each part with the hash of its own content."""
    frame = training_frame(shop.app, events=files[1], labels=files[3])
    older, newer = retraining.split(frame, 0.2)
    assert (len(older), len(newer)) == (160, 40)
    assert len({frame.hash, older.hash, newer.hash}) == 3
    assert (older.lineage["rows"], older.lineage["labels"]["labelled"] + older.lineage["labels"]["missing"]) == (160, 160)
    assert retraining.part_of(frame, np.ones(200, dtype=np.bool_)).hash == frame.hash
