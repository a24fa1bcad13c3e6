"""Topics that are to be made while brokers are missing, which may be about to be there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from connectors.kafka import admin as module
from connectors.kafka.admin import KafkaAdmin
from connectors.kafka.settings import KafkaSettings
from connectors.source import SourceError

MADE, TOO_FEW_BROKERS = 0, 38


class Controller:
    """Answers with one code after the other, and with the last one from then on."""

    def __init__(self, *codes: int) -> None:
        self.codes = [*codes]
        self.known: list[str] = []

    async def ask_controller(self, request: Any) -> Any:
        del request
        code = self.codes.pop(0) if len(self.codes) > 1 else self.codes[0]
        return SimpleNamespace(topic_errors=[("orders", code, "All brokers are currently fenced.")])

    async def until_known(self, topic: str) -> None:
        self.known.append(topic)


def admin_of(controller: Controller, monkeypatch: pytest.MonkeyPatch) -> KafkaAdmin:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
    made = KafkaAdmin(KafkaSettings("nowhere:9092"))
    made._queries = controller  # type: ignore[assignment]  # it has what is asked
    return made


async def test_a_topic_is_made_once_there_are_brokers_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    controller = Controller(TOO_FEW_BROKERS, TOO_FEW_BROKERS, MADE)
    assert await admin_of(controller, monkeypatch).create_topic("orders")
    assert controller.known == ["orders"]


async def test_a_topic_is_not_made_where_brokers_stay_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.0)
    controller = Controller(TOO_FEW_BROKERS)
    with pytest.raises(
        SourceError, match=r"did not create the topic orders: .*All brokers are currently fenced"
    ):
        await admin_of(controller, monkeypatch).create_topic("orders")
    assert controller.known == []
