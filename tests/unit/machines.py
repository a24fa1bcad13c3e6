"""A small pipeline with one of everything, and a short way to step through it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from statemachines import Context, Event, Pipeline, Publish
from statemachines.events import Envelope
from statemachines.interpreter import step
from statemachines.machine import Machine
from statemachines.occurrence import Occurrence
from statemachines.outcome import Moved
from statemachines.run import Run

NOW = datetime(2024, 5, 17, 12, tzinfo=UTC)
DIGEST = b"12345678"


class Opened(Event, type="opened", key="name"):
    name: str
    limit: int = 10


class Added(Event, type="added", key="name"):
    name: str
    amount: int


class Closed(Event, type="closed", key="name"):
    name: str


class Noted(Event, type="noted"):
    text: Any = None


class Dropped(Event, type="dropped"):
    pass


class Account(Context):
    limit: int
    total: int = 0
    note: Any = None


def open_account(event: Opened) -> Account:
    return Account(limit=event.limit)


def below_limit(account: Account, event: Added) -> bool:
    return account.total + event.amount < account.limit


def add(account: Account, event: Added) -> Publish:
    account.total += event.amount
    return Publish("totals", event)


def account_pipeline(**settings: Any) -> Pipeline[Account]:
    flow = Pipeline("account", Account, topics=["accounts"], **settings)
    active = flow.state("active", initial=True)
    full = flow.state("full")
    closed = flow.state("closed", final=True)
    flow.start(Opened, open_account)
    active.on(Added, when=below_limit, do=add)
    active.on(Added, to=full, do=add)
    active.on(Noted, to=active)
    flow.on(Closed, to=closed)
    full.on(Dropped, to=closed, when=never)
    return flow


def never(_account: Account, _event: Event) -> bool:
    return False


def occurrence(event: Event | None, kind: str = "", **more: Any) -> Occurrence:
    event_type = kind or (event.event_type() if event else "")
    envelope = Envelope("event-1", "test", event_type, None, NOW)
    return Occurrence(envelope, "acme", more.pop("digest", DIGEST), NOW, event, **more)


def begun(machine: Machine, event: Event) -> Run:
    moved = step(machine, None, occurrence(event, digest=b"00000000"))
    assert isinstance(moved, Moved), moved
    assert moved.context is not None
    return Run(
        id=1,
        key="acme",
        generation=0,
        sequence=1,
        status=moved.status,
        configuration=moved.configuration,
        context=moved.context,
        recent=b"00000000",
        hash=b"h" * 32,
        definition=1,
        held=0,
        waiting=0,
        started=NOW,
        updated=NOW,
    )
