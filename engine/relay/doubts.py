"""Whether what Postgres and Kafka say of the outbox can both be true, and what a person must know if not.

The progress record in Kafka says up to which row everything was published. The database says how many rows
it ever wrote (its ticket), up to where it deleted them (confirmed ones only, never the last of them), and has
the rows behind that. Where the two do not fit, one of them was restored, lost its end, or is another one:
then only a person can know whether to publish something again or to leave it out, and the relay stops.

Accepting always means: go on behind the last row of which *this database* knows for certain that it was
published. Nothing is left out that way; what is doubled carries the same event ids as before.
"""

from __future__ import annotations

from dataclasses import dataclass

from connectors.sink import Progress
from engine.outbox import digest

DECIDE = "pointsman relay accept --reason '...'"


@dataclass(frozen=True, slots=True)
class Books:
    """What the database knows of one lane, as of one moment."""

    store: str
    ticket: int
    """The last row that was ever written."""
    deleted: int
    """The last row that was deleted; the one behind it was published too."""
    row: bytes | None
    """The blob of the row that the progress names, where it is still there."""
    next: int | None
    """The number of the first row behind the progress."""

    @property
    def known_published(self) -> int:
        """The last row that was certainly published, by what the database knows alone."""
        return self.deleted + 1 if self.deleted else 0


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why the relay may not go on by itself."""

    what: str
    """What does not fit."""
    consequence: str
    """What was lost or doubled by accepting."""
    resume: int
    """After which row the relay goes on, where a person accepts."""

    def sentence(self, namespace: str, shard: int) -> str:
        """For a person: what, where, what now."""
        return (
            f"The relay of namespace {namespace}, shard {shard}, has stopped: {self.what} "
            f"To decide: {DECIDE} (it then goes on after row {self.resume} of the outbox). {self.consequence}"
        )


def find_doubt(books: Books, progress: Progress | None) -> Doubt | None:
    """The reason for not going on, or None."""
    if progress is None:
        return _forgotten(books) if books.deleted else _find_gap(books, 0)
    if progress.store != books.store:
        return _other_store(books, progress)
    if progress.sequence < books.deleted:
        return _kafka_is_older(books, progress)
    if progress.sequence > books.ticket:
        return _database_is_older(books, progress)
    if progress.digest and (books.row is None or digest(books.row) != progress.digest):
        return _other_row(books, progress)
    return _find_gap(books, progress.sequence)


def _find_gap(books: Books, sequence: int) -> Doubt | None:
    if books.next is None and books.ticket > sequence:
        missing = books.ticket
    elif books.next is not None and books.next != sequence + 1:
        missing = books.next - 1
    else:
        return None
    return Doubt(
        f"rows {sequence + 1} to {missing} of the outbox are missing, though nothing says that they were "
        "published. The relay never deletes such rows; restore them if you can.",
        "What was in the missing rows is then never published.",
        missing,
    )


def _forgotten(books: Books) -> Doubt:
    return Doubt(
        f"Kafka has no progress record, but the database has deleted {books.deleted} rows as published. The "
        "relay's topic was deleted, or this is another Kafka than before.",
        f"Rows from {books.known_published + 1} on are published, some of them perhaps for the second time; "
        "what an earlier Kafka lost is not published again.",
        books.known_published,
    )


def _other_store(books: Books, progress: Progress) -> Doubt:
    return Doubt(
        f"Kafka's progress record belongs to the store {progress.store}, and this database is the store "
        f"{books.store}. Two databases share one namespace of this Kafka, or this one took its place.",
        "All rows that this database has not yet deleted as published are published. If the other database "
        "is still in use, its relay stops instead: give one of them a namespace of its own.",
        books.known_published,
    )


def _kafka_is_older(books: Books, progress: Progress) -> Doubt:
    return Doubt(
        f"Kafka says that row {progress.sequence} was the last one published, but the database has deleted "
        f"rows up to {books.deleted} as published. Kafka lost what it had confirmed, or was restored to an "
        "older state.",
        f"What rows {progress.sequence + 1} to {books.deleted} published is lost in Kafka and stays so; rows "
        "behind them are published, some of them perhaps for the second time.",
        books.known_published,
    )


_LOST_TRANSACTIONS = (
    "What the lost transactions published stays published, and is published again as their events are "
    "processed once more. So are rows that the database had not yet deleted as published. Ids stay the same."
)


def _database_is_older(books: Books, progress: Progress) -> Doubt:
    return Doubt(
        f"Kafka says that row {progress.sequence} was published, but the database has only written "
        f"{books.ticket}. It was restored to an older state, or lost its last transactions in a failover.",
        _LOST_TRANSACTIONS,
        books.known_published,
    )


def _other_row(books: Books, progress: Progress) -> Doubt:
    found = "is gone" if books.row is None else "has another content now"
    return Doubt(
        f"Kafka says that row {progress.sequence} was the last one published, but that row {found}. The "
        "database was restored to an older state or lost transactions in a failover, and wrote others since.",
        _LOST_TRANSACTIONS,
        books.known_published,
    )
