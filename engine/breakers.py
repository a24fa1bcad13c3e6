"""Breakers: what steps depend on is left alone while it is out of order. Each engine has its own.

A breaker is closed; opens after failures in a row; and after a while lets one attempt through, which decides.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime
from enum import Enum
from typing import Any

import orjson

from statemachines.bounds import Breaker
from statemachines.durations import told_duration
from statemachines.failing import printable
from statemachines.step import Step

log = logging.getLogger("pointsman.engine")

ERROR_CHARACTERS_MAX = 200
"""So much is kept of the error that opened one."""


class State(Enum):
    """Of a breaker."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"
    """It is waited for what becomes of one attempt, or for one to be there."""


class Heard(Enum):
    """What an attempt says of what it depends on."""

    WELL = "well"
    ILL = "ill"
    NOTHING = "nothing"
    """It was stopped, or lost."""


class Circuit:
    """One breaker in this engine."""

    def __init__(self, breaker: Breaker, clock: Callable[[], datetime]) -> None:
        self.breaker = breaker
        self._clock = clock
        self._failed_at: deque[float] = deque(maxlen=breaker.failures)
        """When attempts failed, as long as none has succeeded since."""
        self._opened_at: float | None = None
        self._trial: int | None = None
        """The attempt that decides whether it closes."""
        self.since = clock()
        self.error = ""
        """What opened it last."""
        self.steps: set[tuple[str, str]] = set()
        """(pipeline, step) of those that share it."""

    @property
    def state(self) -> State:
        """As it is now."""
        if self._opened_at is None:
            return State.CLOSED
        is_over = time.monotonic() - self._opened_at >= self.breaker.open_for.total_seconds()
        return State.HALF_OPEN if is_over else State.OPEN

    @property
    def is_closed(self) -> bool:
        """Whether all may begin."""
        return self._opened_at is None

    @property
    def failures(self) -> int:
        """How many there were in a row that count now."""
        after = time.monotonic() - self.breaker.within.total_seconds()
        return sum(at > after for at in self._failed_at)

    def room(self, many: int) -> int:
        """How many attempts may begin, of so many for which there is room."""
        match self.state:
            case State.CLOSED:
                return many
            case State.HALF_OPEN if self._trial is None:
                return min(many, 1)
            case _:
                return 0

    def begin(self, attempt: int) -> None:
        """An attempt begins; it is the one that decides, if it is waited for one."""
        if self.state is State.HALF_OPEN and self._trial is None:
            self._trial = attempt

    def hear(self, attempt: int, heard: Heard, error: BaseException | None = None) -> bool:
        """Take note of how an attempt ended; whether the breaker is open where it was closed, or the other way."""
        if self._opened_at is not None:
            # What had begun before it opened says nothing that is not known.
            return attempt == self._trial and self._decide(heard, error)
        if heard is Heard.WELL:
            self._failed_at.clear()
        elif heard is Heard.ILL:
            self._failed_at.append(time.monotonic())
            if self.failures >= self.breaker.failures:
                self._open(error)
                return True
        return False

    def _decide(self, heard: Heard, error: BaseException | None) -> bool:
        self._trial = None
        if heard is Heard.ILL:
            self._open(error)
        elif heard is Heard.WELL:
            self._opened_at = None
            self._failed_at.clear()
            self.since, self.error = self._clock(), ""
            log.info("the breaker %s has closed: an attempt has succeeded", self.breaker.name)
        return heard is not Heard.NOTHING

    def _open(self, error: BaseException | None) -> None:
        self._opened_at = time.monotonic()
        self.since = self._clock()
        self.error = printable(f"{type(error).__name__}: {_text_of(error)}")[:ERROR_CHARACTERS_MAX]
        log.warning(
            "the breaker %s is open (%s): for %s no attempt of its steps begins, and then one is tried",
            self.breaker.name,
            self.error,
            told_duration(self.breaker.open_for),
        )


class Breakers:
    """Those of one engine, by their names."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._circuits: dict[str, Circuit] = {}

    def load(self, steps: Iterable[tuple[str, str, Breaker]]) -> None:
        """Have those of these (pipeline, step, breaker), as they are by now, and no others."""
        loaded: dict[str, Circuit] = {}
        for pipeline, step, breaker in steps:
            circuit = loaded.get(breaker.name) or self._circuits.get(breaker.name)
            if circuit is None:
                circuit = Circuit(breaker, self._clock)
            if breaker.name not in loaded:
                circuit.steps.clear()
            loaded[breaker.name] = circuit
            circuit.steps.add((pipeline, step))
            if circuit.breaker != breaker:
                log.warning(
                    "the step %s of %s says of the breaker %s something else than others do; what those say counts",
                    step,
                    pipeline,
                    breaker.name,
                )
        self._circuits = loaded

    def of(self, breaker: Breaker | None) -> Circuit | None:
        """The one that is meant; None: none is."""
        return None if breaker is None else self._circuits.get(breaker.name)

    def begin(self, attempt: int, step: Step[Any, Any]) -> None:
        """An attempt at a step begins."""
        circuit = self.of(step.bounds.breaker)
        if circuit is not None:
            circuit.begin(attempt)

    def hear(
        self, attempt: int, step: Step[Any, Any], error: BaseException | None, *, is_known: bool
    ) -> bool:
        """An attempt at a step has ended; whether its breaker has opened or closed by that.

        ``is_known``: whether that says something: it was neither lost nor stopped.
        """
        breaker = step.bounds.breaker
        circuit = self.of(breaker)
        if circuit is None or breaker is None:
            return False
        if not is_known:
            return circuit.hear(attempt, Heard.NOTHING)
        is_well = error is None or not breaker.counts(error, step.retry.unless)
        return circuit.hear(attempt, Heard.WELL if is_well else Heard.ILL, error)

    def are_open(self) -> dict[str, bool]:
        """By name, whether it is open, or half-open."""
        return {name: one.state is not State.CLOSED for name, one in self._circuits.items()}

    def as_json(self) -> bytes:
        """All that is told of them elsewhere; empty where there are none."""
        return orjson.dumps([_told(one) for one in self._circuits.values()]) if self._circuits else b""


def _told(circuit: Circuit) -> dict[str, object]:
    breaker, state = circuit.breaker, circuit.state
    until = None if state is State.CLOSED else circuit.since + breaker.open_for
    return {
        "name": breaker.name,
        "state": state.value,
        "failures": circuit.failures if state is State.CLOSED else breaker.failures,
        "failures_max": breaker.failures,
        "since": circuit.since,
        "until": until,
        "error": circuit.error,
        "steps": sorted(circuit.steps),
    }


def _text_of(error: BaseException | None) -> str:
    try:
        return str(error)
    except BaseException:  # noqa: BLE001 - an exception's own __str__ may raise too
        return "(its message cannot be shown)"
