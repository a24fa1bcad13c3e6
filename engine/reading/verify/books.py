"""What must hold between the tables: definitions, positions, dead letters, and what waits to leave."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from engine.log import CONSUMED, Kind
from engine.outbox import CorruptBlobError, decode
from engine.reading.catalog import SQL, Catalog
from engine.reading.verify.report import Finding
from engine.store.connecting import Connection
from statemachines.run import Status

_CONSUMED = sorted(int(kind) for kind in CONSUMED)
_BLOBS_AHEAD = 20


async def check_strays(connection: Connection, namespace: str) -> AsyncIterator[Finding]:
    """Rows that belong to no run, and definitions that are not what their hash says."""
    for row in await connection.fetch(SQL["rows_without_run"], namespace):
        yield Finding(
            f"The log has {row['rows']} rows of run number {row['run']}, and there is no such run.",
            sequence=row["sequence"],
        )
    for row in await connection.fetch(SQL["waiting_without_run"]):
        yield Finding(
            f"An event waits in run number {row['run']}, and there is no such run.", sequence=row["sequence"]
        )
    for row in await connection.fetch(SQL["attributes_without_run"]):
        yield Finding(f"There are search attributes of run number {row['run']}, and there is no such run.")
    for row in await connection.fetch(SQL["executions_without_run"]):
        yield Finding(
            f"A step waits for its turn in run number {row['run']}, and there is no such run.",
            sequence=row["sequence"],
        )
    for row in await connection.fetch(SQL["changed_definitions"], namespace):
        yield Finding(
            f"Definition {row['id']} ({row['name']} version {row['version']}) was changed: its structure "
            "does not have its hash.",
            row["name"],
        )


async def check_consumed_once(
    connection: Connection, catalog: Catalog, pipelines: Sequence[int], run: int | None
) -> AsyncIterator[Finding]:
    """Each record moves one run of a pipeline, once."""
    several = [number for number in catalog.positions if catalog.holds_several(number)]
    async for row in connection.cursor(SQL["consumed_twice"], pipelines, _CONSUMED, run, several):
        place = catalog.positions.get(row["position"])
        where = f"{place.topic}/{place.partition}" if place else f"position {row['position']}"
        runs = "one run" if row["first"] == row["last"] else f"runs number {row['first']} and {row['last']}"
        pipeline = catalog.pipelines.get(row["pipeline"])
        yield Finding(
            f"Offset {row['offset']} of {where} was consumed {row['times']} times for {pipeline}, by {runs}.",
            pipeline,
        )


async def check_generations(
    connection: Connection, catalog: Catalog, pipelines: Sequence[int], run: int | None
) -> AsyncIterator[Finding]:
    """One run of a key is over before the next one begins, and what it consumed is not consumed again."""
    asked = pipelines, run
    for row in await connection.fetch(SQL["generations_out_of_place"], *asked, int(Status.COMPLETED)):
        name, which = catalog.pipelines.get(row["pipeline"]), f"Generation {row['generation']}"
        what = "there is none before it"
        if row["before"] is not None:
            what = f"generation {row['before']} had not ended when it began"
        yield Finding(
            f"{which} of the run {row['key']!r} of {name} is out of place: {what}.",
            name,
            row["key"],
            row["generation"],
        )
    for row in await connection.fetch(SQL["consumed_by_generations"], *asked):
        name = catalog.pipelines.get(row["pipeline"])
        yield Finding(
            f"In the run {row['key']!r} of {name}, generation {row['generation']}, row {row['sequence']} consumed the "
            f"event {row['event_id']!r}, which generation {row['before']} had consumed in row {row['first']}.",
            name,
            row["key"],
            row["generation"],
            row["sequence"],
        )


async def check_letters(connection: Connection, namespace: str, run: int | None) -> AsyncIterator[Finding]:
    """A dead letter that holds a run is ended with the hold, and not before."""
    for row in await connection.fetch(SQL["letters_without_hold"], namespace, run, int(Kind.CANCELLED)):
        yield Finding(
            f"Dead letter {row['id']} is open and should hold the run {row['key']!r} of {row['pipeline']} "
            f"since row {row['sequence']}, and does not.",
            row["pipeline"],
            row["key"],
            sequence=row["sequence"],
        )


async def check_lanes(connection: Connection, namespace: str) -> AsyncIterator[Finding | int]:
    """The outbox has all rows from the deleted ones to the last ticket; yields each row's records, too."""
    lanes = {row["id"]: row for row in await connection.fetch(SQL["lanes"], namespace)}
    for lane in lanes.values():
        ticket, deleted, rows = lane["ticket"], lane["deleted"], lane["rows"]
        whole = rows == 0 if ticket == deleted else (lane["first"], lane["last"]) == (deleted + 1, ticket)
        if deleted > ticket or rows != ticket - deleted or not whole:
            has = f"{rows} rows" if not rows else f"{rows} rows, {lane['first']} to {lane['last']}"
            yield Finding(
                f"Lane {lane['shard']} of the outbox should have the rows {deleted + 1} to {ticket}, "
                f"and has {has}."
            )
    async for row in connection.cursor(SQL["blobs"], list(lanes), prefetch=_BLOBS_AHEAD):
        try:
            yield len(decode(row["blob"]))
        except CorruptBlobError as error:
            shard = lanes[row["lane"]]["shard"]
            yield Finding(f"Row {row['sequence']} of lane {shard} of the outbox: {error}")
