"""What the page on topics shows is true: its examples follow what S3 and Debezium send, its table has every setting."""

from __future__ import annotations

import dataclasses
import itertools
import os
import shlex
import subprocess
import sys
import types
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

import connectors
from connectors.elements import ELEMENTS_MAX, INDEX_HEADER
from connectors.files import Choice, FileOptions
from connectors.source import RawRecord
from engine.batch.batch import Batch
from engine.routing import Loaded, make_routes
from engine.store.values import IgnoredRange
from statemachines.machine import compile_pipeline
from statemachines.run import Run
from statemachines.topic import Topic
from statemachines.validation import find_mistakes
from tests.feeding import raw
from tests.fenced import blocks
from tests.storage import TEST_EVENT, put, removed, sent
from tests.unit.test_files import publish

SAMPLES = Path(__file__).parents[1] / "samples"
TEXT = Path(connectors.__file__).with_name("README.md").read_text("utf-8")


def example(number: int) -> dict[str, Any]:
    """The names that an example on the page defines."""
    names: dict[str, Any] = {"__name__": "followed"}
    exec(compile(blocks(TEXT, "python")[number], "connectors/README.md", "exec", dont_inherit=True), names)
    return names


def follow(number: int, topic_name: str, records: list[RawRecord]) -> tuple[Batch, dict[str, Run]]:
    """What the pipeline of an example on the page makes of these; the batch, and the runs by their keys."""
    flow = example(number)["flow"]
    assert find_mistakes(flow) == []
    topic = make_routes([Loaded(compile_pipeline(flow), 1, 1)], {})[topic_name]
    batch = Batch(datetime(2026, 3, 1, tzinfo=UTC), itertools.count(1), "here", [0, 0, 0, 0])
    batch.read([one._replace(offset=offset) for offset, one in enumerate(records)], 1, topic)
    batch.meet(batch.arrivals)
    batch.finish()
    return batch, dict(topic.routes[0].cache.items())


def sample(name: str, topic: str) -> RawRecord:
    """A record as its maker's documentation has it."""
    return raw((SAMPLES / name).read_bytes(), topic=topic)


def test_the_example_follows_a_notification_out_of_what_aws_tests_its_own_with() -> None:
    sent_by_aws = sample("s3/put.json", "s3")
    # Theirs is no sequencer.
    put_ = sent_by_aws._replace(value=(sent_by_aws.value or b"").replace(b"Happy Sequencer", b"0055AED6DC"))
    batch, runs = follow(0, "s3", [put_])
    assert {key: run.configuration for key, run in runs.items()} == {"sourcebucket/Happy Face.jpg": "there"}
    assert (batch.commit.dead_letters, batch.commit.noted) == ([], [])


def test_the_example_follows_a_row_by_what_debezium_publishes_of_it_also_twice() -> None:
    topic = "shop.public.customers"
    inserted, updated, deleted = (sample(f"debezium/customers-{op}.json", topic) for op in "cud")
    batch, runs = follow(1, topic, [inserted, updated, inserted, updated])
    [(key, run)] = runs.items()
    assert (key, run.configuration, run.sequence) == ("1", "there", 2)
    assert orjson.loads(run.context) == {"email": "annek@noanswer.org"}
    assert batch.commit.dead_letters == []
    assert [(one.offset, one.reason) for one in batch.commit.noted] == [
        (2, "seen before"),
        (3, "seen before"),
    ]
    again = inserted._replace(value=(inserted.value or b"").replace(b"24023128", b"46523999"))
    batch, runs = follow(1, topic, [inserted, updated, deleted, again])
    assert (runs["1"].configuration, runs["1"].generation) == ("there", 1)
    assert batch.commit.dead_letters == []
    emptied = deleted._replace(value=(deleted.value or b"").replace(b'"op": "d"', b'"op": "t"'))
    batch, _ = follow(1, topic, [emptied, raw(None, topic=topic)])
    assert batch.commit.dead_letters == []
    assert batch.commit.ranges == [
        IgnoredRange(1, 0, 0, 1, "unknown type"),
        IgnoredRange(1, 1, 1, 1, "no events"),
    ]


def test_a_strict_checker_of_types_has_nothing_to_say_of_its_code(tmp_path: Path) -> None:
    for name, code in zip(("objects", "customers", "test_objects"), blocks(TEXT, "python"), strict=True):
        (tmp_path / f"{name}.py").write_text(code, "utf-8")
    words = ["-m", "mypy", "--strict", "--config-file=", "--follow-imports=silent", "."]
    here = {**os.environ, "MYPYPATH": str(Path(connectors.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, env=here, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def configurations(runs: dict[str, Run]) -> dict[str, str]:
    """By the keys of objects, all of one bucket."""
    return {key.removeprefix("amzn-s3-demo-bucket/"): run.configuration for key, run in runs.items()}


def test_the_example_follows_what_s3_sends() -> None:
    records = [
        raw(orjson.dumps(TEST_EVENT), topic="s3"),
        sent(put("a+b%C3%A4.jpg", "01"), put("c.jpg", "02"), put("c.jpg", "03", name="ObjectTagging:Put")),
        sent(put("a+b%C3%A4.jpg", "01"), removed("c.jpg", "04")),
    ]
    batch, runs = follow(0, "s3", records)
    assert configurations(runs) == {"a bä.jpg": "there", "c.jpg": "gone"}
    assert batch.commit.dead_letters == []
    assert [(one.offset, one.reason) for one in batch.commit.noted] == [
        (0, "no events"),
        (1, "unknown type"),
        (2, "seen before"),
    ]


def test_the_example_follows_all_that_becomes_of_objects_by_whichever_name() -> None:
    made = ("Put", "Post", "Copy", "CompleteMultipartUpload")
    ends = ("ObjectRemoved:Delete", "ObjectRemoved:DeleteMarkerCreated", "LifecycleExpiration:Delete")
    for prefix in ("", "s3:"):
        created = [put(one, "01", name=f"{prefix}ObjectCreated:{one}") for one in made]
        batch, runs = follow(0, "s3", [sent(*created)])
        assert (batch.commit.dead_letters, configurations(runs)) == ([], dict.fromkeys(made, "there"))
        removed_ = [put(one, "02", name=prefix + one) for one in ends]
        batch, runs = follow(0, "s3", [sent(*(put(one, "01") for one in ends), *removed_)])
        assert (batch.commit.dead_letters, configurations(runs)) == ([], dict.fromkeys(ends, "gone"))


def test_the_example_goes_by_the_order_in_which_s3_did_things() -> None:
    late = [put("late.txt", "09", size=9), put("late.txt", "08", size=8)]
    again = [put("re.txt", "01"), removed("re.txt", "02"), put("re.txt", "01F"), put("re.txt", "03", size=3)]
    early = [removed("early.txt", "05"), put("early.txt", "04")]
    other = put("late.txt", "01", size=1)
    other["s3"]["bucket"]["name"] = "other"
    batch, runs = follow(0, "s3", [sent(*late), sent(*again), sent(*early, other)])
    assert batch.commit.dead_letters == []
    assert configurations(runs) == {
        "late.txt": "there", "re.txt": "there", "early.txt": "gone", "other/late.txt": "there",
    }  # fmt: skip
    sizes = {key.rpartition("/")[2]: orjson.loads(run.context)["size"] for key, run in runs.items()}
    assert sizes["re.txt"] == 3
    assert orjson.loads(runs["amzn-s3-demo-bucket/late.txt"].context) == {"size": 9}
    assert runs["amzn-s3-demo-bucket/re.txt"].generation == 1
    assert [one.reason for one in batch.commit.noted] == ["older than what was applied"] * 2


def test_the_tests_that_it_shows_are_of_its_example_and_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("objects")
    vars(module).update(example(0))
    monkeypatch.setitem(sys.modules, "objects", module)
    tests = {name: one for name, one in example(2).items() if name.startswith("test_")}
    assert len(tests) == 2
    for test in tests.values():
        test()


LOG = """\
case:concept:name,case:department,concept:instance,concept:name,time:timestamp
case-1,General,task-1,Confirmation of receipt,2011-10-11 13:45:40.276000+02:00
case-1,General,task-2,T02 Check confirmation of receipt,2011-10-12 08:26:25.398000+02:00
case-1,General,task-2,T02 Check confirmation of receipt,2011-10-12 08:26:25.398000+02:00
"""


async def test_the_columns_of_the_log_are_what_the_command_says() -> None:
    [command] = [one for one in blocks(TEXT, "") if "publish receipt" in one]
    _, _, _, name, *words = shlex.split(command)
    columns = zip(words[::2], words[1::2], strict=True)
    chosen: dict[str, Any] = {option.removeprefix("--"): Choice.parse(column) for option, column in columns}
    published = await publish(LOG, name, FileOptions(**chosen))
    first, second, again = published.broker.events
    assert (first.envelope.type, first.envelope.key) == ("Confirmation of receipt", "case-1")
    assert first.envelope.time == datetime(2011, 10, 11, 11, 45, 40, 276_000, tzinfo=UTC)
    assert first.data["case:department"] == "General"
    assert published.ids == ["task-1", "task-2", "task-2"]
    assert second == again


def test_the_table_has_every_setting_and_the_limit_is_the_real_one() -> None:
    settings = {one.name for one in dataclasses.fields(Topic)} - {"name", "type_default"}
    assert {line.split("`")[1] for line in TEXT.splitlines() if line.startswith("| `")} == settings
    assert f"more than {ELEMENTS_MAX:,} make" in TEXT
    assert f"`{INDEX_HEADER}`" in TEXT
