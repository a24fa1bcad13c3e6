"""The executions of the store in memory."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from engine.homes import home_of
from engine.store.contract import TokenTakenError
from engine.store.limited import LimitedRoom
from engine.store.values import AskedExecution, BegunExecution, Commit, Progress, Token
from statemachines.run import Run


@dataclass(slots=True)
class Waiting:
    """A row of executions."""

    id: int
    asked: AskedExecution
    holder: int | None = None
    began: datetime | None = None
    progress: bytes | None = None


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
    tokens_over: dict[str, datetime] = field(default_factory=dict)
    """Since when those are over that are waited for no more."""
    rates: dict[tuple[int, str, str], datetime] = field(default_factory=dict)
    """When the next would begin, by pipeline, step and what it is limited by."""
    places: dict[tuple[int, int], tuple[int, str, str | None]] = field(default_factory=dict)
    """The same of attempts that no row tells of, by their holders and numbers."""

    def copied(self) -> Executions:
        """As they are now."""
        rows = {address: copy.copy(one) for address, one in self.rows.items()}
        holders = {number: copy.copy(one) for number, one in self.holders.items()}
        tokens = dict(self.tokens), dict(self.tokens_over)
        return Executions(rows, self.given, holders, *tokens, dict(self.rates), dict(self.places))

    def write(self, commit: Commit) -> None:
        """What a commit changes of them."""
        for run, sequence, number, attempt in commit.limited_left:
            left = self.rows.get((run, sequence, number))
            if left is None or left.holder is None or left.asked.limited_by is None:
                continue
            if left.asked.attempt == attempt:
                self.places[left.holder, left.id] = _limited(left)
        for address in commit.executions_over:
            self.rows.pop(address, None)
        for asked in commit.executions_asked:
            address = asked.run, asked.sequence, asked.number
            before = self.rows.get(address)
            if before is None:
                self.given += 1
            if before is None:
                self.rows[address] = Waiting(self.given, asked, progress=asked.progress)
                continue
            if asked.progress is not None:
                before.began = None
            by = asked.limited_by if before.asked.limited_by is None else before.asked.limited_by
            if (asked.attempt, asked.token) != (before.asked.attempt, before.asked.token):
                before.holder = None
            before.asked = asked._replace(limited_by=by)

    def number(self, many: int) -> range:
        """Numbers for so many, ahead of all that get theirs later."""
        self.given += many
        return range(self.given - many + 1, self.given + 1)

    def begin_promised(
        self, commit: Commit, numbers: Sequence[int], payload_of: Callable[[int, int], bytes | None]
    ) -> None:
        """Those that begin with the commit that asks for them; ``payload_of`` is what a row of a run's log has."""
        for number, one in zip(numbers, commit.promised, strict=True):
            asked = one.asked
            row = Waiting(number, asked, commit.promised_to, commit.promised_at)
            self.rows[asked.address] = row
            made = payload_of(asked.run, asked.made) if asked.made else None
            commit.begun.append(one.begun(number, home_of(asked.key), made, commit.promised_at))

    def write_tokens(self, commit: Commit) -> None:
        """What a commit changes of tokens."""
        for token, *address in commit.tokens_over:
            known = self.tokens.get(token)
            if known is not None and [known.run, known.sequence, known.number] == address:
                self.tokens[token] = known._replace(waits=False)
                self.tokens_over[token] = commit.at
        for one in sorted(commit.tokens, key=lambda one: not one.waits):
            known = self.tokens.get(one.token)
            if one.waits and known is not None and known.waits:
                raise TokenTakenError
            if one.waits or known is None:
                self.tokens[one.token] = one
                self.tokens_over.pop(one.token, None)
                if not one.waits:
                    self.tokens_over[one.token] = commit.at

    def forget_tokens(self, before: datetime) -> None:
        """Those that were waited for no more before then."""
        for token in [token for token, over in self.tokens_over.items() if over < before]:
            del self.tokens_over[token], self.tokens[token]

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
            may = _may_begin(one, until) and one.id not in but
            if may and left.get(place, 0) and home_of(one.asked.key) in homes and is_loaded(one.asked.run):
                left[place] -= 1
                one.holder, one.began = holder, one.began or until
                begun.append(one)
        return begun

    def begin_limited(
        self,
        rooms: Sequence[LimitedRoom],
        until: datetime,
        homes: Sequence[int],
        but: Sequence[int],
        holder: int,
        since: float,
        is_loaded: Callable[[int], bool],
        counts: Callable[[Waiting], bool],
    ) -> list[Waiting]:
        """Those that begin now of steps with a limit, for which some of those that have begun count.

        Of those that no row tells of, only those whose holders have said that they are there ``since`` then.
        """
        kept = [place for (other, _), place in self.places.items() if self.is_there(other, since)]
        begun: list[Waiting] = []
        for limit in rooms:
            room = limit.room
            for one in sorted(self.rows.values(), key=lambda one: (one.asked.again, one.id)):
                asked = one.asked
                is_here = home_of(asked.key) in homes and is_loaded(asked.run)
                may = _may_begin(one, until) and one.id not in but and is_here
                is_of = (asked.pipeline, asked.step) == (limit.pipeline, limit.step)
                if (
                    room
                    and is_of
                    and asked.limited_by is not None
                    and may
                    and self._leaves(limit, one, until, counts, kept)
                ):
                    room -= 1
                    one.holder, one.began = holder, one.began or until
                    begun.append(one)
        return sorted(begun, key=lambda one: (one.asked.again, one.id))

    def _leaves(
        self,
        limit: LimitedRoom,
        one: Waiting,
        now: datetime,
        counts: Callable[[Waiting], bool],
        kept: Sequence[tuple[int, str, str | None]],
    ) -> bool:
        """Whether a limit leaves room for this one, which begins then."""
        place = limit.pipeline, limit.step, one.asked.limited_by or ""
        same = [
            other for other in self.rows.values() if other.holder is not None and _limited(other) == place
        ]
        due = limit.due(self.rates.get(place), now)
        if not limit.leaves(sum(map(counts, same)) + kept.count(place), due, now):
            return False
        if limit.interval is not None:
            self.rates[place] = due + limit.interval
        return True

    def limit_waiting(self, steps: Sequence[tuple[int, str]]) -> None:
        """Have what waits without a limit be limited."""
        for one in self.rows.values():
            is_of = (one.asked.pipeline, one.asked.step) in steps
            if is_of and one.holder is None and one.asked.limited_by is None:
                one.asked = one.asked._replace(limited_by="")

    def begin_untried(
        self,
        overdue: Mapping[tuple[int, str], datetime],
        until: datetime,
        homes: Sequence[int],
        but: Sequence[int],
        holder: int,
        limit: int,
        is_loaded: Callable[[int], bool],
        completed: Collection[tuple[int | None, str]] = (),
    ) -> list[Waiting]:
        """Those of which there is only something to be told, but not those ``completed``: of (pipeline, token)."""
        begun: list[Waiting] = []
        for one in sorted(self.rows.values(), key=lambda one: one.id):
            place = one.asked.pipeline, one.asked.step
            may = place in overdue and one.holder is None and one.id not in but
            is_over = one.began is not None and place in overdue and one.began <= overdue[place]
            is_late = bool(one.asked.token) and one.asked.again <= until
            is_late = is_late and (one.asked.pipeline, one.asked.token) not in completed
            is_here = home_of(one.asked.key) in homes and is_loaded(one.asked.run)
            if may and (one.asked.stopping or is_over or is_late) and is_here and len(begun) < limit:
                one.holder = holder
                begun.append(one)
        return begun

    def note_progress(self, holder: int, notes: Sequence[Progress]) -> None:
        """How far attempts have come."""
        by_id = {one.id: one for one in self.rows.values()}
        for note in notes:
            one = by_id.get(note.id)
            if one is not None and (one.holder, one.asked.attempt) == (holder, note.attempt):
                one.progress = note.progress

    def hold(self, holder: int, instance: str | None, now: float) -> None:
        """A holder is there; one of the same instance that was there before is not."""
        others = [(one, other) for one, other in self.holders.items() if one != holder]
        gone = [one for one, other in others if instance is not None and other.instance == instance]
        for one in gone:
            self.let_go(one)
        self.holders[holder] = Holder(instance, now)

    def let_go(self, holder: int) -> None:
        """A holder is not there any more."""
        self.holders.pop(holder, None)
        self.give_up_places(holder, ())

    def give_up_places(self, holder: int, going: Collection[int]) -> None:
        """Of its attempts that no row tells of, only these go on."""
        gone = [one for one in self.places if one[0] == holder and one[1] not in going]
        for one in gone:
            del self.places[one]

    def is_there(self, holder: int | None, since: float) -> bool:
        """Whether it has said that it is there since then."""
        return any(number == holder and one.seen >= since for number, one in self.holders.items())

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

    def take(self, numbers: Sequence[int], holder: int, since: float) -> list[Waiting]:
        """Those of these whose holders are not there, or silent since then, or that this one has already."""
        taken = [
            one
            for one in self.rows.values()
            if one.id in numbers
            and one.holder is not None
            and (one.holder == holder or not self.is_there(one.holder, since))
        ]
        for one in taken:
            one.holder = holder
        return sorted(taken, key=lambda one: one.id)


def _may_begin(one: Waiting, until: datetime) -> bool:
    return one.holder is None and not one.asked.token and one.asked.again <= until


def _limited(one: Waiting) -> tuple[int, str, str | None]:
    return one.asked.pipeline, one.asked.step, one.asked.limited_by


def as_begun(one: Waiting, run: Run, input: bytes, made: bytes | None = None) -> BegunExecution:
    """As the store answers."""
    asked = one.asked
    return BegunExecution(
        one.id, asked.pipeline, asked.key, run.generation, asked.run, run.definition, home_of(asked.key),
        asked.sequence, asked.number, asked.step, asked.attempt, asked.error, input, asked.of, asked.stopping, made,
        asked.since, asked.token, one.progress, one.began,
    )  # fmt: skip
