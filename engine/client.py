"""What other programs ask of pipelines: events sent, runs begun, read and waited for, steps completed by their tokens.

    async with Client("postgresql://app@db/shop", who="checkout") as client:
        sent = await client.send("order", "o-1", OrderPaid(order_id="o-1", amount=5))
        run = await client.wait("order", "o-1", until="shipped", timeout=60)

It needs Postgres alone, and no pipeline is loaded here: an engine does what is asked. What it answers has the fields of
``--json`` (``as_json``), which ``engine/cli/README.md`` documents.

What an engine has taken up and could not do is raised (``NotDoneError``), with the answer. So is what none has taken up
in time (``NotTakenError``): it waits, and is done later. An event is then asked for again by its id.
"""

# ruff: noqa: ASYNC109 - how long it may take is part of what is asked
from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any, Self

from pydantic_core import to_json

from engine.answered import (
    AlreadyRunningError,
    Answered,
    InvalidDataError,
    MissedError,
    NotDoneError,
    NotTakenError,
    StillWaitsError,
    TooLateError,
    WaitedTooLongError,
    check_done,
)
from engine.awaiting import Watch
from engine.connections import Connections
from engine.dispositions import Disposition
from engine.errors import PointsmanError, RefusedError, SchemaError, ServiceUnreachableError, UsageError
from engine.reading import (
    AskedOfRun,
    Explanation,
    HistoryRow,
    NotFoundError,
    RunAt,
    RunView,
    ask_complete,
    ask_of_run,
    ask_send,
    count_runs,
    end_told,
    explain,
    find_view,
    history,
    list_runs,
    show,
    wait_until_done,
)
from engine.reading.begun import has_begun
from engine.reading.completing import TOKEN_SECONDS
from engine.reading.operating import What, check_key, number_of
from engine.reading.searching import Where, conditions
from engine.reading.states import check_states
from statemachines.definition import State
from statemachines.events import Event
from statemachines.run import active_in

__all__ = [
    "AlreadyRunningError",
    "Answered",
    "Client",
    "InvalidDataError",
    "MissedError",
    "NotDoneError",
    "NotFoundError",
    "NotTakenError",
    "PointsmanError",
    "RefusedError",
    "RunView",
    "SchemaError",
    "ServiceUnreachableError",
    "StillWaitsError",
    "TooLateError",
    "UsageError",
    "WaitedTooLongError",
]

NAME = "pointsman-client"
CONNECTIONS = 4
"""So many questions are asked at the same time; and one connection more looks for those who wait."""
SECONDS = 10.0
"""How long an engine is waited for to take up what is asked."""
ENDED = None
"""To wait for the end of a run."""
Until = str | State[Any] | Iterable["str | State[Any]"] | None


class Client:
    """Asks one namespace. May be used by any number of tasks of one event loop."""

    def __init__(self, postgres: str, *, who: str, namespace: str = "default") -> None:
        """Say whom to ask; it connects as the first question is asked.

        Args:
            postgres: the address, without a password; a role of ``pointsman_engine`` asks, ``pointsman_reader`` reads.
            who: on whose behalf; it is kept with all that is asked.
            namespace: what the runs belong to.
        """
        self._who = who
        self._namespace = namespace
        self._connections = Connections(postgres, NAME, CONNECTIONS)
        self._watch = Watch(self._connections.connect)
        self._numbers: dict[str, int] = {}
        self._known: dict[str, frozenset[str]] = {}
        """By pipeline, the states of its versions, as far as they were asked for."""

    async def __aenter__(self) -> Self:
        """Connect, so that what is wrong with the address is seen at once."""
        async with self._connections.asking():
            return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        await self.close()

    async def close(self) -> None:
        """Give up the connections; who still waits is cancelled."""
        await self._connections.close()
        await self._watch.close()

    async def send(
        self,
        pipeline: str,
        key: str,
        event: Event | str,
        data: Any = None,
        *,
        why: str = "sent by a client",
        event_id: str | None = None,
        timeout: float = SECONDS,
    ) -> Answered:
        """Send an event to a run, or one that begins a run, and wait until an engine has taken it.

        ``event`` is one, or its type, with ``data`` beside it. Sent again under one ``event_id``, it is a duplicate.

        Raises:
            NotFoundError: no such pipeline was ever run.
            UsageError: the pipeline knows no such type; or the event is for another run, or cannot be.
            InvalidDataError: its data is not valid; the run is as it was.
            NotDoneError: it is a dead letter.
            NotTakenError: no engine has taken it in time; it waits. Asked again by its ``event_id``, it is sent once.
        """
        return await self._send(pipeline, key, event, data, why, event_id, timeout)

    async def _send(
        self,
        pipeline: str,
        key: str,
        event: Event | str,
        data: Any,
        why: str,
        event_id: str | None,
        timeout: float,
        begins: str = "",
    ) -> Answered:
        """``begins``: it is to begin a run; and what is said where it does not."""
        event_type = event.event_type() if isinstance(event, Event) else event
        said = event if isinstance(event, Event) else data
        given = None if said is None else _json(said)
        async with self._connections.asking() as connection:
            asked = await ask_send(
                connection,
                self._namespace,
                pipeline,
                key,
                event_type,
                given,
                who=self._who,
                why=why,
                event_id=event_id,
                begins=bool(begins),
            )
        return await self._answer(asked, timeout, begins)

    async def start(
        self,
        pipeline: str,
        key: str,
        event: Event | str,
        data: Any = None,
        *,
        why: str = "begun by a client",
        event_id: str | None = None,
        timeout: float = SECONDS,
    ) -> Answered:
        """Begin a run by an event; else as ``send``.

        A duplicate has begun one where the event did that it doubles, whatever has become of that run since.

        Raises:
            AlreadyRunningError: the key has a run that goes on. Nothing was begun, and nothing will be.
            NotDoneError: the event was taken, and began no run, as where that has ended; what it did instead is told.
        """
        so = f"That has begun no run {key!r} of {pipeline}. "
        found = await self._send(pipeline, key, event, data, why, event_id, timeout, so)
        if found.disposition == Disposition.STARTED.word:
            return found
        if found.disposition == Disposition.DUPLICATE.word:
            async with self._connections.asking() as connection:
                asked = found.done.asked
                if await has_begun(connection, self._namespace, pipeline, key, asked.event_id):
                    return found
        raise NotDoneError(found, so)

    async def complete(
        self,
        token: str,
        result: Any,
        *,
        why: str = "completed by a client",
        timeout: float = SECONDS,
    ) -> Answered:
        """Complete a step that goes on outside, with what it has made: JSON, or a model of it.

        Raises:
            NotFoundError: no step has waited for that token within two seconds.
            StillWaitsError: the result is none of the step, which still waits.
            TooLateError: the step is not waited for any more, as after it was completed; nothing was changed.
            NotDoneError: the run cannot take it; it is held by a dead letter.
            NotTakenError: no engine has taken it up in time.
        """
        return await self._complete(token, timeout, why, result=_json(result))

    async def fail(
        self, token: str, error: str, *, why: str = "failed by a client", timeout: float = SECONDS
    ) -> Answered:
        """Say that such a step has failed; else as ``complete``. It is tried again as its ``Retry`` says."""
        return await self._complete(token, timeout, why, error=error)

    async def pause(self, pipeline: str, key: str, *, why: str, timeout: float = SECONDS) -> Answered:
        """Hold a run until it is resumed. Raises NotDoneError, NotTakenError, and NotFoundError."""
        return await self._ask_of("pause", pipeline, key, why, timeout)

    async def resume(self, pipeline: str, key: str, *, why: str, timeout: float = SECONDS) -> Answered:
        """Let a run go on that is paused. Raises NotDoneError, NotTakenError, and NotFoundError."""
        return await self._ask_of("resume", pipeline, key, why, timeout)

    async def cancel(self, pipeline: str, key: str, *, why: str, timeout: float = SECONDS) -> Answered:
        """End a run, by the transition that its pipeline has for that, or where it is.

        Raises NotDoneError, NotTakenError, and NotFoundError.
        """
        return await self._ask_of("cancel", pipeline, key, why, timeout)

    async def retry(self, pipeline: str, key: str, *, why: str, timeout: float = SECONDS) -> Answered:
        """Have the step that a run is stuck on begin anew, or the compensation; its attempts count from the beginning.

        Raises NotDoneError, as where nothing holds the run, or something else; NotTakenError, and NotFoundError.
        """
        return await self._ask_of("retry", pipeline, key, why, timeout)

    async def skip(self, pipeline: str, key: str, *, why: str, timeout: float = SECONDS) -> Answered:
        """Let a run go on without the step that it is stuck on, or the compensation; else as ``retry``.

        It is not done, either, where nothing but how the step ends leads on from its state.
        """
        return await self._ask_of("skip", pipeline, key, why, timeout)

    async def resolve(
        self, pipeline: str, key: str, result: Any = None, *, why: str, timeout: float = SECONDS
    ) -> Answered:
        """Have the step that a run is stuck on count as done with a result, or the compensation; else as ``retry``.

        The result is JSON, or a model of it, as the step would have returned; it is not done where it is none of it.
        """
        return await self._ask_of("resolve", pipeline, key, why, timeout, _json(result))

    async def wait(
        self, pipeline: str, key: str, until: Until = ENDED, *, timeout: float | None = None
    ) -> RunView:
        """Wait for a run to come to a state, or to one of several, or to its end; returns the run as it is then.

        It need not have begun. A state that it is in by now counts, and so does one that it has come through since
        it was asked; then what is returned may be further on. However many wait, they share one look at Postgres.

        Raises:
            WaitedTooLongError: it did not, within so many seconds. It is a ``TimeoutError``.
            MissedError: it has ended elsewhere.
            NotFoundError: no such pipeline was ever run.
            UsageError: no version of it that was ever run has such a state.
        """
        check_key(key)
        self._connections.check_open()
        states = _states(until)
        number = await self._number(pipeline)
        await self._check_states(pipeline, states or frozenset())
        try:
            came = await self._watch.run(number, key, states, timeout)
        except TimeoutError:
            raise WaitedTooLongError(await self._too_long(pipeline, key, states, timeout)) from None
        if not came.there:
            ended = " ".join(active_in(came.configuration))
            raise MissedError(
                f"The run {key!r} of {pipeline} has ended in {ended}, and will not come to {_told(states)}."
            )
        return await self.run(pipeline, key, generation=came.generation)

    async def run(self, pipeline: str, key: str, *, generation: int | None = None) -> RunView:
        """A run; its latest generation where none is given. Raises NotFoundError."""
        async with self._connections.asking() as connection:
            return await find_view(connection, self._namespace, pipeline, key, generation)

    async def runs(
        self,
        *,
        pipeline: str | None = None,
        key: str | None = None,
        status: str | None = None,
        state: str | None = None,
        version: int | None = None,
        where: Where = (),
        limit: int = 100,
    ) -> list[RunView]:
        """Runs by filters, those that started last first; ``limit`` 0 gives all of them.

        ``where`` has the values of search attributes by their names, or pairs of both.

        Raises:
            NotFoundError: there are none, and no such pipeline was ever run.
            UsageError: there is no such status, state or attribute, or no such value of it; or no such limit.
        """
        async with self._connections.asking() as connection:
            found = await list_runs(
                connection,
                self._namespace,
                pipeline=pipeline,
                key=key,
                status=status,
                state=state,
                version=version,
                where=conditions(where),
                limit=limit,
            )
        if not found and pipeline is not None:
            await self._number(pipeline)
        return found

    async def count(
        self,
        *,
        pipeline: str | None = None,
        status: str | None = None,
        state: str | None = None,
        version: int | None = None,
        where: Where = (),
    ) -> int:
        """How many runs these filters choose, exactly. Raises NotFoundError and UsageError, as ``runs``."""
        async with self._connections.asking() as connection:
            found = await count_runs(
                connection,
                self._namespace,
                pipeline=pipeline,
                status=status,
                state=state,
                version=version,
                where=conditions(where),
            )
        if not found and pipeline is not None:
            await self._number(pipeline)
        return found

    async def show(
        self, pipeline: str, key: str, *, generation: int | None = None, at_sequence: int | None = None
    ) -> RunAt:
        """A run with its steps, as it is or was after a row. Raises NotFoundError."""
        async with self._connections.asking() as connection:
            return await show(connection, self._namespace, pipeline, key, generation, at_sequence=at_sequence)

    async def history(self, pipeline: str, key: str, *, generation: int | None = None) -> list[HistoryRow]:
        """All that happened to a run, in order. Raises NotFoundError."""
        async with self._connections.asking() as connection:
            return await history(connection, self._namespace, pipeline, key, generation)

    async def explain(self, event_id: str, *, source: str | None = None) -> Explanation:
        """What became of an event."""
        async with self._connections.asking() as connection:
            return await explain(connection, self._namespace, event_id=event_id, source=source)

    async def _complete(
        self, token: str, timeout: float, why: str, *, result: bytes | None = None, error: str | None = None
    ) -> Answered:
        async with self._connections.asking() as connection:
            asked = await ask_complete(
                connection,
                self._namespace,
                token,
                result=result,
                error=error,
                who=self._who,
                why=why,
                seconds=min(TOKEN_SECONDS, timeout),
            )
        return await self._answer(asked, timeout)

    async def _ask_of(
        self, what: What, pipeline: str, key: str, why: str, timeout: float, result: bytes | None = None
    ) -> Answered:
        async with self._connections.asking() as connection:
            asked = await ask_of_run(
                connection, self._namespace, what, pipeline, key, who=self._who, why=why, result=result
            )
        return await self._answer(asked, timeout)

    async def _answer(self, asked: AskedOfRun, timeout: float, so: str = "") -> Answered:
        await self._watch.command(asked.id, timeout)
        async with self._connections.asking() as connection:
            (done,) = await wait_until_done(connection, self._namespace, [asked], seconds=0)
            run: RunView | None = None
            with contextlib.suppress(NotFoundError):
                run = await find_view(connection, self._namespace, asked.pipeline, asked.key)
            await end_told(connection, [done], who=self._who)
        return check_done(Answered(done, run), so)

    async def _too_long(
        self, pipeline: str, key: str, states: frozenset[str] | None, timeout: float | None
    ) -> str:
        where = "which has not begun"
        with contextlib.suppress(NotFoundError):
            run = await self.run(pipeline, key)
            held = f", {run.status} since row {run.held}" if run.held else ""
            where = f"which is in {' '.join(run.configuration)}{held}"
        return f"The run {key!r} of {pipeline}, {where}, did not come to {_told(states)} within {timeout:g} seconds."

    async def _number(self, pipeline: str) -> int:
        if pipeline not in self._numbers:
            async with self._connections.asking() as connection:
                self._numbers[pipeline] = await number_of(connection, self._namespace, pipeline)
        return self._numbers[pipeline]

    async def _check_states(self, pipeline: str, states: frozenset[str]) -> None:
        if states <= self._known.get(pipeline, frozenset()):
            return
        async with self._connections.asking() as connection:
            known = await check_states(connection, self._namespace, pipeline, states)
        self._known[pipeline] = known


def _json(data: Any) -> bytes:
    """As JSON. Raises UsageError: there are no words for it there."""
    try:
        return to_json(data, by_alias=True)
    except (TypeError, ValueError) as error:
        raise UsageError(f"That has no words in JSON: {error}. Nothing was sent.") from None


def _states(until: Until) -> frozenset[str] | None:
    if until is None:
        return None
    several = [until] if isinstance(until, str | State) else [*until]
    if not several:
        raise UsageError("Say at least one state to wait for; None is the end of the run.")
    return frozenset(one if isinstance(one, str) else one.name for one in several)


def _told(states: frozenset[str] | None) -> str:
    return "its end" if states is None else " or ".join(sorted(states))
