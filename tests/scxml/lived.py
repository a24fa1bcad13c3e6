"""A chart lived by the engine's own batches, over nothing: at a stretch, or with an engine that dies after each commit.

    lived = Lived(make)
    lived.tell("e1")
    lived.pass_by(100)
    lived.basic

What a chart goes through is a log in the end, which can be folded and replayed.
"""

from __future__ import annotations

import itertools
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from connectors.source import RawRecord
from engine.batch.batch import Batch
from engine.log import LogRow, fold, unpack
from engine.reading.catalog import Catalog, StoredPosition
from engine.reading.replay.rerun import Rerun
from engine.routing import Loaded, Route, TopicRoute, make_routes
from statemachines.following import wakes_at
from statemachines.machine import Machine
from statemachines.memory import time_of
from statemachines.run import Run
from tests.scxml.content import START_TYPE, TOPIC

BEGINS = datetime(2026, 1, 1, tzinfo=UTC)
KEY = "chart"
CLUSTER = "here"
DUE_MAX = 100
"""So many commits of what falls due may come of one event."""


class Lived:
    """A run of a chart; with ``dies`` nothing but the run's row is left after each commit.

    ``make`` makes the machine of the chart: of a pipeline that reads ``TOPIC``, and begins by ``START_TYPE``.
    """

    def __init__(self, make: Callable[[], Machine], *, dies: bool = False) -> None:
        self._make = make
        self._dies = dies
        self.rows: list[LogRow] = []
        self._offsets = itertools.count()
        self._ids = itertools.count(1)
        self._now = BEGINS
        self._load()
        self.tell(START_TYPE)

    @property
    def run(self) -> Run | None:
        return self._route.cache.get(KEY)

    @property
    def basic(self) -> set[str]:
        """The active states that have none inside."""
        chart = self._route.newest.microsteps.chart
        return set() if self.run is None else {*self.run.states} & {*chart.names(chart.atomic)}

    def tell(self, name: str, data: Any = None) -> None:
        """An event comes from outside."""
        offset = next(self._offsets)
        value = {
            "specversion": "1.0",
            "id": str(offset),
            "source": "/suite",
            "type": name,
            "subject": KEY,
            "data": {} if data is None else {"data": data, "has_data": True},
        }
        milliseconds = round(self._now.timestamp() * 1000)
        record = RawRecord(TOPIC, 0, offset, milliseconds, KEY.encode(), orjson.dumps(value), ())
        batch = self._batch()
        batch.read([record], 1, self._topic)
        batch.meet(batch.take_arrivals())
        self._commit(batch)
        self.pass_by(0)

    def pass_by(self, milliseconds: float) -> None:
        """Time passes, and what falls due meanwhile happens, each in its time."""
        until = self._now + timedelta(milliseconds=milliseconds)
        for _ in range(DUE_MAX):
            due = None if self.run is None or self.run.held or self.run.has_ended else wakes_at(self.run)
            if due is None or time_of(due) > until:
                self._now = until
                return
            self._now = max(self._now, time_of(due))
            batch = self._batch()
            batch.fall_due(self._route, KEY, self._now)
            self._commit(batch)
        raise AssertionError("the chart goes on by itself again and again")

    def check_log(self) -> None:
        """The run is the fold of its rows, and they come out as they are from a new engine."""
        folded: Run | None = None
        for row in self.rows:
            folded = fold(folded, row, key=KEY)
        assert folded == self.run
        if folded is None:
            return
        machine = self._make()
        places = {1: StoredPosition(1, "", CLUSTER, TOPIC, 0, 0, 0, BEGINS, None)}
        rerun = Rerun(folded, 1, machine, [machine], Catalog("test", {1: "chart"}, {}, places), {})
        for row in self.rows:
            mismatch = rerun.take(row)
            assert mismatch is None, mismatch.sentence
        assert rerun.end() is None

    def _load(self, run: Run | None = None) -> None:
        topics = make_routes([Loaded(self._make(), 1, 1)], {})
        self._topic: TopicRoute = topics[TOPIC]
        self._route: Route = self._topic.routes[0]
        if run is not None:
            self._route.cache[KEY] = run

    def _batch(self) -> Batch:
        return Batch(self._now, self._ids, CLUSTER, [0, 0, 0, 0])

    def _commit(self, batch: Batch) -> None:
        batch.finish()
        assert not batch.commit.dead_letters, batch.commit.dead_letters[0].error
        self.rows += [unpack(row) for row in batch.commit.rows]
        if self._dies and self.run is not None:
            self._load(read(written(self.run)))


def written(run: Run) -> bytes:
    """A run's row as text, as if a store had it; nothing of it waits, since charts defer nothing."""
    assert not run.deferred
    fields = [
        {"bytes": b64encode(one).decode()} if isinstance(one, bytes) else one
        for one in run._replace(deferred=())
    ]
    return orjson.dumps(fields)


def read(text: bytes) -> Run:
    """The same run, of which nothing was kept."""
    fields = [b64decode(one["bytes"]) if isinstance(one, dict) else one for one in orjson.loads(text)]
    run = Run._make(fields)
    return run._replace(
        started=datetime.fromisoformat(str(run.started)),
        updated=datetime.fromisoformat(str(run.updated)),
        deferred=(),
    )
