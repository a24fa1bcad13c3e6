"""The catalogue of metrics, and what is exported."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from opentelemetry import metrics as metrics_api
from opentelemetry.metrics import MeterProvider as Provider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import Gauge, Histogram, InMemoryMetricReader, Metric, Sum
from prometheus_client import generate_latest

from connectors.kafka.settings import KafkaSettings
from connectors.source import Partition, RawRecord
from engine.assembly import EngineSettings
from engine.batch.batch import Batch
from engine.dead_letters import DeadLetterTopic, Subject, make_dead_letter
from engine.dispositions import Disposition
from engine.metrics import CATALOGUE, Instrument, Metrics
from engine.observing import Observer, Several, Silent, together
from engine.outside import _for_prometheus, _for_sdk
from statemachines.outcome import Reason

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
SETTINGS = EngineSettings("postgresql://db/x", KafkaSettings("kafka:9092"))


def batch() -> Batch:
    """Seven records of two pipelines, one of them a dead letter for both."""
    made = Batch(AT, iter(()), "cluster", [0, 0, 0, 0])
    made.records = 7
    made.counts = {
        ("shop", Disposition.STARTED): 2,
        ("shop", Disposition.APPLIED): 3,
        ("shop", Disposition.DEAD_LETTERED): 1,
        ("mail", Disposition.DEAD_LETTERED): 1,
        ("mail", Disposition.APPLIED): 0,
    }
    record = RawRecord("orders", 0, 5, 0, b"k", b"secret", ())
    letter = make_dead_letter(
        record, Subject(), Reason.UNREADABLE, "no", at=AT, position=1, topic=DeadLetterTopic("dead")
    )
    made.commit.dead_letters.append(letter)
    made.fired = {"shop": 2}
    made.attempts = {("shop", "charge", "done"): 3}
    made.lateness = 0.125
    return made


def everything_happens(provider: Provider) -> Metrics:
    metrics = Metrics(provider)
    observer: Observer = metrics
    observer.committed(batch(), 0.02)
    observer.lost_comparison()
    observer.lost_partition("orders/0")
    observer.paused(2)
    observer.assigned({1: Partition("orders", 0), 2: Partition("orders", 1), 3: Partition("orders", 2)})
    metrics.outbox_depth = lambda: 4
    metrics.lags = {Partition("orders", 0): 17}
    metrics.held_runs = {"shop": 1, "mail": 0}
    metrics.paused_runs = {"shop": 2}
    metrics.paused_pipelines = {"shop": 1, "mail": 0}
    metrics.breakers = lambda: {"payments": True, "mail": False}
    return metrics


def exported() -> dict[str, Metric]:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    everything_happens(provider)
    data = reader.get_metrics_data()
    assert data is not None
    found = {
        metric.name: metric
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name.startswith("pointsman")
    }
    provider.shutdown()
    return found


def kind_of(metric: Metric) -> Instrument:
    match metric.data:
        case Sum(is_monotonic=True):
            return Instrument.COUNTER
        case Gauge():
            return Instrument.GAUGE
        case Histogram():
            return Instrument.HISTOGRAM
        case other:
            raise AssertionError(other)


def points(metric: Metric) -> dict[tuple[object, ...], float]:
    return {
        tuple((point.attributes or {}).values()): point.sum if hasattr(point, "sum") else point.value
        for point in metric.data.data_points
    }


def test_the_catalogue_and_what_is_exported_are_the_same() -> None:
    told = exported()
    assert set(told) == {one.name for one in CATALOGUE}
    for one in CATALOGUE:
        metric = told[one.name]
        assert metric.unit == one.unit
        assert metric.description == one.meaning
        assert kind_of(metric) is one.instrument
        for point in metric.data.data_points:
            assert tuple(point.attributes or {}) == one.attributes, one.name


def test_a_batch_is_counted_by_pipeline_and_by_what_became_of_its_events() -> None:
    told = exported()
    assert points(told["pointsman.records.consumed"]) == {(): 7}
    assert points(told["pointsman.transitions"]) == {("shop",): 5, ("mail",): 0}
    assert points(told["pointsman.dispositions"]) == {
        ("shop", "started"): 2,
        ("shop", "applied"): 3,
        ("shop", "dead-lettered"): 1,
        ("mail", "dead-lettered"): 1,
        ("mail", "applied"): 0,
    }
    assert points(told["pointsman.dead_letters"]) == {("unreadable",): 1}
    assert points(told["pointsman.batch.records"]) == {(): 7}
    assert points(told["pointsman.commit.duration"]) == {(): 0.02}
    assert points(told["pointsman.lag"]) == {("orders", 0): 17}
    assert points(told["pointsman.runs.held"]) == {("shop",): 1, ("mail",): 0}
    assert points(told["pointsman.runs.paused"]) == {("shop",): 2}
    assert points(told["pointsman.pipelines.paused"]) == {("shop",): 1, ("mail",): 0}
    assert points(told["pointsman.breakers.open"]) == {("payments",): 1, ("mail",): 0}
    assert points(told["pointsman.outbox.depth"]) == {(): 4}
    assert points(told["pointsman.timers.fired"]) == {("shop",): 2}
    assert points(told["pointsman.steps.attempts"]) == {("shop", "charge", "done"): 3}
    assert points(told["pointsman.timers.lateness"]) == {(): 0.125}
    assert points(told["pointsman.partitions.paused"]) == {(): 2}
    assert points(told["pointsman.partitions.assigned"]) == {(): 3}


def test_prometheus_is_told_every_metric_of_the_catalogue() -> None:
    metrics, registry, provider = _for_prometheus(SETTINGS)
    metrics.committed(batch(), 0.02)
    metrics.lost_comparison()
    metrics.lost_partition("orders/0")
    metrics.lags = {Partition("orders", 0): 17}
    metrics.held_runs = metrics.paused_runs = metrics.paused_pipelines = {"shop": 1}
    metrics.breakers = lambda: {"payments": False}
    text = generate_latest(registry).decode()
    provider.shutdown()
    for one in CATALOGUE:
        name = one.name.replace(".", "_") + ("_seconds" if one.unit == "s" else "")
        suffix = {Instrument.COUNTER: "_total", Instrument.HISTOGRAM: "_bucket"}.get(one.instrument, "")
        assert re.search(rf"^{name}{suffix}(\{{.*\}})? [0-9]", text, re.MULTILINE), (name, text)
    assert 'pointsman_lag{partition="0",topic="orders"} 17.0' in text
    assert 'pointsman_namespace="default"' in text
    assert "process_resident_memory_bytes" in text


def test_two_engines_of_one_process_are_counted_apart() -> None:
    (first, registry, provider), (second, other_registry, other) = (
        _for_prometheus(SETTINGS) for _ in range(2)
    )
    first.committed(batch(), 0.02)
    second.lost_comparison()
    assert "pointsman_records_consumed_total 7.0" in generate_latest(registry).decode()
    assert "pointsman_comparisons_lost_total 0.0" in generate_latest(registry).decode()
    assert "pointsman_records_consumed_total 0.0" in generate_latest(other_registry).decode()
    assert "pointsman_comparisons_lost_total 1.0" in generate_latest(other_registry).decode()
    for one in (provider, other):
        one.shutdown()


def test_who_watches_nothing_costs_nothing_and_who_watches_alone_is_told_at_once() -> None:
    assert isinstance(together([]), Silent)
    alone = Silent()
    assert together([alone]) is alone
    assert isinstance(together([alone, Silent()]), Several)


def test_an_sdk_that_the_process_was_started_with_is_told_and_the_api_alone_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert _for_sdk() == []
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    monkeypatch.setattr(metrics_api, "get_meter_provider", lambda: provider)
    [metrics] = _for_sdk()
    metrics.committed(batch(), 0.02)
    data = reader.get_metrics_data()
    provider.shutdown()
    assert data is not None
    assert "pointsman.records.consumed" in data.to_json()
