"""A pipeline with handlers that never return, and ``python -m tests.stuck``: a process that is busy on demand.

The topic is named by the environment (``STUCK_TOPIC``), since each test has one of its own.
"""

from __future__ import annotations

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
