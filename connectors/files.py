"""Publishing files: rows of JSON lines or CSV as CloudEvents.

``type``, ``key``, ``id`` and ``time`` each are a ``Choice``: ``activity`` names a field (``a.b`` one within another,
in JSON), ``=order.placed`` gives the value itself. The whole row is the data of its event.

- ``type``: without a choice the field ``type``.
- ``key``: the Kafka key; without a choice there is none.
- ``time``: RFC 3339, also with a blank for the T, or milliseconds since 1970. Without a choice, or where the
  field is empty, the event has none.
- ``id``: without a choice it is made of the row's content: a hash of type, key, time and data, and from the
  second such row of the file on its number among them. The source is the file's name. So a file that is
  published once more, as it is or with rows mended, taken out or added, gives the same events the same ids, and
  an engine takes each once. Equal rows of two files of one name are the same event, too: tell such files apart by
  ``source``, or by ids of their own. Standard input has no name, nor has a pipe: without a ``source`` every
  publication of it is a new one.

A JSON line that is a CloudEvent already (it has ``specversion``) is published as it is, except for what is chosen;
its Kafka key is the chosen one, else its ``partitionkey``, else its ``subject``.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import BinaryIO, Final, NamedTuple, Protocol

from connectors.identity import FlawError
from connectors.in_thread import InThread
from connectors.publish_errors import EventRefusedError, PublishError
from connectors.publishing import Outgoing, Receipt, Sent
from connectors.row_events import Choice, FileOptions, RowEvents
from connectors.rows import BadRow, FileError, Row, read_rows

__all__ = [
    "Choice",
    "FileError",
    "FileOptions",
    "Progress",
    "Publication",
    "PublishedReport",
    "RefusedRow",
    "StoppedError",
]

ROWS_READ_TOGETHER: Final = 500
PROGRESS_SECONDS: Final = 0.1


class Producer(Protocol):
    """What rows are sent with: a ``ConfirmingProducer``."""

    def send_all(self, records: AsyncIterable[Outgoing]) -> AsyncGenerator[Sent]:
        """Send records in order, and tell what became of each, in the same order."""
        ...


class StoppedError(PublishError):
    """Publishing was ended by whoever began it, before the end of the file."""


class RefusedRow(NamedTuple):
    """A row that was not published, and never will be as it is."""

    place: str
    """``file:line``."""
    error: str


class Progress(NamedTuple):
    """How far publishing a file is."""

    confirmed: int
    refused: int


@dataclass(frozen=True, slots=True)
class PublishedReport:
    """What became of a file."""

    confirmed: int
    """Events that all in-sync replicas have."""
    refused: int
    """Rows that are no events, or that the broker will not take; ``on_refused`` was told of each."""
    unconfirmed: int
    """Rows that were sent, and of which it is not known whether they arrived; 0 unless ``failure``."""
    failure: PublishError | FileError | None
    """What ended it before the end of the file."""
    unconfirmed_from: str | None
    """The ``file:line`` of the first row that is not confirmed, where it ended early."""
    source: str | None
    """What the events have as source that were made of rows; None where there are none but CloudEvents."""
    has_cloudevents: bool
    """Whether there are some that were CloudEvents, with a source of their own."""


class Publication:
    """Publishes the rows of a file in order, each confirmed, many under way at a time.

    Rows that are refused are told to ``on_refused`` and the others go on. When Kafka fails nothing more is read,
    and the report says how many events are confirmed.

    Args:
        producer: a producer that was started.
        topic: where to.
        stream: the file's bytes; it may block, like standard input.
        name: the file's name, or ``-`` for standard input.
        options: how rows become events.
        on_refused: is called for each row that is refused.
        on_progress: is called now and then, and at the end.

    Raises:
        ValueError: the options' source cannot be one.
    """

    def __init__(
        self,
        producer: Producer,
        topic: str,
        stream: BinaryIO,
        name: str,
        options: FileOptions,
        *,
        on_refused: Callable[[RefusedRow], None],
        on_progress: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        self._producer = producer
        self._stream = stream
        self._name = name
        self._options = options
        self._events = RowEvents(topic, name, options)
        # What comes through a pipe is published as it comes; of a file much is read at a time.
        self._rows = InThread(self._read(), chunk=ROWS_READ_TOGETHER if stream.seekable() else 1)
        self._on_refused = on_refused
        self._on_progress = on_progress
        self._under_way: deque[int] = deque()
        """The lines of the rows that were sent, in order, of which nothing is known yet."""
        self._confirmed = self._refused = self._unconfirmed = 0
        self._unconfirmed_from: str | None = None
        self._failure: PublishError | FileError | None = None
        self._stopped = self._ended = False
        self._told = 0.0

    async def run(self) -> PublishedReport:
        """Publish all of it.

        Raises:
            FileError: the file cannot be read as rows at all; nothing was published.
        """
        async with (
            aclosing(self._outgoings()) as outgoings,
            aclosing(self._producer.send_all(outgoings)) as all_sent,
        ):
            async for sent in all_sent:
                self._note(self._under_way.popleft(), sent.outcome)
        self._ended = True
        if isinstance(self._failure, FileError) and not self._confirmed + self._unconfirmed + self._refused:
            raise self._failure
        self._on_progress(Progress(self._confirmed, self._refused))
        return self.report

    def stop(self) -> None:
        """Read no further row; what is under way is waited for, and ``run`` returns."""
        self._stopped = True
        self._rows.end()

    @property
    def report(self) -> PublishedReport:
        """What became of the rows that were read; what is under way, where ``run`` was cancelled, is not confirmed."""
        first = self._unconfirmed_from
        if first is None and self._under_way:
            first = self._place(self._under_way[0])
        failure = self._failure or (None if self._ended else _stopped())
        return PublishedReport(
            self._confirmed,
            self._refused,
            self._unconfirmed + len(self._under_way),
            failure,
            first,
            self._events.source_given,
            self._events.has_cloudevents,
        )

    async def _outgoings(self) -> AsyncGenerator[Outgoing]:
        try:
            async with aclosing(self._rows.each()) as rows:
                async for row in rows:
                    if isinstance(row, BadRow):
                        self._refuse(row.line, row.error)
                        continue
                    try:
                        outgoing = self._events.outgoing(row)
                    except FlawError as flaw:
                        self._refuse(row.line, str(flaw))
                        continue
                    self._under_way.append(row.line)
                    yield outgoing
            if self._stopped:
                self._failure = _stopped()
        except FileError as error:
            self._failure = error
        except OSError as error:
            self._failure = FileError(f"{self._name} cannot be read any further: {error}")

    def _read(self) -> Iterator[Row | BadRow]:
        options = self._options
        yield from read_rows(
            self._stream,
            self._name,
            form=options.form,
            delimiter=options.delimiter,
            columns=options.columns(),
        )

    def _note(self, line: int, outcome: Receipt | PublishError) -> None:
        if isinstance(outcome, Receipt):
            self._confirmed += 1
        elif isinstance(outcome, EventRefusedError):
            self._refuse(line, str(outcome))
        else:
            self._unconfirmed += 1
            self._failure = self._failure or outcome
            self._unconfirmed_from = self._unconfirmed_from or self._place(line)
        now = time.monotonic()
        if now - self._told >= PROGRESS_SECONDS:
            self._told = now
            self._on_progress(Progress(self._confirmed, self._refused))

    def _refuse(self, line: int, error: str) -> None:
        self._refused += 1
        self._on_refused(RefusedRow(self._place(line), error))

    def _place(self, line: int) -> str:
        return f"{self._name}:{line}"


def _stopped() -> StoppedError:
    return StoppedError("Interrupted before the end: no further row was published.")
