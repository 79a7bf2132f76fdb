"""The gate as it is called: verdict, report, deaths of its process, the champion beside, and what is the caller's own mistake."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import headrace as hr
from headrace.errors import DefinitionError
from headrace.models import stamp
from headrace.predict import gate, onnx_file
from headrace.predict.attached_rows import golden_entries
from headrace.predict.gate import examine, measure
from headrace.predict.gate_codes import Code
from headrace.predict.gate_limits import GateLimits
from headrace.predict.gate_request import CHAMPION_STEP, Request
from headrace.predict.signature import ViewVersion, feed_of
from tests.unit.predict import small_models, zoo_good
from tests.unit.predict.zoo import FEATURES, PIPELINE, ROOMY, Declared, codes, draw, finished, graph, node, signature
from tests.unit.predict.zoo_good import ROWS, W

BY_SIGNAL = "import os, signal; os.kill(os.getpid(), signal.{})"
EVENTS = draw(500, seed=8).astype(np.float64)


def test_verdict_on_a_good_model_tells_what_was_measured() -> None:
    """The report of a good model is plain JSON with every part, and its signature can be read back."""
    content = zoo_good.two_layers()
    verdict = examine(content, PIPELINE, rehearsal=EVENTS, limits=ROOMY)
    assert verdict.refusals == ()
    report = json.loads(json.dumps(verdict.report, allow_nan=False))
    parts = "sha256 bytes file signature ordinary golden hostile one_missing row_alone latency memory rehearsal notes"
    assert set(report) == set(parts.split())
    assert verdict.signature == signature(kind=verdict.signature.kind if verdict.signature else None)
    assert report["bytes"] == len(content)
    assert report["golden"]["worst"] < 1e-6
    assert set(report["latency"]) == {"1", "256", "4096"}
    assert report["memory"]["peak_bytes"] > 0
    assert report["rehearsal"]["candidate"]["scored"] == 500
    assert report["rehearsal"]["champion"] is None


def test_what_a_model_makes_of_missing_values_is_told() -> None:
    """Of a linear model the report says that NaN gives NaN, and which feature may not be missing."""
    report = examine(zoo_good.linear(), PIPELINE, limits=ROOMY).report
    assert report["hostile"]["NaN"] == "NaN"
    assert report["hostile"]["infinity"] in {"NaN", "infinity"}
    assert report["hostile"]["0"] == pytest.approx(-1.5)
    assert report["one_missing"] == {"answers": {"NaN": 4}, "no_score_without": list(FEATURES)}
    assert "'flights.count_1h' the first" in " ".join(report["notes"])


def test_champion_stands_beside() -> None:
    """The scores of the champion for the same events are counted in the same bars."""
    weights = 1.1 * W
    candidate = finished(graph([node("MatMul", "X w", "score")], tensors={"w": weights}), ROWS, (ROWS @ weights)[:, 0], version="2")
    champion = finished(graph([node("MatMul", "X w", "score")], tensors={"w": W}), ROWS, (ROWS @ W)[:, 0])
    verdict = examine(candidate, PIPELINE, rehearsal=EVENTS, champion=champion, limits=ROOMY)
    told = verdict.report["rehearsal"]
    assert verdict.passed
    assert (told["champion_version"], sum(told["champion"]["counts"]), sum(told["candidate"]["counts"])) == ("1", 500, 500)
    assert told["apart"]["mean"] == pytest.approx(float(np.abs(0.1 * EVENTS @ W).mean()), rel=1e-4)


def test_costs_alone_are_measured_and_not_judged() -> None:
    """`measure` tells time and memory at sizes that are asked for, of a model too dear for `examine`; what is broken it refuses."""
    limits = replace(ROOMY, call_us=0, row_us=0, model_bytes=0)
    verdict = measure(zoo_good.linear(), PIPELINE, rehearsal=EVENTS, sizes=(1, 8), limits=limits)
    assert verdict.passed
    assert set(verdict.report["latency"]) == {"1", "8"}
    assert verdict.report["memory"]["peak_bytes"] > 0
    assert not {"golden", "hostile", "rehearsal"} & set(verdict.report)
    assert codes(measure(b"nothing", PIPELINE)) == [Code.NOT_ONNX]


def test_champion_that_cannot_be_loaded_is_a_note() -> None:
    """A champion that is broken says nothing against the candidate."""
    verdict = examine(zoo_good.linear(), PIPELINE, rehearsal=EVENTS, champion=b"broken", limits=ROOMY)
    assert verdict.passed
    assert any("champion could not be scored" in note for note in verdict.report["notes"])


def test_champion_that_ends_the_process_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    """A champion that takes all time is no refusal of the candidate, whose report is kept."""
    verdict = {"verdict": {"refusal": None, "report": {"notes": ["one"], "golden": None}}}
    does = f"print({json.dumps(verdict)!r}); print({json.dumps({'step': CHAMPION_STEP})!r}, flush=True); {BY_SIGNAL.format('SIGXCPU')}"
    monkeypatch.setattr(gate, "CHILD", [sys.executable, "-S", "-c", does])
    found = examine(zoo_good.linear(), PIPELINE, rehearsal=EVENTS, champion=zoo_good.linear(), limits=ROOMY)
    assert found.passed
    first, second = found.report["notes"]
    assert first == "one"
    assert second == f"the champion could not be scored beside it: while {CHAMPION_STEP} it had used up its 60 s of CPU time"


def test_deadline_is_a_refusal() -> None:
    """A process that is not done at the deadline is ended, and the refusal says how far it came."""
    verdict = examine(zoo_good.linear(), PIPELINE, limits=replace(ROOMY, wall_s=0.001))
    assert codes(verdict) == [Code.DEADLINE]
    assert verdict.refusals[0].said == "while starting it was ended at the deadline of 0.001 s"


@pytest.mark.parametrize(
    ("does", "code", "said"),
    [
        ("import os; os.abort()", Code.CRASHED, "SIGABRT"),
        (BY_SIGNAL.format("SIGKILL"), Code.CRASHED, "SIGKILL, as the kernel does"),
        (BY_SIGNAL.format("SIGXCPU"), Code.CPU_LIMIT, "CPU time"),
        ("raise SystemExit(3)", Code.CRASHED, "status 3"),
        ("raise ImportError('no numpy here')", Code.CRASHED, "no numpy here"),
        ("import sys; sys.exit('terminate called after throwing an instance of std::bad_alloc')", Code.MEMORY_LIMIT, "no memory"),
        ("pass", Code.CRASHED, "status 0"),
        ("print('{\"step\": \"loading it\"}'); print('{\"ver', end='')", Code.CRASHED, "while loading it"),
    ],
)
def test_every_death_of_the_process_is_a_refusal(does: str, code: Code, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the process that examines ends, with or without a word, the caller gets a refusal with a code."""
    monkeypatch.setattr(gate, "CHILD", [sys.executable, "-S", "-c", does])
    verdict = examine(zoo_good.linear(), PIPELINE, limits=ROOMY)
    assert codes(verdict) == [code]
    assert said in verdict.refusals[0].said


def test_process_knows_nothing_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that looks at strange bytes has an empty folder to work in and no secret in its environment."""
    monkeypatch.setenv("HEADRACE_REDIS_URL", "hidden")
    does = "import json, os; print(json.dumps({'step': [name for name in os.environ if 'HEADRACE' in name] + os.listdir('.')}))"
    monkeypatch.setattr(gate, "CHILD", [sys.executable, "-S", "-c", does])
    verdict = examine(zoo_good.linear(), PIPELINE, limits=ROOMY)
    assert verdict.report["died"] == []


def test_process_imports_no_more_than_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process starts quickly, as it loads what scores and no client library, compiler or definition."""
    does = (
        "import headrace.predict.gate_child, json, sys; "
        "print(json.dumps({'step': sorted({name.partition('.')[0] for name in sys.modules} "
        "& {'confluent_kafka', 'redis', 'numba', 'pydantic', 'msgspec', 'pyarrow', 'pandas', 'sklearn', 'matplotlib'} "
        "| {name for name in sys.modules if name.startswith('headrace.d')})}))"
    )
    monkeypatch.setattr(gate, "CHILD", [sys.executable, "-P", "-c", does])
    assert examine(zoo_good.linear(), PIPELINE, limits=ROOMY).report["died"] == []


def test_pipeline_as_engineers_write_it() -> None:
    """A model stamped for a real pipeline passes, and is refused once a window of the pipeline changes."""

    class Payment(hr.Event):
        """A payment."""

        card: str
        paid_at: hr.EventTime
        amount: float

    source = hr.Source("payments.v1", Payment, key="card", time="paid_at")

    def pipeline(window: str) -> hr.Pipeline:
        view = hr.FeatureView("card", entity="card", source=source, features=[hr.mean("amount", over=[window])])
        return hr.Pipeline("fraud", views=[view], event_features=["amount"], predictions="fraud.v1")

    rows = np.array([[1.0, 2.0], [3.0, 5.0]], dtype=np.float32)
    stamped = stamp(small_models.linear(), pipeline("1h"), version="7", kind="value")
    model = onnx_file.with_metadata(stamped, golden_entries(rows, np.array([8.0, 21.0])))
    assert examine(model, pipeline("1h"), limits=ROOMY).passed
    refused = examine(model, pipeline("2h"), limits=ROOMY)
    assert codes(refused) == [Code.FEATURES]
    assert "feature 0 is 'card.mean_amount_1h' in the model and 'card.mean_amount_2h' there" in refused.refusals[0].said


def test_vectors_of_other_features_are_the_callers_mistake() -> None:
    """A rehearsal that is not of the pipeline's features is an error, not a refusal."""
    with pytest.raises(DefinitionError, match=r"rehearsal has shape \[5, 3\], pipeline 'late' has 4 features"):
        examine(zoo_good.linear(), PIPELINE, rehearsal=np.zeros((5, 3)))


def test_without_onnx_there_is_no_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the package is missing nothing is waved through."""
    monkeypatch.setattr(onnx_file, "installed", lambda: False)
    with pytest.raises(DefinitionError, match="pip install onnx"):
        examine(zoo_good.linear(), PIPELINE)


@pytest.mark.parametrize("rehearsal", [None, EVENTS])
@pytest.mark.parametrize("champion", [None, b"", b"champion"])
def test_request_is_read_as_it_was_written(rehearsal: np.ndarray | None, champion: bytes | None, tmp_path: Path) -> None:
    """What one process hands to the other arrives whole, whichever parts there are."""
    pipeline = Declared(event_features=(("distance", hr.col("distance") / 100),))
    limits = GateLimits(operators=("If",), domains=("",), cpu_s=3)
    written = Request(content=b"\0model", feed=feed_of(pipeline), limits=limits, rehearsal=rehearsal, champion=champion)
    with (tmp_path / "request").open("w+b") as file:
        written.write(file)
        file.seek(0)
        found = Request.read(file)
    assert (found.content, found.feed, found.limits, found.champion) == (written.content, written.feed, limits, champion)
    assert found.feed.views == (ViewVersion(name="flights", version=1, fingerprint="f" * 64),)
    if rehearsal is None:
        assert found.rehearsal is None
    else:
        assert found.rehearsal is not None
        assert found.rehearsal.tobytes() == rehearsal.tobytes()
