"""Events, and a context that notes what was done, of small charts."""

from __future__ import annotations

from pydantic import Field

from statemachines import Context, Event


class Go(Event, type="go"):
    pass


class Ping(Event, type="ping"):
    count: int = 0


class Careful(Context):
    notes: list[str] = Field(default_factory=list)
