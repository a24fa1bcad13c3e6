"""Where records go to: the contract of a transactional sink.

A sink publishes records together with a note of how far its owner is, or neither. The note, its *progress*,
lives where the records live, so that the two cannot disagree, whatever is killed and when. One sink of a name
is in force at a time: starting one fences its predecessors, and ends what they left open.

After any exception nothing is known of the call that raised it. The way on is the same always: ``close``,
``start``, ask for the ``progress``, and go on behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol


class Outgoing(Protocol):
    """A record to be published. Those of one topic and key keep their order; without a key there is none."""

    @property
    def topic(self) -> str: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]: ...
    @property
    def timestamp(self) -> int:
        """Milliseconds since 1970."""
        ...


class Progress(NamedTuple):
    """Up to where the owner of a sink has published."""

    store: str
    """Which store the sequence belongs to."""
    sequence: int
    """The last row of which everything is visible; 0 for none."""
    digest: bytes
    """What tells that row from another of the same number; empty where there is no row to compare."""


class SinkError(Exception):
    """Base class. What the call was to do may have happened or not: start again and read the progress."""


class SinkUnavailableError(SinkError):
    """The sink cannot be reached, did not answer in time, or does not take records just now."""


class FencedError(SinkError):
    """Another sink of this name was started since."""


class StartAgainError(SinkError):
    """The sink learnt something that needs a new start; nothing is wrong, the next attempt will differ."""


class SinkMisconfiguredError(SinkError):
    """A person must change something first; the message is a sentence that says what."""


class RecordsRefusedError(SinkError):
    """These records will never be taken. Nothing of the call is visible."""

    def __init__(self, refused: Mapping[int, str]) -> None:
        self.refused = dict(refused)
        """Index in the call's records -> why, in words."""
        first = next(iter(self.refused.values()))
        super().__init__(f"{len(self.refused)} of the records were refused: {first}")


class Sink(Protocol):
    """Publishes records and progress together."""

    async def start(self) -> None:
        """Fence every predecessor of the same name and wait until what it left open has ended.

        Raises:
            SinkUnavailableError, SinkMisconfiguredError: nothing was started; ``close`` all the same.
        """
        ...

    async def progress(self) -> Progress | None:
        """What the last successful ``publish`` of this name said, or None. Only after ``start``."""
        ...

    async def look(self) -> Progress | None:
        """What the last ``publish`` of any sink of this name said. Fences nobody, needs no start."""
        ...

    async def publish(self, records: Sequence[Outgoing], progress: Progress) -> None:
        """Make the records and the progress visible at once; on return they are, for good.

        No records are fine: then only the progress moves.

        Raises:
            RecordsRefusedError: these, and only these, must be left out for good.
            SinkError: see its kinds.
        """
        ...

    async def close(self) -> None:
        """Let go of everything, soon, and without raising; what is open is given up."""
        ...
