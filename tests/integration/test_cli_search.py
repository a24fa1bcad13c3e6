"""``runs --where`` as a user has it."""

from __future__ import annotations

import pytest

from tests.cli import Done, pointsman
from tests.feeding import event, feed
from tests.services import Database
from tests.tickets import plain_tickets, tickets


@pytest.fixture
async def looking(database: Database) -> dict[str, str]:
    """Three tickets, and somebody who may look at them."""
    async with feed(database, tickets(), plain_tickets("plain")) as feeding:
        await feeding.records(
            *(
                event("ticket.opened", {"ticket": key, "tenant": tenant, "priority": priority})
                for key, tenant, priority in (("t1", "acme", 3), ("t2", "acme", 1), ("t3", "a = b", 3))
            )
        )
        await feeding.records(event("ticket.changed", {"ticket": "t1", "tags": ["red", "old"]}))
    return {"POSTGRES": database.reader_dsn}


def test_runs_are_found_by_all_that_is_asked(looking: dict[str, str]) -> None:
    def keys(*words: str) -> list[tuple[str, str]]:
        return [(one["pipeline"], one["key"]) for one in pointsman("runs", "--json", *words, on=looking).json]

    assert keys("--where", "tenant=acme", "--where", "priority=3") == [("ticket", "t1")]
    assert keys("--where", "tenant=a = b") == [("ticket", "t3")]
    assert keys("--where", "tags=old", "--pipeline", "ticket", "--state", "open") == [("ticket", "t1")]
    assert keys("--where", "tenant=nobody") == []
    [found] = pointsman("runs", "--key", "t1", "--pipeline", "ticket", "--json", on=looking).json
    assert found["attributes"] == {"tenant": "acme", "priority": 3, "tags": ["red", "old"]}
    shown = pointsman("runs", on=looking)
    assert (
        "priority=3 tags=red,old tenant=acme" in shown.out
        or "tags=red,old tenant=acme priority=3" in shown.out
    )
    assert "attributes" not in pointsman("runs", "--pipeline", "plain", on=looking).out


def told(done: Done) -> str:
    assert (done.code, done.out) == (2, "")
    return done.err.strip()


def test_what_cannot_be_asked_for_ends_with_2_and_a_sentence(looking: dict[str, str]) -> None:
    def ask(*words: str) -> str:
        return told(pointsman("runs", *words, on=looking))

    assert ask("--where", "tennant=acme") == (
        "No pipeline of the namespace 'default' has a search attribute 'tennant'. Did you mean 'tenant'?"
    )
    assert ask("--where", "tenant=acme", "--pipeline", "plain") == (
        "No pipeline 'plain' has a search attribute 'tenant'. None are known."
    )
    assert ask("--where", "priority=high") == (
        "The search attribute 'priority' is a whole number, which 'high' is not."
    )
    for nothing in ("tenant", "=acme", ""):
        assert ask("--where", nothing) == (
            f"--where takes NAME=VALUE, such as tenant=acme; {nothing!r} is none."
        )
