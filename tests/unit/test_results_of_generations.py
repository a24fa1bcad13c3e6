"""What comes from inside of a run is for that one, and never for the next one of its key, whenever it comes."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from connectors.source import RawRecord
from engine.batch.batch import Batch
from engine.commands.commands import Commands
from engine.dispositions import Disposition
from engine.homes import HOMES
from engine.limits import EngineLimits
from engine.observing import Silent
from engine.outlet import Outlet
from engine.routing import Loaded, Route, make_routes
from engine.session.committer import Committer
from engine.session.timers import Due
from engine.steps.executions import open_executions
from engine.steps.result import StepResult
from engine.store.values import BegunExecution, Commit, FollowUp, SentEvent
from statemachines import Call, Context, Event, Pipeline, Step
from statemachines.events import Cancelled
from statemachines.machine import Machine, compile_pipeline
from statemachines.memory import Execution, read_memory
from statemachines.results import done_event, event_id, failed_event
from statemachines.run import Run
from tests.fakes.store import FakeStore
from tests.fakes.tables import Tables
from tests.feeding import event

NOW = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
TOPIC = "parcels"


class Brought(Event, type="parcel.brought", key="parcel"):
    parcel: str


class Passed(Event, type="parcel.passed", key="parcel"):
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


def failed(route: Route, machine: Machine, run: Run, name: str) -> StepResult:
    """That it has failed for good."""
    found = done(route, machine, run, name, 0)
    step: Step[Any, Any] = next(one for one in machine.pipeline.steps if one.name == name)
    execution = Execution(found.begun.sequence, found.begun.number, name, "")
    event_type, data = failed_event(step, execution, ValueError("no paper"), attempts=1)
    return found._replace(event_id=f"{found.event_id}/failed", event_type=event_type, data=data)


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


@dataclass
class Kept:
    """An engine's inbox over a store in memory, with one pipeline."""

    store: FakeStore
    route: Route
    committer: Committer
    commands: Commands
    now: datetime = NOW

    async def let_fall_due(self) -> None:
        """Have happen what has fallen due."""
        draft = await self.committer.draft(None)
        due = Due(self.route, "p", self.run.generation, self.run.sequence, self.now)
        await self.committer.extend_due(draft, [due])
        await self.committer.commit(self.committer.finish(draft))

    async def send(self, number: int) -> None:
        """Have something be brought."""
        body = b"p\0" + (brought(number).value or b"")
        await self.store.commit(Commit(NOW, sent=[SentEvent("weighing", "p", body)]))
        await self.take()

    async def ask(self, command: str, **said: Any) -> None:
        body = orjson.dumps(said)
        await self.store.commit(
            Commit(NOW, going_on=[FollowUp(self.route.pipeline, command, body, "ana", "why")])
        )
        await self.take()

    async def take(self) -> None:
        self.commands.wanted.set()
        while self.commands.wanted.is_set():
            await self.commands.look()
            await self.commands.work()

    async def end(self, *results: StepResult) -> None:
        draft = await self.committer.draft(None)
        await self.committer.extend_results(draft, results)
        await self.committer.commit(self.committer.finish(draft))

    @property
    def run(self) -> Run:
        return self.route.cache["p"]


async def kept(machine: Machine) -> Kept:
    store = FakeStore(Tables())
    pipeline = await store.register_pipeline(machine.name)
    definition = await store.register_definition(pipeline, 1, b"h", b"c", b"{}")
    topics = make_routes([Loaded(machine, pipeline, definition)], {})
    committer = Committer(store, topics, "c", lambda: made.now, lambda: made.now, Silent(), [0, 0, 0, 0])
    limits = EngineLimits(inbox_poll_seconds=1e12)
    commands = Commands(store, topics, topics.pipelines, committer, limits, Outlet(), lambda _: None)
    commands.homes = [*range(HOMES)]
    made = Kept(store, topics.pipelines[0], committer, commands)
    return made


async def test_a_timer_that_is_redriven_is_not_that_of_the_next_run_of_its_key() -> None:
    broken = [True]

    def lapse(_parcel: Parcel, _event: Event) -> None:
        assert not broken, "nobody has mended it"

    flow = Pipeline("weighing", Parcel, topics=[TOPIC], closed="restart")
    waits = flow.state("waits", initial=True)
    waits.after(HOUR, to=flow.state("lapsed", final=True), do=lapse)
    flow.start(Brought, lambda _: Parcel())
    one = await kept(compile_pipeline(flow))
    await one.send(1)
    one.now = NOW + HOUR
    await one.let_fall_due()
    assert one.run.held
    await one.ask("cancel", key="p")
    await one.send(2)
    begun = one.run
    assert (begun.generation, begun.configuration) == (1, "waits")
    broken.clear()
    await one.ask("redrive", dead_letter=1)
    assert one.run == begun
    assert [status for _, status in one.store.tables.letters.values()] == ["redriven"]


async def test_a_cancellation_that_is_redriven_is_not_that_of_the_next_run_of_its_key() -> None:
    broken = [True]

    def call_off(_parcel: Parcel, _event: Event) -> None:
        assert not broken, "nobody has mended it"

    flow = Pipeline("weighing", Parcel, topics=[TOPIC], closed="restart")
    flow.state("waits", initial=True)
    flow.on(Cancelled, to=flow.state("called-off", final=True), do=call_off)
    flow.start(Brought, lambda _: Parcel())
    one = await kept(compile_pipeline(flow))
    await one.send(1)
    await one.ask("cancel", key="p")
    assert one.run.held
    broken.clear()
    await one.ask("cancel", key="p")
    assert one.run.configuration == "called-off"
    await one.send(2)
    begun = one.run
    await one.ask("redrive", dead_letter=1)
    assert one.run == begun


async def test_a_failure_that_is_redriven_is_not_that_of_the_next_run_of_its_key() -> None:
    machine = weighing()
    one = await kept(machine)
    await one.send(1)
    await one.end(failed(one.route, machine, one.run, "wrap"))
    assert one.run.held, "nothing takes it"
    await one.ask("cancel", key="p")
    await one.send(2)
    begun = one.run
    assert (begun.generation, begun.held) == (1, 0)
    await one.ask("redrive", dead_letter=1)
    assert one.run == begun
    assert [status for _, status in one.store.tables.letters.values()] == ["redriven"]
    assert [(noted.disposition, noted.key) for noted in one.store.tables.noted] == [(Disposition.VOID, "p")]


async def test_a_run_that_a_draft_rests_on_is_left_to_it_whatever_is_found_to_fall_due_for_it_since() -> None:
    flow = Pipeline("weighing", Parcel, topics=[TOPIC])
    waits = flow.state("waits", initial=True)
    waits.after(HOUR, to=flow.state("lapsed"))
    flow.start(Brought, lambda _: Parcel())
    made = await kept(compile_pipeline(flow))
    await made.send(1)
    made.now += HOUR
    before, draft = made.run, await made.committer.draft(None)
    await made.committer.extend_due(draft, [Due(made.route, "p", 0, before.sequence, made.now)])
    stepped = made.run
    assert (stepped.sequence, stepped.configuration) == (before.sequence + 1, "lapsed")
    # As another engine has moved it meanwhile; that this one's commit is lost then is found by the store.
    newer = Due(made.route, "p", 0, 9, made.now, before._replace(sequence=9, memory=b""))
    await made.committer.extend_due(draft, [newer])
    assert made.run is stepped
    await made.committer.extend_due(await made.committer.draft(None), [newer])
    assert made.run is newer.run, "nothing rests on it there"


async def test_each_of_what_was_deferred_may_begin_a_run_as_a_timer_ends_the_one_before() -> None:
    flow = Pipeline("weighing", Parcel, topics=[TOPIC], closed="restart")
    waits, gone = flow.state("waits", initial=True), flow.state("gone", final=True)
    flow.start(Brought, lambda _: Parcel())
    flow.start(Passed, lambda _: Parcel(), to=gone)
    waits.after(HOUR, to=gone)
    made = await kept(compile_pipeline(flow))
    await made.send(1)
    deferred = 3
    for number in range(deferred):
        passed = event("parcel.passed", {"parcel": "p"}, id=f"p{number}", topic=TOPIC)
        sent = SentEvent("weighing", "p", b"p\0" + (passed.value or b""))
        await made.store.commit(Commit(NOW, sent=[sent]))
        await made.take()
    assert len(made.run.deferred) == deferred
    # As few as may be are there: no more than are asked for.
    ids = made.committer._ids
    ids._numbers.clear()
    blocks = (range(number, number + 1) for number in itertools.count(100))

    async def one_at_a_time() -> range:
        return next(blocks)

    made.store.run_ids = one_at_a_time  # type: ignore[method-assign]
    made.now += HOUR
    await made.let_fall_due()
    assert (made.run.generation, made.run.configuration) == (deferred, "gone")
