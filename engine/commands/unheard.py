"""Commands by which runs complete what they have not heard of yet as going on outside.

They wait for their tokens to be known, but not for ever: the event may come before the engine's commit, and it may be a
mistake. Meanwhile looks at the inbox leave them out, so that nothing behind them waits with them. One look says of all
commands whether their tokens are known: so those with the same token are taken in their order.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from engine.steps.completing import is_of_run
from engine.store.values import Command

WAITING_MAX = 10_000
"""So many wait; where there are more, those that have waited longest wait no more."""


class UnheardOf:
    """Which of them wait, and which have waited for long enough."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: dict[int, float] = {}
        """By the number of each that waits, since when, in that order."""
        self._over: set[int] = set()
        """Those that have waited, until they are taken."""

    def waiting(self, now: float) -> list[int]:
        """Those that a look is to leave out as long as their tokens are not known."""
        over = [number for number, since in self._since.items() if now - since >= self._seconds]
        over += [*self._since][len(over) : max(0, len(self._since) - WAITING_MAX)]
        for number in over:
            del self._since[number]
        self._over.update(over)
        return [*self._since]

    def but_waiting(self, found: Sequence[Command], *, is_cut: bool, now: float) -> list[Command]:
        """Of what a look has found, oldest first, those that wait for nothing.

        ``is_cut``: there may be more behind it.
        """
        numbers = {one.id for one in found}
        last = found[-1].id if found and is_cut else None
        # What was not found, and would have been, is gone.
        self._over = {one for one in self._over if one in numbers or (last is not None and one > last)}
        for one in found:
            self._since.pop(one.id, None)
            if one.id not in self._over and _is_unheard_of(one):
                self._since[one.id] = now
        waits = {*self.waiting(now)}
        return [one for one in found if one.id not in waits]


def _is_unheard_of(command: Command) -> bool:
    return command.awaits_token and is_of_run(orjson.loads(command.body))
