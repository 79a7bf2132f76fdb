from __future__ import annotations

import numpy as np
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain_text

from headrace.features.state_store import ApplyResult
from headrace.metrics import APPLY_RESULTS, PHASES, STAGES, TRANSACTION_RESULTS, Metrics
from headrace.publish.record_sink import CommitResult
from headrace.recovery import Phase
from headrace.types import Reason, TopicPartition

P3 = TopicPartition("flights", 3)


@pytest.fixture
def metrics() -> Metrics:
    """The metrics of a worker with one source and one model."""
    return Metrics(topics=["flights"], models=["late_arrival"])


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_closed_labels_begin_at_zero(metrics: Metrics) -> None:
    """Every series that can be foreseen exists before anything happened, so that a rate over it is right from the first event."""
    assert value(metrics, "headrace_events_total", topic="flights") == 0
    assert value(metrics, "headrace_predictions_total", model="late_arrival") == 0
    for reason in Reason:
        assert value(metrics, "headrace_dead_letters_total", topic="flights", reason=reason.value) == 0
    for stage in STAGES:
        assert value(metrics, "headrace_stage_seconds_count", stage=stage) == 0
    for phase in PHASES:
        assert value(metrics, "headrace_partitions", phase=phase) == 0


def test_closed_lists_are_those_of_the_code() -> None:
    """Phases, results of transactions and of applies are exactly what the program can say, and `unknown` for a lost answer."""
    assert tuple(phase.value for phase in Phase) == PHASES
    assert tuple(result.value for result in CommitResult) == TRANSACTION_RESULTS
    assert (*(result.value for result in ApplyResult), "unknown") == APPLY_RESULTS


def test_a_batch_is_counted(metrics: Metrics) -> None:
    """What a batch held is added to the counters of its topic, models and reasons; a name not foreseen is counted too."""
    for _ in range(2):
        metrics.batch(
            "flights",
            events=5,
            late=2,
            unknown_fields=1,
            refused={Reason.BAD_KEY: 3},
            predictions={"late_arrival": 5, "shadow": 4},
            passed_on={"by-origin": 5},
            looked_up={("airport", "fresh"): 4, ("airport", "stale"): 1},
            shadowed={"late_arrival": 5},
            corrected={"fraud": 2},
        )
    assert value(metrics, "headrace_events_total", topic="flights") == 10
    assert value(metrics, "headrace_look_ups_total", view="airport", mark="stale") == 2
    assert value(metrics, "headrace_late_events_total", topic="flights") == 4
    assert value(metrics, "headrace_unknown_fields_total", topic="flights") == 2
    assert value(metrics, "headrace_dead_letters_total", topic="flights", reason="BAD_KEY") == 6
    assert value(metrics, "headrace_predictions_total", model="shadow") == 8
    assert value(metrics, "headrace_passed_on_total", topic="by-origin") == 10
    assert value(metrics, "headrace_corrections_total", pipeline="fraud") == 4
    assert value(metrics, "headrace_shadow_scores_total", pipeline="late_arrival") == 10


def test_delays_of_a_column_fall_into_their_buckets(metrics: Metrics) -> None:
    """A column of timestamps becomes counts per border, a value on a border belonging to it, and their sum."""
    metrics.committed(np.array([1_000, 995, 750, 749, -99_000]), now_ms=1_000)
    buckets = {le: value(metrics, "headrace_end_to_end_seconds_bucket", le=le) for le in ("0.005", "0.25", "0.4", "10.0", "+Inf")}
    assert buckets == {"0.005": 2, "0.25": 3, "0.4": 4, "10.0": 4, "+Inf": 5}
    assert value(metrics, "headrace_end_to_end_seconds_count") == 5
    assert value(metrics, "headrace_end_to_end_seconds_sum") == pytest.approx(100.506)
    assert value(metrics, "headrace_batch_records_sum") == 5


def test_stages_are_seconds(metrics: Metrics) -> None:
    """Nanoseconds of a timeline are observed as seconds under their stage."""
    metrics.stages({"decode": 2_000_000, "predict": 3_000_000_000})
    assert value(metrics, "headrace_stage_seconds_sum", stage="decode") == pytest.approx(0.002)
    assert value(metrics, "headrace_stage_seconds_sum", stage="predict") == pytest.approx(3)


def test_results_and_catch_ups_are_counted(metrics: Metrics) -> None:
    """Transactions, applies, fresh starts and catch-ups each have their counter."""
    metrics.transaction("unknown")
    metrics.applied("behind")
    metrics.started_over()
    metrics.catch_up_began()
    metrics.replayed(120)
    assert value(metrics, "headrace_transactions_total", result="unknown") == 1
    assert value(metrics, "headrace_store_applies_total", result="behind") == 1
    assert value(metrics, "headrace_starts_over_total") == 1
    assert value(metrics, "headrace_catch_ups_total") == 1
    assert value(metrics, "headrace_catch_up_events_total") == 120


def test_a_partition_that_went_is_forgotten(metrics: Metrics) -> None:
    """Gauges of a partition last until it is revoked or lost; the new owner tells them from then on."""
    of_p3 = {"topic": "flights", "partition": "3"}
    metrics.rebalanced("assigned", [P3])
    metrics.lag(P3, records=7, age_s=1.5)
    metrics.watermark(P3, 1_700_000_000_500)
    metrics.catching_up(P3, remaining=9, per_second=3.0)
    assert value(metrics, "headrace_lag_records", **of_p3) == 7
    assert value(metrics, "headrace_lag_seconds", **of_p3) == 1.5
    assert value(metrics, "headrace_watermark_timestamp_seconds", **of_p3) == 1_700_000_000.5
    assert value(metrics, "headrace_catch_up_remaining_records", **of_p3) == 9
    metrics.rebalanced("lost", [P3])
    assert value(metrics, "headrace_rebalances_total", kind="lost") == 1
    assert b'partition="3"' not in metrics.exposition()[1]


def test_gauges_tell_the_last(metrics: Metrics) -> None:
    """Phases not named have no partition, models not named again are gone, ready is 0 or 1."""
    metrics.phases({"live": 3, "catching_up": 1})
    metrics.phases({"live": 4})
    metrics.models([("delays", "late_arrival", "1", "champion")])
    metrics.models([("delays", "late_arrival", "2", "champion")])
    metrics.resident("flights", 12)
    metrics.ready(ready=True)
    metrics.build(version="0.1.0", python="3.11")
    assert (value(metrics, "headrace_partitions", phase="live"), value(metrics, "headrace_partitions", phase="catching_up")) == (4, 0)
    champion = {"pipeline": "delays", "model": "late_arrival", "role": "champion"}
    assert value(metrics, "headrace_model_info", version="1", **champion) is None
    assert value(metrics, "headrace_model_info", version="2", **champion) == 1
    assert value(metrics, "headrace_resident_entities", topic="flights") == 12
    assert value(metrics, "headrace_ready") == 1
    assert value(metrics, "headrace_build_info", version="0.1.0", python="3.11") == 1


def test_both_formats_can_be_parsed(metrics: Metrics) -> None:
    """A scrape in text or OpenMetrics parses, names carry our prefix and a help text, and no `_created` series is in it."""
    content_type, text = metrics.exposition()
    assert content_type.startswith("text/plain")
    families = list(plain_text(text.decode()))
    content_type, opened = metrics.exposition("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    families += open_metrics(opened.decode())  # type: ignore[no-untyped-call]
    ours = [family for family in families if not family.name.startswith("process_")]
    assert ours
    assert all(family.name.startswith("headrace_") for family in ours)
    assert all(family.documentation.endswith((".", ": 1.")) for family in ours)
    assert b"_created" not in text + opened


def test_two_workers_in_one_process_stay_apart() -> None:
    """Each `Metrics` has a registry of its own unless it is given one."""
    one, other = Metrics(topics=["flights"]), Metrics(topics=["flights"])
    one.transaction("committed")
    assert value(other, "headrace_transactions_total", result="committed") == 0
