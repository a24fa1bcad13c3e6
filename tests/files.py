"""A pipeline of events that are in order, known again by a business key, and wait where one before them is missing."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from statemachines.context import Context
from statemachines.definition import Pipeline
from statemachines.effects import Out, Publish, Send
from statemachines.events import Event
from statemachines.ordering import OrderBy
from statemachines.policies import Defer
from tests.journey import Counted

TOPIC = "files"
MISSING_FOR = timedelta(minutes=3)
LATER = timedelta(minutes=1)
COUNTS_FOR = timedelta(minutes=10)


class Seen(Event, type="file.seen", key="file"):
    file: str
    version: int = 0


class Line(Event, type="file.line", key="file"):
    file: str
    line: int


class Mentioned(Event, type="file.mentioned", key="file"):
    file: str
    by: str


class Stored(Event, type="file.stored", key="file"):
    file: str
    object: str


class Closed(Event, type="file.closed", key="file"):
    file: str


class Announced(Event, type="file.announced", key="file"):
    file: str


class File(Context):
    version: int = 0
    lines: list[int] = Field(default_factory=list)


def begin(event: Seen) -> File:
    return File(version=event.version)


def see(file: File, event: Seen) -> None:
    file.version = event.version


def add(file: File, event: Line) -> None:
    file.lines.append(event.line)


def announce(_file: File, event: Announced) -> Out:
    """Later, to a topic and to a run of another pipeline."""
    counted = Counted(ledger="all", journey=event.file)
    return [
        Publish("letters", event, after=LATER),
        Send(counted, to="all", pipeline="ledger", after=2 * LATER),
    ]


def files(topic: str = TOPIC) -> Pipeline[File]:
    """open -> closed; newer versions only, lines one by one, each mention and each object once."""
    flow = Pipeline("file", File, topics=[topic], unexpected="ignore")
    opened = flow.state("open", initial=True)
    closed = flow.state("closed", final=True, output=lambda file, _event: {"lines": len(file.lines)})
    flow.start(Seen, begin)
    opened.on(Seen, do=see)
    opened.on(Line, do=add)
    opened.on(Mentioned)
    opened.on(Stored)
    opened.on(Announced, do=announce)
    opened.on(Closed, to=closed)
    flow.policy(Seen, order_by=OrderBy("version"))
    gap = Defer(MISSING_FOR, then="ignore")
    flow.policy(Line, order_by=OrderBy("line", contiguous=True, gap=gap))
    flow.policy(Mentioned, duplicate_by="by", duplicate_for=COUNTS_FOR)
    flow.policy(Stored, duplicate_by=["file", "object"])
    return flow
