"""On what a run is stuck: the failure of a step, or of a compensation, that it could not take."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from statemachines.events import STEP_FAILED
from statemachines.leading import leads_on
from statemachines.memory import Execution, read_memory
from statemachines.run import Run


class Failure(NamedTuple):
    """What holds a run that is stuck."""

    execution: Execution
    said: dict[str, Any]
    """What the event of its failure has said."""
    undoes: str
    """Of a compensation: the step that it was to undo."""

    @property
    def name(self) -> str:
        """As sentences have it."""
        return f"the compensation {self.execution.step}" if self.execution.of else self.execution.step


def failure_in(run: Run, event_type: str, payload: bytes | None) -> Failure | None:
    """The failure of a step that an event from inside tells of; None: it is none, or the run is done with it."""
    if not event_type.startswith(STEP_FAILED):
        return None
    said: dict[str, Any] = orjson.loads(payload or b"{}").get("data") or {}
    memory = read_memory(run.memory)
    execution = memory.execution(str(said.get("execution")))
    if execution is None or not execution.is_given_up:
        return None
    undoes = next((one.step for one in memory.owed if one.id == execution.of), "")
    return Failure(execution, said, undoes)


def would_stay(structure: bytes, execution: Execution) -> bool:
    """Whether a run that goes on without a step that has failed would stay, since nothing else leads on."""
    return not execution.of and _stays(structure, execution.state)


@lru_cache(maxsize=64)
def _stays(structure: bytes, state: str) -> bool:
    try:
        return not leads_on(orjson.loads(structure), state)
    except (ValueError, LookupError, TypeError, AttributeError):
        return False  # a structure that was tampered with is what verify finds


def staying_words(execution: Execution) -> str:
    """That it would, as a sentence without its end."""
    return (
        f"nothing but how {execution.step} ends leads on from {execution.state}, so that it would stay there"
    )
