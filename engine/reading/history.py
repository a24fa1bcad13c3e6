"""What happened to a run, row by row."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from engine.log import CONSUMED, Kind, LogRow
from engine.reading.asked import Deferral, deferral_in, shown_effects
from engine.reading.catalog import Catalog, load_catalog
from engine.reading.dropped import check_not_dropped
from engine.reading.heard import Heard, heard_in
from engine.reading.rows import Folded, event_in, folded_rows, kind_word
from engine.reading.runs import find_run
from engine.reading.values import json_of, shown_time, states_of
from engine.store.connecting import Connection
from statemachines.events import Address


@dataclass(frozen=True, slots=True)
class EventView:
    """The event of a row."""

    id: str
    type: str
    kind: str
    """What the row says, as in ``started`` or ``moved after wait`` (``engine.log``)."""
    source: str | None
    """None for commands, and where the record cannot be read by the settings that are known."""
    topic: str | None
    partition: int | None
    offset: int | None
    time: datetime | None
    """When it happened, by its own account; for plain records without one, Kafka's time."""

    def as_json(self) -> dict[str, Any]:
        """The documented fields."""
        return {
            "id": self.id,
            "type": self.type,
            "source": self.source,
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "time": shown_time(self.time),
            "kind": self.kind,
        }


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One row of a run's history."""

    sequence: int
    event: EventView
    from_states: list[str] | None
    """None: the run began."""
    to_states: list[str]
    at: datetime
    effects: list[Mapping[str, Any]]
    """What it asked for: what is published, sent, timed and called off, each with its id."""
    deferral: Deferral | None
    """Why its event waits, where it does."""
    heard: Heard | None
    """Of a step or a compensation: which attempt its event tells of, and how that ended."""
    context: Any
    """All of it, as it was after this row."""
    hash: str
    may_reenter: bool = False
    """Whether states may have been left that are active again."""

    def as_json(self) -> dict[str, Any]:
        """The documented fields."""
        return {
            "sequence": self.sequence,
            "event": self.event.as_json(),
            "from": self.from_states,
            "to": self.to_states,
            "at": shown_time(self.at),
            "effects": self.effects,
            "deferral": None if self.deferral is None else self.deferral.as_json(),
            "attempt": None if self.heard is None else self.heard.as_json(),
            "context": self.context,
            "hash": self.hash,
        }


async def history(
    connection: Connection,
    namespace: str,
    pipeline: str,
    key: str,
    generation: int | None = None,
    limit: int = 0,
) -> list[HistoryRow]:
    """The rows of a run, oldest first; of a ``limit`` other than 0 the newest so many.

    Raises:
        NotFoundError: there is no such run, or its rows were dropped.
    """
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        run = await find_run(connection, namespace, pipeline, key, generation)
        await check_not_dropped(connection, pipeline, run)
        catalog = await load_catalog(connection, namespace)
        kept: deque[Folded] = deque(maxlen=limit or None)
        async for folded in folded_rows(connection, run):
            kept.append(folded)
    return [history_row(folded, pipeline, catalog) for folded in kept]


def history_row(folded: Folded, pipeline: str, catalog: Catalog) -> HistoryRow:
    """A row as it is shown."""
    before, row, after = folded
    address = Address(catalog.namespace, pipeline, after.key, after.generation, row.sequence)
    return HistoryRow(
        sequence=row.sequence,
        event=event_view(folded, catalog),
        from_states=None if before is None else states_of(before.configuration),
        to_states=states_of(row.configuration),
        at=row.at,
        effects=shown_effects(address, row.kind, row.effects, after.memory),
        deferral=deferral_in(row),
        heard=heard_in(row, b"" if before is None else before.memory, address),
        context=json_of(after.context),
        hash=row.hash.hex(),
        may_reenter=_may_reenter(row, catalog),
    )


def _may_reenter(row: LogRow, catalog: Catalog) -> bool:
    is_move = row.kind in CONSUMED or row.kind == Kind.FIRED
    return is_move and catalog.may_reenter(row.definition, row.type, row.configuration)


def event_view(folded: Folded, catalog: Catalog) -> EventView:
    """The event of a row as it is shown."""
    _, row, after = folded
    place = catalog.positions.get(row.position or 0)
    plain = EventView(row.event_id, row.type, kind_word(row.kind), None, None, None, None, None)
    if place is not None:
        plain = replace(plain, topic=place.topic, partition=place.partition, offset=row.offset)
    decoded = event_in(row, after.key, catalog)
    if decoded is None:
        return plain
    return replace(plain, source=decoded.envelope.source, time=decoded.envelope.time)
