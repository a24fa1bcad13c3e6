"""Whoever does work outside that steps have handed over: completes it once it is known, and then once more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import orjson

from engine.store.values import Command, Token
from statemachines.later import Later
from statemachines.memory import read_memory
from statemachines.run import Status
from statemachines.step import Call
from tests.simulated import Simulated

LOOK_SECONDS = 0.03
TIMES = 2
"""So often each is completed."""


@dataclass
class Desk:
    """Outlives every engine."""

    world: Simulated
    complete: Callable[[Call], None]
    """Called as the work is done."""
    leave: Callable[[Call], None]
    """Called where the run is to leave the state of its step meanwhile."""
    leaves: frozenset[str] = frozenset()
    """The runs that do."""
    open: dict[str, Call] = field(default_factory=dict)
    """What is to be completed, by its token."""
    _left: set[str] = field(default_factory=set)

    def hand_over(self, call: Call) -> Later:
        """Take it, if it was not taken before."""
        token = call.idempotency_key
        if token not in self.open:
            self.open[token] = call
            self._later(token)
        return Later(token)

    def _later(self, token: str) -> None:
        self.world.call_later(LOOK_SECONDS, lambda: self._look(token))

    def _look(self, token: str) -> None:
        tables, call = self.world.tables, self.open[token]
        known = tables.executions.tokens.get(token)
        is_wanted = known is not None and self._is_wanted(known)
        is_over = any(run.key == call.key and run.status != Status.RUNNING for _, run in tables.runs.values())
        if known is None and is_over:
            del self.open[token]
        elif known is None or (is_wanted and call.key in self.leaves):
            if known is not None and token not in self._left:
                self._left.add(token)
                self.leave(call)
            self._later(token)
        else:
            if is_wanted:
                self.complete(call)
            del self.open[token]
            execution = [known.run, known.sequence, known.number, known.step, known.attempt]
            body = orjson.dumps({"key": known.key, "token": token, "execution": execution, "result": token})
            for _ in range(TIMES):
                tables.commands += 1
                tables.inbox[tables.commands] = Command(
                    tables.commands, known.pipeline, "complete", body, "desk", "done", self.world.clock()
                )
            self.world.hear()

    def _is_wanted(self, known: Token) -> bool:
        """Whether the run waits for the step: also where the attempt that handed it over was taken for lost."""
        [memory] = [run.memory for _, run in self.world.tables.runs.values() if run.id == known.run]
        execution = read_memory(memory).execution(f"{known.sequence}.{known.number}")
        return execution is not None and not execution.stopping
