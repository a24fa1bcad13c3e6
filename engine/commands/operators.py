"""What operators send to runs, as events: CloudEvents whose source says so, with who sent them and why."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

import orjson

from connectors.encode import STRUCTURED_HEADERS
from connectors.source import RawRecord
from engine.log import microseconds
from statemachines.events import Cancelled

if TYPE_CHECKING:
    from engine.batch.arrival import Arrival
    from engine.routing import Route
    from engine.store.values import Command


def operators_source(namespace: str) -> str:
    """The CloudEvents source of what operators send."""
    return f"/pointsman/{quote(namespace)}/operators"


def operators_event(
    namespace: str, *, id: str, type: str, data: bytes | None, who: str, why: str, time: datetime
) -> str:
    """A structured CloudEvent; ``data`` is JSON, taken as it is. ``who`` and ``why`` are attributes of their own.

    It has no subject: an event whose source is a pipeline, and whose subject is the run's key, is the run's own.
    """
    event = {
        "specversion": "1.0",
        "id": id,
        "source": operators_source(namespace),
        "type": type,
        "time": time,
        "who": who,
        "why": why,
    }
    if data is not None:
        event["data"] = orjson.Fragment(data)
    return orjson.dumps(event, option=orjson.OPT_UTC_Z).decode()


def command_id(command: Command) -> str:
    """The id of the event that a command is in the log of a run."""
    return f"command/{command.id}"


def cancellation(command: Command, route: Route) -> str:
    """The event that cancels a run."""
    return operators_event(
        route.newest.namespace,
        id=command_id(command),
        type=Cancelled.event_type(),
        data=None,
        who=command.who,
        why=command.why,
        time=command.at,
    )


def operators_record(key: str, event: str, at: datetime) -> RawRecord:
    """Such an event as the record that it never was; with the key of the run that it is for."""
    return RawRecord("", 0, 0, microseconds(at) // 1_000, key.encode(), event.encode(), STRUCTURED_HEADERS)


def operators_arrival(route: Route, key: str, event: str, at: datetime) -> Arrival:
    """The same on its way to the run."""
    from engine.batch.inside import inner_arrival  # noqa: PLC0415 - whoever only asks needs nothing of the engine

    return inner_arrival(route, key, operators_record(key, event, at))
