"""What trips are told that is in order, or has a ticket: too early, with gaps, and more than once under other ids."""

from __future__ import annotations

import json
from random import Random
from typing import Any

STAMPS_MAX = 4
FINED, TIPPED, WAVED = "fined", "tipped", "waved"


def trip_event(id: str, kind: str, key: str, **data: Any) -> bytes:
    """An event of a trip; its id is its own among those of the key."""
    return json.dumps(
        {
            "specversion": "1.0",
            "id": f"{key}/{id}",
            "source": "/chaos",
            "type": f"trip.{kind}",
            "data": {"trip": key, **data},
        }
    ).encode()


def known_otherwise(value: bytes, how: str = "once more") -> bytes:
    """The same event with an id of its own."""
    event = json.loads(value)
    return json.dumps({**event, "id": f"{event['id']}/{how}"}).encode()


def first_marks(
    random: Random, key: str, *kinds: str, is_id_shared: bool = True
) -> tuple[list[bytes], list[int]]:
    """In any order, and which numbers are missing; nobody else has these tickets by then.

    Two of one id have different tickets, unless told not: of what waits behind a hold, the id counts, of what is late
    by its ticket it does not, and so the moment would matter where something holds the run.
    """
    numbers = list(range(1, random.randint(1, STAMPS_MAX) + 1))
    missing = [numbers.pop(random.randrange(len(numbers)))] if random.random() < 0.4 else []
    marks = [_stamp(key, number) for number in numbers]
    marks += [_ticket(key, kind, number) for kind in kinds for number in (1, 2)]
    # Its id was taken, or will be, whatever its ticket.
    marks += [
        trip_event(f"{kind}1", kind, key, ticket=f"{kind} 0")
        for kind in kinds
        if random.random() < 0.2 and is_id_shared
    ]
    return _shuffled(random, marks), missing


def next_marks(random: Random, key: str, missing: list[int], *kinds: str) -> list[bytes]:
    """Those of the next trip of the key: they fill gaps and leave others, and some came already."""
    after = STAMPS_MAX + 1
    numbers = [*missing, *range(1, after + random.randrange(3))]
    marks = [_stamp(key, number) for number in numbers]
    marks += [_ticket(key, kind, number) for kind in kinds for number in (1, 3)]
    marks = [known_otherwise(one, "next time") for one in marks]
    return _shuffled(random, marks)


def scans(random: Random, key: str) -> list[list[bytes]]:
    """Some of which each list comes at once: out of order, too far ahead, and once more."""
    one, two, three, nine = (trip_event(f"scan{at}", "scanned", key, number=at) for at in (1, 2, 3, 9))
    together = random.sample([one, two, three], 3)
    return [together, [nine], [known_otherwise(two)], [known_otherwise(nine)]]


def never_begun(key: str) -> list[bytes]:
    """Of a trip that nobody books: some wait for that, and some, for seconds only, for what never comes."""
    fine = _ticket(key, FINED, 1)
    scan = [trip_event(f"scan{at}", "scanned", key, number=at) for at in (2, 1)]
    return [*scan, _stamp(key, 2), fine, known_otherwise(fine), _ticket(key, TIPPED, 1)]


def tips(key: str) -> list[bytes]:
    """One, and the same once more."""
    tip = _ticket(key, TIPPED, 9)
    return [tip, known_otherwise(tip)]


def wave(key: str) -> bytes:
    """The only one of a key."""
    return _ticket(key, WAVED, 1)


def is_stamp(value: bytes) -> bool:
    """Whether it is one of those that are in order."""
    return bool(json.loads(value)["type"] == "trip.stamped")


def _stamp(key: str, number: int) -> bytes:
    return trip_event(f"stamp{number}", "stamped", key, number=number)


def _ticket(key: str, kind: str, number: int) -> bytes:
    return trip_event(f"{kind}{number}", kind, key, ticket=f"{kind} {number}")


def _shuffled(random: Random, marks: list[bytes]) -> list[bytes]:
    """In another order, with some once more under other ids."""
    doubles = [known_otherwise(one) for one in marks if random.random() < 0.25]
    return random.sample([*marks, *doubles], len(marks) + len(doubles))
