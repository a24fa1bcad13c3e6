"""Whether it is an event's turn: business keys that were seen, and the order of its stream."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

import orjson

from statemachines.durations import told_duration
from statemachines.fields import field_of
from statemachines.limits import SEEN_MAX
from statemachines.memory import Memory, microseconds_of
from statemachines.ordering import OrderBy, OrderError, Place, StreamsFullError, place
from statemachines.outcome import DUPLICATE, Deferred, Duplicate, Reason, Refused, Stale
from statemachines.policies import Once

if TYPE_CHECKING:
    from statemachines.machine import Machine
    from statemachines.occurrence import Occurrence


BUSINESS_KEY_BYTES_MAX: Final = 200
"""One that is longer is known by its digest."""


def in_turn(
    machine: Machine, memory: Memory, occurrence: Occurrence
) -> Memory | Duplicate | Stale | Deferred | Refused:
    """What the run remembers once it has taken the event, or why it is not the event's turn."""
    event_type = occurrence.envelope.type
    once = machine.onces.get(event_type)
    if once is not None and once.within is not None:
        seen = _notice(once, memory, occurrence)
        if not isinstance(seen, Memory):
            return seen
        memory = seen
    order = machine.orders.get(event_type)
    return memory if order is None else _place(order, memory, occurrence)


def _notice(once: Once, memory: Memory, occurrence: Occurrence) -> Memory | Duplicate | Refused:
    name = business_key(once, occurrence.envelope.type, occurrence.data)
    if name is None or once.within is None:
        return memory
    now = microseconds_of(occurrence.now)
    if memory.seen.get(name, 0) > now:
        return DUPLICATE
    seen = {one: until for one, until in memory.seen.items() if until > now}
    if len(seen) >= SEEN_MAX:
        error = f"the run remembers {SEEN_MAX} business keys that still count, as many as it may"
        return Refused(Reason.MEMORY_FULL, error, holds=False, policy=told_once(once))
    seen[name] = microseconds_of(occurrence.now + once.within)
    return memory._replace(seen=seen)


def _place(order: OrderBy, memory: Memory, occurrence: Occurrence) -> Memory | Stale | Deferred | Refused:
    try:
        placed = place(order, occurrence.data, memory.marks)
    except StreamsFullError as error:
        return Refused(Reason.MEMORY_FULL, str(error), holds=False, policy=_told(order))
    except OrderError as error:
        return Refused(Reason.INVALID, str(error), holds=True, policy=_told(order))
    stream = f" of {placed.stream}" if order.scope else ""
    match placed.place:
        case Place.STALE:
            why = f"{order.by}{stream} is {placed.value}, and {placed.before} was applied already"
            return Stale(why, _told(order))
        case Place.EARLY:
            expected = order.first if placed.before is None else int(placed.before) + 1
            why = f"{order.by}{stream} is {placed.value}, and {expected} has not come yet"
            gap = told_duration(order.gap.ttl)
            policy = f"order_by={order.by}, contiguous, gap={gap}, then {order.gap.then}"
            until = occurrence.now + order.gap.ttl
            return Deferred(Reason.GAP, why, until, order.gap.then, policy=policy)
        case Place.NEXT:
            return memory._replace(marks={**memory.marks, placed.stream: placed.value})


def told_once(once: Once) -> str:
    """What an event is known by, as ``explain`` tells it."""
    within = "" if once.within is None else f", duplicate_for={told_duration(once.within)}"
    return f"duplicate_by={', '.join(once.fields)}{within}"


def _told(order: OrderBy) -> str:
    kind = "" if order.kind == "int" else f", as {order.kind}"
    return f"order_by={order.by}{kind}{', contiguous' if order.contiguous else ''}"


def business_key(once: Once, event_type: str, data: Any) -> str | None:
    """What an event is known by beside its id; None where its data does not tell."""
    found: list[Any] = [event_type]
    for name in once.fields:
        value = field_of(name, data)
        if not isinstance(value, str | int | float):
            return None
        found.append(value)
    try:
        key = orjson.dumps(found)
    except TypeError:  # a number that is too large, a lone surrogate
        key = ascii(found).encode()
    if len(key) > BUSINESS_KEY_BYTES_MAX:
        return hashlib.blake2b(key, digest_size=32).hexdigest()
    return key.decode()
