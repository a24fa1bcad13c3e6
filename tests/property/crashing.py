"""Orders that are charged, reserved and shipped in a simulated world, what becomes of each, and what must hold then.

``good``        is shipped
``changed``     is changed while it is reserved, the first attempt of which raises; and is shipped
``refused``     cannot be shipped; what undoes its reservation raises at first
``cancelled``   is cancelled while it is reserved, which does not end before its attempt is stopped
``stubborn``    is cancelled, too, and its reservation ends with success although its attempt is stopped
``hopeless``    cannot be charged, however often that is tried
``later``       is reserved by somebody outside, who is given it by its step and completes that; and is shipped
``left``        is given to them, too, and cancelled before that was completed
``slow``        is charged by an attempt that takes longer than it may, whatever it is told; and is shipped
``deaf``        is cancelled while it is reserved, which goes on for a while all the same, and ends in its time
``late``        the same, and it does not end in its time
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import random
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import NamedTuple

import orjson
from pydantic import Field

from connectors.source import RawRecord
from engine.dispositions import Disposition
from engine.log import LogRow, fold
from statemachines.bounds import Limit
from statemachines.context import Context
from statemachines.definition import Pipeline
from statemachines.done import Done
from statemachines.effects import Out
from statemachines.events import STEP_TRIED, STEP_WAITS, Event, StepFailed, is_result
from statemachines.later import Later
from statemachines.machine import Machine, compile_pipeline
from statemachines.memory import EMPTY, read_memory
from statemachines.run import Run, Status
from statemachines.step import Call, Retry, exponential
from tests.feeding import event
from tests.property.desk import Desk
from tests.property.stories import FAILED_WITH, Told, story_of
from tests.simulated import LIMITS, Fate, Life, Simulated, check_alive, is_stopping, own_life

TOPIC = "sagas"
ORDERS = (
    "good", "changed", "refused", "cancelled", "stubborn", "hopeless", "later", "left", "slow", "deaf", "late",
)  # fmt: skip
SHIPPED = ("good", "changed", "later", "slow")
CANCELLED = ("refused", "cancelled", "hopeless", "left")
"""The others may be shipped before their cancellations come."""
PLAIN = ("good", "later", "slow")
"""Nothing comes while these are at work."""
OUTSIDERS = ("later", "left")
OUTLIVING = {("slow", "charge"), ("late", "reserve")}
"""The first attempts at them take longer than they may."""
HEEDLESS = {*OUTLIVING, ("deaf", "reserve"), ("stubborn", "reserve")}
"""What goes on whatever it is told: until its engine has ended, too."""
UNDOING = "$compensating"
NOTHING: Mapping[int, Fate] = {}
NO_END = 1_000
"""So often a compensation is tried."""
AT_ONCE = 2
"""So many are reserved at a time."""
ENOUGH = 5
"""So many attempts that a crash does not decide what becomes of an order."""
WORK_SECONDS = 0.02
"""From the beginning of an attempt to its effect, and from there to its end."""
SLOW = 50.0
"""Sometimes all takes so many times as long: then it takes longer than others are silent."""
LATE_SECONDS = 0.1
"""So late what happens meanwhile may come, with a draw."""
BEGINS_WITHIN_SECONDS = 0.02
"""So long after it was given to its engine an attempt begins here."""
GRACE_SECONDS = LIMITS.step_cancel_seconds
MORE_SECONDS = 0.05
"""What outlives its time and the grace does so by as much."""
BEGUN, DONE, RAISED, CUT = "begun", "done", "raised", "cut"


class Placed(Event, type="order.placed", key="order"):
    order: str


class Changed(Event, type="order.changed", key="order"):
    order: str


class Cancelled(Event, type="order.cancelled", key="order"):
    order: str


class Order(Context):
    order: str
    amount: int = 1
    charge: str = ""
    notes: list[str] = Field(default_factory=list)


class OutOfStockError(Exception):
    """There is none."""


class Entry(NamedTuple):
    """A line of the ledger that is kept outside."""

    what: str
    step: str
    order: str
    key: str
    of: str
    """Of a compensation: the key of what it undoes."""
    attempt: int
    amount: int
    made: str | None
    progress: int | None
    """What an attempt before it has said: its number."""
    at: float
    is_last: bool
    """Whether its engine was to end by then."""
    thawed_at: float | None
    """When its engine went on after it was frozen."""


@dataclass
class Outside:
    """Where the work is done: it keeps a ledger, and outlives every engine."""

    world: Simulated
    pace: float = 1.0
    """How many times as long as usual all takes here."""
    ledger: list[Entry] = field(default_factory=list)
    at_work: Counter[tuple[str, Life | None]] = field(default_factory=Counter)
    """How many attempts go on, by step and engine."""
    most: Counter[str] = field(default_factory=Counter)
    """How many did at most as another one began, of engines that were heard of."""

    def __post_init__(self) -> None:
        """Somebody does what is handed over."""
        self.desk = Desk(
            self.world, self._complete, lambda call: self._tell_of(call, "cancelled"), frozenset({"left"})
        )
        self._handed: dict[str, Order] = {}

    async def hand_over(self, order: Order, call: Call) -> Later:
        """An attempt whose work others do."""
        check_alive()
        self._write(BEGUN, order, call, None)
        await self.world.point(f"{call.step} has begun")
        await self._work()
        self._handed[call.idempotency_key] = order
        later = self.desk.hand_over(call)
        await self.world.point(f"{call.step} is handed over")
        await self._work()
        return later

    def _complete(self, call: Call) -> None:
        self._write(DONE, self._handed[call.idempotency_key], call, None)

    async def do(self, order: Order, call: Call, made: str | None = None) -> str:
        """An attempt at a step or a compensation."""
        check_alive()
        first = not any(one.step == call.step and one.order == call.key for one in self.ledger)
        self._write(BEGUN, order, call, made)
        call.heartbeat(call.attempt)
        if first:
            self._tell(call)
        life = own_life()
        self.at_work[call.step, life] += 1
        heard = (
            many
            for (step, one), many in self.at_work.items()
            if step == call.step and self.world.is_heard(one)
        )
        self.most |= Counter({call.step: sum(heard)})
        try:
            await self._go_on(call, first=first)
            await self.world.point(f"{call.step} has begun")
            await self._work()
            self._raise(call, first=first)
            self._write(DONE, order, call, made)
            await self.world.point(f"{call.step} is done")
            await self._work()
            if (call.key, call.step) == ("cancelled", "reserve"):
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            check_alive()
            if (call.key, call.step) != ("stubborn", "reserve"):
                self._write(CUT, order, call, made)
                raise
            self._write(DONE, order, call, made)
        except Exception:
            self._write(RAISED, order, call, made)
            raise
        finally:
            self.at_work[call.step, life] -= 1
        return call.idempotency_key

    async def _go_on(self, call: Call, *, first: bool) -> None:
        """Take some time, whatever it is told meanwhile, if the order has it so."""
        seconds = 0.0
        if first and (call.key, call.step) in OUTLIVING:
            seconds = time_of(self.pace) + GRACE_SECONDS + MORE_SECONDS
        elif first and (call.key, call.step) == ("deaf", "reserve"):
            seconds = (LATE_SECONDS + MORE_SECONDS) * self.pace + GRACE_SECONDS
        until = self.world.seconds() + seconds
        while self.world.seconds() < until:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(until - self.world.seconds())
            check_alive()

    def _raise(self, call: Call, *, first: bool) -> None:
        """Raise, if the order has it so."""
        raise_what_it_must(call, first=first)

    def _tell(self, call: Call) -> None:
        """What happens while a step is at work."""
        kind = "changed" if call.key == "changed" else "cancelled"
        if call.step == "reserve" and call.key in ("changed", "cancelled", "stubborn", "deaf", "late"):
            self._tell_of(call, kind)

    def _tell_of(self, call: Call, kind: str) -> None:
        draw = self.world.draw
        after = 0.0 if draw is None else draw.uniform(0, LATE_SECONDS * self.pace)
        self.world.source.append(told(kind, call.key), after=after)

    async def _work(self) -> None:
        draw = self.world.draw
        seconds = WORK_SECONDS if draw is None else draw.uniform(0, 2 * WORK_SECONDS)
        await asyncio.sleep(seconds * self.pace)
        check_alive()

    def _write(self, what: str, order: Order, call: Call, made: str | None) -> None:
        of = "" if call.undone is None else call.of.idempotency_key
        named = what, call.step, call.key, call.idempotency_key, of
        life = own_life()
        more = self.world.seconds(), is_stopping(), None if life is None else life.thawed_at
        self.ledger.append(Entry(*named, call.attempt, order.amount, made, call.progress, *more))


def raise_what_it_must(call: Call, *, first: bool) -> None:
    """As the order has it; ``first``: whether its step has not been begun before."""
    match call.key, call.step:
        case "refused", "ship":
            raise OutOfStockError("none left")
        case "hopeless", "charge":
            raise RuntimeError("away")
        case ("changed", "reserve") | ("refused", "release") if first:
            raise RuntimeError("away for a moment")


def told(kind: str, order: str) -> RawRecord:
    """A record that says this of an order."""
    return event(f"order.{kind}", {"order": order}, id=f"{kind} {order}", topic=TOPIC)


OUTSIDE: list[Outside] = []
"""The one that the steps work in, last."""


def place(event: Placed) -> Order:
    return Order(order=event.order)


def note_charge(order: Order, got: Done[str]) -> None:
    order.charge = got.result


def note_change(order: Order, event: Changed) -> Out:
    del event
    order.amount += 1
    return None


def note_cancel(order: Order, event: Cancelled) -> Out:
    del event
    order.notes.append("cancelled")
    return None


def note_failure(order: Order, failed: StepFailed) -> None:
    order.notes.append(f"{FAILED_WITH}{failed.error}")


def time_of(pace: float) -> float:
    """How many seconds an attempt may take at a step that can be undone: more than most do."""
    return 0.6 + 0.2 * pace


@lru_cache
def saga(attempts: int, undoing: int, pace: float) -> Machine:
    """Charged, reserved, shipped; cancelled, with all of it undone in ``undoing`` attempts, for any reason."""
    flow = Pipeline("saga", Order, topics=[TOPIC], closed="ignore")
    wait, timeout = exponential(0.05, 1), timedelta(seconds=time_of(pace))
    retry = Retry(attempts=attempts, wait=wait, unless=OutOfStockError)
    stubborn = Retry(attempts=undoing, wait=wait)

    @flow.step(retry=retry, timeout=timeout, limit=Limit("order", rate=10))
    async def charge(order: Order, call: Call) -> str:
        return await OUTSIDE[-1].do(order, call)

    @charge.compensate(retry=stubborn)
    async def refund(order: Order, made: str | None, call: Call) -> None:
        await OUTSIDE[-1].do(order, call, made)

    @flow.step(retry=retry, timeout=timeout, limit=Limit(at_once=AT_ONCE), heartbeat=timedelta(minutes=1))
    async def reserve(order: Order, call: Call) -> str | Later:
        if call.key in OUTSIDERS:
            return await OUTSIDE[-1].hand_over(order, call)
        return await OUTSIDE[-1].do(order, call)

    @reserve.compensate(retry=stubborn)
    async def release(order: Order, made: str | None, call: Call) -> None:
        await OUTSIDE[-1].do(order, call, made)

    @flow.step(retry=retry)
    async def ship(order: Order, call: Call) -> str:
        return await OUTSIDE[-1].do(order, call)

    charging = flow.state("charging", run=charge, initial=True)
    reserving = flow.state("reserving", run=reserve)
    shipping = flow.state("shipping", run=ship)
    shipped = flow.state("shipped", final=True)
    cancelled = flow.state("cancelled", final=True)
    flow.start(Placed, place)
    charging.on(charge.done, to=reserving, do=note_charge)
    reserving.on(reserve.done, to=shipping)
    shipping.on(ship.done, to=shipped)
    flow.on(Changed, do=note_change)
    flow.on(Cancelled, to=cancelled, do=note_cancel, compensate=True)
    flow.on_failure(to=cancelled, do=note_failure, compensate=True)
    flow.on_cancel(to=cancelled, compensate=True)
    return compile_pipeline(flow, namespace="default")


@dataclass
class Lived:
    """What there is once all is over."""

    world: Simulated
    ledger: list[Entry]
    time: float = 0.0
    """How many seconds an attempt may take at a step that can be undone."""
    reserving: int = 0
    """How many attempts at the step with a limit went on at most as one began, of engines that were heard of."""

    @property
    def runs(self) -> dict[str, Run]:
        """By order."""
        return {run.key: run for _, run in self.world.tables.runs.values()}

    def rows(self, order: str) -> list[LogRow]:
        """Of an order, as they were written."""
        number = self.runs[order].id
        found = ((sequence, row) for (run, sequence), row in self.world.tables.rows.items() if run == number)
        return [row for _, row in sorted(found)]

    def story(self, order: str) -> list[Told]:
        """What happened to an order and where it led, but for attempts, and for what became of one that was stopped."""
        return story_of(
            self.rows(order),
            lambda row: (
                row.type.startswith(STEP_TRIED)
                or (row.type.endswith(".step.reserve") and row.configuration == UNDOING)
            ),
        )

    def has_lost(self, order: str, step: str) -> bool:
        """Whether it is not known what an attempt at this step of an order did."""
        rows = [row for row in self.rows(order) if row.type.endswith(f".step.{step}")]
        return any(orjson.loads(row.payload or b"")["data"].get("lost") for row in rows)

    def is_shipped(self, order: str) -> bool:
        """Or it was cancelled."""
        return self.runs[order].configuration == "shipped"


def live(
    fates: Mapping[int, Fate] = NOTHING,
    *,
    attempts: int = ENOUGH,
    undoing: int = NO_END,
    engines: int = 1,
    instance: str | None = None,
    draw: random.Random | None = None,
    crash_turn: int = 0,
    freeze_turn: int = 0,
) -> Lived:
    """All orders, from the beginning to the end, with this in between."""
    pace, orders = 1.0, [*ORDERS]
    if draw is not None:
        pace = draw.choice([1.0, 1.0, SLOW])
        draw.shuffle(orders)
    world = Simulated(saga(attempts, undoing, pace), TOPIC, fates, draw, engines, instance, crash_turn)
    world.freeze_turn = freeze_turn
    outside = Outside(world, pace)
    for order in orders:
        world.source.append(told("placed", order))
    OUTSIDE.append(outside)
    try:
        world.live(lambda: is_over(world) and not outside.desk.open and not outside.at_work.total())
    finally:
        OUTSIDE.pop()
    return Lived(world, outside.ledger, time_of(pace), outside.most["reserve"])


def is_over(world: Simulated, orders: Collection[str] = ORDERS) -> bool:
    """Whether all that was to come has come, and all orders are shipped or cancelled."""
    tables = world.tables
    runs = [run for _, run in tables.runs.values()]
    place = tables.places.get(world.source.partition)
    return (
        place is not None
        and place.position == world.source.end
        and not world.source.coming
        and len(runs) == len(orders)
        and not tables.inbox
        and all(run.status == Status.COMPLETED for run in runs)
    )


def check(lived: Lived, attempts: int = ENOUGH) -> None:
    """All that must hold, whatever has happened in between."""
    world = lived.world
    breaks = sum(one is Fate.BREAK for one in world.fates.values())
    check_the_tables(lived)
    assert lived.reserving <= AT_ONCE
    for order in ORDERS:
        check_the_log(lived, order)
        entries = [one for one in lived.ledger if one.order == order]
        # What a stop cuts does not count.
        check_attempts(entries, attempts + world.stops, lived.time)
        if lived.is_shipped(order):
            check_what_was_done(entries)
        else:
            check_what_was_undone(entries)
    shipped = {order for order in ORDERS if lived.is_shipped(order)}
    assert not shipped.intersection(CANCELLED)
    # One raises by itself, and each crash may lose one; so may a stop whose connection breaks.
    if attempts > world.deaths + world.silences + min(world.stops, breaks) + 1:
        assert shipped.issuperset(SHIPPED)


def check_the_stories(lived: Lived, usual: Lived) -> None:
    """They are the usual ones, but for attempts, and for what is undone since nobody knows what it did."""
    for order in ORDERS:
        story, told = usual.story(order), lived.story(order)
        if lived.has_lost(order, "charge") and order == "hopeless":
            *_, released, refunded = usual.story("cancelled")
            story[-1:] = [story[-1]._replace(configuration=UNDOING, asked=released.asked), refunded]
        reserved = usual.story("good")[2]
        if lived.world.stops and order == "stubborn" and reserved in told:
            # An engine that is to stop takes no more events, and waits for what goes on, which heeds nothing here.
            story.insert(2, reserved)
        assert told == story, f"the story of {order} is {told}"


def check_the_usual_stories(lived: Lived, usual: Lived) -> int:
    """Where the same has led to the same as usual, all else that was written is as usual, too; returns for how many."""
    compared = 0
    for order in ORDERS:
        story, told = usual.story(order), lived.story(order)
        is_due = order in PLAIN and lived.is_shipped(order)
        if is_due or [(one.type, one.configuration) for one in told] == [
            (one.type, one.configuration) for one in story
        ]:
            assert told == story, f"the story of {order} is {told}"
            compared += 1
    return compared


def check_the_tables(lived: Lived) -> None:
    """Nothing is left of anything, and each record was taken once."""
    tables, source = lived.world.tables, lived.world.source
    assert not tables.executions.rows
    assert set(tables.executions.rates) == {(1, "charge", order) for order in ORDERS}
    assert not tables.letters
    assert not tables.inbox
    assert not [one for one in tables.executions.tokens.values() if one.waits]
    done = [one.key for one in tables.operations if one.done]
    assert done in ([], ["later"]), f"completed were {done}"
    assert not tables.waiting
    runs = lived.runs
    assert len(runs) == len(tables.runs) == len(ORDERS)
    for run in runs.values():
        assert run.status == Status.COMPLETED
        assert run.configuration in {"shipped", "cancelled"}
        assert read_memory(run.memory) == EMPTY
        assert not run.held
    noted = Counter(one.disposition for one in tables.noted)
    assert not noted.keys() - {Disposition.VOID, Disposition.IGNORED}, noted
    moved = Counter(row.offset for row in tables.rows.values() if row.position and row.digest is not None)
    moved.update(one.offset for one in tables.noted if one.position)
    assert moved == dict.fromkeys(range(source.end), 1)


def check_the_log(lived: Lived, order: str) -> None:
    """It folds to the run, and no execution has ended twice."""
    folded: Run | None = None
    ended: list[str] = []
    for row in lived.rows(order):
        folded = fold(folded, row, key=order)
        if is_result(row.type) and not row.type.startswith((STEP_TRIED, STEP_WAITS)):
            ended.append(orjson.loads(row.payload or b"")["data"]["execution"])
    assert folded == lived.runs[order]
    assert len(ended) == len(set(ended)), f"an execution has ended twice: {ended}"


def check_attempts(entries: list[Entry], attempts: int, time: float = math.inf) -> None:
    """Each step is asked for once, with one input; its attempts are counted, and end before it is undone.

    ``time`` is how many seconds they may take: one that outlives that, and the grace, need not have ended.
    """
    began = {(one.key, one.attempt): one.at for one in entries if one.what == BEGUN}
    entries = [one for one in entries if not is_void(one, began)]
    for name, several in by_step(entries):
        assert len({one.key for one in several}) == 1, f"{name} has several keys"
        numbers = [one.attempt for one in several if one.what == BEGUN]
        assert numbers == sorted(set(numbers)), f"{name} has begun an attempt twice: {numbers}"
        seen = [one.progress or 0 for one in several if one.what == BEGUN]
        assert seen == sorted(seen), f"{name} has seen progress that was over: {seen}"
        assert all(before < number for before, number in zip(seen, numbers, strict=True)), seen
        assert len({(one.amount, one.made) for one in several}) == 1, f"{name} was given different input"
        if not several[0].of:
            assert max(numbers, default=0) <= attempts, f"{name} was tried too often"
    for at, one in enumerate(entries):
        if one.of:
            until = one.at - time - GRACE_SECONDS
            # An engine that ends waits for what heeds nothing no longer than it may; that ends with it.
            last = {other for other in entries if other.is_last and (other.order, other.step) in HEEDLESS}
            after = [other for other in entries[at:] if other.key == one.of and other not in last]
            after = [other for other in after if began[other.key, other.attempt] > until]
            assert not after, f"{after} while it is undone"


def is_void(entry: Entry, began: Mapping[tuple[str, int], float]) -> bool:
    """Whether it is of an attempt whose engine was frozen meanwhile: another one has gone on without it."""
    thawed_at, at = entry.thawed_at, began.get((entry.key, entry.attempt), math.inf)
    return thawed_at is not None and at < thawed_at + BEGINS_WITHIN_SECONDS


def check_what_was_done(entries: list[Entry]) -> None:
    """Each step under one key, in order, and nothing is undone."""
    done = list(dict.fromkeys(one.step for one in entries if one.what == DONE))
    assert done == ["charge", "reserve", "ship"], f"done were {done}"
    assert not [one for one in entries if one.of]


def check_what_was_undone(entries: list[Entry]) -> None:
    """All that was done and can be undone, under one key each, the last first."""
    done = {one.key: one.step for one in entries if one.what == DONE and not one.of}
    undone = {one.of: one.key for one in entries if one.what == DONE and one.of}
    owed = {key for key, step in done.items() if step != "ship"}
    assert owed <= undone.keys(), f"{owed - undone.keys()} is not undone"
    compensations = {(one.of, one.key) for one in entries if one.of}
    assert len(compensations) == len(undone), "something is undone under several keys, or not to its end"
    order = [one.step for one in entries if one.of and one.thawed_at is None]
    assert order == sorted(order, key=["release", "refund"].index), f"undone were {order}"


def by_step(entries: list[Entry]) -> Iterator[tuple[str, list[Entry]]]:
    """The entries of each step and compensation."""
    ordered = sorted(entries, key=lambda one: one.step)
    for name, several in itertools.groupby(ordered, key=lambda one: one.step):
        yield name, [*several]
