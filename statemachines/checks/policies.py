"""Mistakes with policies: what becomes of events that do not fit, business keys, and the order of streams."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, get_args

from pydantic import ValidationError

from statemachines.checks import unasked
from statemachines.checks.comparing import are_equal
from statemachines.checks.names import wrong_with_text
from statemachines.definition import Move, Pipeline, Start
from statemachines.events import Event, is_event_class, is_internal
from statemachines.limits import DELAY_DAYS_MAX, STREAM_CHARACTERS_MAX
from statemachines.mistakes import Mistake
from statemachines.ordering import OrderBy, OrderKind
from statemachines.places import Place
from statemachines.policies import SITUATIONS, Defer, Fate, PolicyLine
from statemachines.suggest import did_you_mean, listed

FATES: tuple[str, ...] = get_args(Fate)
KINDS: tuple[str, ...] = get_args(OrderKind)
_DELAY_MAX = timedelta(days=DELAY_DAYS_MAX)


def find(pipeline: Pipeline[Any]) -> Iterator[Mistake]:
    """All mistakes with policies."""
    for situation in SITUATIONS:
        given = getattr(pipeline, situation)
        yield from _decision(pipeline, situation, given, "", pipeline.place)
    yield from unasked.find_in_general(pipeline)
    said: dict[tuple[str, int, str], PolicyLine] = {}
    for line in pipeline.policies:
        yield from _line(pipeline, line)
        given_here = [
            *line.decisions,
            *(["duplicate_by"] if line.once else []),
            *(["order_by"] if line.order else []),
        ]
        for name in given_here:
            other = said.setdefault((repr(line.state), id(line.event), name), line)
            if other is not line:
                message = f"{name}{_for(line)} is also said at {other.place}"
                yield _of(line, message, "Keep one of the two")
    yield from _streams(pipeline)


def _line(pipeline: Pipeline[Any], line: PolicyLine) -> Iterator[Mistake]:
    for situation, given in line.decisions.items():
        yield from _decision(pipeline, situation, given, _for(line), line.place)
    if line.state is not None:
        yield from _state(pipeline, line)
    if line.event is None and line.state is not None:
        return
    if not is_event_class(line.event):
        cure = "Name the class of events that it is for"
        yield _of(line, f"a policy is for a class of events, not {line.event!r}", cure)
        return
    lines: list[Start | Move] = [*pipeline.starts, *pipeline.moves]
    known = {one.event for one in lines if is_event_class(one.event)}
    if line.event not in known:
        name, names = (
            line.event.event_type(),
            sorted(str(one.event_type()) for one in known if not is_internal(one)),
        )
        message = f"a policy is for {name!r}, which no transition of pipeline {pipeline.name!r} takes"
        yield _of(line, message, did_you_mean(name, names))
    elif is_internal(line.event):
        message = (
            f"{line.event.event_type()!r} comes from inside of a run: where nothing takes it, it is gone, "
            "and no policy is asked"
        )
        yield _of(line, message, "Leave the policy out")
    yield from unasked.find(pipeline, line)
    if "no_run" in line.decisions and any(
        one.event is line.event and one.guard is None for one in pipeline.starts
    ):
        message = f"no_run{_for(line)} is never asked: the event starts a run where there is none"
        cure = "Leave it out, or do not let the event start a run, or only under a condition: when="
        yield _of(line, message, cure)
    if not line.decisions and line.once is None and line.order is None:
        yield _of(line, f"a policy{_for(line)} says nothing", "Say what it is for, as in unexpected=...")
    yield from _once(line)
    if line.order is not None:
        yield from _order(line, line.order)
        yield from _early(pipeline, line, line.order)


def _decision(
    pipeline: Pipeline[Any], situation: str, given: object, whose: str, place: Place
) -> Iterator[Mistake]:
    choices = SITUATIONS[situation]
    if isinstance(given, Defer) and "defer" in choices:
        yield from _defer(f"{situation}{whose}", given, place)
    elif not isinstance(given, str) or given not in choices:
        message = f"{situation}={given!r}{whose} is no policy"
        yield Mistake(message, did_you_mean(given, choices), place)
    elif given == "start":
        yield from _defaults(pipeline, situation, place)


def _defer(name: str, defer: Defer, place: Place) -> Iterator[Mistake]:
    ttl: Any = defer.ttl
    if not isinstance(ttl, timedelta) or not timedelta(0) < ttl <= _DELAY_MAX:
        message = f"{name} defers for {ttl!r}"
        cure = f"Give a timedelta of more than nothing and at most {DELAY_DAYS_MAX} days"
        yield Mistake(message, cure, place)
    if not isinstance(defer.then, str) or defer.then not in FATES:
        message = f"{name} defers, and then={defer.then!r} is nothing that becomes of an event"
        yield Mistake(message, did_you_mean(defer.then, FATES), place)


def _defaults(pipeline: Pipeline[Any], situation: str, place: Place) -> Iterator[Mistake]:
    try:
        pipeline.context()
    except ValidationError as error:
        fields = listed(str(one["loc"][0]) for one in error.errors(include_url=False) if one["loc"])
        name = pipeline.context.__name__
        message = f"{situation}='start' begins runs with a context of its defaults, and {name} has none for {fields}"
        yield Mistake(message, "Give the fields defaults, or name an event that starts runs", place)
    except Exception as error:  # noqa: BLE001 - a user's class, which may also be none: that is a mistake of its own
        message = (
            f"{situation}='start' begins runs with a context of its defaults, which cannot be made: {error}"
        )
        yield Mistake(message, "Name an event that starts runs", place)


def _state(pipeline: Pipeline[Any], line: PolicyLine) -> Iterator[Mistake]:
    state = next((one for one in pipeline.states if one.name == line.state), None)
    if state is not None and (state.final or state.kind == "history"):
        what = "final" if state.final else "a history, and never active itself"
        message = f"the state {line.state!r} is {what}, so its policy is never asked"
        if not state.final or state.parent is None:
            yield _of(line, message, "Say it of another state")


def _once(line: PolicyLine) -> Iterator[Mistake]:
    once = line.once
    if once is None:
        return
    if not once.fields:
        message = f"duplicate_by{_for(line)} names no field"
        if once.within is not None:
            message = f"duplicate_for{_for(line)} is given without duplicate_by"
        yield _of(line, message, "Name the fields by which an event is known again")
    yield from _fields(line, "duplicate_by", once.fields)
    within: Any = once.within
    if within is not None and (not isinstance(within, timedelta) or not timedelta(0) < within <= _DELAY_MAX):
        message = f"duplicate_for={within!r}{_for(line)} is no time that passes"
        yield _of(line, message, "Give a timedelta, or leave it out to remember for ever")


def _order(line: PolicyLine, order: OrderBy) -> Iterator[Mistake]:
    given: Any = order
    if not isinstance(given, OrderBy):
        message = f"order_by={given!r}{_for(line)} is no order"
        yield _of(line, message, 'Write order_by=OrderBy("field", ...)')
        return
    yield from _stream(line, order)
    if not isinstance(order.kind, str) or order.kind not in KINDS:
        yield _of(line, f"events cannot be in order as {order.kind!r}", did_you_mean(order.kind, KINDS))
    contiguous: Any = order.contiguous
    if not isinstance(contiguous, bool):
        message = f"contiguous={contiguous!r}{_for(line)} is neither True nor False"
        yield _of(line, message, "Write contiguous=True, or leave it out")
    elif contiguous:
        if not are_equal(order.kind, "int"):
            message = (
                f"contiguous=True{_for(line)} needs numbers that follow one another, not kind={order.kind!r}"
            )
            yield _of(line, message, "Use kind='int', or leave contiguous out")
        if type(order.first) is not int or not 0 <= order.first < 2**63:
            yield _of(
                line,
                f"first={order.first!r}{_for(line)} is no number to begin with",
                "Use 0, 1, ... below 2^63",
            )
        gap: Any = order.gap
        if isinstance(gap, Defer):
            yield from _defer(f"gap{_for(line)}", gap, line.place)
        else:
            yield _of(line, f"gap={gap!r}{_for(line)} is no deferral", "Write gap=Defer(timedelta(...))")
    else:
        plain = OrderBy(order.by)
        for name in ("first", "gap"):
            if not are_equal(getattr(order, name), getattr(plain, name)):
                message = f"{name}={getattr(order, name)!r}{_for(line)} says nothing without contiguous=True"
                yield _of(line, message, "Add contiguous=True, or leave it out")


def _early(pipeline: Pipeline[Any], line: PolicyLine, order: object) -> Iterator[Mistake]:
    """What is ignored before there is a run, which could remember it, has not had its turn."""
    if (
        not isinstance(order, OrderBy)
        or not are_equal(order.contiguous, True)
        or not is_event_class(line.event)
    ):
        return
    event_type = line.event.event_type()
    if any(
        is_event_class(one.event) and one.event.event_type() == event_type and one.guard is None
        for one in pipeline.starts
    ):
        return
    said = [one for one in pipeline.policies if one.event is line.event and "no_run" in one.decisions]
    no_run, place = (
        (said[0].decisions["no_run"], said[0].place) if said else (pipeline.no_run, pipeline.place)
    )
    if are_equal(no_run, "ignore"):
        whose = "" if place == line.place else f" at {place}"
        message = (
            f"contiguous=True{_for(line)} counts from {order.first!r}, and no_run='ignore'{whose} drops what comes "
            "before its run: all that follow such an event in its stream would wait for it"
        )
        cure = "Say no_run='defer' for it; nothing is to be done if none can come before its run"
        yield Mistake(message, cure, line.place, severity="warning", event=event_type)


def _stream(line: PolicyLine, order: OrderBy) -> Iterator[Mistake]:
    scope: Any = order.scope
    if isinstance(scope, list | tuple):
        yield from _fields(line, "order_by", (order.by, *scope))
    else:
        yield from _fields(line, "order_by", (order.by,))
        message = f"scope={scope!r}{_for(line)} is no list of fields"
        yield _of(
            line, message, f"Write scope=({scope!r},)" if isinstance(scope, str) else 'Write scope=("field",)'
        )
    if not are_equal(order.stream, ""):
        wrong = wrong_with_text(order.stream, STREAM_CHARACTERS_MAX)
        if wrong is not None:
            message = f"stream={order.stream!r:.100}{_for(line)} {wrong}"
            yield _of(line, message, "Name the stream by a short text, or leave it out")


def _fields(line: PolicyLine, setting: str, names: tuple[str, ...]) -> Iterator[Mistake]:
    event = line.event
    if not is_event_class(event):
        return
    known = _names(event)
    for name in names:
        if not isinstance(name, str) or not {name, name.partition(".")[0]} & known:
            message = f"{setting}{_for(line)} names {name!r}, which is no field of {event.__name__}"
            own = event.__pydantic_fields__.get(name) if isinstance(name, str) else None
            alias = None if own is None else own.validation_alias
            cure = (
                f"The data calls it {alias!r}"
                if isinstance(alias, str)
                else did_you_mean(name, sorted(known))
            )
            yield _of(line, message, cure)


def _names(event: type[Event]) -> set[str]:
    """As the data calls them."""
    found = set()
    for name, field in event.__pydantic_fields__.items():
        alias = field.validation_alias
        found.add(alias if isinstance(alias, str) else name)
    return found


def _streams(pipeline: Pipeline[Any]) -> Iterator[Mistake]:
    first: dict[str, PolicyLine] = {}
    for line in pipeline.policies:
        order: Any = line.order
        if not isinstance(order, OrderBy) or not is_event_class(line.event):
            continue
        # Without a name the stream goes by the type, and another type may name it.
        other = first.setdefault(repr(order.stream or line.event.event_type()), line)
        there = other.order
        if (
            there is not None
            and other.event is not line.event
            and not are_equal(_terms(order), _terms(there))
        ):
            message = (
                f"order_by{_for(line)} is in one stream with that at {other.place}, and does not say the same "
                "of kind, scope, contiguous and first"
            )
            yield _of(line, message, "Say the same, or name another stream")


def _terms(order: OrderBy) -> tuple[object, ...]:
    scope: Any = order.scope
    return order.kind, len(scope) if isinstance(scope, list | tuple) else 0, order.contiguous, order.first


def _for(line: PolicyLine) -> str:
    event = f" for {line.event.event_type()!r}" if is_event_class(line.event) else ""
    return event + (f" in the state {line.state!r}" if line.state is not None else "")


def _of(line: PolicyLine, message: str, cure: str) -> Mistake:
    event = line.event.event_type() if is_event_class(line.event) else None
    return Mistake(message, cure, line.place, state=line.state, event=event)
