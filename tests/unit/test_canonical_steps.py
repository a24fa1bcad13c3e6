"""The identity of a pipeline with steps: which runs what is part of it, and how it is done is not."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from statemachines import Call, Retry, exponential
from statemachines.bounds import Bounds
from statemachines.canonical import canonical_bytes
from statemachines.codehash import _Reading, _subjects, code_hash
from statemachines.loading import find_pipelines
from tests.unit.working import (
    Again,
    Cancelled,
    CardStolen,
    Noted,
    Order,
    Paid,
    PaymentError,
    Placed,
    Refused,
    Shop,
    keep,
    shop,
)


def pack(_order: Order, _call: Call) -> int:
    return 1


def test_the_canonical_form_has_the_names_of_steps_and_who_runs_them() -> None:
    form = orjson.loads(canonical_bytes(shop().flow))
    assert form["steps"] == ["charge"]
    assert {one["name"]: one.get("run") for one in form["states"]} == {
        "charging": "charge",
        "paid": None,
        "refused": None,
        "cancelled": None,
    }
    assert "failed.step.charge.CardRefused" in form["events"]


def without_run(made: Shop) -> None:
    made.charging.run = None


def runs_elsewhere(made: Shop) -> None:
    made.cancelled.run = made.charge


CHANGES: dict[str, Callable[[Shop], Any]] = {
    "one more step": lambda made: made.flow.step()(pack),
    "no step is run": without_run,
    "a step is run elsewhere": runs_elsewhere,
    "another name": lambda made: setattr(made.charge, "name", "debit"),
    "one more failure is taken": lambda made: made.charging.on(made.charge.failed, to=made.paid),
    "one more exception is taken": lambda made: made.charging.on(made.charge.failed_with(PaymentError)),
    "failures of any step are taken": lambda made: made.flow.on_failure(to=made.paid),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_structure_shows_every_change(change: Callable[[Shop], Any]) -> None:
    made = shop()
    change(made)
    assert canonical_bytes(made.flow) != canonical_bytes(shop().flow)


UNSEEN: dict[str, Callable[[Shop], Any]] = {
    "retry": lambda made: setattr(made.charge, "retry", Retry(9, exponential(5, 6), KeyError)),
    "timeout": lambda made: setattr(made.charge, "timeout", timedelta(1)),
    "at_once": lambda made: setattr(made.charge, "at_once", None),
    "bounds": lambda made: setattr(made.charge, "bounds", Bounds(timedelta(1), timedelta(2))),
    "an exception that no transition takes": lambda made: made.charge.failed_with(CardStolen),
}


@pytest.mark.parametrize("change", UNSEEN.values(), ids=UNSEEN)
def test_how_a_step_is_tried_is_not_part_of_it(change: Callable[[Shop], Any]) -> None:
    made = shop()
    change(made)
    assert canonical_bytes(made.flow) == canonical_bytes(shop().flow)
    assert code_hash(made.flow) == code_hash(shop().flow)


def test_what_is_done_last_is_last_wherever_it_stands() -> None:
    forms = []
    for first in (True, False):
        made = Shop()
        if first:
            made.flow.on_failure(to=made.refused)
        made.charging.on(made.charge.done, to=made.paid, do=keep)
        if not first:
            made.flow.on_failure(to=made.refused)
        forms.append(canonical_bytes(made.flow))
    assert forms[0] == forms[1]


def test_classes_of_events_that_are_made_here_are_no_code_of_the_pipeline() -> None:
    made = shop()
    made.flow.on_failure(to=made.paid)
    events = [subject for role, subject in _subjects(made.flow) if role == "event" and subject is not None]
    assert events == [Placed, Cancelled, Again, Paid, Refused, Noted]


WORKING = """
from pydantic import BaseModel
from statemachines import Call, Context, Done, Event, Pipeline

class Begun(Event, type="begun", key="name"):
    name: str

class Charge(BaseModel):
    id: str

class More(BaseModel):
    id: str

class Order(Context):
    id: str = ""

flow = Pipeline("working", Order, topics=["t"])

def helper(order):
    return "1"

@flow.step()
def charge(order: Order, call: Call) -> list[Charge | None]:
    return [Charge(id=helper(order))]

def keep(order: Order, got: Done[list[Charge | None]]) -> None:
    order.id = str(got.result)

def build(event):
    return Order()

charging = flow.state("charging", initial=True, run=charge)
over = flow.state("over", final=True)
flow.start(Begun, build)
charging.on(charge.done, to=over, do=keep)
flow.on_failure(to=over)
"""


def hash_of(folder: Path, text: str) -> bytes:
    folder.mkdir()
    (folder / "working.py").write_text(text)
    [pipeline] = find_pipelines(str(folder / "working.py"))
    return code_hash(pipeline)


@pytest.mark.parametrize(
    ("before", "after", "is_seen"),
    [
        ("helper(order))]", 'helper(order) + "!")]', False),
        ('return "1"', 'return "2"', False),
        ("def charge(order", "async def charge(order", False),
        (
            "class Charge(BaseModel):\n    id: str",
            "class Charge(BaseModel):\n    id: str\n    more: int = 0",
            True,
        ),
        ("list[Charge | None]:", "list[Charge | More]:", True),
        ("str(got.result)", "repr(got.result)", True),
    ],
)
def test_the_code_hash_sees_what_is_replayed(
    tmp_path: Path, before: str, after: str, *, is_seen: bool
) -> None:
    assert before in WORKING
    unchanged = hash_of(tmp_path / "one", WORKING)
    assert unchanged == hash_of(tmp_path / "two", WORKING)
    assert (hash_of(tmp_path / "three", WORKING.replace(before, after)) != unchanged) == is_seen


PARTS = """
from datetime import timedelta
from statemachines import Call, Context, Later, Pipeline

class Order(Context):
    id: str = ""

flow = Pipeline("naming", Order, topics=["t"], description="as it is")

@flow.step(timeout=timedelta(seconds=2))
async def sign(order: Order, call: Call) -> str | Later:
    return "signed"

@sign.compensate
def unsign(order: Order, made: str | None, call: Call) -> None:
    print("unsigned")
"""
NAMING = """
from datetime import timedelta
import parts
from parts import Order, flow, sign
from statemachines import Call, Compensate, Complete, Done, Event, Out, Settle

class Begun(Event, type="begun", key="name"):
    name: str

class Said(Event, type="said", key="name"):
    name: str
    token: str

class Left(Event, type="left", key="name"):
    name: str

@flow.step(timeout=timedelta(seconds=5))
async def ship(order: Order, call: Call) -> str:
    return "shipped"

def build(event):
    return Order()

def said(order: Order, event: Said) -> Out:
    return Complete(sign, event.token, parts.sign.name)

def undone(order: Order, event: Said) -> Out:
    return Complete(parts.unsign, event.token)

def settle(order: Order, got: Done[str]) -> Out:
    return Settle(signing)

def leave(order: Order, event: Left) -> Out:
    order.id = flow.name
    return Compensate(around)

def waiting(order: Order) -> timedelta:
    return 2 * ship.timeout

around = flow.state("around", initial=True)
signing = around.state("signing", run=sign, initial=True)
shipping = around.state("shipping", run=ship)
over = flow.state("over", final=True)
flow.start(Begun, build)
signing.on(sign.done, to=shipping, do=settle)
signing.on(Said, do=said)
flow.on(Said, do=undone)
shipping.on(ship.done, to=over)
shipping.after(waiting, to=over)
around.on(Left, to=over, do=leave)
flow.on_failure(to=over)
"""


def hash_naming(folder: Path, before: str = "", after: str = "") -> bytes:
    folder.mkdir()
    for name, text in (("naming", NAMING), ("parts", PARTS)):
        (folder / f"{name}.py").write_text(text.replace(before, after) if before else text)
    sys.modules.pop("parts", None)
    try:
        return code_hash(find_pipelines(str(folder / "naming.py"))[0])
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("parts", None)


@pytest.mark.parametrize(
    ("before", "after", "is_seen"),
    [
        ('return "signed"', 'return "signed by hand"', False),
        ("timeout=timedelta(seconds=2)", "timeout=timedelta(seconds=3)", False),
        ("async def sign(", "def sign(", False),
        ('print("unsigned")', "pass", False),
        ('description="as it is"', 'description="as it was"', False),
        ("Settle(signing)", "Settle(shipping)", True),
        ("Complete(sign, ", "Complete(ship, ", True),
        ("timeout=timedelta(seconds=5)", "timeout=timedelta(seconds=6)", True),
    ],
)
def test_what_functions_name_of_the_machine_counts_by_its_name_alone(
    tmp_path: Path, before: str, after: str, *, is_seen: bool
) -> None:
    assert before in PARTS + NAMING
    unchanged = hash_naming(tmp_path / "one")
    assert (hash_naming(tmp_path / "two", before, after) != unchanged) == is_seen


def test_a_step_that_a_function_carries_with_it_counts_by_its_name_alone() -> None:
    made, reading = shop(), _Reading()
    before = reading.text_of(made.charge)
    made.charge.function = pack
    assert reading.text_of(made.charge) == before
    made.charge.name = "debit"
    assert reading.text_of(made.charge) != before
    assert reading.reach.helpers == set()


USING = """
from functools import partial
from statemachines import Call, Context, Event, Out, Pipeline, Settle

RATE = 2

class Begun(Event, type="begun", key="name"):
    name: str

class Order(Context):
    amount: int = 0

class Shop(Pipeline):
    def most(self):
        return 10

flow = Shop("shop", Order, topics=["t"], description="a shop")

@flow.step
def price(order: Order, call: Call) -> int:
    return order.amount * RATE

def build(event: Begun) -> Order:
    return Order()

def is_dear(order: Order, event: Event) -> bool:
    return price(order, None) > 10

def is_more(order: Order, event: Event) -> bool:
    return order.amount > flow.most()

def is_said(order: Order, event: Event) -> bool:
    return event.name == flow.description

def settling(state):
    def settle(order: Order, event: Event) -> Out:
        return Settle(state)
    return settle

def settled(order: Order, event: Event, state) -> Out:
    return Settle(state)

def by_how_it_ended(order: Order, event: Event) -> Out:
    return None if isinstance(event, (price.done, price.failed, price.timed_out)) else Settle(flow)

def is_called(order: Order, event: Event) -> bool:
    return event.name == two.description

one = flow.state("one", run=price, initial=True)
two = flow.state("two", description="the second")
flow.start(Begun, build)
WAYS
"""


@pytest.mark.parametrize(
    ("ways", "before", "after", "is_seen"),
    [
        ("one.on(price.done, to=two, when=is_dear)", "RATE = 2", "RATE = 3", True),
        ("one.on(price.done, to=two, when=is_more)", "return 10", "return 20", True),
        ("one.on(price.done, to=two, when=is_said)", '"a shop"', '"some shop"', True),
        ("one.on(price.done, to=two, when=is_called)", '"the second"', '"the last"', True),
        ("one.on(price.done, to=two, do=by_how_it_ended)", '"the second"', '"the last"', False),
        ("one.on(price.done, to=two, do=settling(one))", "settling(one)", "settling(two)", True),
        ("one.on(price.done, to=two, do=partial(settled, state=one))", "state=one", "state=two", True),
        ("one.on(price.done, to=two, do=by_how_it_ended)", "RATE = 2", "RATE = 3", False),
    ],
)
def test_what_a_function_has_of_the_machine_beside_names_counts(
    tmp_path: Path, ways: str, before: str, after: str, *, is_seen: bool
) -> None:
    text = USING.replace("WAYS", ways)
    assert before in text
    hashes = []
    for name, one in (("one", text), ("two", text.replace(before, after))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "using.py").write_text(one)
        hashes.append(code_hash(find_pipelines(str(tmp_path / name / "using.py"))[0]))
    assert (hashes[0] != hashes[1]) == is_seen


OLDER = """
from __future__ import annotations
from datetime import timedelta
from statemachines import After, Context, Done, Event, Failed, Pipeline

class Begun(Event, type="begun", key="name"):
    name: str

class Box(Context):
    log: list[str] = []

def build(event):
    return Box()

def note(box: Box, event: Done | After | Failed) -> None:
    box.log.append(event.meta.type)

def later(box: Box):
    return timedelta(hours=len(box.log))

flow = Pipeline("older", Box, topics=["b"], timers="on_time")
box = flow.state("box", initial=True)
inside = box.state("inside", initial=True)
over = box.state("over", final=True)
end = flow.state("end", final=True)
flow.start(Begun, build)
inside.after(timedelta(minutes=5), to=over, do=note)
inside.after(later, to=over)
box.on(box.done, to=end, do=note)
flow.on(Failed, to=end, do=note)
"""


STRUCTURE = "9006f6e3056d011d4a1e99c37ad04132ff49352695e041fa1dd4722000f6ec1d"
CODE = "469cb648d2598fc8e752bda7d97bd487cd2398fd37ebfbd9e012d5f8bef3c95d"


def test_pipelines_without_steps_are_what_they_were_before_there_were_any(tmp_path: Path) -> None:
    (tmp_path / "older.py").write_text(OLDER)
    [pipeline] = find_pipelines(str(tmp_path / "older.py"))
    assert hashlib.sha256(canonical_bytes(pipeline)).hexdigest() == STRUCTURE
    assert code_hash(pipeline).hex() == CODE


def test_a_result_whose_source_is_nowhere_is_known_by_its_fields_and_not_by_the_code_of_pydantic() -> None:
    names: dict[str, Any] = {"__name__": "typed_at_a_prompt"}
    exec("from pydantic import BaseModel\n\nclass Charge(BaseModel):\n    id: str\n", names)
    reading = _Reading()
    assert reading.text_of(names["Charge"]) == "class(Charge [str:'id'] [])"
    assert reading.reach.helpers == set()
