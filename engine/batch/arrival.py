"""An event on its way to a run."""

from __future__ import annotations

from typing import NamedTuple

from connectors.decode import Decoded
from connectors.source import Record
from engine.routing import Route, TopicRoute
from statemachines.memory import Delayed, Execution


class Arrival(NamedTuple):
    """A record that could be read, and one run that it is for; that run need not exist."""

    route: Route
    key: str
    record: Record
    position: int | None
    """The store's number of the partition."""
    topic: TopicRoute
    decoded: Decoded
    digest: bytes
    """What it is known by when it comes again; empty where its run has asked for it, whose memory tells whether it has
    come: such a one is never looked for among what was seen."""
    delayed: Delayed | Execution | None = None
    """It comes from inside: what the run asked for, that falls due now, or a step whose result it is."""
    id_digest: bytes = b""
    """Of source and id, where a business key of its type counts for ever: it is a duplicate by either."""
