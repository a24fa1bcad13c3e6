"""Breakers: what steps depend on is left alone while it is out of order. Each engine has its own.

A breaker is closed; opens after failures in a row; and after a while lets one attempt through, which decides. Where
that does not end, another one is let through after as long again; whichever of them ends decides.

An attempt that hands its work over has done so well, which says nothing of that work: what is told of it by its token
is heard as well, by the engine that takes that up.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, NamedTuple

import orjson

from statemachines.bounds import Breaker
from statemachines.durations import told_duration
from statemachines.failing import on_one_line
from statemachines.step import Step

log = logging.getLogger("pointsman.engine")

ERROR_CHARACTERS_MAX = 200
"""So much is kept of the error that opened one."""
TRIALS_MAX = 100
"""So many attempts that were let through, and have not ended, are known; of more, the last."""


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
    HANDED_OVER = "handed over"
    """It goes on outside, and is heard of again once it is completed."""
    NOTHING = "nothing"
    """It was stopped, or lost."""


class Told(NamedTuple):
    """How an attempt at a step ended, or that it goes on outside."""

    attempt: Hashable
    """The execution that it is at, of which one attempt goes on at a time."""
    step: Step[Any, Any]
    error: BaseException | None = None
    is_known: bool = True
    """Whether that says something: it was neither lost nor stopped."""
    is_handed_over: bool = False
    outside: bool = False
    """Whether it went on outside, and was completed."""


class Circuit:
    """One breaker in this engine."""

    def __init__(self, breaker: Breaker, clock: Callable[[], datetime]) -> None:
        self.breaker = breaker
        self._clock = clock
        self._failed_at: deque[tuple[float, bool]] = deque(maxlen=breaker.failures)
        """When attempts failed, and whether outside, as long as none has succeeded since."""
        self._opened_at: float | None = None
        self._is_of_outside = False
        """Whether it was opened by what failed outside, so that handing over more does not close it."""
        self._trials: dict[Hashable, None] = {}
        """The attempts that were let through since it opened, of which the next one that ends decides."""
        self._tries_again_at = 0.0
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
        return sum(at > after for at, _ in self._failed_at)

    def room(self, many: int) -> int:
        """How many attempts may begin, of so many for which there is room."""
        match self.state:
            case State.CLOSED:
                return many
            case State.HALF_OPEN if self._may_try:
                return min(many, 1)
            case _:
                return 0

    @property
    def _may_try(self) -> bool:
        return not self._trials or time.monotonic() >= self._tries_again_at

    def begin(self, attempt: Hashable, timeout: timedelta | None = None) -> None:
        """An attempt begins, which ends within its ``timeout``; it is one that decides, if it is waited for one."""
        if self.state is not State.HALF_OPEN or not self._may_try:
            return
        self._trials[attempt] = None
        if len(self._trials) > TRIALS_MAX:
            del self._trials[next(iter(self._trials))]
        longest = max(self.breaker.open_for, timeout or self.breaker.open_for)
        self._tries_again_at = time.monotonic() + longest.total_seconds()

    def hear(
        self, attempt: Hashable, heard: Heard, error: BaseException | None = None, *, outside: bool = False
    ) -> bool:
        """Take note of how an attempt ended; whether the breaker is open where it was closed, or the other way.

        ``outside``: it went on there, and was completed.
        """
        if self._opened_at is not None:
            # What had begun before it opened says nothing that is not known.
            return attempt in self._trials and self._decide(attempt, heard, error, outside=outside)
        if heard is Heard.WELL:
            self._failed_at.clear()
        elif heard is Heard.HANDED_OVER:
            kept = [one for one in self._failed_at if one[1]]
            self._failed_at.clear()
            self._failed_at += kept
        elif heard is Heard.ILL:
            self._failed_at.append((time.monotonic(), outside))
            if self.failures >= self.breaker.failures:
                self._open(error, outside=any(one[1] for one in self._failed_at))
                return True
        return False

    def _decide(self, attempt: Hashable, heard: Heard, error: BaseException | None, *, outside: bool) -> bool:
        if heard is Heard.NOTHING:
            del self._trials[attempt]
            self._tries_again_at = 0.0
            return False
        if heard is Heard.HANDED_OVER and self._is_of_outside:
            return False
        self._trials.clear()
        if heard is Heard.ILL:
            self._open(error, outside=outside)
            return True
        self._opened_at, self._is_of_outside = None, False
        self._failed_at.clear()
        self.since, self.error = self._clock(), ""
        log.info("the breaker %s has closed: an attempt has succeeded", self.breaker.name)
        return True

    def _open(self, error: BaseException | None, *, outside: bool) -> None:
        self._opened_at = time.monotonic()
        self._is_of_outside |= outside
        self.since = self._clock()
        self.error = on_one_line(f"{type(error).__name__}: {_text_of(error)}")[:ERROR_CHARACTERS_MAX]
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

    def begin(self, attempt: Hashable, step: Step[Any, Any]) -> None:
        """An attempt at a step begins."""
        circuit = self.of(step.bounds.breaker)
        if circuit is not None:
            circuit.begin(attempt, step.timeout)

    def hear(self, told: Told) -> bool:
        """An attempt at a step has ended, or was handed over; whether its breaker has opened or closed by that."""
        breaker = told.step.bounds.breaker
        circuit = self.of(breaker)
        if circuit is None or breaker is None:
            return False
        if not told.is_known:
            return circuit.hear(told.attempt, Heard.NOTHING)
        if told.is_handed_over:
            return circuit.hear(told.attempt, Heard.HANDED_OVER)
        is_well = told.error is None or not breaker.counts(told.error, told.step.retry.unless)
        heard = Heard.WELL if is_well else Heard.ILL
        return circuit.hear(told.attempt, heard, told.error, outside=told.outside)

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
