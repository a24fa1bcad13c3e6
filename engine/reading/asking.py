"""What a person asks of dead letters: put into the inbox, where an engine takes it up like any event."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from engine import channels
from engine.commands.stuck import staying_words, would_stay
from engine.commands.words import letter_cure, not_taken
from engine.dispositions import Disposition
from engine.errors import UsageError
from engine.reading.catalog import SQL
from engine.reading.due import memory_of
from engine.reading.explain import Answer, explain
from engine.reading.pauses import paused_names
from engine.store.connecting import Connection
from statemachines.outcome import Reason
from statemachines.undoing import is_stuck

_LOOK_SECONDS = 0.05
_LOOK_SECONDS_MAX = 0.5
_WHO_CHARACTERS_MAX = 1_000
EXPLAINED_MAX = 20
"""Of so many dead letters it is looked up what became of the event of each, for which its log is read."""
_DONE = {"redrive": "redriven", "edit": "redriven", "drop": "dropped"}
"""The status of a dead letter of which that was done."""
_DEAD = (Disposition.DEAD_LETTERED.word, Disposition.LATE.word)
_PUT_BACK = (
    "It is in the outbox again, as it was, and behind all that was committed before: it is published after what its "
    "run has published since. If the broker refuses it again, that is another dead letter."
)


@dataclass(frozen=True, slots=True)
class Asked:
    """What was put into the inbox, and what was left alone."""

    command: str
    """redrive or drop."""
    commands: tuple[tuple[int, int], ...]
    """(dead letter, row of the inbox), in the order in which they will be taken up."""
    skipped: tuple[tuple[int, str], ...]
    """(dead letter, why nothing was asked of it)."""
    is_refused: bool = False
    """Whether one was left alone that is not as it was asked to be, or that nobody knows."""

    def as_json(self) -> dict[str, Any]:
        """The documented fields."""
        return {
            "command": self.command,
            "asked": [letter for letter, _ in self.commands],
            "skipped": [{"id": letter, "reason": why_not} for letter, why_not in self.skipped],
        }


@dataclass(frozen=True, slots=True)
class Became:
    """What became of one dead letter of which something was asked."""

    id: int
    taken: bool
    """Whether an engine took the command up; else it waits in the inbox."""
    status: str
    disposition: str | None
    """What its event is now."""
    sentence: str
    failed: bool = False
    """Whether an engine took it up, and could not carry it out, as where something else was decided of it before; or
    the event is a dead letter again.
    """

    def as_json(self) -> dict[str, Any]:
        """The documented fields."""
        return {
            "id": self.id,
            "taken": self.taken,
            "failed": self.failed,
            "status": self.status,
            "disposition": self.disposition,
            "sentence": self.sentence,
        }


async def ask_redrive(
    connection: Connection, namespace: str, numbers: Iterable[int], *, who: str, why: str
) -> Asked:
    """Ask for open dead letters to be put back: each in its place before those that wait behind it.

    What a broker refused of the events that a run publishes goes back into the outbox, as it was, behind all that was
    committed since. Needs the engine's role. They are taken up in the order of their numbers; what is not open is left
    alone.

    Raises:
        UsageError: it is not said who asks, or why.
    """
    return await _ask(connection, namespace, "redrive", numbers, who, why)


async def ask_drop(
    connection: Connection, namespace: str, numbers: Iterable[int], *, who: str, why: str
) -> Asked:
    """Ask for open dead letters to be given up: what waits behind them goes on. Else as ``ask_redrive``."""
    return await _ask(connection, namespace, "drop", numbers, who, why)


async def _ask(
    connection: Connection,
    namespace: str,
    command: Literal["redrive", "drop"],
    numbers: Iterable[int],
    who: str,
    why: str,
) -> Asked:
    check_said("who asks", who)
    check_said("why", why)
    wanted = sorted(set(numbers))
    async with connection.transaction():
        found = {
            row["id"]: row for row in await connection.fetch(SQL["letters_to_ask_of"], namespace, wanted)
        }
        skipped = [(number, why_not(command, found.get(number))) for number in wanted]
        chosen = [number for number, reason in skipped if not reason]
        # What is only to be published needs no pipeline to be loaded: any engine of the namespace may do it.
        pipelines = [
            None if found[number]["reason"] == Reason.REFUSED_BY_BROKER else found[number]["pipeline"]
            for number in chosen
        ]
        rows = await connection.fetch(SQL["ask"], namespace, command, chosen, pipelines, who, why)
        if rows:
            await connection.execute(SQL["notify"], channels.INBOX)
    commands = sorted(row["id"] for row in rows)
    return Asked(
        command,
        tuple(zip(chosen, commands, strict=True)),
        tuple((number, reason) for number, reason in skipped if reason),
        any(reason and not _is_done(command, found.get(number)) for number, reason in skipped),
    )


def _is_done(command: str, row: Any) -> bool:
    """Whether a dead letter, of which this was found, is as it is asked to be."""
    return row is not None and row["status"] == _DONE[command]


async def wait_until_taken(
    connection: Connection, namespace: str, asked: Asked, *, seconds: float
) -> list[Became]:
    """What became of each once engines took the commands up, or after so many seconds; of more than ``EXPLAINED_MAX``
    whether they failed, and no more.
    """
    left = await wait_for(connection, [command for _, command in asked.commands], seconds=seconds)
    letters = [letter for letter, _ in asked.commands]
    found = {row["id"]: row for row in await connection.fetch(SQL["records_of_letters"], letters)}
    explained = len(letters) <= EXPLAINED_MAX
    names = {one["id"]: one["name"] for one in await connection.fetch(SQL["pipelines"], namespace)}
    paused = await paused_names(connection, namespace)
    return [
        _not_taken(asked.command, letter, found[letter], names, paused)
        if command in left
        else _not_done(asked.command, letter, found[letter])
        or _overtaken(
            asked.command,
            found[letter],
            await _became(connection, namespace, names, letter, found[letter])
            if explained
            else _became_of_many(letter, found[letter]),
        )
        for letter, command in asked.commands
    ]


async def wait_for(
    connection: Connection, commands: Sequence[int], *, seconds: float, each: bool = False
) -> set[int]:
    """Those of these rows of the inbox that no engine took up within so many seconds; with ``each``, after the last."""
    deadline = time.monotonic() + seconds
    pause = _LOOK_SECONDS
    left = await _left(connection, commands)
    while left and (remaining := deadline - time.monotonic()) > 0:
        await asyncio.sleep(min(pause, remaining))
        pause = min(pause * 1.5, _LOOK_SECONDS_MAX)
        before, left = left, await _left(connection, list(left))
        if each and len(left) < len(before):
            deadline = time.monotonic() + seconds
    return left


async def _left(connection: Connection, commands: Sequence[int]) -> set[int]:
    return {row["id"] for row in await connection.fetch(SQL["commands_left"], commands)}


def _not_taken(
    command: str, letter: int, row: Any, names: Mapping[int, str], paused: Collection[str]
) -> Became:
    # As it was asked.
    pipeline = None if row["reason"] == Reason.REFUSED_BY_BROKER else names.get(row["pipeline"])
    sentence = not_taken(command, pipeline, is_paused=pipeline in paused)
    return Became(letter, taken=False, status=str(row["status"]), disposition=None, sentence=sentence)


def _not_done(command: str, letter: int, row: Any) -> Became | None:
    status = str(row["status"])
    if status != "open":
        return None
    sentence = (
        f"An engine took the {command} up and could not carry it out, as its log says; the dead letter "
        "is still open."
    )
    return Became(letter, taken=True, status=status, disposition=None, sentence=sentence, failed=True)


def _overtaken(command: str, row: Any, became: Became) -> Became:
    """What became of it, with what somebody else has decided of it before, where that is another thing."""
    if became.status == _DONE[command] and (command != "edit" or row["is_edited"]):
        return became
    said = f"It was {became.status} before an engine took the {command} up, which changed nothing."
    return replace(became, failed=True, sentence=f"{said} {became.sentence}")


def _became_of_many(letter: int, row: Any) -> Became:
    """By its row alone."""
    status = str(row["status"])
    if status == "redriven" and row["now"] is not None:
        said = "It failed again, and is another dead letter: pointsman dead-letters list --status open."
        return Became(letter, True, status, Disposition.DEAD_LETTERED.word, said, failed=True)
    if row["reason"] == Reason.REFUSED_BY_BROKER and status == "redriven":
        return Became(letter, taken=True, status=status, disposition=None, sentence=_PUT_BACK)
    return Became(letter, True, status, disposition=None, sentence=f"It is {status}.{_held_again(row)}")


async def _became(
    connection: Connection, namespace: str, names: Mapping[int, str], letter: int, row: Any
) -> Became:
    status = str(row["status"])
    if row["reason"] == Reason.REFUSED_BY_BROKER and status == "redriven":
        return Became(letter, taken=True, status=status, disposition=None, sentence=_PUT_BACK)
    answers = await _answers(connection, namespace, names, row)
    if not answers:
        said = f"It is {status}.{_held_again(row)}"
        return Became(letter, taken=True, status=status, disposition=None, sentence=said)
    said = " ".join(answer.current.sentence for answer in answers)
    again = [one for one in answers if one.current.disposition in _DEAD] if status == "redriven" else []
    word = (again or answers)[0].current.disposition
    told = f"It failed again. {said}" if again else f"{said}{_held_again(row)}"
    return Became(letter, True, status, word, told, failed=bool(again))


def _held_again(row: Any) -> str:
    """What holds the run since a dead letter does not any more: an event that waited behind that."""
    if row["holder"] is None:
        return ""
    cure = letter_cure(row["holder"], row["holder_reason"], row["holder_type"])
    what = "an event" if row["holder_event_id"] is None else f"event {row['holder_event_id']!r}"
    return (
        f" The run is held again: {what} failed ({row['holder_reason']}) and is dead letter {row['holder']}. "
        f"{cure.whats} that one to let the run go on: {cure.command}."
    )


async def _answers(
    connection: Connection, namespace: str, names: Mapping[int, str], row: Any
) -> list[Answer]:
    pipeline = names.get(row["pipeline"])
    if row["position"] is None:
        if row["reason"] == Reason.REFUSED_BY_BROKER or row["event_id"] is None:
            return []
        # It came from inside of a run, and has no place.
        inner = await explain(connection, namespace, event_id=row["event_id"])
        return [one for one in inner.answers if one.pipeline == pipeline and one.topic is None]
    place = await connection.fetchrow(SQL["place_of_position"], row["position"])
    assert place is not None, "a dead letter's position is a foreign key"
    found = await explain(
        connection, namespace, topic=place["topic"], partition=place["partition"], offset=row["offset"]
    )
    answers = [
        answer
        for answer in found.answers
        if answer.group == place["consumer_group"] and pipeline in (None, answer.pipeline)
    ]
    # Its record may have held other events, too.
    return [answer for answer in answers if answer.event_id == row["event_id"]] or answers


def why_not(command: str, row: Any) -> str:
    """Why nothing may be asked of a dead letter, of which this was found; empty where it may."""
    if row is None:
        return "there is no such dead letter"
    if row["status"] != "open":
        again = "" if row["now"] is None else f", and is dead letter {row['now']} now"
        return f"it is {row['status']} already{again}"
    if command == "drop" and row["memory"] and is_stuck(memory_of(row["memory"])):
        return (
            "it holds a run that is being undone, and could not go on without it: redrive it, to have it tried again, "
            "or skip what failed, by pointsman skip with the run"
        )
    if command == "drop" and row["memory"] and row["reason"] == Reason.STEP_FAILED:
        failed = next((one for one in memory_of(row["memory"]).executions if one.is_given_up), None)
        if failed is not None and would_stay(row["structure"], failed):
            return (
                f"{staying_words(failed)}: say what {failed.step} has made, by pointsman resolve with the run, have it "
                "begin anew, by pointsman retry, or end the run, by pointsman cancel"
            )
    return ""


def check_said(what: str, text: str) -> None:
    """Refuse what cannot be kept of who asks, and why. Raises UsageError."""
    if not text.strip() or len(text) > _WHO_CHARACTERS_MAX or "\0" in text:
        raise UsageError(f"Say {what}, in a line of at most {_WHO_CHARACTERS_MAX} characters: it is kept.")
