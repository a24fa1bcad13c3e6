"""What the log says of user code that raised: where, by the calls that led there, and of what class.

The text of an exception is no part of that, since it may quote the data of an event; it stands beside the line
(``Trace.text``), for whoever works on a pipeline and has asked for it. Of what goes wrong again and again the first is
told, and how often it was after that.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass

from statemachines.failing import printable
from statemachines.places import Raised, raised_by

log = logging.getLogger("pointsman.engine")

SELDOM_SECONDS = 5.0
"""What is of one kind is told so seldom at most."""
KINDS_MAX = 1_000
"""So many kinds are told apart; all others are one kind together."""
CAUSES_MAX = 5
"""So many exceptions are told that others come from."""


class Trace:
    """The exceptions that led to a failure, the first one first; made where it is told, and not before."""

    def __init__(self, *raised: tuple[Raised, str]) -> None:
        """Each with its text."""
        self._raised = raised

    @classmethod
    def of(cls, error: BaseException) -> Trace:
        """Of an exception and those that it comes from."""
        return cls(*reversed([(raised_by(one), _text(one)) for one in _causes(error)]))

    def text(self, *, with_messages: bool) -> str:
        """As Python shows it, without what is not the user's; empty where no user code was called."""
        if not any(one.frames for one, _ in self._raised):
            return self._raised[-1][1] if with_messages else ""
        lines = ["Traceback, without what is not yours (most recent call last):\n"]
        for at, (one, said) in enumerate(self._raised):
            lines += ["which led to:\n"] if at else []
            lines += traceback.StackSummary.from_list([(*frame, None) for frame in one.frames]).format()
            lines.append(f"{one.name}: {said}\n" if with_messages and said else f"{one.name}\n")
        return "".join(lines).rstrip("\n")


OTHERS = object()
"""The kind of what is of none of those that are told apart."""


class Seldom:
    """Decides which of what is of one kind is told, and knows how many were not."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[Hashable, float] = {}
        self._more: dict[Hashable, int] = {}

    def may(self, kind: Hashable) -> bool:
        """Whether one is told; else it is counted."""
        now = self._clock()
        if kind not in self._until and len(self._until) >= KINDS_MAX:
            kind = OTHERS
        if now < self._until.get(kind, now):
            self._more[kind] = self._more.get(kind, 0) + 1
            return False
        self._until[kind] = now + SELDOM_SECONDS
        return True

    def forget(self) -> None:
        """Let all be told again that was not told for a while; who has no use for how many there were."""
        for _ in self.over():
            continue

    def over(self) -> Iterator[tuple[Hashable, int]]:
        """Each kind that was not told for a while, and how many of it were not; it may be told again."""
        now = self._clock()
        for kind in [one for one, until in self._until.items() if until <= now]:
            del self._until[kind]
            more = self._more.pop(kind, 0)
            if more:
                yield kind, more

    def left(self) -> Iterator[tuple[Hashable, int]]:
        """Each kind of which some were not told, and how many; when it may be told again stays as it is."""
        more, self._more = self._more, {}
        yield from more.items()


@dataclass(frozen=True, slots=True)
class _Kind:
    """What is told of an attempt that failed but for its run, and how many there are of it."""

    level: int
    pipeline: str
    step: str
    error: str

    @property
    def fields(self) -> dict[str, object]:
        return {"pipeline": self.pipeline, "step": self.step, "error": self.error}


class FailedAttempts:
    """Tells of the attempts at steps that failed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._seldom = Seldom(clock)

    def tell(self, level: int, sentence: str, known: Mapping[str, object], error: BaseException) -> None:
        """Say that an attempt failed; ``known`` are pipeline, run, step and attempt."""
        name = type(error).__name__
        kind = _Kind(level, str(known["pipeline"]), str(known["step"]), name)
        if self._seldom.may(kind):
            log.log(level, "%s", sentence, extra={**known, "error": name, "trace": Trace.of(error)})

    def tell_rest(self, *, at_once: bool = False) -> None:
        """Say how many failed like others, without a line of their own; ``at_once``: those of just now, too."""
        for kind, more in self._seldom.left() if at_once else self._seldom.over():
            many = "" if more == 1 else "s"
            if isinstance(kind, _Kind):
                log.log(kind.level, "%s more attempt%s failed like that one", more, many, extra=kind.fields)
            else:
                log.warning("%s more attempt%s failed, each in one of very many ways", more, many)


def _text(error: BaseException) -> str:
    try:
        return printable(str(error))
    except BaseException:  # noqa: BLE001 - an exception's own __str__ may raise too
        return "(its message cannot be shown)"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exception, and those that it comes from, the last one first; of a group, the first of it."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen and len(seen) < CAUSES_MAX:
        seen.add(id(one))
        yield one
        if one.__cause__ is not None or one.__suppress_context__:
            one = one.__cause__
        elif isinstance(one, BaseExceptionGroup):
            one = one.exceptions[0]
        else:
            one = one.__context__
