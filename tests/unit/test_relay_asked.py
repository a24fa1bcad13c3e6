"""What is said where Kafka does not answer who asks how the relay stands."""

from __future__ import annotations

from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest

from connectors.sink import SinkUnavailableError
from engine.errors import ServiceUnreachableError
from engine.relay import decisions, relay_status

AWAY = "Kafka at a:1 does not answer (refused). Look whether it runs there, and whether the address is right."
SLOW = "Kafka at a:1 did not say what is in relay/0"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (AWAY, AWAY),
        (SLOW, f"{SLOW}. Is it running there, and are the address and the security settings right?"),
    ],
)
async def test_what_to_do_is_said_once(monkeypatch: pytest.MonkeyPatch, error: str, said: str) -> None:
    monkeypatch.setattr(decisions, "_existing_lane", AsyncMock(return_value=1))
    monkeypatch.setattr(decisions, "read_books", AsyncMock())
    sink: Any = Mock(look=AsyncMock(side_effect=SinkUnavailableError(error)))
    with pytest.raises(ServiceUnreachableError) as raised:
        await relay_status(AsyncMock(), lambda _store: sink, "default")
    assert str(raised.value) == said
