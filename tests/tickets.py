"""A pipeline whose runs are found by what their contexts say: search attributes of every kind."""

from __future__ import annotations

import enum
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import Field

from statemachines import Context, Event, Pipeline, Searchable


class Team(enum.StrEnum):
    FIRST = "first line"
    SECOND = "second line"


class Opened(Event, type="ticket.opened", key="ticket"):
    ticket: str
    tenant: str
    priority: int = 3


class Changed(Event, type="ticket.changed", key="ticket"):
    ticket: str
    tenant: str | None = None
    priority: int | None = None
    tags: list[str] | None = None
    note: str = ""


class Cleared(Event, type="ticket.cleared", key="ticket"):
    ticket: str


class Closed(Event, type="ticket.closed", key="ticket"):
    ticket: str


class Ticket(Context):
    tenant: Annotated[str | None, Searchable()]
    priority: Annotated[int | None, Searchable()] = None
    tags: Annotated[list[str], Searchable()] = Field(default_factory=list)
    note: str = ""


class PlainTicket(Context):
    tenant: str | None
    priority: int | None = None
    tags: list[str] = Field(default_factory=list)
    note: str = ""


class TextTicket(Context):
    tenant: Annotated[str, Searchable()]
    priority: Annotated[str, Searchable()]


class Everything(Context):
    """One attribute of each kind."""

    text: Annotated[str, Searchable()] = ""
    number: Annotated[int, Searchable()] = 0
    urgent: Annotated[bool, Searchable()] = False
    price: Annotated[Decimal | None, Searchable()] = None
    due: Annotated[date | None, Searchable()] = None
    since: Annotated[datetime | None, Searchable()] = None
    team: Annotated[Team | None, Searchable()] = None
    mood: Annotated[Literal["good", "bad"] | None, Searchable()] = None
    tags: Annotated[list[str], Searchable()] = Field(default_factory=list)
    renamed: Annotated[str, Searchable(), Field(alias="as")] = ""


def open_ticket(event: Opened) -> Ticket:
    return Ticket(tenant=event.tenant, priority=event.priority)


def open_plainly(event: Opened) -> PlainTicket:
    return PlainTicket(tenant=event.tenant, priority=event.priority)


def open_with_texts(event: Opened) -> TextTicket:
    return TextTicket(tenant=event.tenant, priority=str(event.priority))


def change(ticket: Ticket, event: Changed) -> None:
    ticket.note = event.note
    if event.tenant is not None:
        ticket.tenant = event.tenant
    if event.priority is not None:
        ticket.priority = event.priority
    if event.tags is not None:
        ticket.tags = event.tags


def clear(ticket: Ticket, event: Cleared) -> None:
    del event
    ticket.tenant = ticket.priority = None
    ticket.tags = []


def tickets(name: str = "ticket", *, version: int = 1) -> Pipeline[Ticket]:
    """open -> closed, changed as often as one likes."""
    flow = Pipeline(name, Ticket, version=version, topics=["orders"])
    _moves(flow)
    flow.start(Opened, open_ticket)
    return flow


def plain_tickets(name: str = "ticket", *, version: int = 1) -> Pipeline[PlainTicket]:
    """The same without anything that is searchable."""
    flow = Pipeline(name, PlainTicket, version=version, topics=["orders"])
    _moves(flow)
    flow.start(Opened, open_plainly)
    return flow


def tickets_with_texts(name: str = "texts") -> Pipeline[TextTicket]:
    """The same, where a priority is a text."""
    flow = Pipeline(name, TextTicket, topics=["orders"])
    flow.state("open", initial=True)
    flow.state("closed", final=True)
    flow.on(Closed, to="closed")
    flow.start(Opened, open_with_texts)
    return flow


def _moves(flow: Pipeline[Any]) -> None:
    opened = flow.state("open", initial=True)
    closed = flow.state("closed", final=True)
    opened.on(Changed, do=change)
    opened.on(Cleared, do=clear)
    opened.on(Closed, to=closed)
