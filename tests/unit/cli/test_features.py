"""What `headrace features get` understands and prints."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from headrace.cli import features
from headrace.errors import LookupRefused
from headrace.types import TopicPartition
from tests.unit.paying import LAST, NOON_MS, SECOND_MS, Cards


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> Cards:
    """Cards in memory, which the command looks into."""
    found = Cards(partitions=1)
    found.pay("a", NOON_MS, 5.25)
    found.pay("b", NOON_MS + 1_500, 1e-7)
    monkeypatch.setattr(features, "opened", lambda *_: found.features)
    return found


def told(*arguments: str, exit_code: int = 0) -> str:
    """What the command prints."""
    done = CliRunner().invoke(features.app, ["get", *arguments, "--app", "tests.unit.paying:APP"], catch_exceptions=False)
    assert done.exit_code == exit_code, done.output
    return done.output


@pytest.mark.usefixtures("cards")
@pytest.mark.parametrize(
    "as_of", [str(NOON_MS + 2_500), "2023-11-14T22:13:22.500", "2023-11-15T03:58:22.5+05:45", "2023-11-14T22:13:22.5Z"]
)
def test_an_instant_in_any_form(as_of: str) -> None:
    """ISO 8601 with a zone, without one (it is UTC) and milliseconds name the same instant, to the millisecond."""
    found = json.loads(told("spending", "a", "--as-of", as_of, "--output", "json"))
    assert (found["as_of_ms"], found["known"], found["values"][LAST]) == (NOON_MS + 2_500, True, 5.25)
    assert found["values"]["seconds_since_last_where_real_1h"] == 2.5


def test_the_json_is_complete(cards: Cards) -> None:
    """The JSON is the whole answer, absent values as null."""
    found = json.loads(told("spending", "nobody", "--as-of", str(NOON_MS + 2_500), "--output", "json"))
    assert found == cards.features.get("spending", "nobody", NOON_MS + 2_500).as_json()
    assert (found["known"], found["values"][LAST], found["staleness_ms"]) == (False, None, 1_000)


def test_the_text_is_readable(cards: Cards) -> None:
    """The text says what was asked, where it comes from, how old that is, and every value in a column."""
    lines = told("spending", "b", "--as-of", str(NOON_MS + 2_500)).splitlines()
    offset = cards.features.get("spending", "b").offset
    assert lines[:3] == [
        "spending (version 1), entity b, as of 2023-11-14T22:13:22.500Z",
        f"from payments.v1-0 below offset {offset}; watermark 2023-11-14T22:13:21.500Z, staleness 1.0s",
        "",
    ]
    assert lines[3].split() == ["count_where_real_1m", "1"]
    assert "  std_amount_where_real_1h          0" in lines
    assert "  last_amount_where_real_1h         1e-07" in lines
    assert len(lines) == 3 + 9


@pytest.mark.usefixtures("cards")
def test_an_unknown_entity_is_said_to_be_one() -> None:
    """The text of an unknown entity says so, and what is absent is called that."""
    lines = told("spending", "nobody", "--as-of", str(NOON_MS + 2_500)).splitlines()
    assert lines[2].startswith("not known: never seen, or nothing of it lies in any window")
    assert "  last_amount_where_real_1h         absent" in lines


@pytest.mark.usefixtures("cards")
def test_refusals() -> None:
    """What is no instant is a wrong argument, with examples; an unknown view and an instant too early are refused with the reason."""
    assert "write for example 2026-01-31T12:00" in " ".join(told("spending", "a", "--as-of", "noon", exit_code=2).split())
    with pytest.raises(LookupRefused, match="near it are spending"):
        told("spendings", "a")
    with pytest.raises(LookupRefused, match="has an event at"):
        told("spending", "b", "--as-of", str(NOON_MS))


def test_a_partition_without_events() -> None:
    """An answer from a partition that has shown no event says that instead of a staleness."""
    cards = Cards(partitions=1)
    cards.driver.run()
    found = cards.features.get("spending", "a")
    assert found.partition == TopicPartition("payments.v1", 0)
    assert "below offset 0; the partition has shown no event yet" in features.as_text(found)


@pytest.mark.parametrize(
    ("length_ms", "text"),
    [
        (0, "0.0s"),
        (59_999, "59.9s"),
        (60_000, "1m 0s"),
        (3_599_999, "59m 59s"),
        (3 * 3_600 * SECOND_MS + 61_000, "3h 1m"),
        (86_400 * SECOND_MS * 4_700 + 7_200_000, "4,700d 2h"),
    ],
)
def test_durations(length_ms: int, text: str) -> None:
    """A duration is told in two units at most."""
    assert features._duration(length_ms) == text


def test_no_instant_at_all() -> None:
    """What is neither a number nor ISO 8601 is refused, digits of other scripts too."""
    for text in ("", "12:00", "2026-13-01", "1.5e12", "-5", "١٢٣"):
        with pytest.raises(typer.BadParameter, match="is no instant"):
            features.ms_of(text)
