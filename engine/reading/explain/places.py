"""What the positions say of an offset of which nothing is recorded."""

from __future__ import annotations

from collections.abc import Sequence

from engine.reading.catalog import SQL, Catalog, StoredPosition
from engine.store.connecting import Connection
from statemachines.suggest import did_you_mean


async def without_answer(
    connection: Connection,
    catalog: Catalog,
    places: Sequence[StoredPosition],
    topic: str,
    partition: int,
    offset: int,
) -> tuple[bool, list[str]]:
    """Whether it is known why nothing is recorded, and what to say."""
    if not places:
        return False, [_never_read(catalog, topic, partition)]
    known, notes = False, []
    for place in places:
        if offset >= place.position:
            notes.append(_not_yet(place, offset))
            continue
        skips = await connection.fetch(SQL["changes_over"], place.id, offset)
        known = known or bool(skips)
        notes += [
            f"Offset {offset} of {place.topic}/{place.partition} was skipped by {one['who']}, who set the "
            f"position of the group {place.group!r} from {one['old']} to {one['new']}: {one['why']}"
            for one in skips
        ] or [_nothing_there(place, offset)]
    return known, notes


def _never_read(catalog: Catalog, topic: str, partition: int) -> str:
    topics = dict.fromkeys(one.topic for one in catalog.positions.values())
    if topic in topics:
        return f"Partition {partition} of {topic} has no position in the namespace {catalog.namespace!r}."
    return (
        f"No engine of the namespace {catalog.namespace!r} ever read the topic {topic!r}. "
        f"{did_you_mean(topic, topics)}"
    )


def _not_yet(place: StoredPosition, offset: int) -> str:
    return (
        f"Offset {offset} of {place.topic}/{place.partition} is not yet consumed by the group "
        f"{place.group!r}: its position is {place.position}."
    )


def _nothing_there(place: StoredPosition, offset: int) -> str:
    return (
        f"No such record is known at offset {offset} of {place.topic}/{place.partition}, although the group "
        f"{place.group!r} is past it (position {place.position}): either no record was there to be read (a "
        "transaction's marker, an aborted or a compacted record), or the group began behind it."
    )
