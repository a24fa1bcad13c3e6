"""A world in which engines live without services and end at any moment: a loop whose time jumps, and tables that stay.

    world = Simulated(machine, topic, fates={17: Fate.CRASH})
    world.source.append(record)
    world.live(is_over)

An engine here is the real one, with all that belongs to it, over a store and a source in memory, which pass the same
suites as Postgres and Kafka (`tests/contract`). Each question to the store has two *points*: before it takes effect,
and before the answer is heard; work outside has some of its own. They are counted, and ``fates`` says at which of them
the engine that has come there crashes, is to stop, is frozen for a while, or its connection breaks. Between two points
nothing changes that lasts. All engines can crash at any turn of the loop, too (``crash_turn``), and the first one be
frozen (``freeze_turn``), and so at any await.

Who crashes does nothing more that counts: its tasks are dropped with all that it knew, and its mark among the holders
stays, and is silent from then on. Another engine takes its place.

Time is that of the loop, which jumps to the next moment at which there is something to do; the engine's clock, and the
``time.monotonic`` of its modules, are the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import heapq
import random
import selectors
import sys
import time
import types
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from contextvars import Context, ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar, cast
from unittest import mock

from connectors.source import Partition, RawRecord
from engine import channels
from engine.engine import Engine
from engine.limits import SILENT_SECONDS, EngineLimits
from engine.observing import Silent
from engine.parts import Parts
from engine.routing import Loaded, Routes, make_routes
from engine.session.session import Session
from engine.steps.executors import ByClass, Executors
from engine.store.contract import Store, StoreUnavailableError
from statemachines.machine import Machine
from tests.fakes.executing import AT_ZERO
from tests.fakes.source import FakeMembership, FakeReader, FakeSource
from tests.fakes.store import FakeStore
from tests.fakes.tables import CLUSTER, Tables

T = TypeVar("T")

BEGINS_SECONDS = 1_000.0
BEGINS = AT_ZERO + timedelta(seconds=BEGINS_SECONDS)
GROUP = "engines"
SECONDS_MAX = 1_200.0
"""Whatever is not over by then never will be."""
TURNS_MAX = 100_000
"""So many turns of the loop take no time at most."""
SESSION_SECONDS = SILENT_SECONDS
"""So long after one is frozen the group goes on without it."""
FROZEN_SECONDS = SESSION_SECONDS + 3.0
HEARTBEAT_SECONDS = 0.5
"""So long after it goes on it hears of that."""
AWAY_SECONDS = 15.0
"""So long after a crash it may take until there is another engine, with a draw."""
ANSWER_SECONDS = 0.000_5
"""How long it takes from one point to the next, without a draw."""
SLOW_SECONDS = 0.005
"""The longest, with one."""
LIMITS = EngineLimits(
    step_cancel_seconds=0.5,
    step_stop_seconds=0.01,
    fetch_wait_milliseconds=500,
    timer_poll_seconds=1.0,
    inbox_poll_seconds=5.0,
)
"""There are no timers and commands to be looked for, and who is stopped lets no attempt end."""


class Fate(enum.Enum):
    """What happens at a point."""

    CRASH = "crash"
    STOP = "stop"
    """It is asked to end, and another one takes its place."""
    BREAK = "break"
    """The connection to the store breaks; whether what was asked has taken effect, the engine is not told."""
    SILENCE = "silence"
    """It is frozen, until others have taken over what it had; then it goes on from where it was."""


class _Jumping(selectors.SelectSelector):
    """Waits for nothing: the time that would pass has passed."""

    def __init__(self, now: float) -> None:
        super().__init__()
        self.now = now
        self.turns = 0
        self.at_turn: Callable[[int], None] = lambda _number: None
        self._idle_turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everything waits, and nothing would ever happen"
        self._idle_turns = 0 if timeout > 0 else self._idle_turns + 1
        assert self._idle_turns < TURNS_MAX, "somebody is busy with nothing, and time does not go on"
        self.now += max(0.0, timeout)
        self.turns += 1
        self.at_turn(self.turns)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose time jumps to the next timer when there is nothing to do."""

    def __init__(self, now: float) -> None:
        self._jumping = _Jumping(now)
        super().__init__(self._jumping)

    def time(self) -> float:
        """Of the world."""
        return self._jumping.now

    @property
    def turns(self) -> int:
        """How many there were: whoever awaits something that takes its time goes on in another one."""
        return self._jumping.turns

    def take_out(self, is_meant: Callable[[Context], bool]) -> list[asyncio.Handle]:
        """What is to happen now or later in such contexts does not, until it is put back."""
        inner: Any = self
        taken = [one for one in (*inner._ready, *inner._scheduled) if is_meant(one._context)]
        if taken:
            numbers = {id(one) for one in taken}
            ready = [one for one in inner._ready if id(one) not in numbers]
            inner._ready.clear()
            inner._ready.extend(ready)
            inner._scheduled[:] = [one for one in inner._scheduled if id(one) not in numbers]
            heapq.heapify(inner._scheduled)
        return taken

    def put_back(self, taken: Iterable[asyncio.Handle]) -> None:
        """What was due meanwhile is due now."""
        inner: Any = self
        for one in taken:
            if getattr(one, "_scheduled", False):
                heapq.heappush(inner._scheduled, one)
            else:
                inner._ready.append(one)

    def at_turn(self, call: Callable[[int], None]) -> None:
        """Have this called before each."""
        self._jumping.at_turn = call


class Topic:
    """One partition of a source in memory: what comes there, and when."""

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self.log = FakeSource()
        self.log.cluster = CLUSTER
        self.log.create_topic(name)
        self.partition = Partition(name, 0)
        self.coming = 0
        """How many records are on their way."""
        self._loop = loop

    @property
    def end(self) -> int:
        """The offset of the next record."""
        [log] = self.log.topics[self.partition.topic]
        return log.end

    def append(self, record: RawRecord, *, after: float = 0.0) -> None:
        """Have this come, so many seconds from now, whatever becomes of who says so."""
        self.coming += 1
        if after:
            self._loop.call_later(after, self._come, record, context=Context())
        else:
            self._come(record)

    def _come(self, record: RawRecord) -> None:
        self.coming -= 1
        seconds = BEGINS.timestamp() + self._loop.time() - BEGINS_SECONDS
        self.log.append(
            self.partition,
            record.value,
            key=record.key,
            headers=record.headers,
            timestamp=round(seconds * 1000),
        )


class Connection:
    """The store in memory, as it is seen through a connection that takes its time, and may break."""

    def __init__(self, world: Simulated) -> None:
        self._world = world
        self._store = FakeStore(world.tables, world.seconds)
        self.is_broken = False

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._store, name)

        async def ask(*given: Any) -> Any:
            await self._world.point(f"{name} is asked", self)
            self._check()
            answer = await method(*given)
            await self._world.point(f"{name} has answered", self)
            self._check()
            return answer

        return ask

    async def listen(self, channel: str, heard: Callable[[], None]) -> None:
        """Of engines nobody else is there to be heard of."""
        if channel == channels.INBOX:
            self._world.listening.append(heard)

    async def close(self) -> None:
        """Whatever is asked meanwhile is not answered."""
        self.is_broken = True

    def _check(self) -> None:
        if self.is_broken:
            raise StoreUnavailableError("the connection broke")


@dataclass(eq=False)
class Life:
    """An engine, from its start to its crash, or until all is over."""

    membership: FakeMembership
    is_dead: bool = False
    is_stopped: bool = False
    is_frozen: bool = False
    thawed_at: float | None = None
    """When it was frozen for the last time, until then."""
    silence: asyncio.Task[None] | None = None
    held: list[asyncio.Handle] = field(default_factory=list)
    """What it does once it goes on."""
    engine: Engine | None = None
    """None: it has not begun."""
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    """All that it has begun."""

    def know(self, task: asyncio.Task[Any]) -> None:
        """It has begun this."""
        if task not in self.tasks:
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    def stop(self) -> None:
        """Come to an end in order."""
        assert self.engine is not None, "it has come to some point"
        self.is_stopped = True
        self.engine.stop()

    def end(self) -> None:
        """Crash."""
        self.is_dead = True
        for one in self.tasks:
            one.cancel()


_LIFE: ContextVar[Life | None] = ContextVar("life", default=None)
"""That of whose task this is."""


@dataclass(eq=False)
class Simulated:
    """A world: what lasts, and who lives in it."""

    machine: Machine
    topic: str
    fates: Mapping[int, Fate] = field(default_factory=dict)
    """By the number of the point, from 1 on."""
    draw: random.Random | None = None
    """Says how long things take; None: always the same."""
    engines: int = 1
    """How many live at the same time."""
    instance: str | None = None
    """The engine's name."""
    crash_turn: int = 0
    """The turn of the loop before which all engines crash; 0: they do not."""
    freeze_turn: int = 0
    """The turn before which the first engine is frozen."""
    executors: ByClass = field(default_factory=dict)
    """What does the work that steps describe, besides that of commands."""
    ahead: timedelta = timedelta()
    """How far the engines' clocks go ahead of the world's time, which is the store's."""
    apart: timedelta = timedelta()
    """How far the clock of each engine goes ahead of that of the one before."""
    tables: Tables = field(default_factory=Tables)
    passed: list[str] = field(default_factory=list)
    """All points so far."""
    deaths: int = 0
    silences: int = 0
    stops: int = 0
    """How many engines were asked to end in order, whether or not they have."""
    listening: list[Callable[[], None]] = field(default_factory=list)
    """To be told that something is in the inbox."""

    def __post_init__(self) -> None:
        self._loop = VirtualLoop(BEGINS_SECONDS)
        self._loop.set_task_factory(_make_task)
        self._loop.at_turn(self._turn)
        self._lives: list[Life] = []
        self.source = Topic(self._loop, self.topic)

    @property
    def turns(self) -> int:
        """How many the loop has made."""
        return self._loop.turns

    def call_later(self, seconds: float, call: Callable[[], None]) -> None:
        """Have this called then, whatever becomes of engines."""
        self._loop.call_later(seconds, call, context=Context())

    def crash_after(self, seconds: float) -> None:
        """Have all engines crash then."""
        self._loop.call_later(seconds, self._crash_all)

    def move(self) -> None:
        """Have the group go on without the first engine, which joins it again: what it had is another one's."""
        self._loop.create_task(_rejoin(self._lives[0].membership))

    def hear(self) -> None:
        """Something was put into the inbox by who is no engine."""
        for heard in self.listening:
            heard()

    def is_heard(self, life: Life | None) -> bool:
        """Whether this engine has said lately that it is there."""
        if life is None or life.engine is None:
            return False
        return self.tables.executions.is_there(life.engine.steps.holder, self.seconds() - SILENT_SECONDS)

    def seconds(self) -> float:
        """The world's time."""
        return self._loop.time()

    def clock(self) -> datetime:
        """The same as a date, by the first engine's clock."""
        return BEGINS + timedelta(seconds=self.seconds() - BEGINS_SECONDS) + self.ahead

    async def point(self, name: str, connection: Connection | None = None) -> None:
        """Something has changed that lasts, or is about to, or a question is on its way."""
        check_alive()
        self.passed.append(name)
        fate, life = self.fates.get(len(self.passed)), _LIFE.get()
        if fate is Fate.CRASH and life is not None:
            life.end()
            raise asyncio.CancelledError
        if fate is Fate.STOP and life is not None:
            life.stop()
        if fate is Fate.SILENCE and life is not None:
            self._freeze(life)
        if fate is Fate.BREAK and connection is not None:
            connection.is_broken = True
        draw = self.draw
        await asyncio.sleep(ANSWER_SECONDS if draw is None else draw.uniform(0, SLOW_SECONDS))
        check_alive()

    def live(self, is_over: Callable[[], bool]) -> None:
        """Have engines live until all is over; where one crashes, another takes its place."""
        loop = self._loop
        try:
            with _virtual_time(loop.time, self.draw):
                lives = asyncio.gather(
                    *(
                        loop.create_task(self._live_on(is_over, one * self.apart))
                        for one in range(self.engines)
                    )
                )
                loop.call_later(SECONDS_MAX, lives.cancel)
                loop.run_until_complete(lives)
        except asyncio.CancelledError:
            raise AssertionError(f"nothing comes to an end; in the end: {self.passed[-20:]}") from None
        finally:
            while left := asyncio.all_tasks(loop):
                for one in left:
                    one.cancel()
                loop.run_until_complete(asyncio.wait(left))
            loop.close()

    async def _live_on(self, is_over: Callable[[], bool], ahead: timedelta) -> None:
        while True:
            life = Life(FakeMembership(self.source.log, GROUP, instance=self.instance))
            self._lives.append(life)
            one = asyncio.create_task(self._run(life, is_over, ahead))
            life.tasks.add(one)
            await asyncio.wait({one})
            if not life.is_dead:
                one.result()
                if not life.is_stopped:
                    return
            self.deaths += life.is_dead
            self.stops += life.is_stopped
            self._lives.remove(life)
            if self.instance is None:
                # Who has crashed is missed at once.
                await life.membership.expire()
            while left := {task for task in life.tasks if not task.done()}:
                life.end()
                await asyncio.wait(left)
            if self.draw is not None:
                await asyncio.sleep(self.draw.choice([0.0, self.draw.uniform(0, AWAY_SECONDS)]))

    def _turn(self, number: int) -> None:
        if number == self.crash_turn:
            self._crash_all()
        if number == self.freeze_turn and self._lives:
            self._freeze(self._lives[0])
        for life in self._lives:
            if life.is_frozen:
                life.held += self._loop.take_out(partial(_is_of, life))

    def _freeze(self, life: Life) -> None:
        """Until it is a member of its group again it is not frozen once more."""
        if life.silence is None or life.silence.done():
            life.is_frozen = True
            self.silences += 1
            life.silence = Context().run(self._loop.create_task, self._thaw_in_time(life))

    async def _thaw_in_time(self, life: Life) -> None:
        """Have the group miss it; then it goes on, and hears of that."""
        await asyncio.sleep(SESSION_SECONDS)
        # Who waits for it to give back what it has waits for longer.
        missed = asyncio.create_task(life.membership.expire())
        await asyncio.sleep(FROZEN_SECONDS - SESSION_SECONDS)
        life.is_frozen, life.thawed_at = False, self.seconds()
        held, life.held = life.held, []
        self._loop.put_back(held)
        await missed
        await asyncio.sleep(HEARTBEAT_SECONDS)
        if life in self._lives and not life.is_dead:
            await life.membership.come_back()

    def _crash_all(self) -> None:
        for life in self._lives:
            life.end()

    async def _run(self, life: Life, is_over: Callable[[], bool], ahead: timedelta) -> None:
        _LIFE.set(life)

        async def open_store() -> Store:
            await self.point("connecting")
            return cast("Store", Connection(self))

        async def until(session: Session) -> bool:
            del session
            return is_over()

        parts = Parts(
            membership=life.membership,
            reader=FakeReader(self.source.log),
            open_store=open_store,
            prepare_store=self._prepare,
            topics=frozenset({self.topic}),
            cluster=CLUSTER,
            first="earliest",
            observer=Silent(),
            beat=[0, 0, 0, 0],
            outbox_depth=lambda: 0,
            limits=LIMITS,
            clock=lambda: self.clock() + ahead,
            instance=self.instance,
            executors=Executors(self.executors),
        )
        life.engine = Engine(parts)
        await life.engine.run(until)

    async def _prepare(self, store: Store) -> Routes:
        machine = self.machine
        pipeline = await store.register_pipeline(machine.name)
        number = await store.register_definition(
            pipeline, machine.version, machine.hash, machine.code, machine.structure
        )
        return make_routes([Loaded(machine, pipeline, number)], {})


def in_virtual_time(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Do this in a loop whose time jumps, without a world around it."""
    loop = VirtualLoop(BEGINS_SECONDS)
    try:
        with _virtual_time(loop.time, None):
            return loop.run_until_complete(work())
    finally:
        loop.close()


def check_alive() -> None:
    """Nothing that an engine does counts once it has crashed: what asks this ends with it."""
    life, task = _LIFE.get(), asyncio.current_task()
    if life is None:
        return
    if life.is_dead:
        raise asyncio.CancelledError
    if task is not None:
        # Attempts are tasks that the loop has not made.
        life.know(task)


def _is_of(life: Life, context: Context) -> bool:
    return context.get(_LIFE) is life


async def _rejoin(membership: FakeMembership) -> None:
    await membership.expire()
    await membership.come_back()


def own_life() -> Life | None:
    """The engine that does this."""
    return _LIFE.get()


def is_stopping() -> bool:
    """Whether the engine that does this was asked to end."""
    life = _LIFE.get()
    return life is not None and life.is_stopped


def _make_task(loop: asyncio.AbstractEventLoop, work: Any, **more: Any) -> asyncio.Task[Any]:
    made: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **more)
    life = _LIFE.get()
    if life is not None:
        life.know(made)
    return made


@contextlib.contextmanager
def _virtual_time(now: Callable[[], float], draw: random.Random | None) -> Iterator[None]:
    """The engine's modules have the world's time, and pauses of random length are the same each time."""
    stand_in = types.SimpleNamespace(**{**vars(time), "monotonic": now})
    modules = [one for name, one in sys.modules.items() if name.startswith("engine.")]
    with contextlib.ExitStack() as stack:
        stack.callback(random.setstate, random.getstate())
        random.seed(0 if draw is None else draw.random())
        for module in modules:
            if getattr(module, "time", None) is time:
                stack.enter_context(mock.patch.object(module, "time", stand_in))
        yield
