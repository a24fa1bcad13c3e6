"""What the chaos tests tell trips comes to the same whenever time lets them arrive: their oracle knows no time."""

from __future__ import annotations

import json
from itertools import groupby
from typing import Any

import pytest

from tests.chaos.script import Send, make_plan
from tests.chaos.trip_oracle import ExpectedTrip, Place, TripOracle
from tests.chaos.trips import TRIPS


class Slow(TripOracle):
    """Trips that roll until they are told to arrive."""

    def _arrives(self, trip: ExpectedTrip) -> None:
        """Not before it is told to."""

    def arrive(self) -> None:
        """Now."""
        for trip in [*self.trips.values()]:
            if trip.train == "rolling":
                super()._arrives(trip)


def told(send: Send) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(send.value or b"")
    return event


def trip_of(send: Send) -> str:
    return str(told(send)["data"]["trip"])


def becomes(oracle: TripOracle, life: list[Send]) -> dict[tuple[Place, str], str]:
    """Of each record; slow trips arrive once what comes together has come, and in the end."""
    for offset, send in enumerate(life):
        oracle.take((TRIPS, 0, offset), told(send))
        is_over = not send.with_next and offset > 0 and life[offset - 1].with_next
        if isinstance(oracle, Slow) and (is_over or send is life[-1]):
            oracle.arrive()
    oracle.end()
    return oracle.dispositions


class Slowest(Slow):
    """Trips that roll until nothing more comes."""

    def arrive(self) -> None:
        """Not yet."""

    def end(self) -> None:
        super().arrive()
        super().end()


@pytest.mark.parametrize("seed", [2872, *range(20)])
@pytest.mark.parametrize("slow", [Slow, Slowest])
def test_a_trip_may_arrive_before_or_behind_what_comes_together(seed: int, slow: type[Slow]) -> None:
    sends = sorted((one for one in make_plan(seed, 400, 40).sends if one.topic == TRIPS), key=trip_of)
    lives = [[*life] for _, life in groupby(sends, trip_of)]
    assert any(send.with_next for life in lives for send in life)
    for life in lives:
        assert becomes(TripOracle({}, {}), life) == becomes(slow({}, {}), life), trip_of(life[0])
