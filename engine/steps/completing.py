"""Steps that go on outside, completed by their tokens: with a result, or with an error.

``complete``  the attempt has made this
``fail``      the attempt has failed: it is tried again as the step's strategy says, or has failed for good

Both come out of the inbox, from whoever does the work, or from the run itself, which an event has told. They become the
event that an attempt of a function would have become. So one thing is taken, once; what comes after it is void. What an
attempt before the current one has made is taken, too, as long as its run waits for the step; that it has failed matters
to nobody any more.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

from connectors.executor import Ended
from engine.batch.batch import Batch
from engine.batch.inside import result_arrival
from engine.commands.operators import command_id
from engine.routing import Route
from engine.session.committer import Committer
from engine.steps.breakers import Told
from engine.steps.outcomes import Outcomes
from engine.steps.result import StepResult
from engine.store.contract import Store
from engine.store.values import BegunExecution, Command, Token
from statemachines.durations import told_time
from statemachines.events import STEP_DONE, STEP_FAILED
from statemachines.failing import describe_invalid, printable
from statemachines.later import OutsideError
from statemachines.memory import Execution, read_memory
from statemachines.outcome import Ignored, Reason
from statemachines.results import ResultError, idempotency_key
from statemachines.run import Run, Status
from statemachines.step import Step

log = logging.getLogger("pointsman.engine")


class Completed(NamedTuple):
    """What became of a command."""

    done: bool
    """Whether the run has taken it, or will once what holds it is gone."""
    sentence: str
    event_id: str | None = None


class Completion(NamedTuple):
    """A command, with what is known of what it names."""

    command: Command
    body: dict[str, Any]
    route: Route
    run: Run | None
    """That of its key, as the store has it now."""
    known: Token | None
    """What its token completes, as the store knows it now."""


class Completing:
    """Completes them."""

    def __init__(self, store: Store, routes: Mapping[int, Route], committer: Committer) -> None:
        self._store = store
        self._outcomes = Outcomes(committer.steady)
        self._outcomes.load(routes.values())

    async def take(
        self,
        command: Command,
        body: dict[str, Any],
        route: Route,
        run: Run | None,
        known: Token | None,
        batch: Batch,
    ) -> Completed:
        """Have a batch complete what a command names; the rest is that of its ``Completion``."""
        asked = _asked(body, route, run, known)
        if asked is None:
            return _unknown(command, body, route)
        if run is None or run.id != asked.run:
            return await self._refuse(command, asked, route, run, batch)
        if known != asked and not await self._is_taken_late(command, asked, route, run):
            return await self._refuse(command, asked, route, run, batch)
        if run.definition not in route.machines:
            sentence = (
                f"{_name(asked, route)} is not completed: its run follows a version of its pipeline that is not loaded "
                "here. Load that, too, and ask again."
            )
            return Completed(False, sentence)
        begun = _begun(asked, route, run)
        try:
            result = self._result(command, body, begun)
        except ResultError as error:
            return Completed(False, f"{_name(asked, route)} is not completed, and still waits: {error}.")
        batch.meet_results([result])
        failure = OutsideError(body["error"]) if command.command == "fail" else None
        batch.told.append(Told(begun.address, self._outcomes.meant(begun)[1], failure, outside=True))
        return self._became(asked, route, run, batch, result)

    def unknown(
        self, command: Command, body: dict[str, Any], route: Route, run: Run | None, known: Token | None
    ) -> Completed | None:
        """What is said of one by whose token nobody knows anything; None where it names something."""
        return _unknown(command, body, route) if _asked(body, route, run, known) is None else None

    async def _is_taken_late(self, command: Command, asked: Token, route: Route, run: Run) -> bool:
        """Whether an attempt that is not waited for any more has made something, and its run waits for another one."""
        execution = read_memory(run.memory).execution(_execution(asked).id)
        if command.command != "complete" or execution is None or execution.stopping or execution.is_given_up:
            return False
        key = idempotency_key(route.newest, asked.key, run.generation, _execution(asked))
        return await self._store.completion_of(asked.run, f"{key}/{asked.attempt}/") is None

    def _result(self, command: Command, body: Mapping[str, Any], begun: BegunExecution) -> StepResult:
        """The event that says it. Raises ResultError: it is no result of the step."""
        if command.command == "fail":
            found = self._outcomes.failure(begun, Ended(error=OutsideError(body["error"])))
        else:
            _, step = self._outcomes.meant(begun)
            found = self._outcomes.success(begun, _as_returned(step, body["result"]), raises=True)
        key = found.event_id.partition("/")[0]
        said_by = {"who": command.who, "why": command.why}
        return found._replace(event_id=_event_id(key, begun.attempt, command), said_by=said_by)

    def _became(self, asked: Token, route: Route, run: Run, batch: Batch, result: StepResult) -> Completed:
        name, known_as = _name(asked, route), result.event_id
        for letter in batch.commit.dead_letters:
            if letter.event_id == known_as:
                said = f"{name} has ended, which its run cannot take ({letter.reason}): {letter.error}"
                return Completed(False, said, known_as)
        if run.held:
            batch.commit.tokens_over.append((asked.token, run.id, asked.sequence, asked.number))
            said = f"{name} is heard of. Its run is held: that waits (row {run.sequence + 1}) until the run goes on."
            return Completed(True, said, known_as)
        row, after = run.sequence + 1, route.cache[asked.key]
        if result.event_type.startswith(STEP_DONE):
            return Completed(True, f"{name} is completed (row {row}){_in_states(after)}.", known_as)
        if result.event_type.startswith(STEP_FAILED):
            return Completed(True, f"{name} has failed for good (row {row}){_in_states(after)}.", known_as)
        said = f"{name}: attempt {asked.attempt} has failed (row {row}), and the step is to be tried again."
        return Completed(True, said, known_as)

    async def _refuse(
        self, command: Command, asked: Token, route: Route, run: Run | None, batch: Batch
    ) -> Completed:
        """Note what comes too late as void, and say why."""
        machine = route.newest
        execution = _execution(asked)
        of = await self._store.run_by_id(asked.run)
        assert of is not None, "a token is that of an execution of a run"
        key = idempotency_key(machine, asked.key, of.generation, execution)
        known_as = _event_id(key, asked.attempt, command)
        data = {"execution": execution.id, "attempt": asked.attempt}
        kind, at = STEP_FAILED if command.command == "fail" else STEP_DONE, batch.commit.at
        arrival = result_arrival(route, asked.key, known_as, f"{kind}{asked.step}", data, at)
        own = run if run is not None and run.id == asked.run else None
        batch.settle(arrival, own, Ignored(Reason.VOID), at, None)
        name = _name(asked, route)
        before = await self._store.completion_of(asked.run, f"{key}/{asked.attempt}/")
        left = None if own is None else read_memory(own.memory).execution(execution.id)
        if before is not None:
            when = told_time(before.at)
            said = f"{name} was completed already, by {before.who} at {when} ({before.why})"
        elif own is None or own.has_ended:
            said = f"{name} is not waited for any more: that run has ended in {' '.join(of.states)}"
        elif left is not None and left.is_given_up:
            said = f"{name} has ended already, which its run could not take: it is held by a dead letter"
        elif left is not None:
            said = (
                f"Attempt {asked.attempt} of {name} is not waited for any more: it was not completed in time"
            )
        else:
            said = f"{name} is not waited for any more: its state was left, or it was not completed in time"
        return Completed(False, f"{said}. Nothing was changed.", known_as)


def is_of_run(body: Mapping[str, Any]) -> bool:
    """Whether a run says it of a step of its own: which one its token tells, or is to tell."""
    return "execution" not in body


def _asked(body: Mapping[str, Any], route: Route, run: Run | None, known: Token | None) -> Token | None:
    """What is to be completed; None: nobody knows."""
    token, key = body["token"], body["key"]
    if not is_of_run(body):
        number, sequence, index, step, attempt = body["execution"]
        return Token(token, route.pipeline, key, number, sequence, index, step, attempt, waits=True)
    if known is not None:
        is_own = (known.pipeline, known.key) == (route.pipeline, key)
        return known._replace(waits=True) if is_own else None
    for one in () if run is None else read_memory(run.memory).executions:
        assert run is not None, "it remembers something"
        if idempotency_key(route.newest, key, run.generation, one) == token:
            where = route.pipeline, key, run.id, one.sequence, one.number
            return Token(token, *where, one.step, one.attempt, waits=True)
    return None


def _unknown(command: Command, body: Mapping[str, Any], route: Route) -> Completed:
    said = (
        f"No step of the run {body['key']!r} of {route.name} waits to be completed by the token {body['token']!r}, or "
        "ever has. Nothing was changed."
    )
    log.warning("%s It was asked for by %s, %s", said, command.who, command.why)
    return Completed(False, said)


def _execution(asked: Token) -> Execution:
    return Execution(asked.sequence, asked.number, asked.step, "")


def _begun(asked: Token, route: Route, run: Run) -> BegunExecution:
    address = asked.run, run.definition, 0, asked.sequence, asked.number
    execution = read_memory(run.memory).execution(_execution(asked).id)
    begun = BegunExecution(
        0, route.pipeline, run.key, run.generation, *address, asked.step, asked.attempt, "", b""
    )
    if execution is None:
        return begun
    # What it is called now may be another name than the one that its token was told with.
    return begun._replace(step=execution.step, of=execution.of, since=execution.since)


def _as_returned(step: Step[Any, Any], data: Any) -> Any:
    """What the step's function would have returned, from JSON. Raises ResultError."""
    try:
        return step.read_result(data)
    except BaseException as error:  # noqa: BLE001 - validators and annotations are user code
        said = describe_invalid(error).replace("the event's own validation", "its own validation")
        raise ResultError(printable(f"that is no result of {step.name}: {said}")) from None


def _event_id(key: str, attempt: int, command: Command) -> str:
    """Of the event that a command becomes, by the idempotency key of its execution."""
    return f"{key}/{attempt}/{command_id(command)}"


def _name(asked: Token, route: Route) -> str:
    return f"{asked.step} of the run {asked.key!r} of {route.name}"


def _in_states(run: Run) -> str:
    how = "has ended in" if run.status != Status.RUNNING else "is in"
    return f", and the run {how} {' '.join(run.states)}"
