"""Events in order: which one is older than what was applied, and which one comes too early.

A stream is what is in order by itself: all events of a run that one ``OrderBy`` is said of, or those of them whose
``scope`` fields are equal. A run remembers how far each stream has come.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

import orjson

from statemachines.fields import field_of
from statemachines.limits import STREAM_CHARACTERS_MAX, STREAMS_MAX
from statemachines.policies import Defer

OrderKind = Literal["int", "lsn", "hex", "time"]
_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")
_HEX = re.compile(r"(0[xX])?[0-9A-Fa-f]{1,64}")


@dataclass(frozen=True, slots=True)
class OrderBy:
    """How events of a type are in order.

    Args:
        by: a field of the data (``a.b`` for one within another) that grows from event to event.
        kind: how it is compared: ``int``; ``lsn``, a Postgres position, as ``16/B374D848`` or a number; ``hex``,
            hexadecimal digits, from the left, as those of S3's sequencer; ``time``, RFC 3339.
        scope: fields whose values tell apart streams within the run.
        stream: a name for it; event types that name the same one are in one order. Without it, each type is in an order
            of its own.
        contiguous: whether each number must follow the one before it (``int`` only): one that leaves a gap waits.
        first: the number that a contiguous stream begins with.
        gap: how long one that leaves a gap waits, and what becomes of it then.
    """

    by: str
    kind: OrderKind = "int"
    scope: tuple[str, ...] = ()
    stream: str = ""
    contiguous: bool = False
    first: int = 1
    gap: Defer = field(default_factory=Defer)


class Place(enum.Enum):
    """Where an event stands in its stream."""

    NEXT = enum.auto()
    STALE = enum.auto()
    EARLY = enum.auto()


class Placed(NamedTuple):
    """An event's place, its stream, and the value that the stream has come to with it."""

    place: Place
    stream: str
    value: int | str
    before: int | str | None


class OrderError(ValueError):
    """The data does not tell where the event stands."""


class StreamsFullError(OrderError):
    """The event is the first of its stream, and the run has as many as it may have."""


def place(order: OrderBy, data: Any, marks: Any) -> Placed:
    """Where an event stands in its stream. Raises OrderError."""
    value = _value(order, data)
    stream = _stream(order, data)
    before = marks.get(stream)
    if before is not None and _kind_of(before) != order.kind:
        # An earlier version had its order by another kind of value; there is nothing to compare it with.
        before = None
    if stream not in marks and len(marks) >= STREAMS_MAX:
        message = f"the run has {STREAMS_MAX} streams already, as many as it may have"
        raise StreamsFullError(message)
    if order.contiguous:
        expected = order.first if before is None else before + 1
        if value < expected:
            return Placed(Place.STALE, stream, value, before)
        return Placed(Place.NEXT if value == expected else Place.EARLY, stream, value, before)
    stale = before is not None and value <= before
    return Placed(Place.STALE if stale else Place.NEXT, stream, value, before)


def _stream(order: OrderBy, data: Any) -> str:
    parts: list[Any] = [order.stream]
    for name in order.scope:
        found = field_of(name, data)
        if not isinstance(found, str | int) or isinstance(found, bool):
            message = (
                f"the field {name!r}, which names the stream that the event is of, has no text or number"
            )
            raise OrderError(message)
        parts.append(found)
    try:
        stream = str(parts[0]) if len(parts) == 1 else orjson.dumps(parts).decode()
    except TypeError:  # a number that is too large, a lone surrogate
        stream = ascii(parts)
    if len(stream) > STREAM_CHARACTERS_MAX:
        message = (
            f"the name of the stream that the event is of has {len(stream)} characters, of {STREAM_CHARACTERS_MAX} "
            f"allowed: it is made of {', '.join(map(repr, order.scope))}"
        )
        raise OrderError(message)
    return stream


def _kind_of(mark: int | str) -> OrderKind:
    """The kind of order that a mark was left by: those of each look otherwise than those of all others."""
    if isinstance(mark, int):
        return "int"
    if "/" in mark:
        return "lsn"
    return "time" if "T" in mark else "hex"


def _value(order: OrderBy, data: Any) -> Any:
    """Where the event stands, in a form that is compared as it is, and tells its kind."""
    found = field_of(order.by, data)
    if order.kind == "time":
        return _time(order, found)
    if order.kind == "hex":
        if isinstance(found, str) and _HEX.fullmatch(found):
            # As if the shorter one were filled up with zeros on the right.
            return found.lower().removeprefix("0x").rstrip("0")
        raise OrderError(_no(order, found))
    number = found if isinstance(found, int) and not isinstance(found, bool) else _number(order, found)
    if not 0 <= number < 2**63:
        raise OrderError(_no(order, found))
    return f"{number >> 32:08X}/{number & 0xFFFFFFFF:08X}" if order.kind == "lsn" else number


def _number(order: OrderBy, found: Any) -> int:
    if isinstance(found, str):
        lsn = _LSN.fullmatch(found) if order.kind == "lsn" else None
        if lsn is not None:
            return int(lsn[1], 16) << 32 | int(lsn[2], 16)
        if found.isascii() and found.isdigit() and len(found) <= len(str(2**63)):
            return int(found)
    raise OrderError(_no(order, found))


def _time(order: OrderBy, found: Any) -> str:
    try:
        at = datetime.fromisoformat(found)
        if at.tzinfo is not None:
            return at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
    except (TypeError, ValueError, OverflowError):
        pass
    raise OrderError(_no(order, found))


def _no(order: OrderBy, found: Any) -> str:
    wanted = {
        "int": "a whole number from 0 to 2^63 - 1",
        "lsn": "a position of Postgres, such as 16/B374D848",
        "hex": "a text of hexadecimal digits",
        "time": "a date and time with a zone (RFC 3339)",
    }[order.kind]
    given = "is missing" if found is None else f"is {found!r:.100}"
    return f"the field {order.by!r}, by which events are in order, {given}: it must be {wanted}"
