from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator

import pytest
import structlog

from headrace import log


@pytest.fixture(autouse=True)
def quiet_afterwards() -> Iterator[None]:
    """Put the process's logging back as it was."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
    log._known = log.Redaction()


def lines_of(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_line_of_json() -> None:
    """An event carries when, how grave, who and its fields, on one line, whatever line breaks it holds."""
    stream = io.StringIO()
    log.set_up(stream=stream)
    log.logger("worker", slot="0").info("partition live", partition=3, why="two\nlines")
    (event,) = lines_of(stream)
    assert list(event)[:4] == ["at", "level", "event", "logger"]
    assert (event["level"], event["event"], event["logger"]) == ("info", "partition live", "headrace.worker")
    assert (event["slot"], event["partition"], event["why"]) == ("0", 3, "two\nlines")


def test_an_exception_is_one_line_too() -> None:
    """A traceback is a field of its event, in JSON and on a console alike."""
    for style in ("json", "console"):
        stream = io.StringIO()
        log.set_up(style=style, stream=stream)
        try:
            int("broken pipe of the mill")
        except ValueError:
            log.logger("worker").exception("failed")
        assert len(stream.getvalue().splitlines()) == 1
        assert "broken pipe of the mill" in stream.getvalue()


def test_events_below_the_level_are_not_written() -> None:
    """The level holds for our events and for those of other libraries."""
    stream = io.StringIO()
    log.set_up(level="warning", stream=stream)
    log.logger("worker").info("too small")
    logging.getLogger("elsewhere").info("too small")
    logging.getLogger("elsewhere").warning("big %s", "enough")
    assert [(event["event"], event["logger"]) for event in lines_of(stream)] == [("big enough", "elsewhere")]


@pytest.mark.parametrize("style", ["json", "console"])
def test_secrets_never_reach_the_log(style: str) -> None:
    """A known secret is cut out of texts, fields, exceptions, warnings and foreign events, percent-encoded or not."""
    stream = io.StringIO()
    log.set_up(style=style, secrets=["can@ry/secret"], stream=stream)
    say = log.logger("worker", url="redis://u:can%40ry%2Fsecret@h")
    say.info("saying can@ry/secret", nested={"list": ["can@ry/secret"], "tuple": ("can@ry/secret",)})
    try:
        int("can@ry/secret")
    except ValueError:
        say.exception("failed")
    logging.getLogger("elsewhere").warning("foreign %s", "can@ry/secret")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.warn("can@ry/secret", stacklevel=1)
    assert len(stream.getvalue().splitlines()) == 4
    assert "can@ry" not in stream.getvalue()
    assert "can%40ry" not in stream.getvalue()


def test_fields_with_a_telling_name_are_blanked() -> None:
    """What is called a password or token is hidden even when nobody said that it is secret."""
    stream = io.StringIO()
    log.set_up(stream=stream)
    log.logger("worker", **{"sasl.password": "x1"}).info("settings", nested={"api_token": "x2", "level": "x3"}, password=None)
    (event,) = lines_of(stream)
    assert event["sasl.password"] == "***"
    assert (event["nested"], event["password"]) == ({"api_token": "***", "level": "x3"}, None)


def test_what_is_said_beside_the_log_has_no_secrets_either() -> None:
    """Once the log is set up, its secrets are cut out of any text that a command shows."""
    assert log.without_secrets("the canary sings") == "the canary sings"
    log.set_up(secrets=["canary"], stream=io.StringIO())
    assert log.without_secrets("the canary sings") == "the *** sings"


def test_longer_secrets_are_cut_out_first() -> None:
    """A secret that holds another one leaves no tail behind; one of two letters is left alone."""
    redaction = log.Redaction(["mill", "millpond", "ab"])
    assert redaction.text("millpond mill ab") == "*** *** ab"
    assert log.Redaction([]).text("nothing to hide") == "nothing to hide"
