"""How steps ended is for the run that has asked for them, and never for the one that its key begins meanwhile."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any

from connectors.source import RawRecord
from engine.batch.batch import Batch
from engine.dispositions import Disposition
from engine.routing import Loaded, Route, make_routes
from engine.steps.executions import StepResult, open_executions
from engine.store.values import BegunExecution
from statemachines import Call, Context, Event, Pipeline, Step
from statemachines.machine import Machine, compile_pipeline
from statemachines.memory import read_memory
from statemachines.results import done_event, event_id
from statemachines.run import Run
from tests.feeding import event

NOW = datetime(2026, 3, 1, tzinfo=UTC)
TOPIC = "parcels"


class Brought(Event, type="parcel.brought", key="parcel"):
    parcel: str


class Parcel(Context): ...


async def weigh(_parcel: Parcel, _call: Call) -> int:
    return 5


async def wrap(_parcel: Parcel, _call: Call) -> int:
    return 7


def weighing() -> Machine:
    """Weighs and wraps at once; is gone once it is weighed, and begins anew with what was brought meanwhile."""
    flow = Pipeline("weighing", Parcel, topics=[TOPIC], closed="restart")
    weighs, wraps = flow.step()(weigh), flow.step()(wrap)
    around = flow.state("around", initial=True)
    around.region("left").state("weighs", initial=True, run=weighs)
    around.region("right").state("wraps", initial=True, run=wraps)
    around.on(weighs.done, to=flow.state("gone", final=True))
    flow.start(Brought, lambda _: Parcel())
    return compile_pipeline(flow)


def done(route: Route, machine: Machine, run: Run, name: str, made: int) -> StepResult:
    """That a step of this run is done."""
    [execution] = [one for one in read_memory(run.memory).executions if one.step == name]
    step: Step[Any, Any] = next(one for one in machine.pipeline.steps if one.name == name)
    address = run.id, run.definition, 0, execution.sequence, execution.number
    begun = BegunExecution(1, route.pipeline, run.key, run.generation, *address, name, 1, "", b"")
    known_as = event_id(machine, run, execution, 1, "done")
    return StepResult(begun, route, known_as, *done_event(step, execution, 1, made))


def brought(number: int) -> RawRecord:
    record = event("parcel.brought", {"parcel": "p"}, id=f"e{number}", topic=TOPIC)
    return record._replace(offset=number)


def test_a_result_that_comes_with_the_one_that_ends_its_run_is_void() -> None:
    machine = weighing()
    topics = make_routes([Loaded(machine, 1, 1)], {})
    [route] = topics.pipelines
    ids = itertools.count(1)
    first, second = (Batch(NOW, ids, "here", [0, 0, 0, 0]) for _ in range(2))
    first.read([brought(1), brought(2)], 1, topics[TOPIC])
    first.meet(first.take_arrivals())
    run = route.cache["p"]
    assert len(run.deferred) == 1
    second.meet_results([done(route, machine, run, "weigh", 5), done(route, machine, run, "wrap", 7)])
    commit, after = second.finish(), route.cache["p"]
    assert (after.generation, after.configuration) == (1, run.configuration)
    assert len(open_executions(after.memory)) == 2, "it waits for its own steps"
    assert [Disposition(one.disposition) for one in commit.noted] == [Disposition.VOID]
