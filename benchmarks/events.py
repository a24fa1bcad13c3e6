"""The events that are measured: CloudEvents of about 190 bytes, as (Kafka key, value)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime

Keyed = tuple[bytes, bytes]

HEADERS: list[tuple[str, str | bytes | None]] = [("content-type", b"application/cloudevents+json")]
PHASES = ("placed", "charged", "packed", "shipped", "delivered")
DOUBLED_ONE_IN = 100
DOUBLED_WITHIN = 100
"""A doubled event comes again after so many others of its run, at most."""
WAVE = 2_000
SEED = 20


def moment(seconds: float) -> str:
    """RFC 3339, in UTC, with microseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def order_event(order: int, phase: int, time: str) -> Keyed:
    """One step in the life of an order."""
    key, before, after = order_template(order, phase)
    return key, before + time.encode() + after


def order_template(order: int, phase: int) -> tuple[bytes, bytes, bytes]:
    """Such an event but for its time: its key, what stands before the time, and what behind it."""
    before = (
        f'{{"specversion":"1.0","id":"r-{order}-{phase}","type":"order.{PHASES[phase]}",'
        f'"source":"/shop/checkout","subject":"order-{order}","time":"'
    )
    after = f'","data":{{"amount":{1000 + order % 9000},"items":[{order % 97},{order % 89},{order % 83}]}}}}'
    return b"order-%d" % order, before.encode(), after.encode()


def orders(count: int, time: str, *, wave: int = 0, first: int = 0) -> Iterator[Keyed]:
    """Whole lives, phase by phase: all of a wave are placed, then all are charged, ... (0: one wave of all)."""
    for order, phase in order_steps(count, wave or count, first):
        yield order_event(order, phase, time)


def order_steps(count: int, wave: int, first: int = 0) -> Iterator[tuple[int, int]]:
    """(order, phase) of whole lives, wave by wave."""
    for start in range(first, first + count, wave):
        for phase in range(len(PHASES)):
            for order in range(start, min(start + wave, first + count)):
                yield order, phase


def phases(count: int, time: str, steps: range) -> Iterator[Keyed]:
    """Steps of so many orders in the order of phases: number ``steps[0]`` to ``steps[-1]`` of them all."""
    for step in steps:
        yield order_event(step % count, step // count, time)


def ledgers(count: int, length: int, time: str) -> tuple[list[Keyed], int]:
    """Long runs side by side, one event in a hundred doubled; and how many of the events are no doubles."""
    rng = random.Random(SEED)
    again: dict[int, list[int]] = {}
    made: list[Keyed] = []
    for number in range(length + DOUBLED_WITHIN):
        for ledger in range(count):
            if number < length:
                made.append(_ledger_event(ledger, number, time))
                if rng.randrange(DOUBLED_ONE_IN) == 0:
                    later = number + rng.randrange(DOUBLED_WITHIN)
                    again.setdefault(later * count + ledger, []).append(number)
            made.extend(_ledger_event(ledger, old, time) for old in again.pop(number * count + ledger, ()))
    return made, count * length


def _ledger_event(ledger: int, number: int, time: str) -> Keyed:
    kind = "entered" if number else "opened"
    value = (
        f'{{"specversion":"1.0","id":"l-{ledger}-{number}","type":"ledger.{kind}","source":"/books/general",'
        f'"subject":"ledger-{ledger}","time":"{time}","data":{{"amount":{number % 9000},'
        f'"items":[{number % 97},{number % 89},{number % 83}]}}}}'
    )
    return b"ledger-%d" % ledger, value.encode()
