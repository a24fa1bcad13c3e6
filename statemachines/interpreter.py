"""The pure interpreter: ``step(machine, run, occurrence) -> outcome``.

No clock, no randomness, no ids made up, no logging, no await: whatever an outcome depends on is in the
arguments, so the engine, replay, tests and simulation agree by construction.

An event meets these questions in this order, and the first that has an answer decides:

1. seen before?          -> Duplicate
2. run held?             -> Waits
3. no run, run closed?   -> a start event starts one; else the pipeline's policy
4. valid?                -> else Refused, and the run is held
5. accepted?             -> the state's own transitions, then the pipeline's, in order; else the policy
6. the action            -> Refused, and the run is held, if it raises or leaves nonsense

User code is called in ``_ask``, ``_act`` and ``_begin`` only. Whatever it raises, ``BaseException``
included, ends there. What it leaves in the context is written to JSON and read back before it counts, so
that a run goes on from equal data whether it stayed in memory, was loaded from its row, or is replayed.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any, NamedTuple

from statemachines.effects import Publication, Publish
from statemachines.events import Address, Event, Meta
from statemachines.outcome import DUPLICATE, WAITS, Ignored, Moved, Outcome, Reason, Refused, Tried
from statemachines.run import Run, Status, has_seen

if TYPE_CHECKING:
    from datetime import datetime

    from statemachines.context import Context
    from statemachines.definition import Policy
    from statemachines.events import Envelope
    from statemachines.machine import Beginning, Candidate, Machine

_set_meta = Event.meta.__set__  # type: ignore[attr-defined]  # the slot, past the frozen model's __setattr__
COMPLETED = int(Status.COMPLETED)
RUNNING = int(Status.RUNNING)


class Occurrence(NamedTuple):
    """An event on its way into a run, with all that the outcome depends on."""

    envelope: Envelope
    key: str
    digest: bytes
    now: datetime
    event: Event | None
    """None: the data failed the event's schema, as ``error`` says."""
    error: str = ""
    seen: bool = False
    """The log says that it was consumed before."""
    redriven: bool = False
    """Put back by a person, or released: it passes a hold."""


class HandlerError(Exception):
    """User code raised, or returned or left behind what cannot be."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def step(machine: Machine, run: Run | None, occurrence: Occurrence) -> Outcome:
    """What becomes of a run by an event; the run itself is left as it is."""
    if run is None:
        return _start(machine, occurrence)
    if occurrence.seen or has_seen(run.recent, occurrence.digest):
        return DUPLICATE
    if run.held and not occurrence.redriven:
        return WAITS
    if run.status == COMPLETED:
        return _by_policy(machine.closed, Reason.CLOSED, f"the run ended in {run.configuration}")
    if occurrence.event is None:
        return Refused(Reason.INVALID, occurrence.error, holds=True)
    candidates = machine.table[run.configuration].get(occurrence.envelope.type)
    if candidates is None:
        return _by_policy(
            machine.unexpected, Reason.UNEXPECTED, f"{run.configuration} has no transition for it"
        )
    return _move(machine, run, occurrence, occurrence.event, candidates)


def _move(
    machine: Machine, run: Run, occurrence: Occurrence, event: Event, candidates: tuple[Candidate, ...]
) -> Outcome:
    address = Address(machine.namespace, machine.name, run.key, run.generation, run.sequence + 1)
    _set_meta(event, Meta(occurrence.envelope, occurrence.now, address))
    context: Context | None = None
    tried: list[Tried] = []
    try:
        for candidate in candidates:
            if candidate.guard is not None:
                if context is None:
                    context = _load(machine, run)
                if not _ask(candidate, context, event):
                    tried.append(Tried(candidate.source, candidate.target, candidate.guard_name))
                    continue
            return _take(machine, run, candidate, context, event)
    except HandlerError as error:
        return Refused(error.reason, str(error), holds=True, tried=tuple(tried))
    why = f"no condition of the transitions out of {run.configuration} held"
    return _by_policy(machine.unexpected, Reason.UNEXPECTED, why, tuple(tried))


def _take(machine: Machine, run: Run, candidate: Candidate, context: Context | None, event: Event) -> Moved:
    target = candidate.target
    configuration = run.configuration if target is None else target
    status = COMPLETED if configuration in machine.final else RUNNING
    if candidate.action is None:
        # A guard may have had the context in its hands, so the object is not passed on.
        return Moved(False, configuration, status, None, [] if context is not None else run.loaded, ())
    if context is None:
        context = _load(machine, run)
    publications = _act(candidate.action, candidate.action_name, context, event)
    written, loaded = _write(machine, context, candidate.action_name)
    changed = None if written == run.context else written
    return Moved(False, configuration, status, changed, [loaded], publications)


def _start(machine: Machine, occurrence: Occurrence) -> Outcome:
    beginning = machine.beginnings.get(occurrence.envelope.type)
    if beginning is None:
        return _by_policy(machine.no_run, Reason.NO_RUN, f"no run has the key {occurrence.key!r}")
    event = occurrence.event
    if event is None:
        return Refused(Reason.INVALID, occurrence.error, holds=False)
    address = Address(machine.namespace, machine.name, occurrence.key, 0, 1)
    _set_meta(event, Meta(occurrence.envelope, occurrence.now, address))
    try:
        return _begin(machine, beginning, event)
    except HandlerError as error:
        return Refused(error.reason, str(error), holds=False)


def _begin(machine: Machine, beginning: Beginning, event: Event) -> Moved:
    try:
        context = beginning.build(event)
    except BaseException as error:  # noqa: BLE001 - whatever user code raises ends here
        raise HandlerError(Reason.ACTION_FAILED, describe(error, beginning.build_name)) from None
    if type(context) is not machine.context_class:
        wanted = machine.context_class.__name__
        got = type(context).__name__
        message = f"{beginning.build_name} returned {got}, but the pipeline's context is {wanted}"
        raise HandlerError(Reason.ACTION_FAILED, message)
    publications: tuple[Publication, ...] = ()
    if beginning.action is not None:
        publications = _act(beginning.action, beginning.action_name, context, event)
    written, loaded = _write(machine, context, beginning.build_name)
    status = COMPLETED if beginning.target in machine.final else RUNNING
    return Moved(True, beginning.target, status, written, [loaded], publications)


def _by_policy(policy: Policy, reason: Reason, why: str, tried: tuple[Tried, ...] = ()) -> Outcome:
    if policy == "ignore":
        return Ignored(reason, tried)
    return Refused(reason, why, holds=False, tried=tried)


def _load(machine: Machine, run: Run) -> Context:
    # The object at hand is taken out, so that it is used once: who steps from the same run again reads the
    # bytes.
    context: Context
    if run.loaded:
        context = run.loaded.pop()
        return context
    try:
        context = machine.context_class.__pydantic_validator__.validate_json(run.context)
    except ValueError as error:
        message = f"the stored context is no {machine.context_class.__name__} any more: {error}"
        raise HandlerError(Reason.ACTION_FAILED, message) from None
    return context


def _ask(candidate: Candidate, context: Context, event: Event) -> bool:
    assert candidate.guard is not None
    try:
        answer: Any = candidate.guard(context, event)
    except BaseException as error:  # noqa: BLE001 - whatever user code raises ends here
        raise HandlerError(Reason.GUARD_FAILED, describe(error, candidate.guard_name)) from None
    if answer is True or answer is False:
        return answer
    message = f"{candidate.guard_name} returned {type(answer).__name__}; a guard answers True or False"
    raise HandlerError(Reason.GUARD_FAILED, message)


def _act(action: Any, name: str | None, context: Context, event: Event) -> tuple[Publication, ...]:
    try:
        out = action(context, event)
        if out is None:
            return ()
        effects = (out,) if isinstance(out, Publish) else tuple(out)
        return tuple(_publication(effect, event) for effect in effects)
    except HandlerError:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever user code raises ends here
        raise HandlerError(Reason.ACTION_FAILED, describe(error, name)) from None


def _publication(effect: Any, cause: Event) -> Publication:
    if not isinstance(effect, Publish):
        message = f"an action returns None, Publish or several Publish, not {type(effect).__name__}"
        raise HandlerError(Reason.ACTION_FAILED, message)
    event = effect.event
    if not isinstance(event, Event) or not event.__event_type__:
        message = f"Publish to {effect.topic!r} needs an event whose class names a type, not {event!r}"
        raise HandlerError(Reason.ACTION_FAILED, message)
    key: Any = effect.key if effect.key is not None else cause.meta.address.key
    topic: Any = effect.topic
    for text in (topic, key):
        if not isinstance(text, str):
            message = f"Publish takes topic and key as text, not {text!r}"
            raise HandlerError(Reason.ACTION_FAILED, message)
        text.encode()  # a lone surrogate is refused here, where it can be told whose it is
    data = event.__pydantic_serializer__.to_json(event, warnings=False)
    return Publication(effect.topic, event.__event_type__, key, data)


def _write(machine: Machine, context: Context, name: str | None) -> tuple[bytes, Context]:
    try:
        written = context.__pydantic_serializer__.to_json(context, warnings=False)
        loaded = machine.context_class.__pydantic_validator__.validate_json(written)
    except BaseException as error:  # noqa: BLE001 - user types may bring their own serializers
        message = (
            f"the context that {name} left does not survive being stored: {type(error).__name__}: {error}"
        )
        raise HandlerError(Reason.ACTION_FAILED, message) from None
    return written, loaded


def describe(error: BaseException, name: str | None) -> str:
    """What happened in user code, in one line that names the handler and the place."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 - an exception's own __str__ may raise too
        text = "(its message cannot be shown)"
    return f"{name} raised {type(error).__name__}: {text}{where}"
