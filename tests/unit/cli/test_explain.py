"""How an explanation is shown: text, JSON, a picture."""

from __future__ import annotations

import dataclasses
import json
import math
from xml.etree import ElementTree as ET

import pytest
from typer.testing import CliRunner

from headrace.apps.explaining import Explanation, Published
from headrace.cli.explain import app, as_json, as_text
from headrace.cli.waterfall import bars_of, svg_waterfall, text_waterfall
from headrace.predict.additive import Link

FOUND = Explanation(
    id="departures.v1-2-41-late",
    entity="EWR",
    model="late",
    version="3",
    role="champion",
    score=0.0625,
    published=Published(score=0.0625, version="3", role="champion", topic="late.v1", partition=1, offset=77),
    units=Link.LOGIT,
    mean=-1.5,
    features={"airport.count_1h": 3.0, "aircraft.mean_delay_3h": math.nan, "delay": -2.5, "miles": 100.0},
    contributions={"airport.count_1h": 0.25, "aircraft.mean_delay_3h": -1.75, "delay": 0.5, "miles": 0.0},
)


def test_bars_lead_from_the_mean_to_the_margin() -> None:
    """The largest come first, each begins where the one before ends, and the rest is one bar."""
    bars = bars_of(FOUND, 2)
    assert [bar.label for bar in bars] == ["aircraft.mean_delay_3h = absent", "delay = -2.5", "2 others"]
    assert [bar.change for bar in bars] == pytest.approx([-1.75, 0.5, 0.25])
    assert bars[0].start == FOUND.mean
    assert [bar.end for bar in bars[:-1]] == [bar.start for bar in bars[1:]]
    assert bars[-1].end == pytest.approx(FOUND.margin) == pytest.approx(-2.5)


def test_the_terminal_shows_where_each_bar_lies() -> None:
    """Bars that add are solid, those that take are not; mean and margin are marks."""
    lines = text_waterfall(FOUND, 12)
    assert lines == [
        "  mean                                -1.5000                                     │",
        "  aircraft.mean_delay_3h = absent     -1.7500  ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒",
        "  delay = -2.5                        +0.5000  ██████████",
        "  airport.count_1h = 3                +0.2500            █████",
        "  miles = 100                         +0.0000                 │",
        "  margin                              -2.5000                 │",
    ]


def test_the_text_says_what_was_compared() -> None:
    """It says by whom it was scored, whether that is what was published, and everything that is not as it was."""
    text = as_text(FOUND, 12)
    assert text.splitlines()[:2] == [
        "departures.v1-2-41-late, at late.v1-1 offset 77",
        "entity EWR, model late version 3 (champion): score 0.0625, as published, within 1e-6",
    ]
    assert "contributions, in units of the log-odds:" in text
    other = as_text(dataclasses.replace(FOUND, score=0.07, notes=["it was published with 0.0625 and scores 0.07 now"]), 12)
    assert "score 0.07, NOT as published" in other
    assert "! it was published with 0.0625" in other
    assert "not compared with the published one" in as_text(dataclasses.replace(FOUND, published=None), 12)


def test_json_holds_all_of_it() -> None:
    """Features without a value are null, and the numbers are whole."""
    found = json.loads(as_json(FOUND))
    assert found["features"]["aircraft.mean_delay_3h"] is None
    assert found["mean"] + sum(found["contributions"].values()) == found["margin"]
    assert (found["units"], found["same"], found["model"]["version"]) == ("log-odds", True, "3")
    assert found["published"] == {"score": 0.0625, "version": "3", "role": "champion", "topic": "late.v1", "partition": 1, "offset": 77}
    assert json.loads(as_json(dataclasses.replace(FOUND, published=None)))["published"] is None


def test_the_picture_is_a_file_of_its_own() -> None:
    """It is XML, has a title, a bar a contribution within its width, and what names hold is escaped."""
    strange = dataclasses.replace(FOUND, entity="<EWR> & co")
    picture = ET.fromstring(svg_waterfall(strange, 2))  # noqa: S314 - our own
    space = "{http://www.w3.org/2000/svg}"
    assert picture.findtext(f"{space}title") == "departures.v1-2-41-late: score 0.0625"
    rects = picture.findall(f"{space}rect")
    assert len(rects) == 1 + 3
    width = float(picture.attrib["width"])
    assert all(float(rect.get("x", "0")) >= 0 and float(rect.get("x", "0")) + float(rect.attrib["width"]) <= width for rect in rects)
    words = [text.text for text in picture.findall(f"{space}text")]
    assert any("<EWR> & co" in (word or "") for word in words)
    assert {"-1.7500", "+0.5000", "2 others", "margin -2.5000"} <= set(words)


def test_help_is_there() -> None:
    """The command says what an id is."""
    done = CliRunner().invoke(app, ["--help"])
    assert done.exit_code == 0
    assert "--svg" in done.output
