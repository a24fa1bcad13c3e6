"""Values that functions carry with them: a change of data is a change of the code."""

from __future__ import annotations

import copy
import functools
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from pydantic import BaseModel

from statemachines.codehash import code_hash
from tests.unit.machines import Added, account_pipeline


def with_guard(guard: Any) -> bytes:
    flow = account_pipeline()
    flow.states[1].on(Added, when=guard)
    return code_hash(flow)


class Rate(BaseModel):
    percent: int


@dataclass
class Fee:
    amount: Decimal


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Decimal(100), Decimal(10)),
        (timedelta(days=1), timedelta(hours=1)),
        (datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)),
        (date(2026, 1, 1), date(2026, 1, 2)),
        (time(8), time(9)),
        (ZoneInfo("Europe/Berlin"), ZoneInfo("Europe/Paris")),
        (timezone(timedelta(hours=1)), timezone(timedelta(hours=2))),
        (UUID(int=1), UUID(int=2)),
        (Fraction(1, 3), Fraction(2, 3)),
        (range(3), range(4)),
        (re.compile("a"), re.compile("b")),
        (re.compile("a"), re.compile("a", re.IGNORECASE)),
        (Rate(percent=1), Rate(percent=2)),
        (Fee(Decimal(1)), Fee(Decimal(2))),
        ([Decimal(1)], [Decimal(2)]),
    ],
    ids=repr,
)
@pytest.mark.parametrize("how", ["closure", "default", "partial", "attribute"])
def test_data_that_a_function_carries_is_code(one: Any, other: Any, how: str) -> None:
    def guard_with(value: Any) -> Any:
        def compares(limit: Any, _context: Any, _event: Any) -> bool:
            return bool(limit)

        def has(_context: Any, _event: Any, limit: Any = value) -> bool:
            return bool(limit)

        class Asks:
            def __init__(self) -> None:
                self.limit = value

            def __call__(self, _context: Any, _event: Any) -> bool:
                return bool(self.limit)

        made = {
            "closure": lambda _context, _event: bool(value),
            "default": has,
            "partial": functools.partial(compares, value),
            "attribute": Asks(),
        }
        return made[how]

    first, second = with_guard(guard_with(one)), with_guard(guard_with(other))
    assert first == with_guard(guard_with(copy.deepcopy(one)))
    assert first != second


def test_of_what_is_no_data_only_the_type_is_code() -> None:
    def guard_with(value: Any) -> Any:
        return lambda _context, _event: bool(value)

    assert with_guard(guard_with(Path("/one"))) == with_guard(guard_with(Path("/two")))
    assert with_guard(guard_with(Path("/one"))) != with_guard(guard_with(object()))
