"""What goes on beside an engine: nothing depends on it, and its mistakes are told."""

from __future__ import annotations

import asyncio
import logging

import pytest

from engine.cli.logs import JsonLines
from engine.running import _beside

SECONDS = 30.0
SAID = "telling of it has met a mistake and ended; nothing else depends on it"


async def test_a_mistake_of_what_goes_on_beside_is_told_as_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    told = asyncio.Event()

    def hear(_: logging.LogRecord) -> bool:
        told.set()
        return True

    async def mistaken() -> None:
        raise LookupError("nobody knows it")

    caplog.handler.addFilter(hear)
    try:
        async with _beside("telling of it", mistaken()), asyncio.timeout(SECONDS):
            # The engine goes on meanwhile.
            await told.wait()
    finally:
        caplog.handler.removeFilter(hear)
    [line] = caplog.records
    assert (line.name, line.levelno, line.getMessage()) == ("pointsman.engine", logging.ERROR, SAID)
    assert "LookupError: nobody knows it" in JsonLines().traceback_of(line)


async def test_what_is_done_and_what_is_let_be_are_no_mistakes(caplog: pytest.LogCaptureFixture) -> None:
    async def done() -> None:
        return

    async def endless() -> None:
        await asyncio.Event().wait()

    async with _beside("telling of it", done()), _beside("telling on and on", endless()):
        await asyncio.sleep(0)
    assert caplog.records == []
