"""Afterwards: a look at the books, ours and those of the others; and one event is put back."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from connectors.kafka.reader import KafkaReader
from engine.demo import story
from engine.demo.books import Books, audit
from engine.demo.watching import Watch
from engine.embedded import Embedded
from engine.reading import (
    Became,
    DeadLetterView,
    Explanation,
    HistoryRow,
    RunAt,
    RunView,
    VerifyReport,
    ask_redrive,
    explain,
    history,
    list_dead_letters,
    list_runs,
    show,
    verify,
    wait_until_taken,
)
from engine.store.connecting import Connection, connect
from statemachines.shipped.orders import flow
from statemachines.shipped.outside import Entry, entries

HEARD_SECONDS = 60.0
REDRIVE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Killed:
    """How the engine was killed."""

    order: str
    """Whose card the bank had charged a moment before."""
    seconds: float
    """Until another engine had that attempt in the log as lost."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that the demo has to show, from what the store and the others' ledger say."""

    records: int
    seconds: float
    dispositions: dict[str, int]
    states: dict[str, int]
    out_topic: str
    heard: dict[str, int]
    """Events published out, by type, as read back from the broker."""
    verified: VerifyReport
    books: Books
    killed: Killed
    killed_run: RunAt
    calls: list[Entry]
    """Those of that order."""
    history_of: str
    history: list[HistoryRow]
    lost_run: RunAt
    explained: Explanation
    dead_letters: list[DeadLetterView]
    redriven: Became
    before: RunView
    after: RunView

    def as_json(self) -> dict[str, Any]:
        """One document."""
        return {
            "records": self.records,
            "seconds": round(self.seconds, 1),
            "dispositions": self.dispositions,
            "states": self.states,
            "heard": self.heard,
            "verify": self.verified.as_json(),
            "ledger": self.books.as_json(),
            "killed": {
                "key": self.killed.order,
                "seconds": round(self.killed.seconds, 1),
                "run": self.killed_run.as_json(),
                "calls": [call_as_json(one) for one in self.calls],
            },
            "lost": self.lost_run.as_json(),
            "history": {"key": self.history_of, "rows": [row.as_json() for row in self.history]},
            "explain": self.explained.as_json(),
            "dead_letters": [letter.as_json() for letter in self.dead_letters],
            "redrive": {
                **self.redriven.as_json(),
                "before": self.before.as_json(),
                "after": self.after.as_json(),
            },
        }


def call_as_json(call: Entry) -> dict[str, Any]:
    """The documented fields."""
    return {"service": call.service, "key": call.key, "answer": call.answer}


async def look(services: Embedded, watch: Watch, ledger: Path, killed: Killed, seconds: float) -> Outcome:
    """See what has become of all of it, while the engine still runs."""
    calls = entries(ledger)
    heard = await _heard(services)
    connection = await connect(services.engine, for_engine=False)
    try:
        before = await _run_of_early(connection)
        letters = await list_dead_letters(connection, story.NAMESPACE)
        return Outcome(
            records=sum(watch.dispositions.values()),
            seconds=seconds,
            dispositions={one.word: count for one, count in sorted(watch.dispositions.items())},
            states=watch.in_state(),
            out_topic=story.OUT,
            heard=heard,
            verified=await verify(connection, story.NAMESPACE),
            books=audit(calls, watch.states),
            killed=killed,
            killed_run=await show(connection, story.NAMESPACE, flow.name, story.KILLED),
            calls=[one for one in calls if one.who == story.KILLED],
            history_of=story.LOST,
            history=await history(connection, story.NAMESPACE, flow.name, story.LOST),
            lost_run=await show(connection, story.NAMESPACE, flow.name, story.LOST),
            explained=await explain(connection, story.NAMESPACE, event_id=story.EXPLAINED),
            dead_letters=letters,
            redriven=await _redrive(connection, letters),
            before=before,
            after=await _run_of_early(connection),
        )
    finally:
        await connection.close()


async def _redrive(connection: Connection, letters: list[DeadLetterView]) -> Became:
    (early,) = [letter.id for letter in letters if letter.key == story.EARLY]
    asked = await ask_redrive(connection, story.NAMESPACE, [early], who="demo", why="its order has come")
    (redriven,) = await wait_until_taken(connection, story.NAMESPACE, asked, seconds=REDRIVE_SECONDS)
    return redriven


async def _run_of_early(connection: Connection) -> RunView:
    (found,) = await list_runs(connection, story.NAMESPACE, key=story.EARLY)
    return found


async def _heard(services: Embedded) -> dict[str, int]:
    """What others would read of us, by type."""
    reader = KafkaReader(services.kafka)
    await reader.start()
    try:
        partitions = await reader.partitions_of(story.OUT)
        ends = await reader.ends(partitions)
        positions = await reader.earliest(partitions)
        reader.assign(positions)
        counts: Counter[str] = Counter()
        deadline = time.monotonic() + HEARD_SECONDS
        while any(positions[one] < end for one, end in ends.items()) and time.monotonic() < deadline:
            chunk = await reader.fetch(records_max=1_000, wait_seconds=1.0)
            positions.update(chunk.positions)
            for records in chunk.records.values():
                counts.update(_type_of(record.value or b"") for record in records)
        return dict(counts.most_common())
    finally:
        await reader.stop()


def _type_of(value: bytes) -> str:
    return str(orjson.loads(value)["type"])
