"""Records that hold several events: the elements of a list, by the topic's setting ``each``.

Each element becomes an event with a record of its own, which is what is stored of it: the record as it came, but with
this element alone in the list, and a header that says which one it was. What stands beside the list is no part of the
events, and is left out, so that all of them together are not much larger than what came. From such a record the same
event is read again, under the same id, wherever it is read again. A record with one element is its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from connectors.identity import FlawError, kind, shown
from connectors.lookup import Headers
from connectors.source import RawRecord, Record
from statemachines.compact import dumps_compact
from statemachines.fields import field_of
from statemachines.topic import Topic

ELEMENTS_MAX: Final = 10_000
"""Events in one record; what has more is refused as a whole."""
INDEX_HEADER: Final = "pointsman-index"
"""Counts from 0."""
_INDICES: Final = {str(number).encode(): number for number in range(ELEMENTS_MAX)}


def elements_of(document: Any, topic: Topic) -> list[Any]:
    """The elements in a record's value, none of them looked at yet.

    Raises:
        FlawError: there is no list of them, or too long a one.
    """
    assert topic.each is not None, "only then does a record hold several"
    if not isinstance(document, dict):
        raise FlawError(f"the value is {kind(document)}, and only a JSON object can hold events")
    found = field_of(topic.each, document)
    if found is None and topic.each_missing == "ignore":
        return []
    if found is None:
        raise FlawError(
            f"there is no field {shown(topic.each)}, which the topic's settings name as the list of events"
        )
    if not isinstance(found, list):
        raise FlawError(f"the field {shown(topic.each)} is {kind(found)}, and no list of events")
    if len(found) > ELEMENTS_MAX:
        raise FlawError(
            f"the field {shown(topic.each)} has {len(found):,} elements, of {ELEMENTS_MAX:,} allowed in one record"
        )
    return found


def index_of(headers: Headers) -> int:
    """Which element of a record that came this one is."""
    found = 0
    for name, value in headers:
        if name == INDEX_HEADER:
            found = _INDICES.get(value or b"", 0)
    return found


def records_of(
    record: Record, document: dict[str, Any], topic: Topic, elements: Sequence[Any]
) -> list[Record]:
    """A record for each of the elements.

    Raises:
        FlawError: what can be read cannot be written again.
    """
    if len(elements) == 1:
        return [record]
    assert topic.each is not None, "only then does a record hold several"
    # As it is found: by its whole name, or at the end of a way.
    way = [topic.each] if document.get(topic.each) is not None else topic.each.split(".")
    others = [header for header in record.headers if header[0] != INDEX_HEADER]
    place = record.topic, record.partition, record.offset, record.timestamp, record.key
    made: list[Record] = []
    for number, element in enumerate(elements):
        value: Any = [element]
        for name in reversed(way):
            value = {name: value}
        try:
            written = dumps_compact(value)
        except TypeError:
            raise FlawError(
                f"element {number} of {shown(topic.each)} is nested too deep to be kept by itself"
            ) from None
        made.append(RawRecord(*place, written, (*others, (INDEX_HEADER, str(number).encode()))))
    return made
