"""The engine's metrics, by the OpenTelemetry API: the catalogue of their names, and the observer that fills them.

Who serves ``/metrics`` (``engine.outside``) exports them for Prometheus; an SDK that the process was started with
gets them too. All of it is counted by batch. Prometheus writes dots as underscores, the unit behind the name and
``_total`` behind counters: ``pointsman_records_consumed_total``, ``pointsman_commit_duration_seconds_bucket``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import NamedTuple

from opentelemetry.metrics import Histogram, Meter, MeterProvider, Observation

from connectors.source import Partition
from engine.batch.batch import Batch
from engine.dispositions import Disposition

SCOPE = "pointsman"

BATCH_RECORDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000)
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Instrument(Enum):
    """How a metric is read."""

    COUNTER = "counter"
    """Only grows, from the start of the process on."""
    GAUGE = "gauge"
    """As it is now."""
    HISTOGRAM = "histogram"
    """A distribution."""


class Metric(NamedTuple):
    """An entry of the catalogue."""

    name: str
    instrument: Instrument
    unit: str
    """As UCUM writes it; what is counted stands in braces."""
    attributes: tuple[str, ...]
    meaning: str
    bounds: tuple[float, ...] = ()
    """The upper bounds of a histogram's buckets."""


CONSUMED = Metric(
    "pointsman.records.consumed", Instrument.COUNTER, "{record}", (), "Records whose outcome is durable."
)
TRANSITIONS = Metric(
    "pointsman.transitions",
    Instrument.COUNTER,
    "{transition}",
    ("pipeline",),
    "Moves of runs by events, starts included.",
)
DISPOSITIONS = Metric(
    "pointsman.dispositions",
    Instrument.COUNTER,
    "{event}",
    ("pipeline", "disposition"),
    "What became of events, each counted once for each pipeline that reads it: started, applied, ignored, duplicate, "
    "late, held, dead-lettered, deferred, stale, void; one that was deferred counts once more for what becomes of it "
    "then.",
)
DEAD_LETTERS = Metric(
    "pointsman.dead_letters",
    Instrument.COUNTER,
    "{event}",
    ("reason",),
    "Dead letters, by reason. One that concerns all pipelines of its topic is counted once.",
)
FIRED = Metric(
    "pointsman.timers.fired",
    Instrument.COUNTER,
    "{event}",
    ("pipeline",),
    "Timers and delayed events that fell due and happened, and events that runs sent to themselves.",
)
ATTEMPTS = Metric(
    "pointsman.steps.attempts",
    Instrument.COUNTER,
    "{attempt}",
    ("pipeline", "step", "outcome"),
    "Attempts of steps whose end is durable: done, failed (for good), tried (and to be tried again), or waits.",
)
LATENESS = Metric(
    "pointsman.timers.lateness",
    Instrument.HISTOGRAM,
    "s",
    (),
    "From when a timer fell due until the batch that it happens in; of each batch the latest.",
    SECONDS,
)
BATCH_SIZE = Metric(
    "pointsman.batch.records", Instrument.HISTOGRAM, "{record}", (), "Records in one commit.", BATCH_RECORDS
)
BATCH_SECONDS = Metric(
    "pointsman.batch.duration",
    Instrument.HISTOGRAM,
    "s",
    (),
    "From the first look at a batch's records until they are durable.",
    SECONDS,
)
COMMIT_SECONDS = Metric(
    "pointsman.commit.duration",
    Instrument.HISTOGRAM,
    "s",
    (),
    "From sending a commit to Postgres until its answer was taken up.",
    SECONDS,
)
LOST_COMPARISONS = Metric(
    "pointsman.comparisons.lost",
    Instrument.COUNTER,
    "{comparison}",
    (),
    "Batches computed again because another engine moved one of their runs first.",
)
LOST_PARTITIONS = Metric(
    "pointsman.partitions.lost",
    Instrument.COUNTER,
    "{partition}",
    (),
    "Partitions that another engine took while this one had work on them.",
)
ASSIGNED = Metric(
    "pointsman.partitions.assigned", Instrument.GAUGE, "{partition}", (), "Partitions of this engine."
)
PAUSED = Metric(
    "pointsman.partitions.paused",
    Instrument.GAUGE,
    "{partition}",
    (),
    "Partitions of this engine that are not read now: Postgres is away, the outbox is full, or they wait for a person.",
)
OUTBOX = Metric(
    "pointsman.outbox.depth",
    Instrument.GAUGE,
    "{commit}",
    (),
    "Commits of the namespace that wait to be published; all its engines say the same.",
)
LAG = Metric(
    "pointsman.lag",
    Instrument.GAUGE,
    "{record}",
    ("topic", "partition"),
    "Offsets between the end of a partition and what its engine has read; absent while Kafka does not answer. "
    "Looked up every few seconds.",
)
HELD_RUNS = Metric(
    "pointsman.runs.held",
    Instrument.GAUGE,
    "{run}",
    ("pipeline",),
    "Runs of the namespace that wait for a person; all its engines say the same. Absent while Postgres does not "
    "answer. Looked up every few seconds, and less often where very many are held.",
)
PAUSED_RUNS = Metric(
    "pointsman.runs.paused",
    Instrument.GAUGE,
    "{run}",
    ("pipeline",),
    "Runs of the namespace that an operator has paused, and that are not counted as held; else as those.",
)
PAUSED_PIPELINES = Metric(
    "pointsman.pipelines.paused",
    Instrument.GAUGE,
    "{pipeline}",
    ("pipeline",),
    "Of each pipeline of the namespace 1 while it is paused, so that none of its runs goes on, and else 0; all its "
    "engines say the same. Looked up with those that are held.",
)

BREAKERS = Metric(
    "pointsman.breakers.open",
    Instrument.GAUGE,
    "{breaker}",
    ("breaker",),
    "Of each breaker of this engine 1 where it is open or half-open, so that its steps wait, and 0 where it is closed.",
)

CATALOGUE: tuple[Metric, ...] = (
    CONSUMED,
    TRANSITIONS,
    DISPOSITIONS,
    DEAD_LETTERS,
    FIRED,
    ATTEMPTS,
    LATENESS,
    BATCH_SIZE,
    BATCH_SECONDS,
    COMMIT_SECONDS,
    LOST_COMPARISONS,
    LOST_PARTITIONS,
    ASSIGNED,
    PAUSED,
    OUTBOX,
    LAG,
    HELD_RUNS,
    PAUSED_RUNS,
    PAUSED_PIPELINES,
    BREAKERS,
)
"""Every metric that there is."""

_MOVES = frozenset({Disposition.STARTED, Disposition.APPLIED})


class Metrics:
    """An ``engine.observing.Observer`` that counts.

    Counters and gauges are plain numbers here until somebody asks for them: a call into the SDK takes as long as a
    transition.
    """

    def __init__(self, provider: MeterProvider) -> None:
        meter = provider.get_meter(SCOPE)
        self._consumed = 0
        self._dispositions: dict[tuple[str, Disposition], int] = {}
        self._dead_letters: dict[str, int] = {}
        self._lost_comparisons = 0
        self._lost_partitions = 0
        self._fired: dict[str, int] = {}
        self._attempts: dict[tuple[str, str, str], int] = {}
        self._lateness = _histogram(meter, LATENESS)
        self._batch_size = _histogram(meter, BATCH_SIZE)
        self._batch_seconds = _histogram(meter, BATCH_SECONDS)
        self._commit_seconds = _histogram(meter, COMMIT_SECONDS)
        self._paused = 0
        self._assigned = 0
        self.outbox_depth: Callable[[], int] = lambda: 0
        self.lags: Mapping[Partition, int] = {}
        """By partition; empty where they are not known."""
        self.held_runs: Mapping[str, int] = {}
        """By pipeline; empty where they are not known."""
        self.paused_runs: Mapping[str, int] = {}
        self.paused_pipelines: Mapping[str, int] = {}
        """As those."""
        self.breakers: Callable[[], Mapping[str, bool]] = dict
        """By name, whether it is open."""
        _counter(meter, CONSUMED, lambda: [Observation(self._consumed)])
        _counter(meter, TRANSITIONS, self._observe_transitions)
        _counter(meter, DISPOSITIONS, self._observe_dispositions)
        _counter(meter, DEAD_LETTERS, self._observe_dead_letters)
        _counter(
            meter,
            FIRED,
            lambda: [Observation(many, {"pipeline": name}) for name, many in list(self._fired.items())],
        )
        _counter(
            meter,
            ATTEMPTS,
            lambda: [
                Observation(many, {"pipeline": pipeline, "step": step, "outcome": outcome})
                for (pipeline, step, outcome), many in list(self._attempts.items())
            ],
        )
        _counter(meter, LOST_COMPARISONS, lambda: [Observation(self._lost_comparisons)])
        _counter(meter, LOST_PARTITIONS, lambda: [Observation(self._lost_partitions)])
        _gauge(meter, PAUSED, lambda: [Observation(self._paused)])
        _gauge(meter, ASSIGNED, lambda: [Observation(self._assigned)])
        _gauge(meter, OUTBOX, lambda: [Observation(self.outbox_depth())])
        _gauge(meter, LAG, self._observe_lags)
        _gauge(meter, HELD_RUNS, lambda: _by_pipeline(self.held_runs))
        _gauge(meter, PAUSED_RUNS, lambda: _by_pipeline(self.paused_runs))
        _gauge(meter, PAUSED_PIPELINES, lambda: _by_pipeline(self.paused_pipelines))
        _gauge(
            meter,
            BREAKERS,
            lambda: [
                Observation(int(is_open), {"breaker": name}) for name, is_open in self.breakers().items()
            ],
        )

    def committed(self, batch: Batch, seconds: float) -> None:
        """See Observer."""
        self._consumed += batch.records
        self._batch_size.record(batch.records)
        self._batch_seconds.record(time.perf_counter() - batch.began)
        self._commit_seconds.record(seconds)
        dispositions, dead_letters = self._dispositions, self._dead_letters
        for what, number in batch.counts.items():
            dispositions[what] = dispositions.get(what, 0) + number
        for name, many in batch.fired.items():
            self._fired[name] = self._fired.get(name, 0) + many
        for attempt, many in batch.attempts.items():
            self._attempts[attempt] = self._attempts.get(attempt, 0) + many
        if batch.lateness is not None:
            self._lateness.record(batch.lateness)
        for letter in batch.commit.dead_letters:
            dead_letters[letter.reason] = dead_letters.get(letter.reason, 0) + 1

    def lost_comparison(self) -> None:
        """See Observer."""
        self._lost_comparisons += 1

    def lost_partition(self, partition: str) -> None:
        """See Observer."""
        del partition
        self._lost_partitions += 1

    def paused(self, partitions: int) -> None:
        """See Observer."""
        self._paused = partitions

    def assigned(self, partitions: Mapping[int, Partition]) -> None:
        """See Observer."""
        self._assigned = len(partitions)

    def _observe_transitions(self) -> list[Observation]:
        found: dict[str, int] = {}
        for (pipeline, disposition), number in list(self._dispositions.items()):
            if disposition in _MOVES:
                found[pipeline] = found.get(pipeline, 0) + number
        return [Observation(number, {"pipeline": pipeline}) for pipeline, number in found.items()]

    def _observe_dispositions(self) -> list[Observation]:
        return [
            Observation(number, {"pipeline": pipeline, "disposition": disposition.word})
            for (pipeline, disposition), number in list(self._dispositions.items())
        ]

    def _observe_dead_letters(self) -> list[Observation]:
        return [
            Observation(number, {"reason": reason}) for reason, number in list(self._dead_letters.items())
        ]

    def _observe_lags(self) -> list[Observation]:
        return [
            Observation(records, {"topic": topic, "partition": number})
            for (topic, number), records in self.lags.items()
        ]


Observe = Callable[[], Iterable[Observation]]


def _by_pipeline(counted: Mapping[str, int]) -> list[Observation]:
    return [Observation(number, {"pipeline": pipeline}) for pipeline, number in counted.items()]


def _counter(meter: Meter, metric: Metric, observe: Observe) -> None:
    meter.create_observable_counter(metric.name, [lambda _: observe()], metric.unit, metric.meaning)


def _histogram(meter: Meter, metric: Metric) -> Histogram:
    return meter.create_histogram(
        metric.name, metric.unit, metric.meaning, explicit_bucket_boundaries_advisory=metric.bounds
    )


def _gauge(meter: Meter, metric: Metric, observe: Observe) -> None:
    meter.create_observable_gauge(metric.name, [lambda _: observe()], metric.unit, metric.meaning)
