"""Every answer of `--json` has the fields that `engine/cli/README.md` documents, and no others."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from engine import retention
from engine.steps.breakers import Breakers
from statemachines import Breaker
from tests.cli import pointsman
from tests.documented import Page
from tests.integration.test_cli_run import engine_on, reader_on, run
from tests.services import Database, Kafka, TopicFactory, execute

CASES = """
from datetime import timedelta

from statemachines import Call, Context, Event, Later, Pipeline, Publish, Retry, Send, exponential


class Opened(Event, type="case.opened", key="id"):
    id: str


class Weighed(Event, type="case.weighed", key="id"):
    id: str
    grams: int


class Packed(Event, type="case.packed", key="id"):
    id: str


class Labelled(Event, type="case.labelled", key="id"):
    id: str


class Bought(Event, type="case.bought", key="id"):
    id: str


class Checked(Event, type="case.checked", key="id"):
    id: str


class Greeted(Event, type="case.greeted"):
    pass


class Case(Context):
    id: str


flow = Pipeline("case", Case, topics=[{read!r}])
flow.policy(Weighed, unexpected="dead_letter")
opened = flow.state("opened", initial=True)
closed = flow.state("closed", final=True)


def begin(event: Opened) -> Case:
    return Case(id=event.id)


def greet(case: Case, event: Opened) -> Send:
    return Send(Greeted())


def is_heavy(case: Case, event: Weighed) -> bool:
    return event.grams > 100


def tell(case: Case, event: Weighed) -> Publish:
    return Publish({told!r}, Weighed(id=case.id, grams=event.grams))


packed = flow.state("packed")
flow.start(Opened, begin, do=greet)
opened.on(Greeted)
opened.on(Packed, to=packed)
opened.after(timedelta(days=1), to=closed)
packed.on(Labelled, to=closed)
opened.on(Weighed, to=closed, when=is_heavy, do=tell)


@flow.step()
def charge(case: Case, call: Call) -> str:
    return call.idempotency_key


@charge.compensate(retry=Retry(attempts=1))
def refund(case: Case, made: str | None, call: Call) -> None:
    if case.id == "c-6":
        raise OSError("the bank is closed")


@flow.step(retry=Retry(attempts=2, wait=exponential(0.01, 0.01)))
def ship(case: Case, call: Call) -> None:
    raise OSError("no lorry")


@flow.step()
def check(case: Case, call: Call) -> str | Later:
    return Later("check " + case.id)


checking = flow.state("checking", run=check)
opened.on(Checked, to=checking)
checking.on(check.done, to=packed)
paying = flow.state("paying", run=charge)
shipping = flow.state("shipping", run=ship)
opened.on(Bought, to=paying)
paying.on(charge.done, to=shipping)
flow.on_failure(to=closed, compensate=True)
"""
EVENTS = [
    {"event": "begin-1", "type": "case.opened", "id": "c-1"},
    {"event": "light", "type": "case.weighed", "id": "c-1", "grams": 5},
    {"event": "heavy", "type": "case.weighed", "id": "c-1", "grams": 500},
    {"event": "begin-2", "type": "case.opened", "id": "c-2"},
    {"event": "broken", "type": "case.weighed", "id": "c-2", "grams": "much"},
    {"event": "behind", "type": "case.weighed", "id": "c-2", "grams": 500},
    {"event": "begin-3", "type": "case.opened", "id": "c-3"},
    {"event": "early", "type": "case.labelled", "id": "c-3"},
    {"event": "begin-4", "type": "case.opened", "id": "c-4"},
    {"event": "bought", "type": "case.bought", "id": "c-4"},
    {"event": "begin-5", "type": "case.opened", "id": "c-5"},
    {"event": "checked", "type": "case.checked", "id": "c-5"},
    {"event": "begin-6", "type": "case.opened", "id": "c-6"},
    {"event": "bought-6", "type": "case.bought", "id": "c-6"},
]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A month is emptied also where the disk takes its time."""
    monkeypatch.setattr(retention, "LOCK_SECONDS_MAX", 60)


async def test_every_answer_has_the_documented_fields_and_no_others(
    database: Database,
    empty_database: str,
    kafka: Kafka,
    topic: TopicFactory,
    tmp_path: Path,
) -> None:
    page, read, told = Page.read(), await topic("cases"), await topic("told")
    file, other = tmp_path / "cases.py", tmp_path / "other.py"
    file.write_text(CASES.format(read=read, told=told))
    other.write_text(file.read_text().replace("grams=event.grams)", "grams=0)"))
    asked: set[str] = set()

    def ask(command: str, *words: object, on: dict[str, str] | None = None, input: str | None = None) -> Any:
        settings = engine_on(database, kafka) if on is None else on
        done = pointsman(*command.split(), *words, "--json", on=settings, input=input)
        assert done.out, done.err
        page.check(command, done.json)
        asked.add(command)
        return done.json

    ask("validate", file)
    ask("diagram", file)
    mistaken = tmp_path / "mistaken.py"
    mistaken.write_text(file.read_text().replace("to=closed", "to='clsed'"))
    assert ask("validate", mistaken)["mistakes"]
    ask("config")
    await ask_of_upkeep(ask, database, empty_database)
    lines = "".join(f"{json.dumps(one)}\n" for one in EVENTS)
    published = ask("publish", read, "-", "--key", "id", "--id", "event", input=lines)
    assert published["confirmed"] == len(EVENTS)
    assert run(file, database, kafka).code == 0

    looking = reader_on(database)
    ask("runs", on=looking)
    assert ask("history", "c-1", on=looking)[-1]["effects"]
    [drawn] = ask("diagram", file, "--run", "c-1", "--counts", on=looking)
    assert drawn["run"]["entered"]
    assert drawn["run"]["transitions"]
    assert drawn["counts"]["closed"] == 2
    assert ask("show", "c-1", on=looking)["record"]["headers"]
    ask_of_what_waits(ask, looking)
    ask_of_steps(ask, looking)
    (light,) = ask("explain", "light", on=looking)["answers"]
    assert light["tried"]
    letters = {one["event_id"]: one["id"] for one in ask("dead-letters list", on=looking)}
    ask("dead-letters show", letters["broken"], on=looking)
    ask_of_what_was_loaded(ask, looking)
    await ask_of_breakers(ask, looking, database)
    ask("verify", on=looking)
    ask("replay", file, on=looking)
    (differs,) = ask("replay", other, on=looking)["mismatches"]
    assert differs["differences"]

    ask("doctor", file)
    asked_for = ask("dead-letters drop", letters["broken"], "77", "--wait", "0", "--reason", "not worth it")
    assert [len(asked_for[name]) for name in ("became", "skipped")] == [1, 1]
    ask_of_operators(ask, letters["light"])
    ask("positions set", read, "0", "0", "--reason", "to read it again")
    assert run(file, database, kafka).code == 0
    ask("dead-letters redrive", letters["broken"])
    assert ask("dead-letters show", letters["broken"], on=looking)["ended_reason"] == "not worth it"
    rows = ask("history", "c-2", on=looking)
    commands = [ask("show", "c-2", "--at", row["sequence"], on=looking)["command"] for row in rows]
    assert {
        "command": "drop",
        "who": asked_for_by(commands),
        "reason": "not worth it",
        "mapping": None,
    } in commands
    assert ask("explain", "begin-9", on=looking)["answers"][0]["sent_by"]["reason"] == "asked"
    (behind,) = ask("explain", "behind", on=looking)["answers"]
    assert behind["earlier"]
    await execute(database.owner_dsn, "update pointsman.runs set context = '{}' where key = 'c-1'")
    assert ask("verify", on=looking)["findings"]

    assert asked == page.commands.keys() - {"demo", "definitions map"}
    assert page.unseen() == {"a-history", "a-redrive", "a-ledger", "a-kill", "a-call"}, (
        "what only the demo shows"
    )


def ask_of_what_waits(ask: Callable[..., Any], looking: dict[str, str]) -> None:
    """A run that a timer will move, and that takes an event later than it came."""
    waiting = ask("show", "c-3", on=looking)
    assert waiting["deferred"][0]["event_id"] == "early"
    assert waiting["due"][0]["what"] == "timer"
    assert ask("history", "c-3", on=looking)[-1]["deferral"]
    waits = {one["key"]: one["next"]["what"] for one in ask("runs", "--status", "waiting", on=looking)}
    assert waits == {"c-2": "timer", "c-3": "timer"}, "behind a hold, and deferred"
    (early,) = ask("explain", "early", on=looking)["answers"]
    assert (early["disposition"], early["until"]) == ("deferred", waiting["deferred"][0]["until"])
    greeted = ask("history", "c-3", on=looking)[0]["effects"][-1]["id"]
    (greeting,) = ask("explain", greeted, on=looking)["answers"]
    assert greeting["origin"]["key"] == "c-3"
    assert ask("explain", waiting["due"][0]["id"], on=looking)["notes"]


def ask_of_what_was_loaded(ask: Callable[..., Any], looking: dict[str, str]) -> None:
    """By an engine that is there no more."""
    ask("positions list", on=looking)
    [loaded] = ask("definitions list", on=looking)
    assert (loaded["pipeline"], loaded["version"], loaded["engines"]) == ("case", 1, 0)


async def ask_of_breakers(ask: Callable[..., Any], looking: dict[str, str], database: Database) -> None:
    """As an engine says it that is there."""
    assert ask("breakers", on=looking) == []
    breakers = Breakers(lambda: datetime.now(UTC))
    breakers.load([("case", "charge", Breaker("payments"))])
    columns = "id, namespace, instance, seen, breakers"
    values = f"7, '{looking['NAMESPACE']}', 'one', now() + interval '1 hour', '\\x{breakers.as_json().hex()}'"
    await execute(database.owner_dsn, f"insert into pointsman.holders ({columns}) values ({values})")
    assert ask("breakers", "--breaker", "other", on=looking) == []
    assert ask("breakers", "--state", "open", on=looking) == []
    [told] = ask("breakers", "--breaker", "payments", "--state", "closed", "--limit", "1", on=looking)
    assert (told["name"], told["engine"], told["state"]) == ("payments", "one", "closed")
    assert pointsman("breakers", on=looking).out.splitlines()[1].split()[:5] == [
        "payments",
        "one",
        "closed",
        "0",
        "of",
    ]


async def ask_of_upkeep(ask: Callable[..., Any], database: Database, empty_database: str) -> None:
    """A schema, and a month of the log without any run."""
    assert ask("migrate", on={"POSTGRES": empty_database})["applied"]
    old = "for values from ('7102000000000000000') to ('7103000000000000000')"
    await execute(
        database.owner_dsn, f"create table pointsman.events_old partition of pointsman.events {old}"
    )
    [month] = ask("prune", "--older-than", "400", on={"POSTGRES": database.owner_dsn})["months"]
    assert month["dropped"]


def ask_of_operators(ask: Callable[..., Any], letter: int) -> None:
    """What is decided without an engine, and what none takes up before the next one runs."""
    ask("relay status")
    ask("relay accept", "--after", "1", "--reason", "a test")
    why = ("--wait", "0", "--reason", "asked")
    assert not ask("send", "case", "c-9", "case.opened", '{"id": "c-9"}', "--id", "begin-9", *why)["taken"]
    assert ask("dead-letters edit", letter, "--set", "grams=1", *why)["command"] == "edit"
    waits = ask("complete", "check c-5", "--result", '"well"', *why)
    assert (waits["token"], waits["taken"]) == ("check c-5", False)
    for what in ("pause", "resume", "cancel", "retry", "skip", "resolve"):
        assert ask(what, "c-3", *why)["became"][0]["command"] == what
        assert ask(what, "--pipeline", "case", "--dry-run", *why)["dry_run"]


def ask_of_steps(ask: Callable[..., Any], looking: dict[str, str]) -> None:
    """A run whose charge was done, and undone since it could not be shipped."""
    [stuck] = ask("runs", "--status", "stuck", on=looking)
    assert stuck["stuck"] == ask("show", "c-6", on=looking)["stuck"]
    assert stuck["stuck"]["error"] == "OSError: the bank is closed"
    charge, ship = ask("show", "c-4", on=looking)["steps"]
    assert (charge["status"], charge["compensation"]["status"]) == ("done", "undone")
    assert (ship["status"], ship["attempts"], ship["error"]) == ("failed", 2, "OSError: no lorry")
    rows = ask("history", "c-4", on=looking)
    assert [row["attempt"]["outcome"] for row in rows if row["attempt"]] == [
        "done",
        "failed",
        "failed",
        "done",
    ]
    [undone] = [one["undoes"] for row in rows for one in row["effects"] if one["undoes"]]
    assert undone["idempotency_key"] == charge["idempotency_key"]
    (refunded,) = ask("explain", rows[-1]["event"]["id"], on=looking)["answers"]
    assert refunded["origin"]["undoes"] == undone
    assert ask("explain", charge["idempotency_key"], on=looking)["notes"]
    assert ask("show", "c-4", "--at", "3", on=looking)["steps"][0]["status"] == "waiting"
    assert ask("runs", "--status", "compensating", on=looking) == []
    [check] = ask("show", "c-5", on=looking)["steps"]
    assert (check["status"], check["token"], check["until"]) == ("later", "check c-5", None)
    assert ask("history", "c-5", on=looking)[-1]["attempt"]["outcome"] == "outside"


def asked_for_by(commands: list[Any]) -> str:
    """Whoever runs the tests."""
    [who] = {one["who"] for one in commands if one is not None and one["command"] == "drop"}
    return str(who)
