"""The demo from start to end: an engine, a shop that publishes, someone who watches; then a look at the books."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson
from rich.console import Console
from rich.live import Live

from connectors.kafka.reader import KafkaReader
from connectors.publishing import ConfirmingProducer, PublishLimits
from engine.assembly import EngineSettings
from engine.demo import story
from engine.demo.story import Post
from engine.demo.watching import Watch
from engine.embedded import Embedded
from engine.errors import PointsmanError
from engine.reading import (
    Became,
    DeadLetterView,
    Explanation,
    HistoryRow,
    RunView,
    VerifyReport,
    ask_redrive,
    explain,
    history,
    list_dead_letters,
    list_runs,
    verify,
    wait_until_taken,
)
from engine.running import Running, run
from engine.store.connecting import Connection, connect
from statemachines.machine import compile_pipeline
from statemachines.shipped.orders import flow

NAMESPACE = "demo"
FRAMES_A_SECOND = 10
SETTLE_SECONDS = 20.0
"""For the engine to be done with everything after the last record was published."""
READY_SECONDS = 30.0
REDRIVE_SECONDS = 10.0

HISTORY_OF = f"o-{story.FIRST}"
"""An order that is paid in two parts and arrives."""
EXPLAINED = f"{story.TOO_SOON}-shipped-too-soon"


class DemoError(PointsmanError):
    """The demo did not come to its end."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that the demo has to show, from what the store says."""

    records: int
    seconds: float
    dispositions: dict[str, int]
    states: dict[str, int]
    out_topic: str
    heard: dict[str, int]
    """Events published out, by type, as read back from the broker."""
    verified: VerifyReport
    history_of: str
    history: list[HistoryRow]
    explained: Explanation
    dead_letters: list[DeadLetterView]
    redriven: Became
    before: RunView
    after: RunView

    def as_json(self) -> dict[str, Any]:
        """One document."""
        return {
            "records": self.records,
            "seconds": round(self.seconds, 1),
            "dispositions": self.dispositions,
            "states": self.states,
            "heard": self.heard,
            "verify": self.verified.as_json(),
            "history": {"key": self.history_of, "rows": [row.as_json() for row in self.history]},
            "explain": self.explained.as_json(),
            "dead_letters": [letter.as_json() for letter in self.dead_letters],
            "redrive": {
                **self.redriven.as_json(),
                "before": self.before.as_json(),
                "after": self.after.as_json(),
            },
        }


@contextlib.contextmanager
def step(screen: Console | None, what: str) -> Iterator[None]:
    """Tell that something is going on, and how long it took."""
    if screen is None:
        yield
        return
    began = time.monotonic()
    with screen.status(f"{what} ..."):
        yield
    screen.print(f"  {what}: {time.monotonic() - began:.1f} s", style="dim", highlight=False)


async def perform(services: Embedded, screen: Console | None) -> Outcome:
    """Publish the story and see it through; ``screen`` is where it is watched, None where nobody does.

    Raises:
        PointsmanError: something went wrong on the way.
    """
    watch = Watch(flow)
    posts = story.tell()
    async with _engine(services, watch, screen) as running:
        began = time.monotonic()
        published = [0]
        publishing = asyncio.create_task(_publish(services, posts, published))
        try:
            await _see_through(running, watch, publishing, posts, published, screen)
        finally:
            publishing.cancel()
            await asyncio.wait({publishing})
        seconds = time.monotonic() - began
        return await _look(services, watch, seconds)


@contextlib.asynccontextmanager
async def _engine(services: Embedded, watch: Watch, screen: Console | None) -> AsyncIterator[Running]:
    """A running engine that has its partitions."""
    settings = EngineSettings(postgres=services.engine, kafka=services.kafka, namespace=NAMESPACE)
    started: asyncio.Future[Running] = asyncio.get_running_loop().create_future()
    machines = [compile_pipeline(flow, namespace=NAMESPACE)]
    task = asyncio.create_task(run(settings, machines, observer=watch, began=started.set_result))
    try:
        both: set[asyncio.Future[Any]] = {task, started}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        running = started.result()
        with step(screen, "An engine joins its group and gets its partitions"):
            await _until(
                lambda: running.engine.ready or task.done(), READY_SECONDS, "The engine got no partitions"
            )
        yield running
        if task.done():
            task.result()
        running.stop()
        await task
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


async def _publish(services: Embedded, posts: list[Post], published: list[int]) -> None:
    producer = ConfirmingProducer(services.kafka, PublishLimits())
    await producer.start()
    try:
        began = time.monotonic()
        for post in posts:
            await asyncio.sleep(max(0.0, began + post.at - time.monotonic()))
            # One after the other: a shop that cares for the order of its events waits for each.
            await producer.send(post.record)
            published[0] += 1
    finally:
        await producer.stop()


async def _see_through(
    running: Running,
    watch: Watch,
    publishing: asyncio.Task[None],
    posts: list[Post],
    published: list[int],
    screen: Console | None,
) -> None:
    def done() -> bool:
        if publishing.done():
            publishing.result()
        return publishing.done() and watch.records >= len(posts) and running.relay.depth() == 0

    limit = posts[-1].at + SETTLE_SECONDS
    what = "The engine is not done with what was published"
    if screen is None:
        await _until(done, limit, what)
    elif screen.is_terminal:
        with Live(watch.render(0, len(posts)), console=screen, auto_refresh=False) as live:
            await _until(
                done, limit, what, lambda: live.update(watch.render(published[0], len(posts)), refresh=True)
            )
            live.update(watch.render(published[0], len(posts)), refresh=True)
    else:
        lines = _Lines(watch, screen, published, len(posts))
        await _until(done, limit, what, lines.tell)
        lines.tell(last=True)


class _Lines:
    """What is told where there is no terminal: what is notable, and a line of numbers every second."""

    def __init__(self, watch: Watch, screen: Console, published: list[int], total: int) -> None:
        self._watch, self._screen, self._published, self._total = watch, screen, published, total
        self._told = 0
        self._at = time.monotonic()

    def tell(self, *, last: bool = False) -> None:
        for line in self._watch.notable[self._told :]:
            self._screen.print(f"    {line.key}  {line.what}", markup=False, soft_wrap=True)
        self._told = len(self._watch.notable)
        if last or time.monotonic() - self._at >= 1.0:
            self._at = time.monotonic()
            self._screen.print(self._watch.counters(self._published[0], self._total), soft_wrap=True)


async def _until(
    done: Callable[[], bool], seconds: float, what: str, frame: Callable[[], None] = lambda: None
) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise DemoError(f"{what}, after {seconds:.0f} s. Is the machine very busy? Try again.")
        await asyncio.sleep(1 / FRAMES_A_SECOND)
        frame()


async def _look(services: Embedded, watch: Watch, seconds: float) -> Outcome:
    """Afterwards: look at the books, and put one event back."""
    dispositions = {one.word: count for one, count in sorted(watch.dispositions.items())}
    states, records = watch.in_state(), watch.records
    heard = await _heard(services)
    connection = await connect(services.engine, for_engine=False)
    try:
        verified = await verify(connection, NAMESPACE)
        rows = await history(connection, NAMESPACE, flow.name, HISTORY_OF)
        explained = await explain(connection, NAMESPACE, event_id=EXPLAINED)
        letters = await list_dead_letters(connection, NAMESPACE)
        before = await _run_of_early(connection)
        (early,) = [letter.id for letter in letters if letter.key == story.EARLY]
        asked = await ask_redrive(connection, NAMESPACE, [early], who="demo", why="its order has come")
        (redriven,) = await wait_until_taken(connection, NAMESPACE, asked, seconds=REDRIVE_SECONDS)
        after = await _run_of_early(connection)
    finally:
        await connection.close()
    return Outcome(
        records,
        seconds,
        dispositions,
        states,
        story.OUT,
        heard,
        verified,
        HISTORY_OF,
        rows,
        explained,
        letters,
        redriven,
        before,
        after,
    )


async def _run_of_early(connection: Connection) -> RunView:
    (found,) = await list_runs(connection, NAMESPACE, key=story.EARLY)
    return found


async def _heard(services: Embedded) -> dict[str, int]:
    """What others would read of us, by type."""
    reader = KafkaReader(services.kafka)
    await reader.start()
    try:
        partitions = await reader.partitions_of(story.OUT)
        ends = await reader.ends(partitions)
        positions = await reader.earliest(partitions)
        reader.assign(positions)
        counts: Counter[str] = Counter()
        deadline = time.monotonic() + SETTLE_SECONDS
        while any(positions[one] < end for one, end in ends.items()) and time.monotonic() < deadline:
            chunk = await reader.fetch(records_max=1_000, wait_seconds=1.0)
            positions.update(chunk.positions)
            for records in chunk.records.values():
                counts.update(_type_of(record.value or b"") for record in records)
        return dict(counts.most_common())
    finally:
        await reader.stop()


def _type_of(value: bytes) -> str:
    return str(orjson.loads(value)["type"])
