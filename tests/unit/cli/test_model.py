"""What `headrace model` asks, prints and refuses, on a registry in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from headrace.apps.model_desk import Desk
from headrace.cli import model
from headrace.errors import HeadraceError, RegistryRefused
from headrace.predict.gate import Code, GateLimits, Refusal, Verdict
from headrace.predict.model_card import ModelCard
from headrace.predict.registry import Role
from headrace.types import Float64s
from tests.unit.apps.engineered import Office, file_of, moved, promoted, registered


@dataclass
class Gate:
    """A gate that lets pass, or not, and remembers what it was shown."""

    verdict: Verdict = field(default_factory=lambda: Verdict(refusals=(), report={"latency": {"row_us": 8.1}}))
    rehearsal: Float64s | None = None
    champion: bytes | None = None
    allowed: tuple[str, ...] = ()

    def __call__(
        self, content: bytes, pipeline: object, *, rehearsal: Float64s | None, champion: bytes | None, limits: GateLimits
    ) -> Verdict:
        assert content
        assert pipeline
        self.rehearsal, self.champion, self.allowed = rehearsal, champion, limits.operators
        return self.verdict


@pytest.fixture
def gate() -> Gate:
    """A gate that lets everything pass."""
    return Gate()


@pytest.fixture
def office(monkeypatch: pytest.MonkeyPatch, gate: Gate) -> Office:
    """A registry that the commands find instead of a cluster."""
    found = Office()

    @contextmanager
    def opened(*_: object, by: str | None = None) -> Iterator[Desk]:
        yield found.open(by or "ann@desk", gate=gate)

    monkeypatch.setattr("headrace.cli.model.opened", opened)
    return found


def run(*arguments: str, answer: str = "") -> Result:
    """Run a command that succeeds."""
    done = CliRunner().invoke(model.app, [*arguments, "--app", "anything:app"], input=answer)
    assert done.exit_code == 0, f"{done.output} {done.exception!r}"
    return done


def refused(*arguments: str) -> str:
    """The error with which a command ends."""
    done = CliRunner().invoke(model.app, [*arguments, "--app", "anything:app"])
    assert isinstance(done.exception, HeadraceError), done.output
    return str(done.exception)


def told(*arguments: str) -> Any:
    """What a command tells programs."""
    return json.loads(run(*arguments, "--output", "json").stdout)


def saved(folder: Path, content: bytes) -> str:
    """A file of a model."""
    path = folder / "model.onnx"
    path.write_bytes(content)
    return str(path)


@pytest.fixture
def live(office: Office) -> Office:
    """Champion 2 after 1, challenger 3 for a tenth, 4 registered."""
    desk = office.desk()
    for version in "12":
        promoted(desk, version)
    for version in "34":
        registered(desk, version)
    moved(desk, "3", Role.SHADOW)
    moved(desk, "3", Role.CHALLENGER, share=0.1)
    return office


# ----------------------------------------------------------------------------------------------------------------- register


def test_a_file_goes_through_the_gate_into_the_registry(office: Office, tmp_path: Path) -> None:
    """What the gate measured is printed, then what was done; the file's bytes, signature and card are in the registry."""
    content = file_of("7", card={"owner": "ann"})
    printed = run("register", saved(tmp_path, content)).stdout.splitlines()
    assert printed[0] == "the gate passes it for pipeline fraud, rehearsed on 0 real events"
    assert "  latency: row_us 8.1" in printed
    assert "  ! there was nothing to rehearse on: fraud.v1 holds no features of the present definition" in printed
    assert printed[-2:] == [
        "ann@desk registered version 7 of fraud",
        "it scores nothing yet; beside the others it would by: headrace model shadow fraud 7 --app anything:app",
    ]
    version = office.control().read().version("fraud", "7")
    assert office.artifacts.get(version.sha256) == content
    assert (version.role, version.signature.output) == (Role.REGISTERED, "score")
    assert (version.card or {})["owner"] == "ann"


def test_a_dry_run_of_register_registers_nothing(office: Office, tmp_path: Path) -> None:
    """The gate examines, and it is said what would be done."""
    found = told("register", saved(tmp_path, file_of("7")), "--dry-run")
    assert (found["dry_run"], found["said"], found["version"]) == (True, "ann@desk registered version 7 of fraud", "7")
    assert found["report"] == {"latency": {"row_us": 8.1}}
    assert (office.kept(), office.artifacts.kept) == (0, {})


def test_what_the_gate_refuses_is_told_with_its_codes(office: Office, gate: Gate, tmp_path: Path) -> None:
    """Exit code 1, each code with what is wrong and what to do, and nothing in the registry."""
    gate.verdict = Verdict(refusals=(Refusal(code=Code.INPUT_DTYPE, said="input X is float64", fix="export it from float32"),), report={})
    path = saved(tmp_path, file_of("7"))
    done = CliRunner().invoke(model.app, ["register", path, "--app", "anything:app"])
    assert done.exit_code == 1
    assert f"{path} is refused for pipeline fraud: input X is float64; export it from float32 [input_dtype]" in done.stderr
    as_json = CliRunner().invoke(model.app, ["register", path, "--app", "anything:app", "--output", "json"])
    assert as_json.exit_code == 1
    assert json.loads(as_json.stdout)["refused"] == [{"code": "input_dtype", "said": "input X is float64", "fix": "export it from float32"}]
    assert office.kept() == 0


def test_the_champion_is_shown_to_the_gate(office: Office, gate: Gate, tmp_path: Path) -> None:
    """The bytes that score now stand beside the new ones; where they are lost it is said, and the examination goes on."""
    desk = office.desk()
    done = promoted(desk, "1")
    path = saved(tmp_path, file_of("2"))
    run("register", path, "--dry-run")
    assert [gate.champion] == [b"model 1"]
    office.artifacts.kept[done.version.sha256] = b"tampered"
    printed = run("register", path, "--dry-run").stdout
    assert [gate.champion] == [None]
    assert "! the champion is not compared: artifact" in printed


def test_operators_may_be_allowed(office: Office, gate: Gate, tmp_path: Path) -> None:
    """What is refused unless allowed is handed to the gate by name."""
    run("register", saved(tmp_path, file_of("1")), "--allow", "Loop", "--allow", "If")
    assert gate.allowed == ("Loop", "If")
    assert office.kept() == 1


def test_the_real_gate_is_asked_where_nobody_says_otherwise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A good file passes the gate itself, beside the champion on real vectors, shown as bars and drawn; a broken one is refused by code."""
    office = Office()
    office.log.create_topic("fraud.v1", 1)
    for number in range(60):
        office.served({"spending.count_1h": float(number), "amount": number / 2})

    @contextmanager
    def opened(*_: object, by: str | None = None) -> Iterator[Desk]:
        yield office.open(by or "ann@desk")

    monkeypatch.setattr("headrace.cli.model.opened", opened)
    run("register", saved(tmp_path, file_of("1")))
    run("promote", "fraud", "1")
    picture = tmp_path / "scores.svg"
    printed = run("register", saved(tmp_path, file_of("2", factor=1.1)), "--picture", str(picture), "--rehearse", "50").stdout
    assert "rehearsed on 50 real events" in printed
    assert "version 2: 50 rows, 0 without a score" in printed
    assert "champion 1: 50 rows, 0 without a score" in printed
    assert "champion 1" in picture.read_text(encoding="utf-8")
    done = CliRunner().invoke(model.app, ["register", saved(tmp_path, file_of("3", golden=False)), "--app", "anything:app"])
    assert done.exit_code == 1
    assert "[no_golden_rows]" in done.stderr


def test_a_file_that_is_not_stamped_is_stamped_from_flags(office: Office, tmp_path: Path) -> None:
    """--version and the flags beside it say what stamp() would have said."""
    bare = saved(tmp_path, file_of("0"))
    run("register", bare, "--version", "9", "--kind", "value", "--output-name", "score", "--pipeline", "fraud")
    signature = office.control().read().version("fraud", "9").signature
    assert (signature.version, signature.kind, signature.output) == ("9", "value", "score")
    assert "neither probability nor value" in CliRunner().invoke(
        model.app, ["register", bare, "--version", "9", "--kind", "class", "--app", "anything:app"]
    ).output.replace("\n", " ")


@pytest.mark.parametrize(
    ("name", "text", "card"),
    [
        ("card.toml", 'owner = "bob"\n[metrics]\nauc = 0.9\n', ModelCard(owner="bob", metrics={"auc": 0.9})),
        ("c.json", '{"owner": "x"}', ModelCard(owner="x")),
    ],
)
def test_a_card_may_come_from_a_file(office: Office, tmp_path: Path, name: str, text: str, card: ModelCard) -> None:
    """TOML or JSON; it counts in place of the one in the model."""
    (tmp_path / name).write_text(text, encoding="utf-8")
    run("register", saved(tmp_path, file_of("7", card={"owner": "ann"})), "--card", str(tmp_path / name))
    assert office.control().read().version("fraud", "7").card == card.as_plain()


@pytest.mark.usefixtures("office")
@pytest.mark.parametrize("text", ["[1]", "{", '{"metrics": {"AUC": NaN}, "owner": "x"}', "\x00", '{"auc": 1}', "{}"])
def test_what_is_no_card_is_refused(tmp_path: Path, text: str) -> None:
    """No table, no JSON, no number, a field that is none, no owner: the file is named."""
    (tmp_path / "card.json").write_text(text, encoding="utf-8")
    assert str(tmp_path / "card.json") in refused("register", saved(tmp_path, file_of("7")), "--card", str(tmp_path / "card.json"))


@pytest.mark.usefixtures("office")
def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The path is told, not a traceback."""
    assert f"model '{tmp_path / 'none.onnx'}' cannot be read" in refused("register", str(tmp_path / "none.onnx"))


# -------------------------------------------------------------------------------------------------------------------- moves


@pytest.mark.usefixtures("live")
def test_a_move_says_who_scores_now() -> None:
    """Promoting the challenger: what was done, and each role as it is and was."""
    assert run("promote", "fraud", "3", "--reason", "better by 2%").stdout.splitlines() == [
        "ann@desk promoted version 3 of fraud",
        "  champion   3  (was 2)",
        "  challenger nobody  (was 3 for 10% of the entities)",
        "  shadows    none",
    ]
    assert "champion by ann@desk: better by 2%" in run("history", "fraud", "3").stdout


@pytest.mark.usefixtures("live")
def test_rollback_is_one_command() -> None:
    """The champion of before answers again, for people and for programs."""
    found = told("rollback", "fraud", "--by", "bob@phone")
    assert found["said"] == "bob@phone rolled back from version 2 to version 1 of fraud"
    assert (found["before"]["champion"], found["after"]["champion"], found["version"]) == ("2", "1", "1")
    assert found["offset"] > 0


@pytest.mark.parametrize(
    ("arguments", "role"),
    [
        (["shadow", "fraud", "4"], Role.SHADOW),
        (["shadow", "fraud", "3"], Role.SHADOW),
        (["withdraw", "fraud", "3"], Role.REGISTERED),
        (["retire", "fraud", "4"], Role.RETIRED),
        (["challenge", "fraud", "3", "--share", "25%"], Role.CHALLENGER),
        (["promote", "fraud", "3"], Role.CHAMPION),
    ],
)
def test_each_verb_gives_its_role(live: Office, arguments: Sequence[str], role: Role) -> None:
    """A dry run changes nothing, the command itself does."""
    before = live.control().read().version("fraud", arguments[2]).role
    assert told(*arguments, "--dry-run")["role"] == role
    assert live.control().read().version("fraud", arguments[2]).role is before
    assert told(*arguments)["role"] == role
    assert live.control().read().version("fraud", arguments[2]).role is role


@pytest.mark.usefixtures("live")
def test_shares_are_told_as_people_write_them() -> None:
    """A share of 2.5 % is read and printed as that."""
    assert (
        "  challenger 3 for 2.5% of the entities  (was 3 for 10% of the entities)"
        in run("challenge", "fraud", "3", "--share", "2.5%").stdout
    )
    assert "--share many is no share of the entities" in refused("challenge", "fraud", "3", "--share", "many")


def test_leaving_nobody_to_answer_is_asked_first(office: Office) -> None:
    """Who retires the only champion is asked, unless --yes says so; with another answer nothing changes."""
    promoted(office.desk(), "1")
    done = CliRunner().invoke(model.app, ["retire", "fraud", "1", "--app", "anything:app"], input="n\n")
    assert done.exit_code == 1
    assert "fraud is left without a champion" in done.output
    assert office.control().read().roster("fraud").champion == "1"
    run("retire", "fraud", "1", "--yes")
    assert office.control().read().roster("fraud").champion is None


@pytest.mark.usefixtures("live")
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["promote", "fraud", "5"], "fraud has no version 5"),
        (["promote", "fruad", "3"], "no pipeline 'fruad' (did you mean fraud?)"),
        (["promote", "limits", "3"], "pipeline limits pins its model"),
        (["promote", "fraud", "4"], "let it run beside that one first: headrace model shadow fraud 4"),
        (["challenge", "fraud", "4", "--share", "5%"], "cannot become challenger; let it run beside the others first"),
        (["retire", "fraud", "2", "--yes"], "version 2 of fraud is the champion in whose place version 3 answers for 10%"),
        (["show", "fraud", "5"], "fraud has no version 5"),
        (["history", "fruad"], "no pipeline 'fruad'"),
        (["diff", "fraud", "1", "9"], "fraud has no version 9"),
    ],
)
def test_what_is_not_possible_is_refused_with_the_next_command(arguments: Sequence[str], text: str) -> None:
    """Names that are not there, pipelines that pin a model, moves that are not legal."""
    assert text in refused(*arguments)


# --------------------------------------------------------------------------------------------------------------------- shown


def test_the_list_shows_roles_since_when_and_from_whom(live: Office) -> None:
    """A line a version, and all of it as JSON; of an empty registry what to do."""
    lines = run("list").stdout.splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["PIPELINE", "VERSION", "ROLE"],
        ["fraud", "1", "retired"],
        ["fraud", "2", "champion"],
        ["fraud", "3", "challenger"],
        ["fraud", "4", "registered"],
    ]
    assert "challenger 10%" in lines[3]
    assert [one["version"] for one in told("list", "fraud")] == ["1", "2", "3", "4"]
    assert live.kept() == 10


@pytest.mark.usefixtures("office")
def test_an_empty_list_says_what_to_do() -> None:
    """Nothing is registered: the next command is shown."""
    assert "nothing is registered yet: headrace model register MODEL.onnx --app anything:app" in run("list").stdout


def test_a_version_is_shown_with_its_file(live: Office) -> None:
    """Role, signature, history; and whether the bytes are what was registered."""
    printed = run("show", "fraud", "3").stdout
    assert "fraud version 3: challenger, for 10% of the entities" in printed
    assert "in its place, undamaged" in printed
    assert "      0  spending.count_1h" in printed
    version = live.control().read().version("fraud", "3")
    live.artifacts.kept[version.sha256] = b"tampered"
    assert "is not what was registered" in run("show", "fraud", "3").stdout
    assert told("show", "fraud", "3")["role"] == "challenger"


def test_a_lost_file_is_put_back(office: Office, tmp_path: Path) -> None:
    """Registering it again is refused, as it is registered; mending puts its bytes back, and no others."""
    path = saved(tmp_path, file_of("7"))
    run("register", path)
    office.artifacts.kept.clear()
    assert "registered already, with the same bytes" in refused("register", path)
    assert office.artifacts.kept == {}
    assert run("mend", path).stdout == "the file of version 7 of fraud (registered) is in its place\n"
    assert "in its place, undamaged" in run("show", "fraud", "7").stdout
    assert [one["version"] for one in told("mend", path)["mended"]] == ["7"]
    assert "no version was registered with these bytes" in refused("mend", saved(tmp_path, file_of("8")))


@pytest.mark.usefixtures("live")
def test_history_tells_who_did_what_and_why() -> None:
    """All versions in the order of commands, one command's consequences side by side; or one version."""
    lines = run("history", "fraud").stdout.splitlines()
    assert len(lines) == 11
    (promoted_2,) = [line for line in lines if "version 2" in line and "champion" in line]
    (retired_1,) = [line for line in lines if "version 1" in line and "retired" in line]
    assert lines.index(promoted_2) == lines.index(retired_1) + 1
    run("rollback", "fraud")
    assert [(one["version"], one["role"]) for one in told("history", "fraud")[-2:]] == [("2", "retired"), ("1", "champion")]
    assert retired_1.endswith("retired by ann@desk: version 2 was promoted")
    assert [one["role"] for one in told("history", "fraud", "3")] == ["registered", "shadow", "challenger"]


def test_a_card_is_printed_as_markdown(office: Office, tmp_path: Path) -> None:
    """Owner, metrics, what it takes; without a card it is said how to write one; a lost file is no trouble."""
    card = {"owner": "ann", "metrics": {"AUC": 0.9}}
    run("register", saved(tmp_path, file_of("7", card=card)))
    lines = run("card", "fraud", "7").stdout.splitlines()
    assert lines[0] == "# fraud, version 7"
    assert "Owner: ann" in lines
    assert "| AUC | 0.9 |" in lines
    found = told("card", "fraud", "7")
    assert (found["card"]["owner"], found["card"]["metrics"], found["lineage"], found["agreement"]) == ("ann", {"AUC": 0.9}, None, None)
    run("register", saved(tmp_path, file_of("8")))
    office.artifacts.kept.clear()
    assert "Nobody wrote a card for it" in run("card", "fraud", "8").stdout


def test_a_diff_compares_signatures_cards_and_golden_rows(office: Office, tmp_path: Path) -> None:
    """Two versions of the same features: the card's change, and how far each is from the golden scores of the other."""
    run("register", saved(tmp_path, file_of("1", card={"owner": "ann", "metrics": {"AUC": 0.8}})))
    run("register", saved(tmp_path, file_of("2", factor=1.5, card={"owner": "ann", "metrics": {"AUC": 0.9}})))
    run("register", saved(tmp_path, file_of("3", card={"owner": "ann", "metrics": {"AUC": 0.8}}, golden=False)))
    lines = run("diff", "fraud", "1", "2").stdout.splitlines()
    assert lines == [
        "fraud: version 1 (registered) and version 2 (registered)",
        "  card metrics AUC: 0.8 -> 0.9",
        "  3 golden rows of version 1, scored by version 2: 19.5 apart in the mean, 32 at most",
        "  3 golden rows of version 2, scored by version 1: 19.5 apart in the mean, 32 at most",
    ]
    third = run("diff", "fraud", "1", "3").stdout
    assert "only the weights differ" in third
    assert "3 golden rows of version 1, scored by version 3: 0 apart in the mean, 0 at most" in third
    assert "! version 3 carries no golden rows" in third
    assert told("diff", "fraud", "1", "1")["same_bytes"] is True
    office.artifacts.kept.clear()
    assert "their scores are not compared: memory holds no artifact" in run("diff", "fraud", "1", "2").stdout


def test_a_command_that_was_overtaken_says_by_whom(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between looking and deciding somebody else promoted: nothing happens, and the other one is named."""
    desk = office.desk("bob@desk")
    for version in "12":
        registered(desk, version)
        moved(desk, version, Role.SHADOW)

    moved(desk, "1", Role.CHAMPION)
    monkeypatch.setattr("typer.confirm", lambda *_, **__: moved(desk, "2", Role.CHAMPION))
    done = CliRunner().invoke(model.app, ["retire", "fraud", "1", "--app", "anything:app"])
    assert isinstance(done.exception, RegistryRefused)
    assert "bob@desk was first: promoted version 2 of fraud" in str(done.exception)
