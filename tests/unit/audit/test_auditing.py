"""What an audit compares, and what it leaves out and says so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import pytest

import headrace as hr
from headrace.audit.auditing import Audit
from headrace.audit.findings import Explanation, Findings, Kind, PipelineFindings
from headrace.audit.history import in_sample
from headrace.audit.reporting import Figures, as_json, as_text
from headrace.crashes import crash_fact
from headrace.errors import DefinitionError, TransientError
from headrace.memory_log.reader import MemoryFeed
from headrace.testing import Driver
from headrace.types import RecordBatch, TopicPartition
from tests.unit.audit.sales import (
    EVENTS,
    PARTITIONS,
    PREDICTIONS,
    SHOPS,
    SOURCE,
    Model,
    ServedReader,
    app,
    audited,
    folded,
    pipeline,
    run,
    sold,
    subject_of,
)


@pytest.fixture(scope="module")
def driver() -> Driver:
    """A clean run."""
    return run()


def test_the_sample_is_by_entity_and_grows() -> None:
    """An entity is in the sample by its key alone, and in every larger one; shares come out as asked for."""
    keys = [f"card-{number}" for number in range(20_000)]
    shares = (0.0, 0.01, 0.1, 0.5, 1.0)
    samples = [{key for key in keys if in_sample(key, share)} for share in shares]
    assert all(smaller <= larger for smaller, larger in pairwise(samples))
    assert [len(sample) / len(keys) for sample in samples] == pytest.approx(shares, abs=0.015)


def test_a_share_of_the_entities(driver: Driver) -> None:
    """With a share, the events of those entities alone are told again; watermarks follow all of them, so the answers are the same."""
    findings = audited(driver, share=0.4)
    chosen = {f"shop-{number}" for number in range(SHOPS) if in_sample(f"shop-{number}", 0.4)}
    assert 0 < len(chosen) < SHOPS
    assert findings.sampled == sum(one.event["shop"] in chosen for one in sold(driver))
    assert 0 < findings.pipelines["demand"].vectors < findings.sampled
    assert findings.clean()


def test_one_wrong_value_is_found_by_its_coordinates(driver: Driver) -> None:
    """A single value that was served wrongly is one mismatch of one feature, with place, entity and both values."""
    true = folded(sold(driver))
    predicted = [json.loads(one.value or b"")["id"] for one in driver.log.read(TopicPartition(PREDICTIONS, 1))]
    place = (1, int(predicted[40].split("-")[-2]))
    served = {**true, place: {**true[place], "recent.lag2_weight_6h": 0.5}}
    findings = audited(driver, served)
    (one,) = findings.differences
    assert (one.topic, one.partition, one.offset, one.feature, one.served) == (SOURCE, *place, "recent.lag2_weight_6h", 0.5)
    assert one.expected == true[place]["recent.lag2_weight_6h"]
    assert findings.pipelines["demand"].mismatches == {"recent.lag2_weight_6h": 1}


def test_predictions_of_other_definitions_are_not_compared(driver: Driver) -> None:
    """What says that it comes from other definitions is counted, and nothing waits for it."""
    other = hr.App("shops", pipelines=[pipeline(version=2)])
    findings = Audit(other, subject_of(driver), share=1.0).more()
    found = findings.pipelines["demand"]
    assert found.vectors == 0
    assert found.not_compared["predictions of other definitions"] > 0.9 * EVENTS
    assert "nothing was compared" in as_text("shops", findings, 1.0)


def test_refused_and_condemned_records_are_left_out() -> None:
    """A record that became a dead letter because it ended the process is in nobody's history."""
    driver = Driver(app, models={"demand": Model()}, partitions=PARTITIONS)
    start_ms = driver.clock.now_ms()
    for number in range(20):
        driver.send(SOURCE, shop="shop-1", at=start_ms + 1_000 * number, weight=1.0 + number / 100)
    driver.run()
    clean = audited(driver)
    assert clean.clean()
    (partition,) = {one.record.partition for one in sold(driver)}
    driver.log.append(app.facts, None, b"crash_loop", crash_fact(TopicPartition(SOURCE, partition), 4))
    findings = audited(driver)
    assert findings.pipelines["demand"].not_compared == {"predictions without their event, or one more for it": 1}
    assert findings.pipelines["demand"].mismatches["recent.count_60m"] == 15
    assert [one.kind for one in findings.pipelines["demand"].explanations] != []


def test_an_audit_goes_on_where_it_stood() -> None:
    """Asked again, it looks at what came since: all rounds together compare what one does, and nothing twice."""
    driver = Driver(app, models={"demand": Model()}, partitions=PARTITIONS)
    audit = Audit(app, subject_of(driver), share=1.0)
    sent, compared = 0, []
    for _ in range(4):
        for _ in range(40):
            driver.advance(90_000)
            driver.send(SOURCE, shop=f"shop-{sent % 5}", at=driver.clock.now_ms() - 60_000 * (sent % 3), weight=1.0 + sent / 50)
            sent += 1
        driver.run()
        compared.append(audit.more().compared())
    assert compared == [40, 80, 120, 160]
    assert audit.findings.clean()
    assert audit.findings.pipelines["demand"].not_compared == {}
    assert audit.more().compared() == 160


class FaintReader(ServedReader):
    """A reader whose server goes away after every so many answers."""

    answers = 0

    def feed(self, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]) -> MemoryFeed:
        feed = super().feed(starts, ends)
        take = feed.take

        def faint() -> list[RecordBatch]:
            FaintReader.answers += 1
            if FaintReader.answers % 4 == 0:
                raise TransientError("the broker is away")
            return take()

        feed.take = faint  # type: ignore[method-assign]
        return feed


def test_a_server_that_goes_away(driver: Driver) -> None:
    """An audit that was interrupted goes on where it stood: everything is compared once, as by one that was not."""
    subject = replace(subject_of(driver), reader=lambda: FaintReader(driver, None))
    audit = Audit(app, subject, share=1.0)
    interrupted = 0
    while True:
        try:
            findings = audit.more()
        except TransientError:
            interrupted += 1
            continue
        break
    assert interrupted > 0
    assert findings.clean()
    assert findings.pipelines == audited(driver).pipelines


def test_times_and_a_log_without_its_beginning() -> None:
    """Records from a time on, and those whose windows reach below the log's beginning: fewer are compared, and none is called wrong."""
    driver = run()
    whole = audited(driver).compared()
    times_ms = sorted(one.record.timestamp_ms for one in sold(driver))
    some = Audit(app, subject_of(driver), share=1.0).more(times_ms[400], times_ms[500])
    assert some.clean()
    assert 50 < some.compared() <= 100
    for number in range(PARTITIONS):
        driver.log.delete_before(TopicPartition(SOURCE, number), 100)
    shorter = audited(driver)
    assert shorter.clean()
    assert 0 < shorter.compared() < whole - 2 * 100


def test_memory_is_that_of_the_longest_window() -> None:
    """Of a long history only what a window may still see is kept, and nobody who is long gone."""
    driver = Driver(app, models={"demand": Model()}, partitions=1)
    audit = Audit(app, subject_of(driver), share=1.0)
    for number in range(1_600):
        driver.advance(120_000)
        driver.send(SOURCE, shop=f"gone-{number}" if number < 600 else "shop-1", at=driver.clock.now_ms(), weight=1.0)
    driver.run()
    assert audit.more().clean()
    (history,) = audit._histories.values()
    assert list(history.lives) == [(0, "shop-1")]
    # One batch of the reader in memory waits for its predictions.
    inside, waiting = 6 * 3_600_000 // 120_000, 1_000
    assert max(len(life.occurrences) for life in history.lives.values()) < 2 * inside + waiting


def test_pipelines_without_features_cannot_be_audited(driver: Driver) -> None:
    """An app that publishes no features is refused with the fix; one that publishes some says which are not audited."""
    views = app.pipelines[0].views
    silent = hr.Pipeline("silent", views=views, predictions="silent.v1", publish_features=False)
    with pytest.raises(DefinitionError, match="publish_features=True"):
        Audit(hr.App("shops", pipelines=[silent]), subject_of(driver), share=1.0)
    both = Audit(hr.App("shops", pipelines=[*app.pipelines, silent]), subject_of(driver), share=1.0)
    assert both.findings.not_audited == {"silent": "its predictions carry no features (publish_features=False)"}


# ------------------------------------------------------------------------------------------------- what is told of it


def found(vectors: int, wrong: int, explanations: Mapping[Kind, int]) -> Findings:
    """Findings with one feature that differs."""
    findings = Findings(share=0.01, events=1_000, sampled=vectors)
    one = findings.pipelines["demand"] = PipelineFindings(features=["recent.count_60m", "amount"], vectors=vectors, wrong=wrong)
    one.mismatches["recent.count_60m"] = wrong
    one.explanations = [
        Explanation(pipeline="demand", kind=kind, says="because", features=["recent.count_60m"], explained=count, of=wrong)
        for kind, count in explanations.items()
    ]
    return findings


def test_the_text_names_features_and_mistakes() -> None:
    """How much was compared, which features differ how often, and why."""
    text = as_text("shops", found(200, 10, {Kind.STALE: 9}), 2.0)
    assert "app shops: 1,000 records read, 200 events of the sample (0.01 of all entities) in 2.0 s" in text
    assert "demand: 200 vectors compared, 10 wrong" in text
    assert "recent.count_60m differs in 10 (5.00%)" in text
    assert "stale: because; gives 9 of 10 wrong values, of recent.count_60m" in text
    assert "no known mistake" in as_text("shops", found(200, 10, {}), 2.0)


def test_the_json_says_the_same() -> None:
    """One object with everything."""
    told = json.loads(as_json(found(200, 10, {Kind.STALE: 9}), 2.0))
    assert (told["clean"], told["compared"]) == (False, 200)
    assert told["pipelines"]["demand"]["mismatch_ratio"] == {"recent.count_60m": 0.05}
    assert told["pipelines"]["demand"]["explanations"][0]["kind"] == "stale"


def test_the_metrics_tell_a_ratio_of_each_feature() -> None:
    """Every feature's ratio is there from the start, tells what was compared last, and mistakes are told by kind until they are mended."""
    findings = found(200, 10, {Kind.STALE: 9})
    figures = Figures(findings)

    def value(name: str, **labels: str) -> float | None:
        return figures.metrics.registry.get_sample_value(f"headrace_audit_{name}", {"pipeline": "demand", **labels})

    assert value("mismatch_ratio", feature="recent.count_60m") == 0 == value("explained_ratio", kind="stale")
    figures.take(findings, 1_700_000_000_000)
    assert value("mismatch_ratio", feature="recent.count_60m") == 0.05
    assert value("mismatch_ratio", feature="amount") == 0
    assert value("explained_ratio", kind="stale") == 0.9
    later = replace(findings)
    later.pipelines["demand"] = PipelineFindings(vectors=300, wrong=10, mismatches=findings.pipelines["demand"].mismatches)
    figures.take(later, 1_700_000_010_000)
    assert value("mismatch_ratio", feature="recent.count_60m") == 0
    assert value("explained_ratio", kind="stale") == 0
    assert value("vectors_total") == 300
    assert value("mismatches_total", feature="recent.count_60m") == 10
    assert b"headrace_audit_last_timestamp_seconds 1.70000001e+09" in figures.metrics.exposition()[1]
