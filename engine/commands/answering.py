"""What operators ask, with the run that it is for; and what they are answered, in sentences."""

from __future__ import annotations

from typing import NamedTuple

import orjson

from engine.batch.batch import Batch
from engine.commands.words import letter_cure, map_command, run_command
from engine.log import Kind
from engine.routing import Route
from engine.store.values import Command, Hold
from statemachines.durations import told_time
from statemachines.events import STEP_FAILED
from statemachines.memory import read_memory
from statemachines.run import Run, Status
from statemachines.undoing import places

NOT_LOADED = "it follows a version of its pipeline that is not loaded here. Load that, too, and ask again."


class Answer(NamedTuple):
    """What became of a command."""

    done: bool
    """Whether the run is as was asked."""
    sentence: str
    """Empty: what became of the event that was sent tells."""
    offered: int = 0
    """How many events that waited it took with it."""
    event_id: str | None = None
    """Of the event that tells what became of it."""


class Asked(NamedTuple):
    """A command, and the run that it is for."""

    command: Command
    route: Route
    run: Run
    batch: Batch
    events_max: int
    """How many events that waited it may take with it."""

    @property
    def name(self) -> str:
        """The run, at the beginning of a sentence."""
        return f"The run {self.run.key!r} of {self.route.name}"


def not_running(asked: Asked) -> str:
    """Why nothing can be done to a run that does not go on."""
    if asked.run.status == Status.EXPECTED:
        return f"{asked.name} was not begun yet: events wait for the one that begins it."
    return f"{asked.name} has ended in {' '.join(asked.run.states)}."


def told(hold: Hold) -> str:
    """Who did it, when and why, by the row of a command."""
    said = orjson.loads(hold.payload or b"{}")
    return f"by {said.get('who')} at {told_time(hold.at)}, {said.get('why')}"


def held_by(asked: Asked, hold: Hold) -> str:
    """What holds a run that no operator does, and what to do."""
    since = f"since row {asked.run.held}"
    if hold.kind == Kind.PAUSED:
        resume = run_command("resume", asked.route.name, asked.run.key)
        return f"it is paused {told(hold)} (row {asked.run.held}): {resume}."
    if hold.letter is not None and hold.is_inner and hold.type.startswith(STEP_FAILED):
        retry = run_command("retry", asked.route.name, asked.run.key)
        return (
            f"it is held by dead letter {hold.letter} ({hold.reason}) {since}, for a step of it has failed. Have that "
            f"begin anew: {retry} (or skip, or resolve)."
        )
    if hold.letter is not None:
        cure = letter_cure(hold.letter, hold.reason, hold.type)
        return (
            f"it is held by dead letter {hold.letter} ({hold.reason}) {since}, and what comes for it waits. "
            f"{cure.whats} that one: {cure.command}."
        )
    if hold.kind == Kind.WAITED:
        # Nothing else brings to its end what is being undone.
        is_undone = bool(places(read_memory(asked.run.memory)))
        other = f"; or have it follow another one: {map_command(asked.route.name)}"
        return (
            f"it is held {since} because it follows a version of its pipeline that was not loaded. It goes on once an "
            f"engine has that loaded{'' if is_undone else other}."
        )
    return f"what waited for it is taken just now (row {asked.run.held}). Ask again in a moment."
