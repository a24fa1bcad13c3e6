"""A pipeline with handlers that never return, and ``python -m tests.stuck``: a process that is busy on demand.

The topic is named by the environment (``STUCK_TOPIC``), since each test has one of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from aiokafka import AIOKafkaProducer
from pydantic import Field, field_validator

from connectors.encode import STRUCTURED_HEADERS, encode_structured
from connectors.source import Partition
from engine.watching import watching
from statemachines import Call, Command, Retry
from statemachines.context import Context
from statemachines.definition import Pipeline, Topic
from statemachines.effects import Send
from statemachines.events import Event

POSITION, OFFSET = 7, 99


class Opened(Event, type="case.opened", key="case"):
    case: str


class Looped(Event, type="case.looped", key="case"):
    case: str


class Searched(Event, type="case.searched", key="case"):
    case: str
    text: str


class Slept(Event, type="case.slept", key="case"):
    case: str


class Checked(Event, type="case.checked", key="case"):
    case: str

    @field_validator("case")
    @classmethod
    def is_known(cls, case: str) -> str:
        while True:
            pass


class Nothing(Context):
    pass


def begin(event: Opened) -> Nothing:
    return Nothing()


def loops(context: Nothing, event: Looped) -> None:
    while True:
        pass


def searches(context: Nothing, event: Searched) -> bool:
    # Doubles with each letter, and keeps the interpreter's lock meanwhile.
    return re.match(r"(a+)+$", event.text) is not None


def sleeps(context: Nothing, event: Slept) -> None:
    time.sleep(3_600)


def stuck_on(topic: str) -> Pipeline[Nothing]:
    """Reads cases from a topic; those that were opened may be looped, searched, slept or checked."""
    pipeline = Pipeline("stuck", Nothing, topics=[Topic(topic)])
    opened = pipeline.state("opened", initial=True)
    closed = pipeline.state("closed", final=True)
    pipeline.start(Opened, begin)
    opened.on(Looped, to=closed, do=loops)
    opened.on(Searched, to=closed, when=searches)
    opened.on(Slept, to=closed, do=sleeps)
    opened.on(Checked, to=closed)
    return pipeline


class Put(Event, type="case.put", key="case"):
    case: str


class Wanted(Event, type="case.wanted", key="case"):
    case: str


class Asked(Event, type="case.asked", key="case"):
    """Sent by a run to another one."""

    case: str


class Notes(Context):
    said: list[str] = Field(default_factory=list)


def begin_notes(event: Opened) -> Notes:
    return Notes()


def says(word: str) -> Callable[[Notes, Event], None]:
    def said(notes: Notes, _: Event) -> None:
        notes.said.append(word)

    return said


def loops_late(notes: Notes, event: Event) -> None:
    while True:
        pass


def asks(notes: Notes, event: Wanted) -> Send:
    return Send(Asked(case=event.case), to=f"{event.case}-other")


def late_on(topic: str) -> Pipeline[Notes]:
    """Of two timers the second never returns, nor does what was put too early, nor what a run asks of another one."""
    pipeline = Pipeline("late", Notes, topics=[Topic(topic)])
    opened = pipeline.state("opened", initial=True)
    closed = pipeline.state("closed", final=True)
    ready = pipeline.state("ready")
    pipeline.start(Opened, begin_notes)
    opened.after(timedelta(milliseconds=1), do=says("early"))
    opened.after(timedelta(milliseconds=2), to=closed, do=loops_late)
    opened.on(Looped, to=ready)
    ready.on(Put, to=closed, do=loops_late)
    pipeline.on(Wanted, do=asks)
    pipeline.on(Asked, to=closed, do=loops_late)
    return pipeline


class Job(Context):
    name: str = "job"

    @field_validator("name")
    @classmethod
    def is_known(cls, name: str) -> str:
        return name


class Strange(Job):
    """Can be made, and not be read again."""

    @field_validator("name")
    @classmethod
    def is_known(cls, name: str) -> str:
        while cls is not Strange:
            pass
        return name


def working_on(topic: str, name: str, context: type[Job], function: Callable[..., Any]) -> Pipeline[Any]:
    """Does one step, of which there are two attempts."""
    pipeline = Pipeline(name, context, topics=[Topic(topic)])
    work = pipeline.step(retry=Retry(attempts=2))(function)
    working = pipeline.state("working", run=work, initial=True)
    done, broken = pipeline.state("done", final=True), pipeline.state("broken", final=True)

    def begin(event: Opened) -> Job:
        return context(name=event.case)

    begin.__annotations__["return"] = context
    pipeline.start(Opened, begin)
    working.on(work.done, to=done)
    pipeline.on_failure(to=broken)
    return pipeline


def spins() -> None:
    while True:
        pass


async def loops_in_step(job: Job, call: Call) -> int:
    await asyncio.sleep(0)
    spins()
    return 1


def loops_saying(job: Job, call: Call) -> Command[int]:
    spins()
    return Command(["true"], result=int)


async def does(job: Strange, call: Call) -> int:
    return 1


TOPIC = os.environ.get("STUCK_TOPIC", "cases")
spinning = working_on(TOPIC, "spinning", Job, loops_in_step)
saying = working_on(TOPIC, "saying", Job, loops_saying)
strange = working_on(TOPIC, "strange", Strange, does)
stuck = stuck_on(os.environ.get("STUCK_TOPIC", "cases"))
late = late_on(os.environ.get("STUCK_TOPIC", "cases"))


def be_busy(postgres: str, seconds_max: float) -> None:
    """Begin with a record, be stopped and go on, take a little longer, and rest; then be busy for ever."""
    with watching(postgres, seconds_max) as watched:
        watched.assigned({POSITION: Partition("orders", 3)})
        beat = watched.beat
        beat[0], beat[1], beat[2] = POSITION, OFFSET, 1
        say("busy")
        os.kill(os.getpid(), signal.SIGSTOP)
        beat[2] = 0
        say("rested")
        sys.stdin.readline()
        beat[1], beat[2] = OFFSET + 1, 2
        loops(Nothing(), Looped(case="c"))


def value(type: str, case: str, **data: str) -> bytes:
    """An event as it stands in a record, with headers as ``publish`` sends them."""
    return encode_structured(
        id=f"{type}-{case}", source="/cases", type=type, data=json.dumps({"case": case, **data}).encode()
    )


async def publish(bootstrap: str, topic: str, *values: bytes, partition: int = 0) -> None:
    """Send these to one partition, and wait until they are there."""
    made: Any = AIOKafkaProducer  # aiokafka's client is not typed
    producer = made(bootstrap_servers=bootstrap, acks="all")
    await producer.start()
    try:
        for one in values:
            await producer.send_and_wait(topic, one, partition=partition, headers=list(STRUCTURED_HEADERS))
    finally:
        await producer.stop()


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    be_busy(sys.argv[1], float(sys.argv[2]))
