"""Bills that are made, opened, paid line by line, and shut."""

from __future__ import annotations

from pydantic import Field

from connectors.source import RawRecord
from engine.reading import list_runs, replay, verify
from engine.store.connecting import Connection
from statemachines import Context, Event, Pipeline
from statemachines.machine import compile_pipeline
from statemachines.run import RECENT_DIGESTS_MAX
from tests.feeding import event

TOPIC = "bills"
EARLY = RECENT_DIGESTS_MAX + 4
"""As many payments push out of a run's memory what it has taken before."""


class Made(Event, type="made", key="bill"):
    bill: str


class Opened(Event, type="opened", key="bill"):
    bill: str


class Paid(Event, type="paid", key="bill"):
    bill: str
    line: int
    amount: int = 10


class Shut(Event, type="shut", key="bill"):
    bill: str


class Bill(Context):
    lines: list[int] = Field(default_factory=list)
    opened: int = 1


def told(type: str, id: str) -> RawRecord:
    """An event of the one bill; a payment's line is the number in its id."""
    data = {"bill": "b1", "line": int(id[1:])} if type == "paid" else {"bill": "b1"}
    return event(type, data, topic=TOPIC, id=id)


PAYMENTS = [told("paid", f"p{number}") for number in range(EARLY)]
WAITED_FOR_ITS_OPENING = [told("made", "m"), *PAYMENTS, told("opened", "o")]
SECOND_LIFE = [told("made", "m2"), told("opened", "o2")]


def pay(bill: Bill, paid: Paid) -> None:
    bill.lines.append(paid.line)


def open_again(bill: Bill, opened: Opened) -> None:
    bill.opened += 1


def bills() -> Pipeline[Bill]:
    """made, where payments wait -> open, where lines are paid -> shut, from where a bill may be made anew."""
    flow = Pipeline("bills", Bill, topics=[TOPIC], closed="restart")
    made = flow.state("made", initial=True)
    opened, shut = flow.state("open"), flow.state("shut", final=True)
    flow.start(Made, lambda made: Bill())
    made.on(Opened, to=opened)
    opened.on(Paid, do=pay)
    opened.on(Opened, do=open_again)
    opened.on(Shut, to=shut)
    return flow


async def check(reader: Connection, *lines: list[int]) -> None:
    """The runs of the bill have taken these lines, and their log says so."""
    runs = [one for one in await list_runs(reader, "default", limit=1_000) if one.key == "b1"]
    assert {one.generation: one.context["lines"] for one in runs} == dict(enumerate(lines))
    assert all((one.context["opened"], one.held, one.waiting) == (1, None, 0) for one in runs)
    verified = await verify(reader, "default")
    assert verified.is_clean, verified
    replayed = await replay(reader, "default", [compile_pipeline(bills())])
    assert replayed.is_equal, replayed.mismatches
