"""What the page on Python shows of the publisher and the client does what it says, against Kafka and Postgres."""

from __future__ import annotations

import ast
import sys
from typing import Any

import orjson
import pytest

from tests.fenced import blocks
from tests.integration.test_client import serving
from tests.kafka_reading import read_all
from tests.services import Database, Kafka, TopicFactory
from tests.unit.test_python_page import TEXT, orders

PUBLISHER, CLIENT, _ = blocks(TEXT, "python")


async def follow(block: str, monkeypatch: pytest.MonkeyPatch, **instead: str) -> dict[str, Any]:
    """Run a block, with other texts instead of some of its own; what it names then."""
    for shown, real in instead.items():
        assert f'"{shown}"' in block
        block = block.replace(f'"{shown}"', repr(real))
    names: dict[str, Any] = {"__name__": "shown"}
    code = compile(block, "engine/python.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    monkeypatch.setitem(sys.modules, "orders", orders())
    await eval(code, names)
    return names


async def test_an_event_is_published_as_it_shows(
    kafka: Kafka, topic: TopicFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = await topic("orders")
    names = await follow(PUBLISHER, monkeypatch, **{"127.0.0.1:9092": kafka.bootstrap, "orders": name})
    [record] = await read_all(kafka.bootstrap, name)
    event = orjson.loads(record.value or b"")
    assert (record.key, event["id"], event["source"]) == (b"o1", names["receipt"].id, "/shop")


async def test_a_run_is_asked_and_waited_for_as_it_shows(
    database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(database, orders().flow):
        await follow(CLIENT, monkeypatch, **{"postgresql://my_app@db/pointsman": database.engine_dsn})
    assert capsys.readouterr().out == "completed ['paid'] 500 None\n"
