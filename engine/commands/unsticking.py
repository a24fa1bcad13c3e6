"""Runs that are stuck: held by the failure of a step, or of a compensation, that they could not take.

``retry``     it begins anew: its attempts count from the beginning, and their key is what it was
``skip``      the run goes on without it: a step is not done, and what a compensation was to undo is not undone, and is
              owed no more; refused where nothing but how the step ends leads on
``resolve``   it counts as done, with the result that is given

Each lifts the hold, tells the run by an event of its own, and has what waited go on. The dead letter of the failure is
open no more then.
"""

from __future__ import annotations

from typing import Any

import orjson

from engine.batch.batch import Batch
from engine.batch.inside import result_arrival
from engine.commands.answering import NOT_LOADED, Answer, Asked, held_by, not_running
from engine.commands.draining import Draining, write_row
from engine.commands.stuck import Failure, failure_in, staying_words, would_stay
from engine.commands.words import run_command
from engine.log import HOLDS
from engine.routing import Route
from engine.store.values import EndedDeadLetter, Hold
from statemachines.events import STEP_RETRIED, STEP_SKIPPED
from statemachines.machine import Machine
from statemachines.memory import Execution
from statemachines.results import ResultError, decided_event, event_id, resolved_event
from statemachines.run import Run, Status

STUCK_WHATS = frozenset({"retry", "skip", "resolve"})
_STATUSES = {"retry": "redriven", "skip": "dropped", "resolve": "resolved"}
"""What the dead letter is then."""
_KINDS = {"retry": "retried", "skip": "skipped", "resolve": "resolved"}
_NOT_DONE = {"retry": "not tried again", "skip": "not released", "resolve": "not resolved"}


class Unsticking:
    """Has them go on."""

    def __init__(self, draining: Draining) -> None:
        self._draining = draining

    async def do(self, asked: Asked, hold: Hold | None) -> Answer:
        """Do what a command asks of a run; ``hold`` is what holds it."""
        name, run, route, command = asked.name, asked.run, asked.route, asked.command
        if run.status != Status.RUNNING:
            return Answer(done=False, sentence=not_running(asked))
        if hold is None:
            return Answer(done=False, sentence=f"{name} is not stuck: nothing holds it.")
        failure = failure_of(run, hold)
        if failure is None:
            return Answer(done=False, sentence=f"{name} is not stuck on a step: {held_by(asked, hold)}")
        stays = f"{name} is {_NOT_DONE[command.command]}"
        machine = route.machines.get(run.definition)
        if machine is None:
            return Answer(done=False, sentence=f"{stays}: {NOT_LOADED}")
        if command.command == "skip" and would_stay(machine.structure, failure.execution):
            return Answer(done=False, sentence=f"{stays}: {_instead(asked, failure.execution)}")
        try:
            event_type, data = _event(asked, machine, failure)
        except ResultError as error:
            return Answer(done=False, sentence=f"{stays}: {error}. Nothing was done.")
        if hold.letter is not None:
            status = _STATUSES[command.command]
            asked.batch.commit.ended.append(EndedDeadLetter(hold.letter, status, command.who, command.why))
        write_row(command, f"pointsman.{command.command}", route, run, asked.batch)
        kind = _KINDS[command.command]
        own_id = tell(asked.route, run, machine, failure.execution, kind, event_type, data, asked.batch)
        offered = await self._draining.go_on(command, route, run.key, asked.batch, asked.events_max)
        letters = asked.batch.commit.dead_letters
        failed = next((one for one in letters if one.event_id == own_id), None)
        if failed is not None:
            sentence = f"{stays}, for it cannot take that ({failed.reason}): {failed.error}"
            return Answer(False, sentence, offered)
        waited = f" {run.behind} events had waited." if run.behind else ""
        return Answer(True, f"{_done(asked, failure)}{waited}", offered)


def tell(
    route: Route,
    run: Run,
    machine: Machine,
    execution: Execution,
    kind: str,
    event_type: str,
    data: dict[str, Any],
    batch: Batch,
) -> str:
    """Have a run that is held no more hear what was decided of an execution; returns the event's id."""
    own_id = event_id(machine, run, execution, execution.attempt, kind)
    batch.meet([result_arrival(route, run.key, own_id, event_type, data, batch.commit.at)])
    batch.rest()
    return own_id


def failure_of(run: Run, hold: Hold) -> Failure | None:
    """The failure that holds a run; None: something else does."""
    if hold.kind not in HOLDS or not hold.is_inner:
        return None
    return failure_in(run, hold.type, hold.payload)


def skip_failed(route: Route, run: Run, machine: Machine, failure: Failure, who: str, batch: Batch) -> None:
    """Have a run go on without a step whose dead letter is dropped."""
    told = decided_event(STEP_SKIPPED, failure.execution, who, failure.said)
    tell(route, run, machine, failure.execution, _KINDS["skip"], *told, batch)


def _event(asked: Asked, machine: Machine, failure: Failure) -> tuple[str, dict[str, Any]]:
    """Type and data of the event that tells the run. Raises ResultError."""
    command, execution = asked.command, failure.execution
    if command.command == "resolve":
        step = next(one for one in machine.pipeline.works if one.name == execution.step)
        result = orjson.loads(command.body).get("result")
        return resolved_event(step, execution, orjson.dumps(result), command.who)
    begins = STEP_RETRIED if command.command == "retry" else STEP_SKIPPED
    return decided_event(begins, execution, command.who, failure.said)


def _instead(asked: Asked, execution: Execution) -> str:
    """Why a step is not skipped, and what to do."""
    resolve, retry, cancel = (
        run_command(what, asked.route.name, asked.run.key)
        for what in ("resolve --result JSON", "retry", "cancel")
    )
    return (
        f"{staying_words(execution)}. Say what {execution.step} has made ({resolve}), have it begin anew ({retry}), "
        f"or end the run ({cancel}). Nothing was done."
    )


def _done(asked: Asked, failure: Failure) -> str:
    """That it is, as a sentence."""
    name, row, execution = asked.name, f"row {asked.run.sequence + 2}", failure.execution
    match asked.command.command:
        case "retry":
            return f"{name} has {failure.name} begin anew, with attempt {execution.attempt + 1} ({row})."
        case "resolve":
            done = f"counts {failure.undoes} as undone" if execution.of else f"counts {failure.name} as done"
            return f"{name} {done} ({row})."
        case _ if execution.of:
            return f"{name} goes on, with {failure.undoes} not undone and owed no more ({row})."
    return f"{name} goes on without {failure.name}, in {' '.join(asked.run.states)} ({row})."
