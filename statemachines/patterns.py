"""Patterns of event types: ``order.*`` stands for ``order`` and all types below it, ``*`` for every type.

By the text (SCXML, 3.12.1), where a pattern ends with ``.*`` or is ``*``; types are compared by their dotted parts. But
``*`` does not stand for a failure, which only who names it deals with; nor for timers and for how steps ended, which
are for the states that asked for them. No pattern stands for the event that says that the run is cancelled.

Each type that comes goes by one name: itself where the definition has it or it is that of a failure, else the most
specific pattern that stands for it. The other patterns that do are the same for all types that go by that name. So all
there is to know of a type is known of the name, and what is kept by name is bounded by the definition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from statemachines.events import AFTER_PREFIX, DONE_PREFIX, OUTCOMES, Cancelled, Failed
from statemachines.limits import TYPES_KEPT_MAX

ANY = "*"
FAILURE = Failed.event_type()
CANCEL = Cancelled.event_type()
_ASKED_FOR = (AFTER_PREFIX, *OUTCOMES)
"""How the types begin of what comes because a state has asked for it."""

T = TypeVar("T")


def is_pattern(event_type: str) -> bool:
    """Whether it stands for other types than itself."""
    return event_type == ANY or event_type.endswith(".*")


def covers(name: str, event_type: str) -> bool:
    """Whether a type or pattern stands for a type; or, where that is a pattern, for all types that it stands for."""
    if name == event_type:
        return True
    if event_type == CANCEL:
        return False
    if name == ANY:
        return not takes_failures(event_type) and not event_type.startswith(_ASKED_FOR)
    return is_pattern(name) and _below(event_type).startswith(name[:-1])


def takes(name: str, going_by: str) -> bool:
    """Whether a type or pattern stands for the types that go by a name, of which a failure is never one of several.

    Timers and steps are nobody's but their own states'.
    """
    if name == ANY:
        return going_by not in (FAILURE, CANCEL) and not going_by.startswith(_ASKED_FOR)
    return covers(name, going_by)


def overlaps(one: str, other: str) -> bool:
    """Whether there is a type that both of these types or patterns stand for."""
    both = (one, other)
    return (ANY in both and not {FAILURE, CANCEL} & {*both}) or covers(one, other) or covers(other, one)


def takes_failures(name: str) -> bool:
    """Whether a type or pattern stands for the event that says that a handler failed: one that names ``error`` does."""
    return name != ANY and (name == FAILURE or (is_pattern(name) and f"{FAILURE}.".startswith(name[:-1])))


def is_from_inside(event_type: str) -> bool:
    """Whether no topic has events of a type, but runs raise them, or operators; from topics it is an unknown type."""
    return event_type in (FAILURE, CANCEL) or event_type.startswith((DONE_PREFIX, *_ASKED_FOR))


def narrowing(event_type: str) -> Iterator[str]:
    """The patterns that stand for a type, the most specific first."""
    prefix = event_type
    while prefix:
        yield f"{prefix}.*"
        prefix = prefix.rpartition(".")[0]
    yield ANY


class Names:
    """The names that the events of one definition go by, found once for each type that comes."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)
        self._patterns = frozenset(filter(is_pattern, self._names))
        self._found: dict[str, str | None] = {}

    def __iter__(self) -> Iterator[str]:
        """All of them, in no order."""
        return iter(self._names)

    def of(self, event_type: str) -> str | None:
        """The name that a type goes by; None where nothing stands for it."""
        if event_type in self._names or event_type in (FAILURE, CANCEL):
            return event_type
        try:
            return self._found[event_type]
        except KeyError:
            if len(self._found) >= TYPES_KEPT_MAX:
                self._found.clear()
            found = next((one for one in narrowing(event_type) if one in self._patterns), None)
            self._found[event_type] = found
            return found


class Found(Mapping[str, T]):
    """Values that are looked up once for each type that comes, None being one that there is not."""

    def __init__(self, names: Iterable[str], find: Callable[[str], T | None]) -> None:
        self._names = tuple(names)
        self._find = find
        self._found: dict[str, T | None] = {}

    def __getitem__(self, event_type: str) -> T:
        """What was found for a type. Raises KeyError."""
        try:
            found = self._found[event_type]
        except KeyError:
            if len(self._found) >= TYPES_KEPT_MAX:
                self._found.clear()
            found = self._found[event_type] = self._find(event_type)
        if found is None:
            raise KeyError(event_type)
        return found

    def get(self, event_type: str, default: Any = None) -> Any:
        """What was found for a type, in one go where that is known; for each event some are asked for."""
        found = self._found.get(event_type)
        if found is None:
            try:
                return self[event_type]
            except KeyError:
                return default
        return found

    def __iter__(self) -> Iterator[str]:
        """The names by which values are found, patterns among them."""
        return iter(self._names)

    def __len__(self) -> int:
        """How many names there are."""
        return len(self._names)


def by_type(names: Names, values: Mapping[str, T], inside: Mapping[str, T]) -> Mapping[str, T]:
    """What there is for the names that types from outside go by; and ``inside``, for each type of those from inside."""

    def find(event_type: str) -> T | None:
        if is_from_inside(event_type):
            return inside.get(event_type)
        name = names.of(event_type)
        return None if name is None else values.get(name)

    return Found((*values, *inside), find)


def widened(values: Mapping[str, T]) -> Mapping[str, T]:
    """What is said of types and patterns, by the types that come: of several the most specific has it."""
    if not any(map(is_pattern, values)):
        return values
    return Found(values, lambda event_type: next(_said(values, event_type), None))


def _said(values: Mapping[str, T], event_type: str) -> Iterator[T]:
    for name in (event_type, *narrowing(event_type)):
        if name in values:
            yield values[name]


def _below(event_type: str) -> str:
    """A type or pattern, such that it begins with what a pattern has before its asterisk if that stands for it."""
    return event_type[:-1] if is_pattern(event_type) else f"{event_type}."
