"""Ids for new runs, given out while others are asked for."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from engine.session import run_ids
from engine.session.run_ids import RUN_IDS_SECONDS_MAX, RunIds

BLOCK = 10


class Blocks:
    """Gives out blocks, each once it is let."""

    def __init__(self) -> None:
        self.given = 0
        self.may = asyncio.Event()
        self.may.set()

    async def run_ids(self) -> range:
        await self.may.wait()
        first, self.given = self.given, self.given + BLOCK
        return range(first, first + BLOCK)


async def test_ids_that_are_too_old_are_given_out_until_others_are_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = SimpleNamespace(seconds=1_000.0)
    monkeypatch.setattr(run_ids, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    blocks: Any = Blocks()
    ids = RunIds(blocks)
    await ids.have(5)
    now.seconds += RUN_IDS_SECONDS_MAX
    blocks.may.clear()
    asking = asyncio.create_task(ids.have(15))
    await asyncio.sleep(0)
    # Events are stepped meanwhile that were promised as many.
    assert [next(ids) for _ in range(5)] == [0, 1, 2, 3, 4]
    blocks.may.set()
    await asking
    assert [next(ids) for _ in range(15)] == list(range(10, 25)), "all of them are new"
