"""What a feed sends and when: seeded, with duplicates near and far, poison, and events that do not fit."""

from __future__ import annotations

import json
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple

from tests.chaos.parcels import CHATTER, PARCELS
from tests.chaos.stamps import (
    FINED,
    TIPPED,
    first_marks,
    is_stamp,
    never_begun,
    next_marks,
    scans,
    tips,
    trip_event,
    wave,
)
from tests.chaos.trips import TRIPS

POISON = (
    b'{"specversion": "1.0", "id": "x", "type": "parcel.wei',
    b"\xff\xfe not text",
    b"[1, 2, 3]",
    b'{"hello": "nobody said what I am"}',
    b"",
    None,
)
EVENT_HEADERS = [("content-type", b"application/cloudevents+json")]
GHOST_GRAMS = 1_000_000
"""What events of aborted transactions weigh: a sum that has it in it has read what it must not."""


class Send(NamedTuple):
    """One record of the feed."""

    at: float
    """Seconds after the feed's start."""
    topic: str
    key: str | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    with_next: bool = False
    """Whether it is in one transaction with the record after it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The records, and which runs shall be released when they are held."""

    sends: list[Send]
    released: frozenset[str]
    keys: list[str]


def event(number: str, kind: str, key: str, **data: Any) -> bytes:
    return json.dumps(
        {
            "specversion": "1.0",
            "id": number,
            "source": "/chaos",
            "type": kind,
            "data": {"parcel": key, **data},
        }
    ).encode()


def ghost(random: Random, keys: list[str]) -> tuple[str, bytes]:
    """Key and value of an event that nobody may ever see."""
    key = random.choice(keys)
    number = f"ghost-{random.getrandbits(64):x}"
    return key, event(number, "parcel.weighed", key, grams=GHOST_GRAMS)


def make_plan(seed: int, runs: int, seconds: float, name: str = "") -> Plan:
    """A plan of so many runs over so many seconds; plans of other names have other runs."""
    random = Random(f"{seed}{name}")
    sends: list[Send] = []
    released = set()
    keys = [f"{name}{number:05}" for number in range(runs)]
    for key in keys:
        script, is_released = _script(random, key)
        if is_released:
            released.add(key)
        begin = random.uniform(0, seconds * 0.75)
        # Most lives are short beside the feed; some last to its end.
        lasts = seconds if random.random() < 0.1 else random.uniform(0.5, seconds * 0.25)
        end = min(seconds, begin + lasts)
        times = sorted(random.uniform(begin, end) for _ in script)
        sends += [
            Send(at, PARCELS, key, value, EVENT_HEADERS) for at, value in zip(times, script, strict=True)
        ]
    for number in range(max(6, runs // 20)):
        at = random.uniform(0, seconds)
        poison_key = random.choice([None, random.choice(keys)])
        sends.append(Send(at, PARCELS, poison_key, POISON[number % len(POISON)], []))
        unknown = event(f"{name}unknown-{number}", "parcel.painted", random.choice(keys))
        sends.append(Send(random.uniform(0, seconds), PARCELS, random.choice(keys), unknown, EVENT_HEADERS))
    for number in range(max(20, runs // 4)):
        key = f"{name}chat-{random.randrange(max(3, runs // 50))}"
        kind = random.choice(["chatter.typing", "chatter.read", "parcel.opened", "parcel.weighed"])
        value = event(f"{name}chat-{number}", kind, key, grams=number)
        sends.append(Send(random.uniform(0, seconds), CHATTER, key, value, EVENT_HEADERS))
    trips = [_trip(random, f"{name}t{number:04}", seconds, number) for number in range(runs // 4)]
    sends += [one for life, _ in trips for one in life]
    released |= {life[0].key for life, is_released in trips if is_released and life[0].key}
    sends.sort(key=lambda one: one.at)
    return Plan(sends, frozenset(released), keys)


def _script(random: Random, key: str) -> tuple[list[bytes], bool]:
    """The life of one run, in order; and whether its hold, if there is one, shall be lifted."""
    long = random.random() < 0.1
    weighs = random.randint(18, 28) if long else random.randint(1, 5)
    life = [event(f"{key}/open", "parcel.opened", key)]
    for number in range(weighs):
        life.append(event(f"{key}/w{number}", "parcel.weighed", key, grams=random.randint(1, 999)))
        if random.random() < 0.15:
            life.append(event(f"{key}/s{number}", "parcel.stopped", key))
            life.append(event(f"{key}/r{number}", "parcel.resumed", key))
    if random.random() < 0.8:
        life.append(event(f"{key}/close", "parcel.closed", key))
    plain = list(life)
    bad = event(f"{key}/bad", "parcel.weighed", key, grams="much")
    fate = random.random()
    if fate < 0.08:
        # A hold that is lifted: exactly one event is invalid and all others fit, or the moment would matter.
        life.insert(
            random.randint(1, len(life) - 1), event(f"{key}/bad", "parcel.weighed", key, grams="much")
        )
        _double(random, life, plain, long=long)
        return life, True
    _double(random, life, plain, long=long)
    if fate < 0.13:
        life.insert(random.randint(1, len(life)), bad)
    elif fate < 0.22:
        # Before the run, or when the state does not take it.
        early = event(f"{key}/odd", "parcel.resumed", key)
        life.insert(random.randint(0, len(life)), early)
        life.insert(random.randint(0, len(life)), early)
    elif fate < 0.27:
        life.append(event(f"{key}/late", "parcel.weighed", key, grams=5))
    return life, False


def _double(random: Random, life: list[bytes], plain: list[bytes], *, long: bool) -> None:
    for value in random.sample(plain, len(plain)):
        if random.random() < 0.12:
            first = life.index(value)
            near = min(len(life), first + 1 + random.randrange(3))
            life.insert(random.randint(near, len(life)), value)
    if long:
        # So late that the run itself has forgotten it.
        life.append(plain[0])
        life.append(plain[1])


STATIONS = 5
GOLDEN = 0.618034
HOURS = 3_600.0
AGAIN = 100_000
"""What the number of a trip that is booked again has on top."""
BAGS_EARLY = 24
"""As many, once they are taken, push out of a run's memory what it has taken before."""
RIDE_SECONDS_MAX = 2.0
IN_TIME = 1.0
"""To pay within, where the payment comes with the booking."""
AT_ONCE = 0.02
"""The same where it comes with it by another partition, which another engine may have."""


def _trip(random: Random, key: str, seconds: float, number: int) -> tuple[list[Send], bool]:
    """The life of one trip, and whether something holds it that shall be dropped."""
    # Spread evenly, so that a small plan has some of each.
    fate = number * GOLDEN % 1
    station = f"station-{random.randrange(STATIONS)}"

    def book(pay_seconds: float, id: str = "book", number: int = number) -> bytes:
        data = {"number": number, "station": station, "pay_seconds": pay_seconds}
        return trip_event(id, "booked", key, **data, ride_seconds=random.uniform(0.2, RIDE_SECONDS_MAX))

    paid, boarded = trip_event("paid", "paid", key), trip_event("boarded", "boarded", key)
    left = trip_event("left", "left", key)
    bags = [trip_event(f"bag{at}", "loaded", key, bags=at + 1) for at in range(random.randrange(4))]
    together: list[bytes] = []
    """Each of these comes with the one behind it."""
    joined = None
    if fate < 0.05:
        # Nobody ever books it.
        lost = trip_event("lost", "lost", key)
        life = [random.choice([paid, boarded]), lost] if fate < 0.03 else [lost, *never_begun(key)]
    elif fate < 0.25:
        # Nobody pays it; what is doubled is what it has taken for sure.
        booking = book(random.uniform(0.5, 2.0))
        marks, _ = first_marks(random, key, FINED)
        before = [*random.sample([boarded, left], random.randrange(3)), *marks[:2]]
        life = [*before, booking, *bags, *marks[2:], booking]
    else:
        is_bad, is_elsewhere, is_raced, stays = fate < 0.30, 0.30 <= fate < 0.5, fate < 0.7, fate > 0.88
        booking = book(AT_ONCE if is_elsewhere else IN_TIME if is_raced else HOURS)
        bad = [trip_event("bad", "loaded", key, bags="much")] if is_bad else []
        marks, missing = first_marks(random, key, FINED, TIPPED, is_id_shared=not is_bad)
        rest = [boarded, *bags, *marks, wave(key)]
        random.shuffle(rest)
        early = [rest.pop() for _ in range(random.randrange(len(rest) + 1))]
        if is_elsewhere:
            # Nothing else, or it would matter which of the two is met first.
            together, life = [booking], [booking, paid]
        elif is_raced:
            together = [booking, *bad]
            life = [*early, *together, paid, *rest, left]
        elif stays:
            # It is tipped before it is paid, and never leaves; what it waits for in vain is over before it is.
            ahead, *groups = scans(random, key)
            together = ahead[:-1]
            life = [
                *early,
                booking,
                *tips(key),
                paid,
                *rest,
                *ahead,
                *(one for group in groups for one in group),
            ]
        else:
            # Early in either order: the payment may wait for its booking, too.
            first = [booking, paid] if random.random() < 0.5 else [paid, booking]
            life = [*early, *first, *rest, left]
        if not is_elsewhere and random.random() < 0.4:
            life.append(random.choice([booking, paid, boarded]))
        if fate >= 0.5 and not stays and random.random() < 0.6:
            # From here on nothing but time is waited for, after which all of this is for the next trip of the key.
            joined = len(life)
            marks = next_marks(random, key, missing, FINED, TIPPED)
            life += _again(random, key, book(HOURS, "book2", number + AGAIN), marks, list(life))
    at, sends = random.uniform(0, seconds * 0.8), list[Send]()
    for place, value in enumerate(life):
        if not sends or not sends[-1].with_next:
            at += random.uniform(0, seconds * 0.03)
        record_key = f"{key}/{random.random()}" if 0.30 <= fate < 0.5 and value is paid else key
        if place == joined:
            # Some come while the first trip rolls, most when it has arrived.
            at += random.choice([0.0, RIDE_SECONDS_MAX, RIDE_SECONDS_MAX])
        is_joined = joined is not None and joined <= place < len(life) - 3
        with_next = place < len(life) - 1 and (value in together or is_joined)
        sends.append(Send(at, TRIPS, record_key, value, EVENT_HEADERS, with_next))
    return sends, 0.25 <= fate < 0.30


def _again(random: Random, key: str, booking: bytes, marks: list[bytes], before: list[bytes]) -> list[bytes]:
    """A second trip of a key: with more luggage before its time than it remembers, and what came long before once more.

    All but the last two are in one transaction.
    """
    paid, boarded = trip_event("paid2", "paid", key), trip_event("boarded2", "boarded", key)
    rest = [
        boarded,
        *(trip_event(f"bag2-{at}", "loaded", key, bags=at + 1) for at in range(BAGS_EARLY)),
        *marks,
    ]
    random.shuffle(rest)
    early = [rest.pop() for _ in range(random.randrange(3))]
    # Of what is in order, one that waits while the first trip rolls would be a duplicate, and later on a stale one.
    repeated = [one for one in (booking, paid, *rest[:3], *before) if not is_stamp(one)]
    burst = [*early, booking, *rest, paid, *random.sample(repeated, 4)]
    return [*burst, trip_event("left2", "left", key), random.choice(repeated)]
