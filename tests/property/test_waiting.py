"""Random pipelines with timers, deferrals and sends, each run kept in memory and loaded again before all that happens.

Both do the same, every time, and each event that waits ends once.
"""

from __future__ import annotations

from collections import Counter
from itertools import cycle
from random import Random
from typing import Any

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from statemachines.definition import Pipeline
from statemachines.events import Envelope
from statemachines.following import Following
from statemachines.machine import compile_pipeline
from statemachines.memory import read_memory, write_memory
from statemachines.occurrence import Occurrence
from statemachines.outcome import Deferred, Outcome
from statemachines.run import DeferredEvent, Run, Status
from statemachines.testkit import BEGINNING, Case
from tests.property.waiting import Happening, Passing, happenings_from, pipeline_from


class Watched(Case[Any]):
    """A case that writes down what becomes of all; one that reloads has again what is stored, and nothing else."""

    def __init__(self, pipeline: Pipeline[Any], *, reloads: bool) -> None:
        self._machines = cycle([compile_pipeline(pipeline, namespace="test") for _ in range(1 + reloads)])
        self._reloads = reloads
        super().__init__(pipeline, "test", BEGINNING)
        self.told: list[tuple[str, Outcome]] = []
        self.deferred_ever: Counter[bytes] = Counter()
        self.ended: Counter[bytes] = Counter()
        """Of events that were deferred: how often they left, be it for the next generation."""

    @property
    def run(self) -> Run | None:
        return self._stored

    @run.setter
    def run(self, run: Run | None) -> None:
        self._stored = run if run is None or not self._reloads else loaded(run)
        if self._reloads:
            # Another engine: what one has kept of contexts and types is not there.
            self.machine = next(self._machines)

    def happen(self, what: Happening) -> None:
        if isinstance(what, Passing):
            self.later(what.time)
        else:
            self.when(what)

    def _settle(self, outcome: Outcome, occurrence: Occurrence) -> None:
        self.told.append((occurrence.envelope.type, outcome))
        if isinstance(outcome, Deferred):
            self.deferred_ever[occurrence.digest] += 1
        super()._settle(outcome, occurrence)

    def _follow(self, found: Following) -> None:
        self.told.append((found.occurrence.envelope.type, found.outcome))
        if isinstance(found.item, DeferredEvent):
            self.ended[found.item.digest] += 1
        super()._follow(found)


def loaded(run: Run) -> Run:
    """As it is read from its row, and what waits from theirs."""
    row: list[Any] = [bytes(bytearray(one)) if isinstance(one, bytes) else one for one in run]
    waiting = [
        one._replace(envelope=Envelope(*one.envelope), data=orjson.loads(orjson.dumps(one.data)))
        for one in run.deferred
    ]
    read = Run(*row)._replace(deferred=tuple(waiting))
    assert write_memory(read_memory(read.memory)) == read.memory or not read.memory
    return read


def told(case: Watched) -> list[Any]:
    return [case.told, case.run, case.output, case.published, case.sent]


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32))
def test_a_run_that_is_loaded_again_does_the_same_and_what_waits_ends_once(seed: int) -> None:
    draw = Random(seed)
    flow, happened = pipeline_from(draw), happenings_from(draw)
    cases = [Watched(flow, reloads=reloads) for reloads in (False, False, True)]
    for what in happened:
        for case in cases:
            case.happen(what)
        kept, again, reloaded = map(told, cases)
        assert reloaded == kept
        assert again == kept
        check(cases[0])


def check(case: Watched) -> None:
    """What always holds."""
    run = case.run
    if run is None:
        assert not case.deferred_ever
        return
    waits = Counter(one.digest for one in run.deferred)
    assert case.deferred_ever == case.ended + waits
    assert max(waits.values(), default=0) <= 1
    memory = read_memory(run.memory)
    assert not run.held or run.status == Status.RUNNING
    if run.status == Status.COMPLETED:
        assert not run.deferred
        assert not memory.delayed
    if not run.held:
        assert not any(one.at_once for one in memory.delayed)
    assert list(memory.delayed) == sorted(memory.delayed, key=lambda one: (one.due, one.sequence, one.number))
