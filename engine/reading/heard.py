"""What a row of the log says of a step or a compensation: which attempt it tells of, and how that ended. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from engine.log import LogRow
from engine.reading.due import memory_of
from engine.reading.values import shown_time
from statemachines.durations import told_time
from statemachines.events import (
    STEP_DONE,
    STEP_FAILED,
    STEP_RETRIED,
    STEP_SKIPPED,
    STEP_STOPPED,
    STEP_TRIED,
    STEP_WAITS,
    Address,
    is_result,
)
from statemachines.memory import Execution, Memory, time_of
from statemachines.step import TIMED_OUT
from statemachines.undoing import ENDED, FAILED, NEVER, was_lost

DONE, NOT_BEGUN, RAISED, TOO_LONG, LOST, CUT_SHORT, NOBODY_KNOWS, OUTSIDE = (
    "done", "not begun", "failed", "timed out", "lost", "cut short", "unknown", "outside",
)  # fmt: skip
"""How an attempt ended."""
RETRIED, SKIPPED = "retried", "skipped"
"""What an operator has decided of an execution that had failed for good."""
_HOWS = {ENDED: DONE, FAILED: RAISED, NEVER: NOT_BEGUN}


@dataclass(frozen=True, slots=True)
class Named:
    """One execution of a step or of a compensation."""

    name: str
    execution: str
    """What tells it from all others of its run: the row that asked for it, and its number there."""
    idempotency_key: str

    def as_json(self) -> dict[str, Any]:
        """The documented fields."""
        return {
            "name": self.name,
            "execution": self.execution,
            "idempotency_key": self.idempotency_key,
        }


@dataclass(frozen=True, slots=True)
class Heard:
    """How an attempt ended, as an event says it to the run."""

    of: Named
    undoes: Named | None
    """Of a compensation: what it undoes."""
    attempt: int
    outcome: str
    """done, failed, timed out, lost (with its engine), cut short (its engine was stopped), not begun or unknown;
    retried or skipped, by an operator; or outside, where it goes on."""
    is_final: bool
    """Whether no other attempt comes behind it."""
    stopped: bool
    """Whether its state had been left before."""
    again: datetime | None
    """When the next attempt may begin."""
    error: str | None
    """As in ``Class: message``."""
    result: Any
    """What it returned."""
    by: str | None = None
    """The operator who has said so; None: none did."""
    token: str | None = None
    """What it is completed by, where it goes on outside."""
    until: datetime | None = None
    """How long that is waited for; None: as long as its state is active."""

    def as_json(self) -> dict[str, Any]:
        """The documented fields."""
        return {
            **self.of.as_json(),
            "undoes": None if self.undoes is None else self.undoes.as_json(),
            "attempt": self.attempt,
            "outcome": self.outcome,
            "final": self.is_final,
            "stopped": self.stopped,
            "again": shown_time(self.again),
            "error": self.error,
            "by": self.by,
            "token": self.token,
            "until": shown_time(self.until),
        }

    def words(self, error_characters: int | None = None) -> str:
        """All of it as a sentence, without its beginning and its end; errors are cut to so many characters."""
        undoes = "" if self.undoes is None else f", which undoes {self.undoes.name},"
        attempt = f"attempt {self.attempt} of {self.of.name}{undoes}"
        if self.by is not None:
            return self._decided()
        if self.outcome == NOT_BEGUN:
            return f"{attempt} was not begun before its state was left"
        if self.outcome == NOBODY_KNOWS:
            return f"it is not known what {attempt} did before it was stopped"
        if self.outcome == DONE:
            return f"{attempt} was done" + (
                ", although its state had been left by then" if self.stopped else ""
            )
        if self.outcome == OUTSIDE:
            until = "" if self.until is None else f", by {told_time(self.until)}"
            return f"{attempt} goes on outside, and is to be completed by the token {self.token!r}{until}"
        if self.outcome == CUT_SHORT:
            return f"{attempt} does not count, for the engine was stopped{self._next}"
        how = {TOO_LONG: "took too long", LOST: "was lost with its engine"}.get(self.outcome, "failed")
        error = "" if self.error is None else f" ({_shortened(self.error, error_characters)})"
        return f"{attempt} {how}{error}{self._next}"

    def _decided(self) -> str:
        name = self.of.name if self.undoes is None else f"{self.of.name}, which undoes {self.undoes.name},"
        if self.outcome == RETRIED:
            return f"{self.by} has had {name} begin anew after attempt {self.attempt}"
        if self.outcome == SKIPPED:
            not_done = f"{self.by} has had the run go on without {self.of.name}"
            undone = None if self.undoes is None else self.undoes.name
            return not_done if undone is None else f"{not_done}: {undone} is not undone, and owed no more"
        return f"{self.by} has said what {name} returned, so that it counts as done"

    @property
    def _next(self) -> str:
        if self.stopped:
            return ", and its state has been left"
        if self.is_final:
            return ", and is not tried again"
        return "" if self.again is None else f", and is tried again from {told_time(self.again)} on"


def heard_in(row: LogRow, before: bytes, run: Address) -> Heard | None:
    """What a row says of a step; None: nothing. ``before`` is what the run remembered before it."""
    # What came with a record only has such a name.
    if row.position or not is_result(row.type):
        return None
    return heard_of(row.type, row.payload, memory_of(before), run)


def heard_of(event_type: str, payload: bytes | None, before: Memory, run: Address) -> Heard | None:
    """What an event says of a step; None: it is not about one, or cannot be read."""
    said = said_in(payload)
    execution = execution_in(event_type, said, before) if is_result(event_type) else None
    if execution is None:
        return None
    outcome = _outcome(event_type, said, execution.step)
    if outcome == OUTSIDE and execution.stopping:
        outcome = NOBODY_KNOWS
    again, attempt = said.get("again"), said.get("attempt")
    is_outside = outcome == OUTSIDE
    return Heard(
        named(run, execution),
        undone_by(run, execution, before),
        attempt if isinstance(attempt, int) else execution.attempt,
        outcome,
        not event_type.startswith((STEP_TRIED, STEP_RETRIED, STEP_WAITS)) or bool(execution.stopping),
        bool(execution.stopping) or event_type.startswith(STEP_STOPPED),
        None if execution.stopping else moment_of(again),
        f"{said['error']}: {said.get('message', '')}" if "error" in said else None,
        said.get("data") if outcome == DONE else None,
        str(said["by"]) if "by" in said else None,
        str(said.get("token")) if is_outside else None,
        moment_of(said.get("until")) if is_outside else None,
    )


def said_in(payload: bytes | None) -> dict[str, Any]:
    """The data of an event that tells of a step; one that was tampered with says nothing."""
    try:
        said = orjson.loads(payload or b"")["data"]
    except (ValueError, TypeError, LookupError):
        return {}
    return said if isinstance(said, dict) else {}


def execution_in(event_type: str, said: dict[str, Any], before: Memory) -> Execution | None:
    """The execution that an event tells of, as the run remembered it; if it did not, as far as the event says."""
    asked = str(said.get("execution"))
    known = before.execution(asked)
    if known is not None:
        return known
    sequence, _, number = asked.partition(".")
    step = event_type.split(".", 2)[2].partition(".")[0]
    try:
        return Execution(int(sequence), int(number), step, "")
    except ValueError:
        return None


def named(run: Address, execution: Execution) -> Named:
    """An execution with its name and its key."""
    return Named(execution.step, execution.id, key_of(run, execution.id))


def undone_by(run: Address, execution: Execution, memory: Memory) -> Named | None:
    """What a compensation undoes; None: it is none, or is owed no more."""
    return step_owed(run, execution.of, memory) if execution.of else None


def step_owed(run: Address, of: str, memory: Memory) -> Named | None:
    """The execution of a step that is owed, by its id; None: it is not, by what the run remembers."""
    found = next((one for one in memory.owed if one.id == of), None)
    return None if found is None else Named(found.step, found.id, key_of(run, found.id))


def key_of(run: Address, execution: str) -> str:
    """What all attempts at an execution are known by; ``run`` is the address of any move of the run."""
    try:
        return run.id_of_execution(execution)
    except ValueError:  # a log that was tampered with is what verify finds
        return ""


def moment_of(microseconds: Any) -> datetime | None:
    """A time as the log has it; None where it has none, or none that a calendar has."""
    try:
        return time_of(microseconds) if isinstance(microseconds, int) and microseconds > 0 else None
    except OverflowError:
        return None


def _outcome(event_type: str, said: dict[str, Any], step: str) -> str:
    if event_type.startswith(STEP_DONE):
        return DONE
    if event_type.startswith(STEP_WAITS):
        return OUTSIDE
    if event_type.startswith(STEP_STOPPED):
        return _HOWS.get(str(said.get("how")), NOBODY_KNOWS)
    if event_type.startswith((STEP_RETRIED, STEP_SKIPPED)):
        return RETRIED if event_type.startswith(STEP_RETRIED) else SKIPPED
    if event_type == f"{STEP_FAILED}{step}.{TIMED_OUT}":
        return TOO_LONG
    if said.get("stopped") is True:
        return CUT_SHORT
    return LOST if was_lost(said) else RAISED


def _shortened(text: str, characters: int | None) -> str:
    line = " ".join(text.split())
    return line if characters is None or len(line) <= characters else f"{line[: characters - 1]}…"
