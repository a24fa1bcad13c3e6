"""The sentences of steps, of what undoes them, and of the events that say how their attempts ended. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from engine.reading.due import memory_of
from engine.reading.explain.answers import Origin
from engine.reading.explain.found import FoundRow
from engine.reading.explain.words import run_name, sentence, shown, states
from engine.reading.heard import DONE, Heard, heard_of
from engine.reading.working import (
    GOING,
    LATER,
    LEFT,
    WAITING,
    CompensationView,
    StepView,
)
from statemachines.events import STEP_DONE, Address


class HeardIn(NamedTuple):
    """A row that says how an attempt ended."""

    sequence: int
    at: datetime
    heard: Heard
    waits: bool
    """Whether that waits behind what holds the run."""


class Ender(NamedTuple):
    """A row that ended an execution, or changed it."""

    sequence: int
    at: datetime
    type: str
    event_id: str


def heard_of_row(row: FoundRow, namespace: str, pipeline: str) -> Heard | None:
    """What a row says of a step; None: nothing."""
    run = Address(namespace, pipeline, row.key, row.generation, row.sequence)
    if row.memory is None or row.position is not None:
        return None
    return heard_of(row.type, row.payload, memory_of(row.memory), run)


def is_noted_only(heard: Heard) -> bool:
    """Whether a row that changed nothing but what the run remembers has done all that is to be done by it."""
    return heard.outcome != DONE or heard.stopped or heard.undoes is not None


def asked_for(found: Origin) -> str:
    """Which step a run has asked for, as in ``the step charge, which the run 'o1' of shop asked for in row 1``."""
    run = run_name(found.pipeline, found.key, found.generation)
    name = found.step.name if found.step is not None else "that it names"
    what = f"the step {name}"
    if found.undoes is not None:
        what = f"the compensation {name}, which undoes the step {found.undoes.name}, and"
    else:
        what += ","
    return f"{what} which {run} asked for in row {found.sequence} ({shown(found.at)})"


def is_key(found: Origin) -> str:
    """Of the id that all attempts at an execution share."""
    return f"It is the idempotency key of {asked_for(found)}."


def no_outcome(found: Origin) -> str:
    """Of an id that no event has, and that an outcome of a step would have."""
    return f"Nothing has come under this id. It would tell how an attempt ended of {asked_for(found)}."


def heard_sentence(one: HeardIn) -> str:
    """What a row has said of an attempt."""
    waits = ", which waits behind what holds the run" if one.waits else ""
    return f"Row {one.sequence} ({shown(one.at)}): {one.heard.words()}{waits}."


def passed(row: FoundRow, pipeline: str, heard: Heard) -> str:
    """What a row says of how an attempt ended where that moved nothing."""
    run = run_name(pipeline, row.key, row.generation)
    said = sentence(heard.words())
    if is_noted_only(heard):
        return f"{said} (row {row.sequence} of {run})."
    where = f" in {states(row.configuration)}" if row.configuration else ""
    return (
        f"{said}. Nothing took that: {run} had no transition for it{where}, so it is noted and gone "
        f"(row {row.sequence})."
    )


def took(heard: Heard, said: str) -> str:
    """The same where it moved the run, as is ``said``."""
    return f"{sentence(heard.words())}. {said}"


def why_void(ender: Ender | None, event_id: str) -> str:
    """Why a run did not wait for a result any more, as the end of a sentence; empty where that is not known."""
    if ender is None:
        return ""
    where = f"row {ender.sequence} ({shown(ender.at)})"
    execution = event_id.partition("/")[0]
    if not ender.event_id.startswith(f"{execution}/"):
        return f"{ender.type} {ender.event_id!r} had ended it by leaving its state, in {where}"
    told = "had said that it was done" if ender.type.startswith(STEP_DONE) else "came before it"
    return f"{ender.type} {ender.event_id!r} {told}, in {where}"


def stands(found: StepView | CompensationView) -> str:
    """How far an execution has come that has not ended, or that was ended from outside; else nothing."""
    if isinstance(found, StepView):
        if found.behind is not None:
            return f"It has ended, and that waits behind what holds the run since row {found.behind}."
        if found.stopping:
            return "Its state was left, and the run waits to hear what became of it."
        if found.outcome == LEFT and found.ended is not None:
            return (
                f"Its state was left in row {found.ended.sequence} ({shown(found.ended.at)}), which ended it."
            )
    if found.status == GOING:
        return f"Attempt {found.attempts} goes on."
    if found.status == LATER:
        until = "" if found.until is None else f", by {shown(found.until)}"
        return (
            f"Attempt {found.attempts} goes on outside, to be completed by the token {found.token!r}{until}."
        )
    if found.status == WAITING:
        again = "" if found.again is None else f", from {shown(found.again)} on"
        return f"Attempt {found.attempts + 1} waits for its turn{again}."
    return ""


def undoing(found: CompensationView) -> str:
    """How far a step is undone."""
    name = "its compensation" if found.name is None else f"the compensation {found.name}"
    key = f" ({found.idempotency_key})"
    row = "" if found.ended is None else f" in row {found.ended.sequence} ({shown(found.ended.at)})"
    match found.status:
        case "none":
            return "It is not owed: nothing of it is to be undone."
        case "unknown":
            return f"It is not known what was done of it: {name} is to undo it if the run is undone."
        case "owed":
            return f"It is owed: {name} is to undo it if the run is undone."
        case "settled":
            return sentence(f"It was settled{row}: it is not undone any more.")
        case "skipped":
            return sentence(
                f"{name}{key}, which was to undo it, was skipped by {found.by}{row}: it is not undone."
            )
        case "undone" if found.by is not None:
            return sentence(f"{name}{key} counts as having undone it{row}, as {found.by} says.")
        case "undone":
            return sentence(f"{name}{key} has undone it{row}.")
        case "failed":
            return sentence(f"{name}{key}, which was to undo it, failed for good{row}: {found.error}.")
        case _:
            return sentence(f"{name}{key} is to undo it. {stands(found)}")
