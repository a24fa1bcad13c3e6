"""What operators ask of runs: put into the inbox, where an engine takes it up like any event; and what became of it."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

import orjson

from connectors.decode import Unreadable, decode
from engine import channels
from engine.commands.operators import operators_event, operators_record, operators_source
from engine.commands.words import not_taken
from engine.errors import UsageError
from engine.reading.asking import check_said, wait_for
from engine.reading.catalog import SQL
from engine.reading.errors import NotFoundError
from engine.reading.explain import Change, Sent, explain
from engine.reading.pauses import paused_names
from engine.reading.runs import find_run
from engine.reading.values import askable, json_of
from engine.store.connecting import Connection
from statemachines.fields import field_of
from statemachines.limits import KEY_BYTES_MAX
from statemachines.outcome import Reason
from statemachines.patterns import covers, is_from_inside
from statemachines.suggest import did_you_mean
from statemachines.topic import NO_TOPIC

What = Literal["pause", "resume", "cancel", "retry", "skip", "resolve"]
WhatOfPipeline = Literal["pause", "resume"]
STUCK: frozenset[What] = frozenset({"retry", "skip", "resolve"})
"""What is for runs that the failure of a step holds."""
EXPLAINED_MAX = 20
DATA_BYTES_MAX = 1_000_000
"""As much as a record of Kafka has where nothing else is said."""


@dataclass(frozen=True, slots=True)
class AskedOfRun:
    """A command that was put into the inbox."""

    id: int
    command: str
    pipeline: str
    key: str
    event_id: str | None = None
    """Of what was sent."""
    token: str | None = None
    """Of a step that is to be completed."""


@dataclass(frozen=True, slots=True)
class Done:
    """What became of it."""

    asked: AskedOfRun
    taken: bool
    """Whether an engine took it up; else it waits in the inbox."""
    done: bool
    """Whether the run is as was asked; of an event, that it is no dead letter. What waits in the inbox is not."""
    disposition: str | None
    """What an event that was sent is now."""
    dead_letter: int | None
    """The dead letter that it became."""
    sentence: str
    event_id: str | None = None
    """Of the event that completes a step."""
    reason: str | None = None
    """Why an event that was sent is a dead letter, or what was asked was dropped; of a dry run, why the run would stay
    as it is."""
    generation: int | None = None
    """The run's, where a row of its log tells what became of an event."""
    sequence: int | None = None
    """That row."""
    configuration: tuple[str, ...] = ()
    """The run's active states after it, outermost first."""
    before: tuple[int, ...] = ()
    """The open dead letters that hold nothing, and that an event had become which was sent by its id before."""

    @property
    def failed(self) -> bool:
        """Whether it was taken up and could not be done."""
        return self.taken and not self.done

    @property
    def is_invalid(self) -> bool:
        """Whether the data of an event that was sent is not valid."""
        return self.reason == Reason.INVALID

    def as_json(self) -> dict[str, Any]:
        """The documented fields."""
        form = {
            "command": self.asked.command,
            "pipeline": self.asked.pipeline,
            "key": self.asked.key,
            "taken": self.taken,
            "done": self.done,
            "dead_letter": self.dead_letter,
            "sentence": self.sentence,
        }
        if self.asked.token is not None:
            return {
                **form,
                "token": self.asked.token,
                "event_id": self.event_id,
                "disposition": self.disposition,
            }
        if self.asked.event_id is None:
            return form
        return {
            **form,
            "event_id": self.asked.event_id,
            "disposition": self.disposition,
            "generation": self.generation,
            "sequence": self.sequence,
            "configuration": None if self.sequence is None else [*self.configuration],
        }


async def ask_send(
    connection: Connection,
    namespace: str,
    pipeline: str,
    key: str,
    event_type: str,
    data: bytes | None,
    *,
    who: str,
    why: str,
    event_id: str | None = None,
    begins: bool = False,
) -> AskedOfRun:
    """Ask for an event to be sent to a run, or to begin one, as if it came from a topic. Needs the engine's role.

    ``data`` is JSON; without an ``event_id`` the event gets one of its own. What the registered structures of the
    pipeline tell is looked at here; whether the data is valid is seen by the engine. What that refuses is an open dead
    letter, which whoever hears of it ends where it holds nothing (``end_told``). An event that ``begins`` a run is
    none, now or later, where the key has one that goes on.

    Raises:
        NotFoundError: no such pipeline was ever run.
        UsageError: the pipeline knows no such type; the event cannot be, or is for another run; or it is not said who
            asks, or why.
    """
    check_said("who asks", who)
    check_said("why", why)
    check_key(key)
    own_id = str(uuid.uuid4()) if event_id is None else event_id
    form = json_data(data)
    structures = await structures_of(connection, namespace, pipeline)
    check_type(pipeline, event_type, structures)
    check_run(key, event_type, form, structures)
    body = send_body(namespace, key, event_type, data, who, why, own_id, begins=begins)
    return await put(connection, namespace, AskedOfRun(0, "send", pipeline, key, own_id), body, who, why)


def send_body(
    namespace: str,
    key: str,
    event_type: str,
    data: bytes | None,
    who: str,
    why: str,
    event_id: str,
    *,
    begins: bool = False,
) -> dict[str, Any]:
    """The command that sends an event to one run; see ``ask_send``. Raises UsageError: the event cannot be."""
    now = datetime.now(UTC)
    event = operators_event(namespace, id=event_id, type=event_type, data=data, who=who, why=why, time=now)
    found = decode(operators_record(key, event, now), NO_TOPIC, "")
    if isinstance(found, Unreadable):
        raise UsageError(f"That is no event: {found.error}. Nothing was sent.")
    return {"key": key, "event_id": event_id, "event": event, "begins": begins}


async def ask_of_run(
    connection: Connection,
    namespace: str,
    what: What,
    pipeline: str,
    key: str,
    *,
    who: str,
    why: str,
    result: bytes | None = None,
) -> AskedOfRun:
    """Ask for a run to be paused, resumed or cancelled; or, where it is stuck on a step, what is to become of it.

    ``result`` is JSON, for ``resolve``: what the step would have returned. Needs the engine's role.

    Raises:
        NotFoundError: there is no such run.
        UsageError: it is not said who asks, or why; or the result cannot be.
    """
    check_said("who asks", who)
    check_said("why", why)
    body = {"key": key, **said_with(what, result)}
    await find_run(connection, namespace, pipeline, key)
    return await put(connection, namespace, AskedOfRun(0, what, pipeline, key), body, who, why)


async def ask_of_pipeline(
    connection: Connection, namespace: str, what: WhatOfPipeline, pipeline: str, *, who: str, why: str
) -> AskedOfRun:
    """Ask for a whole pipeline to be paused or resumed, with all runs of it and those to come. Needs the engine's role.

    Raises:
        NotFoundError: no such pipeline was ever run.
        UsageError: it is not said who asks, or why.
    """
    check_said("who asks", who)
    check_said("why", why)
    asked = AskedOfRun(0, f"{what}_pipeline", pipeline, "")
    return await put(connection, namespace, asked, {"key": ""}, who, why)


def said_with(what: What, result: bytes | None) -> dict[str, Any]:
    """What else a command says. Raises UsageError: the result is no JSON, too much, or for what has none."""
    if what != "resolve":
        if result is not None:
            raise UsageError(f"A result is for resolve, and not for {what}. Nothing was done.")
        return {}
    return {"result": json_data(result, "The result", "Nothing was done.")}


async def put(
    connection: Connection,
    namespace: str,
    asked: AskedOfRun,
    body: Mapping[str, Any],
    who: str,
    why: str,
) -> AskedOfRun:
    """Put a command into the inbox. Raises NotFoundError: no such pipeline was ever run."""
    number = await number_of(connection, namespace, asked.pipeline)
    async with connection.transaction():
        command = await connection.fetchval(
            SQL["ask_of_run"], namespace, number, asked.command, orjson.dumps(body), who, why, asked.token
        )
        await connection.execute(SQL["notify"], channels.INBOX)
    return replace(asked, id=command)


async def wait_until_done(
    connection: Connection, namespace: str, asked: Iterable[AskedOfRun], *, seconds: float
) -> list[Done]:
    """What became of each once engines took the commands up, or none of them for so many seconds.

    Of many, events are not explained each: there is told what the engine said.
    """
    commands = list(asked)
    left = await wait_for(connection, [one.id for one in commands], seconds=seconds, each=True)
    taken = [one.id for one in commands if one.id not in left]
    rows = {row["command"]: row for row in await connection.fetch(SQL["operations"], taken)}
    if len(commands) <= EXPLAINED_MAX:
        became = [await _done(connection, namespace, one, rows.get(one.id)) for one in commands]
    else:
        paused = await paused_names(connection, namespace)
        became = [_briefly(one, rows.get(one.id), paused) for one in commands]
    dropped = {*taken} - rows.keys()
    heard = [_dropped(one.asked) if one.asked.id in dropped else one for one in became]
    before = await _letters_before(connection, namespace, [one for one in commands if one.id in rows])
    own = {one.dead_letter for one in heard}
    return [
        replace(one, before=tuple(letter for letter in before.get(one.asked.id, ()) if letter not in own))
        for one in heard
    ]


async def _letters_before(
    connection: Connection, namespace: str, answered: Iterable[AskedOfRun]
) -> dict[int, list[int]]:
    """By command, the open dead letters of what was sent by its id, before or by it.

    They are found by what was asked: an answer by which no event was sent has no id.
    """
    sent = [one for one in answered if one.command == "send" and one.event_id is not None]
    if not sent:
        return {}
    rows = await connection.fetch(
        SQL["letters_before"],
        namespace,
        [one.id for one in sent],
        [one.event_id for one in sent],
        [one.pipeline for one in sent],
        [one.key for one in sent],
    )
    return {row["command"]: row["letters"] for row in rows}


async def end_told(connection: Connection, became: Iterable[Done], *, who: str) -> None:
    """End the dead letters of events that were sent, where they hold nothing: whoever has sent these has heard of them.

    So are those of which nobody has heard, where the event was asked for again by its id. One that another has ended by
    now is left as it is. Needs the engine's role.
    """
    sent = [one for one in became if one.asked.command == "send"]
    letters = [one.dead_letter for one in sent if one.dead_letter is not None]
    letters += [letter for one in sent for letter in one.before]
    if letters:
        await connection.execute(SQL["end_told"], letters, who, "its sender was told")


def _briefly(asked: AskedOfRun, row: Any, paused: Collection[str]) -> Done:
    if row is None:
        return _not_taken(asked, paused)
    letter = row["dead_letter"]
    done = row["done"] and letter is None
    said = (
        "It is done." if done else f"The event for {asked.key!r} of {asked.pipeline} is dead letter {letter}."
    )
    reason = row["reason"] if asked.command == "send" else None
    return Done(asked, True, done, None, letter, row["answer"] or said, reason=reason)


def _not_taken(asked: AskedOfRun, paused: Collection[str]) -> Done:
    # A pause, and what lifts it, is taken up from a pipeline that is paused, too.
    sentence = not_taken(
        asked.command.removesuffix("_pipeline"),
        asked.pipeline,
        is_paused=bool(asked.key) and asked.pipeline in paused,
    )
    return Done(asked, taken=False, done=False, disposition=None, dead_letter=None, sentence=sentence)


def _dropped(asked: AskedOfRun) -> Done:
    what = asked.command.removesuffix("_pipeline")
    sentence = (
        f"An engine has dropped the {what}, and its log says why: it does not know such a command, or Postgres takes "
        "neither what that does nor that it is refused. Ask again once that is mended."
    )
    return Done(asked, True, False, None, None, sentence, reason=Reason.REFUSED_BY_STORE)


async def _done(connection: Connection, namespace: str, asked: AskedOfRun, row: Any) -> Done:
    paused = await paused_names(connection, namespace)
    if row is None:
        return _not_taken(asked, paused)
    changes = [] if row["event_id"] is None else await _changes(connection, namespace, asked, row)
    if asked.token is not None:
        disposition = changes[-1].disposition if changes else None
        return replace(_briefly(asked, row, paused), disposition=disposition, event_id=row["event_id"])
    if not changes:
        return _briefly(asked, row, paused)
    last = changes[-1]
    said = " ".join(one.sentence for one in changes)
    done = last.dead_letter is None
    place = (
        (None, None, ()) if last.generation is None else (last.generation, last.sequence, last.configuration)
    )
    reason = None if done else last.reason
    return Done(asked, True, done, last.disposition, last.dead_letter, said, None, reason, *place)


async def _changes(connection: Connection, namespace: str, asked: AskedOfRun, row: Any) -> list[Change]:
    """What became of an event that was sent, since the command was taken up: its id may have come before."""
    own = operators_source(namespace) if asked.token is None else None
    sent = Sent(asked.pipeline, asked.key, row["at"])
    found = await explain(connection, namespace, event_id=row["event_id"], source=own, sent=sent)
    for answer in found.answers:
        if (answer.pipeline, answer.key, answer.topic) == (asked.pipeline, asked.key, None):
            return [one for one in (*answer.earlier, answer.current) if one.at >= row["at"]]
    return []


def check_key(key: str) -> None:
    """Refuse what is no run's key. Raises UsageError."""
    try:
        fits = 0 < len(key.encode()) <= KEY_BYTES_MAX and "\0" not in key
    except UnicodeEncodeError:
        fits = False
    if not fits:
        raise UsageError(
            f"{key!r} is no run's key: that is a text of at most {KEY_BYTES_MAX:,} bytes, and not empty."
        )


def json_data(data: bytes | None, what: str = "The data", so: str = "Nothing was sent.") -> Any:
    """What is given as an event's data. Raises UsageError: it is no JSON, or too much."""
    if data is None:
        return None
    if len(data) > DATA_BYTES_MAX:
        raise UsageError(f"{what} has {len(data):,} bytes, of {DATA_BYTES_MAX:,} at most. {so}")
    try:
        return orjson.loads(data)
    except ValueError as error:
        raise UsageError(f"{what} is no JSON: {error}. {so}") from None


async def number_of(connection: Connection, namespace: str, pipeline: str) -> int:
    """The store's number of a pipeline. Raises NotFoundError: no such one was ever run."""
    rows = await connection.fetch(SQL["pipelines"], namespace)
    numbers = {row["name"]: int(row["id"]) for row in rows}
    if pipeline not in numbers:
        raise NotFoundError(
            f"No pipeline {pipeline!r} was ever run in the namespace {namespace!r}. "
            f"{did_you_mean(pipeline, numbers)}"
        )
    return numbers[pipeline]


async def structures_of(connection: Connection, namespace: str, pipeline: str) -> list[Mapping[str, Any]]:
    """What versions of a pipeline were registered as, the newest first."""
    await number_of(connection, namespace, pipeline)
    rows = await connection.fetch(SQL["structures_of"], namespace, askable(pipeline))
    found = [json_of(row["structure"]) for row in rows]
    # A structure that was tampered with is what verify finds.
    return [one for one in found if isinstance(one, dict) and isinstance(one.get("events"), dict)]


def check_type(pipeline: str, event_type: str, structures: list[Mapping[str, Any]]) -> None:
    """Refuse an event that no version of a pipeline knows. Raises UsageError."""
    types = {one: None for structure in structures for one in structure["events"] if not is_from_inside(one)}
    if not structures or (not is_from_inside(event_type) and any(covers(one, event_type) for one in types)):
        return
    raise UsageError(
        f"No version of {pipeline} that was ever run knows the type {event_type!r}. "
        f"{did_you_mean(event_type, types)} Nothing was sent."
    )


def check_run(key: str, event_type: str, data: Any, structures: list[Mapping[str, Any]]) -> None:
    """Refuse data that names another run, where its key is a field that is there. Raises UsageError."""
    named = key_field(event_type, structures)
    found = None if named is None else field_of(named, data)
    if isinstance(found, str | int) and not isinstance(found, bool) and str(found) != key:
        raise UsageError(
            f"The data is for the run {str(found)!r}, by its field {named!r}, and not for {key!r}. Nothing was sent."
        )


def key_field(event_type: str, structures: list[Mapping[str, Any]]) -> str | None:
    """The field of an event that has the key of its run; None: it is not known to have one."""
    known = next((one for one in structures if event_type in one["events"]), None)
    named = None if known is None else known.get("keys", {}).get(event_type, known["events"][event_type])
    return named if isinstance(named, str) else None
