"""Mistakes with what bounds steps: their times, how many at once, and their breakers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, TypeGuard

from statemachines.bounds import Breaker, Limit
from statemachines.definition import Pipeline
from statemachines.durations import told_duration
from statemachines.limits import BREAKER_NAME_CHARACTERS_MAX, DELAY_DAYS_MAX, RATE_MAX, RATE_MIN
from statemachines.mistakes import Mistake
from statemachines.search import stored_name
from statemachines.step import Step
from statemachines.suggest import did_you_mean

_DELAY_MAX = timedelta(days=DELAY_DAYS_MAX)
TIME = "timedelta(seconds=30)"


def find(step: Step[Any, Any], called: str, context: Any) -> Iterator[Mistake]:
    """All mistakes with what bounds a step, which sentences call so, and which is given this class of contexts."""
    times = {
        "timeout": (step.timeout, "an attempt may take"),
        "heartbeat": (step.bounds.heartbeat, "an attempt may be silent"),
        "within": (step.bounds.within, "all attempts may take together"),
    }
    for name, (time, meaning) in times.items():
        if time is not None and not is_time(time):
            message = f"{name}={time!r} of {called} is no time that {meaning}"
            yield Mistake(message, f"Write {name}={TIME}, or leave it out", step.place)
    yield from _order_of_times(step, called)
    at_once: Any = step.at_once
    if at_once is not None and not is_count(at_once):
        message = f"at_once={at_once!r} of {called} is not how many of it may go on at once"
        yield Mistake(message, "Write a whole number from 1 on, or leave it out", step.place)
    breaker: Any = step.bounds.breaker
    if isinstance(breaker, Breaker):
        yield from _breaker(breaker, step, called)
    elif breaker is not None:
        message = f"breaker={breaker!r} of {called} is no breaker"
        yield Mistake(message, 'Write breaker=Breaker("payments"), or leave it out', step.place)

    limit: Any = step.bounds.limit
    if isinstance(limit, Limit):
        yield from _limit(limit, step, called, context)
    elif limit is not None:
        message = f"limit={limit!r} of {called} is no limit"
        yield Mistake(message, 'Write limit=Limit("tenant", at_once=2), or leave it out', step.place)


def find_among(pipeline: Pipeline[Any]) -> Iterator[Mistake]:
    """Mistakes with what steps say together."""
    first: dict[str, tuple[Breaker, Step[Any, Any]]] = {}
    for step in pipeline.works:
        breaker: Any = step.bounds.breaker
        if not isinstance(breaker, Breaker) or not isinstance(breaker.name, str):
            continue
        other, where = first.setdefault(breaker.name, (breaker, step))
        if other != breaker:
            message = f"{step.name!r} and {where.name!r} say different things of the breaker {breaker.name!r}"
            cure = "Make the breaker once, and give it to both; or give one of the two another name"
            yield Mistake(message, cure, step.place)


def is_time(value: object) -> TypeGuard[timedelta]:
    """Whether it is one that something may take."""
    return isinstance(value, timedelta) and timedelta(0) < value <= _DELAY_MAX


def is_count(value: object) -> bool:
    """Whether it is a whole number from 1 on."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def is_exception(value: object) -> bool:
    """Whether it is a class of exceptions."""
    return isinstance(value, type) and issubclass(value, BaseException)


def _order_of_times(step: Step[Any, Any], called: str) -> Iterator[Mistake]:
    timeout, heartbeat, within = step.timeout, step.bounds.heartbeat, step.bounds.within
    if is_time(timeout) and is_time(heartbeat) and heartbeat >= timeout:
        message = f"heartbeat={told_duration(heartbeat)} of {called} is never over before its timeout"
        yield Mistake(message, "Write a shorter one, or leave it out", step.place, severity="warning")
    if is_time(timeout) and is_time(within) and within < timeout:
        message = f"within={told_duration(within)} of {called} is over before its timeout is"
        cure = "Write a longer one, or leave the timeout out"
        yield Mistake(message, cure, step.place, severity="warning")


def _breaker(breaker: Breaker, step: Step[Any, Any], called: str) -> Iterator[Mistake]:
    name: Any = breaker.name
    if not _is_name(name):
        message = f"the breaker of {called} cannot be called {name!r}"
        cure = f'Call it by printable text of {BREAKER_NAME_CHARACTERS_MAX} letters at most, as in Breaker("payments")'
        yield Mistake(message, cure, step.place)
        return
    of = f"the breaker {name!r} of {called}"
    if not is_count(breaker.failures):
        message = f"failures={breaker.failures!r} of {of} is not how many open it"
        yield Mistake(message, "Write a whole number from 1 on", step.place)
    for what, meaning in (("within", "failures may lie apart"), ("open_for", "it may be open")):
        time: Any = getattr(breaker, what)
        if not is_time(time):
            message = f"{what}={time!r} of {of} is no time that {meaning}"
            yield Mistake(message, f"Write {what}={TIME}, or leave it out", step.place)
    on: Any = breaker.on
    for error in on if isinstance(on, tuple) else () if on is None else (on,):
        if not is_exception(error):
            message = f"on={error!r} of {of} is no class of exceptions"
            yield Mistake(message, "Name a class, or several in a tuple", step.place)


def _limit(limit: Limit, step: Step[Any, Any], called: str, context: Any) -> Iterator[Mistake]:
    of, rate = f"the limit of {called}", limit.rate
    if limit.at_once is None and rate is None:
        yield Mistake(f"{of} limits nothing", "Say at_once= or rate=, or both", step.place)
    if limit.at_once is not None and not is_count(limit.at_once):
        message = f"at_once={limit.at_once!r} of {of} is not how many may go on at once"
        yield Mistake(message, "Write a whole number from 1 on, or leave it out", step.place)
    if rate is not None and not _is_rate(rate):
        message = f"rate={rate!r} of {of} is not how many may begin in a second"
        cure = f"Write a number between {RATE_MIN:g} and {RATE_MAX:,}, or leave it out"
        yield Mistake(message, cure, step.place)
    by: Any = limit.by
    if by is None:
        return
    names = _stored_names(context)
    if not isinstance(by, str) or not by:
        yield Mistake(
            f"{of} is by {by!r}, which is no name of a field", "Name a field of the context", step.place
        )
    elif by not in names and by.partition(".")[0] not in names:
        message = f"{of} is by {by!r}, which is no field of {context.__name__}"
        yield Mistake(message, did_you_mean(by, names), step.place)


def _stored_names(context: Any) -> list[str]:
    return [stored_name(name, field) for name, field in getattr(context, "model_fields", {}).items()]


def _is_rate(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and RATE_MIN <= value <= RATE_MAX


def _is_name(name: object) -> bool:
    return isinstance(name, str) and 0 < len(name) <= BREAKER_NAME_CHARACTERS_MAX and name.isprintable()
