"""What a commit changes of the executions that runs wait for: made from what the runs remember before and after it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from engine.store.values import AskedExecution, BegunExecution, Commit, Token
from statemachines.bounds import Limit
from statemachines.memory import Execution, read_memory, time_of, write_memory
from statemachines.run import Run

FAR = datetime(9999, 1, 1, tzinfo=UTC)
"""Until when it is waited for what goes on outside, where nothing limits that."""
NO_LIMITS: Mapping[str, Limit] = {}
_new = tuple.__new__
OVER = -1
"""Instead of a time: an execution has failed for good, nothing takes that, and its run waits for a person."""


def note_executions(
    commit: Commit, pipeline: int, run: Run, before: bytes, limits: Mapping[str, Limit] = NO_LIMITS
) -> None:
    """Note what is asked for, to be tried again, or over, by the memory of a run as it is and as it was.

    ``limits`` are those of the steps that have one.
    """
    was, now = open_executions(before), open_executions(run.memory)
    for address, one in was.items():
        kept = now.get(address)
        if one.token and (kept is None or kept.token != one.token):
            commit.tokens_over.append((one.token, run.id, *address))
        if kept is None:
            commit.executions_over.append((run.id, *address))
        if one.step in limits and (kept is None or (kept.attempt, kept.token) != (one.attempt, one.token)):
            commit.limited_left.append((run.id, *address, one.attempt))
    for address, one in now.items():
        old = was.get(address)
        if old is not None and _kept(old) == _kept(one):
            continue
        is_first = old is None and one.attempt == 1 and not (one.stopping or one.token or one.again)
        is_first = is_first and one.step not in limits
        asked = asked_execution(pipeline, run, one, commit.steps_at, is_first=is_first)
        if one.step in limits:
            asked = asked._replace(limited_by=limits[one.step].key_of(run.context))
        if one.since and old is None:
            asked = asked._replace(progress=_progress_before(before, one))
        elif old is not None and one.since != old.since and not one.again:
            # It failed for good and begins anew by one commit: how far it had come is in its row.
            asked = asked._replace(progress=b"")
        commit.executions_asked.append(asked)
        commit.asking[run.id] = run
        if one.token and (old is None or old.token != one.token):
            commit.tokens.append(
                Token(one.token, pipeline, run.key, run.id, *address, one.step, one.attempt, waits=True)
            )


def _kept(one: Execution) -> Execution:
    """Without what the store does not keep."""
    return one._replace(state="", scope="", stopping=int(bool(one.stopping)))


def open_executions(memory: bytes) -> dict[tuple[int, int], Execution]:
    """Those that wait for an attempt, or have begun one, by the numbers of their row and within it."""
    executions = read_memory(memory).executions if memory else ()
    return {(one.sequence, one.number): one for one in executions if not one.is_given_up}


def asked_execution(
    pipeline: int, run: Run, one: Execution, at: datetime, *, is_first: bool = False
) -> AskedExecution:
    """As the store keeps it; ``at`` is when it may begin at once."""
    again = FAR if one.token else at
    if one.again and not one.stopping:
        again = time_of(one.again)
    return _new(AskedExecution, (
        pipeline, run.key, run.id, one.sequence, one.number, one.step, one.attempt, again, one.error, one.of, one.made,
        bool(one.stopping), one.since, one.token, None, None, is_first,
    ))  # fmt: skip


def given_up(memory: bytes, execution: Execution, *, unknown: bool, progress: str = "") -> bytes:
    """The memory of a run whose execution has failed for good, and nothing has taken that.

    ``unknown``: what its last attempt did is not known, so that it may have to be undone. ``progress``: how far it had
    come, as JSON, for an attempt that begins it anew.
    """
    found = read_memory(memory)
    before = found.execution(execution.id)
    if before is None:
        return memory
    kept = progress or before.progress
    over = before._replace(again=OVER, unknown=int(unknown or before.unknown), token="", progress=kept)
    return write_memory(found.instead(over))


def progress_said(said: Any) -> str:
    """How far an execution had come that has failed for good, by what its event says."""
    found = said.get("progress") if isinstance(said, dict) else None
    return found if isinstance(found, str) else ""


def _progress_before(before: bytes, one: Execution) -> bytes | None:
    """How far one had come that begins anew."""
    was = read_memory(before).execution(one.id)
    return None if was is None or not was.progress else was.progress.encode()


def told_token(begun: BegunExecution, token: str) -> Token:
    """What an attempt is to be completed by, as it is said before a run waits for it."""
    address = begun.pipeline, begun.key, begun.run, begun.sequence, begun.number
    return Token(token, *address, begun.step, begun.attempt, waits=False)
