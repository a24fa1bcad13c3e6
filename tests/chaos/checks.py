"""What must hold afterwards, asked of Postgres in plain SQL and of Kafka by a reader of committed records."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter, defaultdict
from typing import Any

from engine.dispositions import Disposition
from engine.log import COLUMNS, Kind, LogRow, fold, seal
from statemachines.run import Run
from tests.chaos.oracle import FINAL, READERS, Found, Oracle
from tests.chaos.slots import REPOSITORY, World

SHOWN = 12

_LOG = "select {} from pointsman.events e order by e.run, e.sequence".format(
    ", ".join(f'e."{name}"' for name in COLUMNS)
)
_RUNS = """
select r.id, r.key, r.generation, r.sequence, r.status, r.configuration, r.context, r.recent, r.hash,
    r.definition, r.held, r.waiting, r.started, r.updated, r.memory, p.name
from pointsman.runs r join pointsman.pipelines p on p.id = r.pipeline where p.namespace = $1
"""
_LETTERS = """
select d.id, p.name, d.run, d.sequence, d.reason, d.disposition, o.topic, o.partition, d."offset", d.status,
    d.publishing
from pointsman.dead_letters d left join pointsman.pipelines p on p.id = d.pipeline
join pointsman.positions o on o.id = d.position where d.namespace = $1
"""
_NOTED = """
select n.disposition, p.name, o.topic, o.partition, n."offset"
from pointsman.dispositions n join pointsman.pipelines p on p.id = n.pipeline
join pointsman.positions o on o.id = n.position where p.namespace = $1
"""
_RANGES = """
select o.topic, o.partition, r.first, r.last, r.records
from pointsman.ignored_ranges r join pointsman.positions o on o.id = r.position where o.namespace = $1
"""
_POSITIONS = "select id, topic, partition, position from pointsman.positions where namespace = $1"


def equal(what: str, found: Any, expected: Any) -> None:
    """Assert that two dictionaries are equal, and show where they are not."""
    if found == expected:
        return
    keys = sorted({*found, *expected}, key=str)
    wrong = [
        f"  {key}: found {found.get(key)!r}, expected {expected.get(key)!r}"
        for key in keys
        if found.get(key) != expected.get(key)
    ]
    more = "" if len(wrong) <= SHOWN else f"\n  and {len(wrong) - SHOWN} more"
    raise AssertionError(f"{what}: {len(wrong)} differ\n" + "\n".join(wrong[:SHOWN]) + more)


async def check_chains(world: World) -> dict[int, list[LogRow]]:
    """Sequences without gaps, hashes that follow one another, and every fold equal to its row."""
    rows: dict[int, list[LogRow]] = defaultdict(list)
    for found in await world.ask(_LOG):
        rows[found[0]].append(LogRow(*found))
    runs = {row[0]: row for row in await world.ask(_RUNS, world.namespace)}
    assert rows.keys() == runs.keys(), f"log and runs differ in {sorted(rows.keys() ^ runs.keys())[:SHOWN]}"
    wrong = []
    for number, chain in rows.items():
        previous = b""
        folded: Run | None = None
        for expected, row in enumerate(chain, 1):
            if row.sequence != expected:
                wrong.append(f"run {number}: sequence {row.sequence} where {expected} must be")
            if row.hash != seal(previous, tuple(row)[:-1]):
                wrong.append(f"run {number}: the hash of row {row.sequence} does not follow the one before")
            previous = row.hash
            folded = fold(folded, row, key=runs[number][1], generation=runs[number][2])
        assert folded is not None
        if tuple(folded)[:15] != tuple(runs[number])[:15]:
            wrong.append(f"run {number}: folded {folded} and stored {tuple(runs[number])[:15]}")
        waits = {r.sequence for r in chain if r.kind in (Kind.WAITED, Kind.DEFERRED)}
        if len(waits) < folded.waiting:
            wrong.append(f"run {number}: {folded.waiting} wait, {len(waits)} ever came")
    assert not wrong, f"{len(wrong)} breaks of the log:\n" + "\n".join(wrong[:SHOWN])
    return rows


async def check_by_command(world: World, *arguments: str) -> str:
    """A command of ``pointsman`` that ends with 0 where all is well; returns what it says."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "engine.cli", *arguments, "--namespace", world.namespace),
        cwd=REPOSITORY,
        env=world.environment(world.postgres_port),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    text = said.decode(errors="replace")
    assert process.returncode == 0, f"pointsman {' '.join(arguments)} found:\n{text}"
    return text


async def check_runs(world: World, oracle: Oracle) -> None:
    """Every run is where the oracle says."""
    found = {}
    for row in await world.ask(_RUNS, world.namespace):
        if row["name"] in ("trip", "station"):
            continue
        context = json.loads(row["context"])
        assert (row["name"], row["key"]) not in found, f"two runs of {row['name']} {row['key']}"
        found[row["name"], row["key"]] = (
            row["configuration"],
            row["status"] == 2,
            context["grams"],
            context["moves"] if row["name"] == "parcel" else context["entries"],
            row["held"] > 0,
            row["waiting"],
        )
    expected = {
        (name, key): (
            run.configuration,
            run.state in FINAL,
            run.grams,
            run.moves if name == "parcel" else run.entries,
            run.held,
            len(run.waiting),
        )
        for (name, key), run in oracle.runs.items()
    }
    equal("runs", found, expected)
    (waiting,) = await world.ask(
        "select count(*) from pointsman.waiting w join pointsman.runs r on r.id = w.run "
        "join pointsman.pipelines p on p.id = r.pipeline where p.namespace = $1 and w.until is null",
        world.namespace,
    )
    assert waiting[0] == sum(len(run.waiting) for run in oracle.runs.values())


async def check_dispositions(world: World, oracle: Oracle, rows: dict[int, list[LogRow]]) -> Counter[str]:
    """Every record has one disposition for each pipeline that reads it, and it is the expected one."""
    names = {row[0]: row["name"] for row in await world.ask(_RUNS, world.namespace)}
    places = {row[0]: (row[1], row[2]) for row in await world.ask(_POSITIONS, world.namespace)}
    found: dict[Any, list[str]] = defaultdict(list)
    for number, chain in rows.items():
        for (position, offset), words in _words_of(chain).items():
            found[(*places[position], offset), names[number]] += words
    for letter in await world.ask(_LETTERS, world.namespace):
        place = (letter["topic"], letter["partition"], letter["offset"])
        concerned = [letter["name"]] if letter["name"] else READERS[place[0].removesuffix(world.suffix)]
        for name in concerned:
            found[place, name].append(Disposition(letter["disposition"]).word)
    for note in await world.ask(_NOTED, world.namespace):
        found[(note["topic"], note["partition"], note["offset"]), note["name"]].append(
            Disposition(note["disposition"]).word
        )
    for topic, partition, first, last, records in await world.ask(_RANGES, world.namespace):
        inside = [
            place
            for (place, name), word in oracle.dispositions.items()
            if place[:2] == (topic, partition) and first <= place[2] <= last
        ]
        assert len(inside) == records, f"{topic}/{partition} {first} to {last} says {records}, has {inside}"
        for one in inside:
            found[one, "ledger"].append("ignored")
    equal("dispositions", dict(found), {key: [word] for key, word in oracle.dispositions.items()})
    return Counter(oracle.dispositions.values())


_WORDS = {
    Kind.STARTED: "started",
    Kind.MOVED: "applied",
    Kind.MOVED_AFTER_WAIT: "applied",
    Kind.MOVED_DEFERRED: "applied",
}
_WAITS = {
    Kind.WAITED: ("held", 1),
    Kind.MOVED_AFTER_WAIT: ("held", -1),
    Kind.HELD_AFTER_WAIT: ("held", -1),
    Kind.LEFT_WAITING: ("held", -1),
    Kind.DEFERRED: ("deferred", 1),
    Kind.MOVED_DEFERRED: ("deferred", -1),
    Kind.HELD_DEFERRED: ("deferred", -1),
    Kind.LEFT_DEFERRED: ("deferred", -1),
}
"""What begins and ends the time in which a record waits."""


def _words_of(chain: list[LogRow]) -> dict[tuple[int, int], list[str]]:
    """By position and offset: what the log says of a record now; a dead letter says so itself."""
    found: dict[tuple[int, int], list[str]] = defaultdict(list)
    waits: dict[tuple[tuple[int, int], str], int] = Counter()
    for row in chain:
        if not row.position or row.offset is None:
            continue
        place, kind = (row.position, row.offset), Kind(row.kind)
        if kind in _WORDS:
            found[place].append(_WORDS[kind])
        if kind in _WAITS:
            word, change = _WAITS[kind]
            waits[place, word] += change
    for (place, word), count in waits.items():
        assert count in {0, 1}, f"{place} is {word} {count} times"
        found[place] += [word] * count
    return found


async def check_positions(world: World, ends: dict[tuple[str, int], int]) -> None:
    """Every position is at the end of its partition."""
    rows = await world.ask(_POSITIONS, world.namespace)
    equal("positions", {(row[1], row[2]): row[3] for row in rows}, ends)


def check_output(oracle: Oracle, out: list[Found]) -> None:
    """Each expected event once, and those of a run in order."""
    found: dict[tuple[str, str], list[tuple[str, dict[str, Any]]]] = {}
    ids: Counter[str] = Counter()
    partitions: dict[str, set[int]] = defaultdict(set)
    for record in out:
        event = json.loads(record.value or b"")
        key = (record.key or b"").decode()
        ids[event["id"]] += 1
        partitions[key].add(record.partition)
        name = event["source"].rsplit("/", 1)[1]
        assert event["subject"] == key
        found.setdefault((name, key), []).append((event["causationid"], event["data"]))
    assert not [key for key, where in partitions.items() if len(where) > 1], (
        "a run's events in two partitions"
    )
    equal("published events", found, oracle.out)
    assert set(ids.values()) <= {1}, f"ids published twice: {[i for i, n in ids.items() if n > 1][:SHOWN]}"


async def check_dead_letters(world: World, oracle: Oracle, records: list[Found], out: list[Found]) -> None:
    """The table and the topics have each expected dead letter once, the topics with the record as it came."""
    letters = await world.ask(_LETTERS, world.namespace)
    table = Counter(
        ((letter["topic"], letter["partition"], letter["offset"]), letter["name"], letter["reason"])
        for letter in letters
    )
    expected = Counter((place, name, reason) for (place, name), reason in oracle.dead.items())
    equal("dead letters in the table", table, expected)
    pending = [letter["id"] for letter in letters if letter["publishing"] != "published"]
    assert not pending, f"dead letters not marked as published: {pending[:SHOWN]}"
    came = {record.place: record for record in records}
    topics: Counter[Any] = Counter()
    numbers: Counter[str] = Counter()
    for record in out:
        said = {name: value.decode() for name, value in record.headers if name.startswith("pointsman-")}
        place = (
            said["pointsman-topic"],
            int(said["pointsman-partition"]),
            int(said["pointsman-offset"]),
        )
        topics[place, said.get("pointsman-pipeline"), said["pointsman-reason"]] += 1
        numbers[said["pointsman-dead-letter"]] += 1
        assert record.topic == f"{place[0]}.dead-letters"
        assert (record.key, record.value) == (came[place].key, came[place].value), place
    equal("dead letters in the topics", topics, expected)
    equal("numbers of dead letters", numbers, Counter(str(letter["id"]) for letter in letters))
