"""What `publish` says, and how it ends, where nothing was sent to a broker."""

from __future__ import annotations

from pathlib import Path

import pytest

from connectors.files import PublishedReport
from connectors.publish_errors import PublishError, unreachable
from tests.cli import pointsman

ON = {"KAFKA": "127.0.0.1:1"}


@pytest.mark.parametrize(("confirmed", "unconfirmed", "code"), [(0, 0, 2), (0, 3, 1), (3, 0, 1), (3, 3, 1)])
def test_a_failed_publication_ends_with_2_only_where_nothing_was_sent(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    confirmed: int,
    unconfirmed: int,
    code: int,
) -> None:
    async def fail(*_: object) -> PublishedReport:
        failure = PublishError("Kafka answers, but has not confirmed.")
        return PublishedReport(
            confirmed, 0, unconfirmed, failure, "log.csv:2", "file:log.csv", has_cloudevents=False
        )

    monkeypatch.setattr("engine.cli.publish._publish", fail)
    file = tmp_path / "log.csv"
    file.write_text("type\nopened\n")
    done = pointsman("publish", "orders", file, "--json", on=ON)
    assert done.code == code
    assert done.json["unconfirmed"] == unconfirmed


@pytest.mark.parametrize(
    ("words", "source", "has_cloudevents", "said", "apart"),
    [
        (["-"], "stdin:5f", False, "Published again with --source stdin:5f, events", False),
        (["-"], "stdin:5f", True, "Published again with --source stdin:5f, events", True),
        (["-"], None, True, "Published again, events", False),
        (
            ["/dev/null", "--format", "jsonl"],
            "stdin:5f",
            False,
            "Published again with --source stdin:5f, events",
            False,
        ),
        (["-", "--source", "/shop"], "/shop", False, "Published again, events", False),
        (["{file}"], "file:log.csv", False, "Published again, events", False),
    ],
)
def test_a_publication_that_failed_is_told_by_which_source_it_would_be_the_same(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    words: list[str],
    source: str | None,
    has_cloudevents: bool,
    said: str,
    apart: bool,
) -> None:
    async def fail(*_: object) -> PublishedReport:
        failure = unreachable("127.0.0.1:1", 30, "e-1")
        return PublishedReport(2, 0, 1, failure, "-:3", source, has_cloudevents)

    monkeypatch.setattr("engine.cli.publish._publish", fail)
    file = tmp_path / "log.csv"
    file.write_text("type\nopened\n")
    given = ["publish", "orders", *(word.format(file=file) for word in words)]
    done = pointsman(*given, on=ON, input="type\nopened\n")
    assert done.code == 3
    assert said in done.err
    assert ("CloudEvents apart" in done.err) == apart
    assert "with the same source and id" in done.err
    assert pointsman(*given, "--json", on=ON, input="type\nopened\n").json["source"] == source
