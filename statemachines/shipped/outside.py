"""What the shop of the example works with, and what stands for services of others: a bank, a warehouse, a carrier.

Each writes down every call, and does what it is asked once for each key: asked again under the same one, it answers
what it has done, as real services with idempotency keys do. The ledger is a file of SQLite, which outlives whoever
calls. The variable SHOP_LEDGER names it; without it, it is ``shop-ledger.sqlite`` in the working folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

LEDGER_VARIABLE = "SHOP_LEDGER"
LEDGER_DEFAULT = "shop-ledger.sqlite"
ANSWER_SECONDS = 0.15
"""How long each of them takes to answer, once it has done what it was asked."""
SLOW_ANSWER_SECONDS = 20.0
"""The same, of a bank that is busy; asked again under the same key it has the answer at hand."""
LOCKED_SECONDS_MAX = 10.0

REFUSED_CARD = "card-refused"
"""There is no money on it."""
SLOW_CARD = "card-slow"
"""Its bank is busy: it charges at once, and is long in saying so."""

_TABLE = """
create table if not exists calls (
    number integer primary key, at real not null, service text not null, who text not null, key text not null,
    undoes text not null, answer text not null
)
"""
_EFFECT = "select answer from calls where key = ? and answer <> '' limit 1"
_WRITE = "insert into calls (at, service, who, key, undoes, answer) values (?, ?, ?, ?, ?, ?)"
_READ = "select number, at, service, who, key, undoes, answer from calls order by number"


class CardRefused(Exception):  # noqa: N818 - it is read as what the bank says
    """The bank does not pay. Asking again would not help."""


class Entry(NamedTuple):
    """A call, as the ledger has it."""

    number: int
    at: float
    """Seconds since 1970."""
    service: str
    """charge, refund, reserve, release or ship."""
    who: str
    """The order."""
    key: str
    """The idempotency key that it came with."""
    undoes: str
    """The key of the call that it takes back; empty where it takes none back."""
    answer: str
    """What it did; empty where it was refused, or had nothing to do."""


async def charge(order: str, card: str, amount: int, *, key: str) -> str:
    """Take money from a card; returns the payment's number. Raises CardRefused."""
    if card == REFUSED_CARD:
        _write("charge", order, key, answer="")
        raise CardRefused(f"the bank refuses {amount / 100:.2f}")
    is_known = _was_done(key)
    payment = _write("charge", order, key, answer="pay")
    await asyncio.sleep(SLOW_ANSWER_SECONDS if card == SLOW_CARD and not is_known else ANSWER_SECONDS)
    return payment


async def refund(order: str, *, charged_as: str, key: str) -> None:
    """Give back what was taken under a key; nothing, if nothing was."""
    await _take_back("refund", order, charged_as, key)


async def reserve(order: str, items: list[str], *, key: str) -> str:
    """Put goods aside; returns the number of the shelf."""
    del items
    shelf = _write("reserve", order, key, answer="shelf")
    await asyncio.sleep(ANSWER_SECONDS)
    return shelf


async def release(order: str, *, reserved_as: str, key: str) -> None:
    """Put back what was put aside under a key; nothing, if nothing was."""
    await _take_back("release", order, reserved_as, key)


async def ship(order: str, *, key: str) -> str:
    """Hand a parcel to the carrier; returns the number that it is found by."""
    tracking = _write("ship", order, key, answer="T")
    await asyncio.sleep(ANSWER_SECONDS)
    return tracking


def entries(ledger: Path) -> list[Entry]:
    """All calls so far, in their order."""
    with contextlib.closing(sqlite3.connect(ledger, timeout=LOCKED_SECONDS_MAX)) as connection:
        connection.execute(_TABLE)
        return [Entry(*row) for row in connection.execute(_READ)]


async def _take_back(service: str, order: str, undone: str, key: str) -> None:
    _write(service, order, key, answer="back" if _was_done(undone) else "", undoes=undone)
    await asyncio.sleep(ANSWER_SECONDS)


def _was_done(key: str) -> bool:
    """Whether something was done under this key."""
    with _opened(_ledger()) as connection:
        return connection.execute(_EFFECT, (key,)).fetchone() is not None


def _write(service: str, order: str, key: str, *, answer: str, undoes: str = "") -> str:
    """Write a call down; returns what was done under its key, by this one or by one before it."""
    with _opened(_ledger()) as connection:
        before = connection.execute(_EFFECT, (key,)).fetchone()
        answer = before[0] if before else f"{answer}-{key[:8]}" if answer else ""
        connection.execute(_WRITE, (time.time(), service, order, key, undoes, answer))
    return answer


@contextlib.contextmanager
def _opened(ledger: Path) -> Iterator[sqlite3.Connection]:
    """The ledger, for one transaction by itself."""
    with contextlib.closing(sqlite3.connect(ledger, timeout=LOCKED_SECONDS_MAX)) as connection:
        connection.isolation_level = None
        connection.execute("pragma synchronous = off")
        connection.execute(_TABLE)
        connection.execute("begin immediate")
        yield connection
        connection.execute("commit")


def _ledger() -> Path:
    return Path(os.environ.get(LEDGER_VARIABLE) or LEDGER_DEFAULT)
