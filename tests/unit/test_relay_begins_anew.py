"""A relay that begins anew: what breaks away at once each time is asked less and less often."""

from __future__ import annotations

import asyncio

import pytest

from connectors.kafka.settings import KafkaSettings
from engine.backoff import Backoff
from engine.relay import Relay


async def test_a_postgres_that_lets_in_and_breaks_away_at_once_is_asked_less_and_less_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attempts: list[int] = []

    class Counted(Backoff):
        async def wait(self, unless: asyncio.Event) -> None:
            attempts.append(self._attempts)
            if len(attempts) == 5:
                relay.stop()

    async def break_away(relay: Relay) -> None:
        relay._backoff.succeeded()
        raise ConnectionResetError

    monkeypatch.setattr("engine.relay.relay.Backoff", Counted)
    monkeypatch.setattr(Relay, "_live", break_away)
    relay = Relay("postgresql://nobody@127.0.0.1:1/nothing", KafkaSettings("127.0.0.1:1"), "default")
    async with asyncio.timeout(60):
        await relay.run()
    assert attempts == [1, 2, 3, 4, 5]
