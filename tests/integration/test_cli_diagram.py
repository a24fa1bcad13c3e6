"""``diagram --run`` and ``--counts`` as a user has them, over what an engine has written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli import Done, pointsman
from tests.feeding import event, feed
from tests.incident import incident_pipeline
from tests.services import Database
from tests.shop import shop

MODULE = """
from tests.incident import incident_pipeline
from tests.shop import shop

flow = shop(version={version})
audit = shop(name="audit")
incident = incident_pipeline()
"""
HERE = "classDef here fill:#ffe082,stroke:#e65100,stroke-width:3px,color:#000"
PASSED = "classDef passed fill:#e3f2fd,stroke:#1565c0,color:#000"


class Asking:
    """Somebody who may look, with the pipelines at hand in a file."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.on = {"POSTGRES": database.reader_dsn}
        self.file, self.newer = folder / "shops.py", folder / "newer.py"
        self.file.write_text(MODULE.format(version=1))
        self.newer.write_text(MODULE.format(version=2))

    def diagram(self, *words: object) -> Done:
        return pointsman("diagram", *words, on=self.on)

    def lines(self, *words: object) -> list[str]:
        done = self.diagram(*words)
        assert (done.code, done.err) == (0, "")
        return [line.strip() for line in done.out.splitlines()]


@pytest.fixture
async def asking(database: Database, tmp_path: Path) -> Asking:
    """Of the shop o1 is paid in two parts, o2 shipped, o3 held with an event behind; o4 follows version 2."""
    async with feed(database, shop(), incident_pipeline()) as feeding:
        await feeding.records(
            *(event("order.placed", {"order_id": key, "amount": 5}) for key in ("o1", "o2", "o3"))
        )
        await feeding.records(
            event("order.paid", {"order_id": "o1", "amount": 2}),
            event("order.paid", {"order_id": "o1", "amount": 3}),
            event("order.paid", {"order_id": "o2", "amount": 5}),
            event("order.shipped", {"order_id": "o2"}),
            event("order.broken", {"order_id": "o3"}),
            event("order.noted", {"order_id": "o3"}),
        )
        await feeding.records(
            event("incident.reported", {"incident": "i1", "severity": 3}, topic="incidents"),
            event("incident.taken", {"incident": "i1", "by": "ada"}, topic="incidents"),
            event("incident.suspended", {"incident": "i1"}, topic="incidents"),
            event("incident.resumed", {"incident": "i1"}, topic="incidents"),
        )
    async with feed(database, shop(), shop(version=2)) as feeding:
        await feeding.records(event("order.placed", {"order_id": "o4", "amount": 5}))
    return Asking(database, tmp_path)


def test_a_run_is_marked_with_the_way_that_it_took(asking: Asking) -> None:
    lines = asking.lines(f"{asking.file}:flow", "--run", "o1")
    assert "[*] --> placed: order.placed (row 1)" in lines
    assert "placed --> placed: order.paid [internal] [is_part] (row 2)" in lines
    assert "placed --> paid: order.paid [covers] (row 3)" in lines
    assert "paid --> shipped: order.shipped" in lines
    assert lines[-4:] == [HERE, "class paid here", PASSED, "class placed passed"]


def test_a_chart_is_marked_with_its_regions_and_its_history(asking: Asking) -> None:
    lines = asking.lines(asking.file, "--run", "i1")
    assert "suspended --> back: incident.resumed (row 4)" in lines
    assert "active --> suspended: incident.suspended (row 3)" in lines
    assert "class active,repair,customer,work,looking,waiting here" in lines
    assert "class queued,suspended passed" in lines


def test_an_event_that_failed_and_one_that_waits_took_no_way(asking: Asking) -> None:
    [drawn] = asking.diagram(f"{asking.file}:flow", "--run", "o3", "--json").json
    run = drawn["run"]
    assert (run["status"], run["sequence"], run["configuration"]) == ("held", 3, ["placed"])
    assert run["transitions"] == [_taken(None, "order.placed", "placed", None, 1)]
    assert run["unexplained"] == []


def test_runs_are_counted_by_the_state_that_they_are_in(asking: Asking) -> None:
    done = asking.diagram(f"{asking.file}:flow", "--counts")
    assert done.code == 0
    assert done.err.strip() == "1 run follows other versions of 'shop' than are drawn."
    for state in ('"placed (1)"', '"paid (1)"', '"shipped (1)"'):
        assert f"state {state} as" in done.out
    [drawn] = asking.diagram(f"{asking.file}:flow", "--counts", "--json").json
    assert (drawn["counts"], drawn["elsewhere"]) == ({"placed": 1, "paid": 1, "shipped": 1}, 1)
    drawn = {
        (one["pipeline"], one["version"]): one["counts"]
        for one in asking.diagram(f"{asking.file}", f"{asking.newer}:flow", "--counts", "--json").json
    }
    assert drawn["shop", 2] == {"placed": 1, "paid": 0, "shipped": 0}
    assert drawn["audit", 1] == {"placed": 0, "paid": 0, "shipped": 0}
    assert {state: count for state, count in drawn["incident", 1].items() if count} == dict.fromkeys(
        ("active", "repair", "customer", "work", "looking", "waiting"), 1
    )


def test_both_at_once_are_drawn_and_given_as_a_document(asking: Asking) -> None:
    [drawn] = asking.diagram(asking.file, "--run", "o2", "--counts", "--json").json
    assert 'state "shipped (1)" as shipped' in drawn["mermaid"]
    assert drawn["run"] == {
        "key": "o2",
        "generation": 0,
        "status": "completed",
        "sequence": 3,
        "configuration": ["shipped"],
        "entered": [
            {"state": "placed", "rows": [1], "times": 1},
            {"state": "paid", "rows": [2], "times": 1},
            {"state": "shipped", "rows": [3], "times": 1},
        ],
        "transitions": [
            _taken(None, "order.placed", "placed", None, 1),
            _taken("placed", "order.paid", "paid", "covers", 2),
            _taken("paid", "order.shipped", "shipped", None, 3),
        ],
        "unexplained": [],
    }
    [plain] = pointsman("diagram", f"{asking.file}:flow", "--json").json
    assert (plain["run"], plain["counts"], plain["elsewhere"]) == (None, {}, None)


def _taken(source: str | None, type: str, target: str, guard: str | None, row: int) -> dict[str, object]:
    return {
        "source": source, "event": type, "targets": [target], "guard": guard, "rows": [row], "uncertain": [],
        "times": 1,
    }  # fmt: skip


def test_what_cannot_be_drawn_is_told(asking: Asking) -> None:
    def told(code: int, *words: object) -> str:
        done = asking.diagram(*words)
        assert (done.code, done.out) == (code, "")
        return done.err.strip()

    assert told(1, f"{asking.file}:flow", "--run", "o9").startswith("'shop' has no run with the key 'o9'")
    assert told(1, asking.file, "--run", "o9") == (
        "None of 'shop', 'audit' and 'incident' has a run with the key 'o9' in the namespace 'default'. "
        "`pointsman runs` lists them."
    )
    assert told(1, f"{asking.file}:flow", "--run", "o1", "--generation", "4") == (
        "The run 'o1' of 'shop' has no generation 4; it has 0."
    )
    assert told(2, f"{asking.newer}:flow", "--run", "o1") == (
        "The run 'o1' of 'shop' follows version 1, and what is given is version 2. Give the file that has its "
        "version, too."
    )
    assert "name the run" in told(2, asking.file, "--generation", "4")
    both = asking.diagram(asking.file, f"{asking.newer}:flow", "--run", "o4")
    assert 'title: "shop version 2"' in both.out


async def test_a_key_of_several_pipelines_and_a_definition_that_has_changed_are_told(
    asking: Asking, database: Database
) -> None:
    async with feed(database, shop(), shop(name="audit")) as feeding:
        await feeding.records(event("order.placed", {"order_id": "o5", "amount": 5}))
    done = asking.diagram(asking.file, "--run", "o5")
    assert (done.code, done.err.strip()) == (
        2,
        "'shop' and 'audit' have a run with the key 'o5'. Say which is meant: MODULE:NAME.",
    )
    changed = asking.file.with_name("changed.py")
    changed.write_text(
        "from tests.shop import OrderPaid, OrderShipped, shop\nflow = shop()\n"
        "flow.moves[:] = [one for one in flow.moves if one.event is not OrderPaid]\n"
        "flow.on(OrderPaid, to='shipped')\n"
        "flow.states[0].on(OrderShipped, to='paid')\n"
    )
    done = asking.diagram(changed, "--run", "o1")
    assert done.code == 0
    assert "Version 1 of 'shop' is not what it was when this run began" in done.err
    assert "This definition does not say what led from state to state in rows 2, 3." in done.err
    assert "class paid here" in done.out
