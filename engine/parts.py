"""What an engine is put together from; ``engine.assembly`` does so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableSequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from connectors.source import Membership, Reader
from engine.limits import EngineLimits
from engine.observing import Observer
from engine.outlet import Outlet
from engine.routing import Routes
from engine.starting import FirstPosition
from engine.steps.executors import Executors
from engine.store.contract import Store


@dataclass(frozen=True, slots=True)
class Parts:
    """What an engine is put together from."""

    membership: Membership
    reader: Reader
    open_store: Callable[[], Awaitable[Store]]
    prepare_store: Callable[[Store], Awaitable[Routes]]
    """Registers the definitions; returns the routes to them."""
    topics: frozenset[str]
    cluster: str
    first: FirstPosition
    observer: Observer
    beat: MutableSequence[int]
    outbox_depth: Callable[[], int]
    outlet: Outlet = field(default_factory=Outlet)
    """What the machines that ``prepare_store`` routes to refuse to publish by."""
    limits: EngineLimits = field(default_factory=EngineLimits)
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    instance: str | None = None
    """The engine's name, which it keeps when it is restarted."""
    executors: Executors = field(default_factory=Executors)
    """What does the work of steps."""
    group: str = ""
    """The consumer group; empty where it is not told which one a position is of."""
    homes: str = ""
    """The topic whose partitions say which runs' timers are served here; empty: all are."""


def kafka_troubles(parts: Parts) -> list[str]:
    """What keeps us from reading just now, or from being told what is ours; each goes by itself."""
    troubles = [*parts.reader.troubles().values()]
    lost_group = parts.membership.trouble()
    if lost_group is not None:
        troubles.append(lost_group)
    return sorted({trouble.reason for trouble in troubles})
