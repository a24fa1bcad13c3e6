"""What must hold of trips and stations afterwards."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from engine.envelope import decode_envelope
from engine.log import Kind, LogRow, microseconds
from tests.chaos.checks import equal
from tests.chaos.oracle import Found
from tests.chaos.slots import World
from tests.chaos.trip_oracle import FOR_HOURS, TripOracle

_RUNS = """
select r.id, r.key, r.generation, r.status, r.configuration, r.context, r.held, r.waiting, r.wake_at
from pointsman.runs r join pointsman.pipelines p on p.id = r.pipeline where p.namespace = $1 and p.name = $2
"""
_OPEN = {"expected": "", "booked": "booked", "lapsed": "lapsed", "arrived": "arrived"}


async def check_trips(world: World, oracle: TripOracle, rows: dict[int, list[LogRow]]) -> None:
    """Every trip is where the oracle says, and each timer fired once, not before its time, or never."""
    found: dict[tuple[str, int], Any] = {}
    fired: dict[tuple[str, int], Counter[str]] = {}
    for row in await world.ask(_RUNS, world.namespace, "trip"):
        context = json.loads(row["context"] or b"{}")
        told = context.get("told", 0), context.get("bags", 0)
        # Behind it is what the history remembers, and what comes of that is in the configuration.
        configuration, _, _ = row["configuration"].partition("  ")
        which = row["key"], row["generation"]
        found[which] = (configuration, row["held"], row["waiting"], *told)
        fired[which] = _fired(rows[row["id"]])
    expected = {
        key: (
            _OPEN.get(trip.state) or (trip.state if trip.state != "expected" else ""),
            0,
            len(trip.waits),
            len(trip.said),
            trip.bags,
        )
        for key, trip in oracle.trips.items()
        if trip.state != "under-way"
    }
    # Those that are under way are told by what they said; their configuration is that of two regions.
    for key, trip in oracle.trips.items():
        if trip.state == "under-way":
            where = f"under-way train {trip.train} luggage checked"
            expected[key] = (where, 0, len(trip.waits), len(trip.said), trip.bags)
    equal("trips", found, expected)
    equal("what fell due", fired, {key: +trip.fired for key, trip in oracle.trips.items()})


def _fired(chain: Iterable[LogRow]) -> Counter[str]:
    """What fell due for a run, by type: none before its time, and in no case for nothing."""
    found: Counter[str] = Counter()
    at = None
    for row in chain:
        assert at is None or row.at >= at, f"the time of run {row.run} goes backwards at row {row.sequence}"
        at = row.at
        # What is ignored, and counts as seen, is in the log; what falls due is never passed over.
        is_ignored = row.kind == Kind.PASSED and row.type == FOR_HOURS
        assert is_ignored or row.kind not in (Kind.PASSED, Kind.HELD_FIRED), (
            f"run {row.run}, row {row.sequence}: {row.type}"
        )
        if row.kind == Kind.FIRED:
            due, _, _ = decode_envelope(row.envelope, b"")
            assert microseconds(row.at) // 1_000 >= due, f"run {row.run}: {row.type} came too early"
            found[row.type] += 1
    return found


async def check_stations(world: World, oracle: TripOracle, rows: dict[int, list[LogRow]]) -> None:
    """Each trip that arrived has told its station of it once."""
    found: dict[str, Any] = {}
    for row in await world.ask(_RUNS, world.namespace, "station"):
        context = json.loads(row["context"])
        told = [json.loads(one.payload or b"")["data"] for one in rows[row["id"]]]
        trips = Counter((one["trip"], one["number"]) for one in told)
        assert set(trips.values()) == {1}, f"told more than once: {trips}"
        found[row["key"]] = (context["visits"], context["total"], set(trips))
    equal("stations", found, oracle.stations())


def check_told(oracle: TripOracle, records: list[Found]) -> None:
    """Trips said each thing once, and in order; stations counted one after the other."""
    trips: dict[str, list[list[tuple[str, int]]]] = {}
    stations: dict[str, list[int]] = {}
    ids: Counter[str] = Counter()
    for record in records:
        event = json.loads(record.value or b"")
        data, key = event["data"], event["subject"]
        ids[event["id"]] += 1
        if event["type"] == "trip.told":
            lives = trips.setdefault(key, [])
            if data["told"] == 1:
                lives.append([])
            said = lives[-1]
            said.append((data["what"], data["bags"]))
            assert data["told"] == len(said), f"{key} said {data} as its number {len(said)}"
        else:
            stations.setdefault(key, []).append(data["visits"])
    assert set(ids.values()) <= {1}, (
        f"ids published twice: {[one for one, count in ids.items() if count > 1]}"
    )
    said_by: dict[str, list[list[tuple[str, int]]]] = {}
    for (key, _), trip in sorted(oracle.trips.items()):
        if trip.said:
            said_by.setdefault(key, []).append(trip.said)
    equal("what trips said", trips, said_by)
    expected = {key: list(range(1, visits + 1)) for key, (visits, _, _) in oracle.stations().items()}
    equal("what stations counted", stations, expected)
