"""The executions of the store in memory."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from engine.homes import HOMES
from engine.store.contract import TokenTakenError
from engine.store.values import AskedExecution, BegunExecution, Commit, Token
from statemachines.run import Run


def home_of(key: str) -> int:
    """As Postgres has it (``pointsman.home_of``)."""
    return int(hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()[:4], 16) % HOMES


@dataclass(slots=True)
class Waiting:
    """A row of executions."""

    id: int
    asked: AskedExecution
    holder: int | None = None


@dataclass(slots=True)
class Holder:
    """A row of holders."""

    instance: str | None
    seen: float
    """When it last said that it is there, in seconds."""


@dataclass(slots=True)
class Executions:
    """Their table, and that of their holders."""

    rows: dict[tuple[int, int, int], Waiting] = field(default_factory=dict)
    given: int = 0
    holders: dict[int, Holder] = field(default_factory=dict)
    tokens: dict[str, Token] = field(default_factory=dict)

    def copied(self) -> Executions:
        """As they are now."""
        rows = {address: copy.copy(one) for address, one in self.rows.items()}
        holders = {number: copy.copy(one) for number, one in self.holders.items()}
        return Executions(rows, self.given, holders, dict(self.tokens))

    def write(self, commit: Commit) -> None:
        """What a commit changes of them."""
        for address in commit.executions_over:
            self.rows.pop(address, None)
        for asked in commit.executions_asked:
            address = asked.run, asked.sequence, asked.number
            before = self.rows.get(address)
            if before is None:
                self.given += 1
            holder = before.holder if before is not None and asked.stopping else None
            self.rows[address] = Waiting(self.given if before is None else before.id, asked, holder)

    def write_tokens(self, commit: Commit) -> None:
        """What a commit changes of tokens."""
        for token, *address in commit.tokens_over:
            known = self.tokens.get(token)
            if known is not None and [known.run, known.sequence, known.number] == address:
                self.tokens[token] = known._replace(waits=False)
        for one in sorted(commit.tokens, key=lambda one: not one.waits):
            known = self.tokens.get(one.token)
            if one.waits and known is not None and known.waits:
                raise TokenTakenError
            if one.waits or known is None:
                self.tokens[one.token] = one

    def begin(
        self,
        rooms: Mapping[tuple[int, str], int],
        until: datetime,
        homes: Sequence[int],
        but: Sequence[int],
        holder: int,
        is_loaded: Callable[[int], bool],
    ) -> list[Waiting]:
        """Those that begin now."""
        left, begun = dict(rooms), []
        for one in sorted(self.rows.values(), key=lambda one: (one.asked.again, one.id)):
            place = one.asked.pipeline, one.asked.step
            may = one.holder is None and one.asked.again <= until and one.id not in but
            if may and left.get(place, 0) and home_of(one.asked.key) in homes and is_loaded(one.asked.run):
                left[place] -= 1
                one.holder = holder
                begun.append(one)
        return begun

    def hold(self, holder: int, instance: str | None, now: float) -> None:
        """A holder is there; one of the same instance that was there before is not."""
        held = self.holders.items()
        gone = [one for one, other in held if instance is not None and other.instance == instance]
        for one in gone:
            del self.holders[one]
        self.holders[holder] = Holder(instance, now)

    def lost(
        self, homes: Sequence[int], pipelines: Sequence[int], but: Sequence[int], since: float
    ) -> list[Waiting]:
        """Those whose holders are not there, or have been silent since then."""
        there = {number for number, one in self.holders.items() if one.seen >= since}
        return [
            one
            for one in self.rows.values()
            if one.holder is not None
            and one.holder not in there
            and one.id not in but
            and one.asked.pipeline in pipelines
            and home_of(one.asked.key) in homes
        ]


def as_begun(one: Waiting, run: Run, input: bytes, made: bytes | None = None) -> BegunExecution:
    """As the store answers."""
    asked = one.asked
    return BegunExecution(
        one.id, asked.pipeline, asked.key, run.generation, asked.run, run.definition, home_of(asked.key),
        asked.sequence, asked.number, asked.step, asked.attempt, asked.error, input, asked.of, asked.stopping, made,
        asked.since, asked.token,
    )  # fmt: skip
