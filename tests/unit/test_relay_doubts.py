"""Which books of Postgres and Kafka fit together, and what is said of those that do not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from connectors.sink import Progress
from engine.outbox import OutRecord, digest, encode
from engine.relay.doubts import Books, find_doubt

ROW = encode([OutRecord("t", b"k", b"v", (), 0)])
BOOKS = Books("here", ticket=9, deleted=4, row=ROW, next=8)
PROGRESS = Progress("here", 7, digest(ROW))


@pytest.mark.parametrize(
    ("books", "progress"),
    [
        pytest.param(BOOKS, PROGRESS, id="rows wait"),
        pytest.param(replace(BOOKS, ticket=7, next=None), PROGRESS, id="nothing waits"),
        pytest.param(replace(BOOKS, ticket=0, deleted=0, row=None, next=None), None, id="nothing ever was"),
        pytest.param(replace(BOOKS, deleted=0, row=None, next=1), None, id="nothing was published yet"),
        pytest.param(replace(BOOKS, row=None), Progress("here", 7, b""), id="there is no row to compare"),
        pytest.param(replace(BOOKS, deleted=7), PROGRESS, id="all but the last is deleted"),
    ],
)
def test_books_that_fit_raise_no_doubt(books: Books, progress: Progress | None) -> None:
    assert find_doubt(books, progress) is None


@pytest.mark.parametrize(
    ("books", "progress", "says", "resumes"),
    [
        pytest.param(BOOKS, None, "no progress record", 5, id="the topic was deleted"),
        pytest.param(
            BOOKS, PROGRESS._replace(store="there"), "belongs to the store there", 5, id="other store"
        ),
        pytest.param(
            replace(BOOKS, deleted=0),
            PROGRESS._replace(store="there"),
            "belongs to the store",
            0,
            id="new store",
        ),
        pytest.param(BOOKS, PROGRESS._replace(sequence=3), "Kafka lost", 5, id="older Kafka"),
        pytest.param(BOOKS, PROGRESS._replace(sequence=10), "only written 9", 5, id="older database"),
        pytest.param(BOOKS, PROGRESS._replace(digest=b"x"), "another content", 5, id="other row"),
        pytest.param(replace(BOOKS, row=None), PROGRESS, "is gone", 5, id="no row"),
        pytest.param(
            replace(BOOKS, next=9), PROGRESS, "rows 8 to 8 of the outbox are missing", 8, id="a gap"
        ),
        pytest.param(replace(BOOKS, next=None), PROGRESS, "rows 8 to 9 of the", 9, id="nothing behind"),
        pytest.param(
            replace(BOOKS, deleted=0, next=2), None, "rows 1 to 1 of the", 1, id="a gap at the start"
        ),
    ],
)
def test_books_that_do_not_fit_are_said_to_a_person_with_what_to_do(
    books: Books, progress: Progress | None, says: str, resumes: int
) -> None:
    doubt = find_doubt(books, progress)
    assert doubt is not None
    sentence = doubt.sentence("orders", 0)
    assert says in sentence
    assert "The relay of namespace orders, shard 0, has stopped" in sentence
    assert "pointsman relay accept --reason" in sentence
    assert doubt.resume == resumes
    assert doubt.consequence in sentence
