"""Steps that end later: a function hands its work over, and whoever does it says how it ended.

    @flow.step()
    async def review(order: Order, call: Call) -> Verdict | Later:
        await desk.open_case(order.id, token=call.idempotency_key)
        return Later(call.idempotency_key, within=timedelta(days=3))

The attempt ends with that, and goes on outside: nothing of it is kept but a row. It is completed by its token, with a
result as the step's annotation says, or with an error.
"""

from __future__ import annotations

import types
import typing
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from statemachines.limits import DELAY_DAYS_MAX, TOKEN_CHARACTERS_MAX


class OutsideError(Exception):
    """Whoever does the work of a step says, by its token, that it failed."""


@dataclass(frozen=True, slots=True)
class Later:
    """What a step returns whose work goes on outside, and ends later."""

    token: str
    """What it is completed by; no two that wait may have the same. ``call.idempotency_key`` is one that fits."""
    within: timedelta | None = None
    """How long it is waited for, until the attempt has taken too long; None: as long as its state is active."""
    if TYPE_CHECKING:
        # Of all classes this one alone is no Soon then.
        __sizeof__: ClassVar[None]  # type: ignore[assignment]


class Soon(Protocol):
    """To a checker of types any object but None and a ``Later``: what a step returns that has ended by then."""

    def __sizeof__(self) -> int:
        """As any object."""
        ...


def mistake_in(later: Later) -> str:
    """Why that is not to be waited for, in a sentence without its beginning; empty: it is."""
    mistake = mistake_in_token(later.token)
    if mistake:
        return f"returned Later with {mistake}"
    within: Any = later.within
    if within is None:
        return ""
    if not isinstance(within, timedelta) or not timedelta(0) < within <= timedelta(days=DELAY_DAYS_MAX):
        return f"returned Later(within={within!r:.80}): that is a time of at most {DELAY_DAYS_MAX} days, and above 0"
    return ""


def mistake_in_token(token: Any) -> str:
    """Why nothing is completed by that, as the end of a sentence; empty: it may be."""
    if isinstance(token, str) and 0 < len(token) <= TOKEN_CHARACTERS_MAX and token.isprintable():
        return ""
    return (
        f"the token {token!r:.80}: that is a text of at most {TOKEN_CHARACTERS_MAX} characters, all of them printable, "
        "and not empty"
    )


def without_later(annotation: Any) -> Any:
    """What a step returns in the end, by what its annotation says. Raises TypeError: it says no more than Later."""
    if annotation is Later:
        raise TypeError("says Later, and not what it is completed with, as in -> Charge | Later")
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return annotation
    parts = typing.get_args(annotation)
    left = tuple(one for one in parts if one is not Later)
    return annotation if len(left) == len(parts) else typing.Union[left]  # noqa: UP007 - of any number
