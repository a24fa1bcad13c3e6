"""What the page on topics shows is true: its example follows what S3 sends, and its table has every setting."""

from __future__ import annotations

import dataclasses
import itertools
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

import connectors
from connectors.elements import ELEMENTS_MAX, INDEX_HEADER
from engine.batch import Batch
from engine.routing import Loaded, make_routes
from statemachines.machine import compile_pipeline
from statemachines.topic import Topic
from statemachines.validation import find_mistakes
from tests.feeding import raw
from tests.fenced import blocks
from tests.storage import TEST_EVENT, put, removed, sent

TEXT = Path(connectors.__file__).with_name("README.md").read_text("utf-8")


def test_the_example_follows_what_s3_sends() -> None:
    [code] = blocks(TEXT, "python")
    names: dict[str, Any] = {"__name__": "objects"}
    exec(compile(code, "connectors/README.md", "exec"), names)
    assert find_mistakes(names["flow"]) == []
    topic = make_routes([Loaded(compile_pipeline(names["flow"]), 1, 1)], {})["s3"]
    records = [
        raw(orjson.dumps(TEST_EVENT), topic="s3"),
        sent(put("a+b%C3%A4.jpg", "01"), put("c.jpg", "02"), put("c.jpg", "03", name="ObjectTagging:Put")),
        sent(put("a+b%C3%A4.jpg", "01"), removed("c.jpg", "04")),
    ]
    batch = Batch(datetime(2026, 3, 1, tzinfo=UTC), itertools.count(1), "here", [0, 0, 0, 0])
    batch.read([one._replace(offset=offset) for offset, one in enumerate(records)], 1, topic)
    batch.meet(batch.arrivals)
    batch.finish()
    runs = topic.routes[0].cache
    assert {key: run.configuration for key, run in runs.items()} == {"a bä.jpg": "there", "c.jpg": "gone"}
    assert batch.commit.dead_letters == []
    assert [(one.offset, one.reason) for one in batch.commit.noted] == [
        (0, "no events"),
        (1, "unknown type"),
        (2, "seen before"),
    ]


def test_the_table_has_every_setting_and_the_limit_is_the_real_one() -> None:
    settings = {one.name for one in dataclasses.fields(Topic)} - {"name", "type_default"}
    assert {line.split("`")[1] for line in TEXT.splitlines() if line.startswith("| `")} == settings
    assert f"more than {ELEMENTS_MAX:,} make" in TEXT
    assert f"`{INDEX_HEADER}`" in TEXT
