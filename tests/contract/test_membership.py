"""What every membership of a group must do, run on the fake one and on real Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from connectors.source import Membership, Partition
from tests.contract.source_worlds import World
from tests.contract.test_source import DEADLINE_SECONDS, QUIET_SECONDS, world

__all__ = ["world"]


class History(list[tuple[str, str, frozenset[Partition]]]):
    """What several witnesses were told, in order, and a signal that there is more."""

    def __init__(self) -> None:
        super().__init__()
        self.changed = asyncio.Condition()


class Witness:
    """Keeps what a membership's callbacks were told, in order."""

    def __init__(self, name: str, history: History | None = None) -> None:
        self.name = name
        self.history = History() if history is None else history
        self.has: frozenset[Partition] | None = None
        self.may_give_back = asyncio.Event()
        self.may_give_back.set()

    async def on_assigned(self, partitions: frozenset[Partition]) -> None:
        assert self.has is None
        self.has = partitions
        await self._tell("assigned", partitions)

    async def on_revoked(self, partitions: frozenset[Partition]) -> None:
        assert self.has == partitions
        await self._tell("asked to give back", partitions)
        await self.may_give_back.wait()
        self.has = None
        await self._tell("gave back", partitions)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS), self.history.changed:
            await self.history.changed.wait_for(condition)

    async def until_it_has(self, *partitions: Partition) -> None:
        await self.until(lambda: self.has == frozenset(partitions))

    async def _tell(self, what: str, partitions: frozenset[Partition]) -> None:
        self.history.append((self.name, what, partitions))
        async with self.history.changed:
            self.history.changed.notify_all()


async def join(membership: Membership, topic: str, witness: Witness) -> Membership:
    await membership.start([topic], witness.on_assigned, witness.on_revoked)
    return membership


async def test_one_member_gets_all_partitions_and_gives_them_back_as_it_stops(world: World) -> None:
    topic = await world.topic(3)
    all_of_it = frozenset(Partition(topic, number) for number in range(3))
    witness = Witness("only")

    membership = await join(world.membership("group"), topic, witness)
    await witness.until_it_has(*all_of_it)
    watching = asyncio.create_task(membership.watch())
    await membership.stop()
    await watching

    told = [(what, partitions) for _, what, partitions in witness.history]
    assert told == [("assigned", all_of_it), ("asked to give back", all_of_it), ("gave back", all_of_it)]
    assert membership.trouble() is None


async def test_members_share_and_the_first_gives_back_before_the_second_gets(world: World) -> None:
    topic = await world.topic(4)
    partitions = [Partition(topic, number) for number in range(4)]
    history = History()
    first, second = Witness("first", history), Witness("second", history)
    await join(world.membership("group"), topic, first)
    await first.until_it_has(*partitions)

    first.may_give_back.clear()
    joining = asyncio.create_task(join(world.membership("group"), topic, second))
    await first.until(lambda: history[-1][1] == "asked to give back")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(QUIET_SECONDS):
            await asyncio.shield(joining)
    assert all(name == "first" for name, _, _ in history)
    first.may_give_back.set()
    leaver = await joining
    await second.until(lambda: second.has is not None)
    await first.until(lambda: first.has is not None)

    assert first.has is not None
    assert second.has is not None
    assert first.has | second.has == frozenset(partitions)
    assert len(first.has) == len(second.has) == 2
    assert [(name, what) for name, what, _ in history[:3]] == [
        ("first", "assigned"),
        ("first", "asked to give back"),
        ("first", "gave back"),
    ]

    await leaver.stop()
    await first.until_it_has(*partitions)


async def test_of_more_members_than_partitions_some_have_none_and_know_it(world: World) -> None:
    topic = await world.topic(1)
    history = History()
    witnesses = [Witness("first", history), Witness("second", history)]
    for witness in witnesses:
        await join(world.membership("group"), topic, witness)

    for witness in witnesses:
        await witness.until(lambda: all(one.has is not None for one in witnesses))

    assert sorted(len(one.has or ()) for one in witnesses) == [0, 1]


async def test_two_groups_do_not_know_of_each_other(world: World) -> None:
    topic = await world.topic(2)
    everything = [Partition(topic, 0), Partition(topic, 1)]
    first, second = Witness("first"), Witness("second")
    await join(world.membership("one"), topic, first)
    await join(world.membership("other"), topic, second)

    await first.until_it_has(*everything)
    await second.until_it_has(*everything)


async def test_a_static_member_finds_its_partitions_again_and_the_others_notice_nothing(world: World) -> None:
    topic = await world.topic(4)
    history = History()
    stays, restarts = Witness("stays", history), Witness("restarts", history)
    await join(world.membership("group", instance="a"), topic, stays)
    before = await join(world.membership("group", instance="b"), topic, restarts)
    await stays.until(lambda: stays.has is not None and len(stays.has) == 2)
    await restarts.until(lambda: restarts.has is not None)
    had, count = restarts.has, len(history)

    await before.stop()
    again = Witness("again", history)
    await join(world.membership("group", instance="b"), topic, again)
    await again.until(lambda: again.has is not None)

    assert again.has == had
    assert all(name != "stays" for name, _, _ in history[count:])


async def test_what_a_callback_raises_is_raised_by_watch(world: World) -> None:
    topic = await world.topic(1)

    async def broken(partitions: frozenset[Partition]) -> None:
        raise ValueError(f"cannot take {len(partitions)}")

    witness = Witness("second")
    on_assigning = world.membership("one")
    await on_assigning.start([topic], broken, witness.on_revoked)
    with pytest.raises(ValueError, match="cannot take 1"):
        async with asyncio.timeout(DEADLINE_SECONDS):
            await on_assigning.watch()
    witness.has = frozenset([Partition(topic, 0)])

    on_revoking = world.membership("other")
    other = Witness("other")
    await on_revoking.start([topic], other.on_assigned, broken)
    await other.until(lambda: other.has is not None)
    await on_revoking.stop()
    with pytest.raises(ValueError, match="cannot take 1"):
        await on_revoking.watch()


async def test_an_assignment_that_is_taken_away_before_it_was_dealt_with_is_cut_short(world: World) -> None:
    topic = await world.topic(2)
    history: list[str] = []
    began = asyncio.Event()

    async def assigned(partitions: frozenset[Partition]) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            history.append(f"cut short with {len(partitions)}")
            raise

    async def revoked(partitions: frozenset[Partition]) -> None:
        history.append(f"gave back {len(partitions)}")

    await world.membership("group").start([topic], assigned, revoked)
    async with asyncio.timeout(DEADLINE_SECONDS):
        await began.wait()
    other = Witness("other")
    await join(world.membership("group"), topic, other)
    await other.until(lambda: other.has is not None)

    assert history[:2] == ["cut short with 2", "gave back 2"]
