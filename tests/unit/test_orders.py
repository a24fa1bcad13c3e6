"""The life of an order, told with the test kit, and the ledger of those who do its work."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from statemachines import Call, Publish
from statemachines.outcome import Reason
from statemachines.shipped import outside
from statemachines.shipped.orders import (
    Order,
    OrderCalledOff,
    OrderCancelled,
    OrderCompleted,
    OrderPlaced,
    ParcelDelivered,
    ParcelLost,
    Payment,
    charge,
    flow,
    is_with_us,
    refund,
    release,
    reserve,
    ship,
)
from statemachines.shipped.outside import LEDGER_VARIABLE, REFUSED_CARD, SLOW_CARD, CardRefused, entries
from statemachines.testkit import Case, given

ORDER = "o-1"
PLACED = OrderPlaced(order_id=ORDER, customer="Ada", card="good", amount=500, items=["lamp", "bulb"])
DELIVERED = ParcelDelivered(order_id=ORDER, signed_by="Ada")
CANCELLED = OrderCancelled(order_id=ORDER, why="changed my mind")
LOST = ParcelLost(order_id=ORDER, where="Crewe")
PAYMENT = Payment(number="pay-1", amount=500)


def called_off(why: str) -> list[Publish]:
    return [Publish("orders-out", OrderCalledOff(order_id=ORDER, customer="Ada", why=why))]


def reserving() -> Case[Order]:
    return given(flow, PLACED).step_done(charge, PAYMENT)


def under_way() -> Case[Order]:
    return reserving().step_done(reserve, "shelf-1").step_done(ship, "T-77")


def test_an_order_goes_its_way_and_others_hear_of_its_end() -> None:
    order = given(flow, PLACED).then(state="charging").then_runs(charge)
    order.step_done(charge, PAYMENT).then(state="reserving", context={"payment": "pay-1"}).then_runs(reserve)
    order.step_done(reserve, "shelf-1").then(state="shipping", context={"shelf": "shelf-1"}).then_runs(ship)
    order.step_done(ship, "T-77").then(state="under_way", context={"tracking": "T-77"}).then_runs_nothing()
    completed = OrderCompleted(order_id=ORDER, customer="Ada", amount=500, tracking="T-77")
    order.when(DELIVERED).then(state="delivered", ended=True, publishes=[Publish("orders-out", completed)])


def test_a_refused_card_ends_the_order_and_leaves_nothing_to_undo() -> None:
    order = given(flow, PLACED).step_failed(charge, CardRefused("no money"))
    order.then(state="refused", ended=True, publishes=called_off("no money")).then_runs_nothing()


def test_a_lost_parcel_is_undone_in_reverse_before_others_hear_of_it() -> None:
    order = under_way().then_owes(reserve, charge).when(LOST)
    order.then(publishes=[]).then_runs(release).undone(release).then_runs(refund)
    order.undone(refund).then(state="lost", ended=True, publishes=called_off("the parcel was lost in Crewe"))


def test_goods_that_cannot_be_had_give_the_money_back() -> None:
    order = reserving().step_failed(reserve, OSError("no shelf")).then_runs(refund)
    order.undone(refund).then(state="failed", publishes=called_off("no shelf"))


def test_who_cancels_while_the_bank_is_asked_gets_back_what_nobody_knows_of() -> None:
    order = given(flow, PLACED).when(CANCELLED).then_runs_nothing()
    order.step_stopped(charge, "unknown").then_runs(refund)
    order.undone(refund).then(state="cancelled", publishes=called_off("changed my mind"))


def test_an_operator_cancels_with_all_undone() -> None:
    order = under_way().when_cancelled(who="eve", why="a fraud").then_runs(release)
    order.undone(release).undone(refund).then(state="cancelled", publishes=called_off("eve: a fraud"))


def test_an_order_is_not_cancelled_once_its_parcel_may_have_left() -> None:
    shipping = reserving().step_done(reserve, "shelf-1").when(CANCELLED)
    shipping.then_refused(Reason.UNEXPECTED, saying="no condition", holds=False).then_runs(ship)
    under_way().when(CANCELLED).then_refused(Reason.UNEXPECTED, saying="no condition", holds=False)
    order = Order(order_id=ORDER, customer="Ada", card="good", amount=5, items=[])
    assert is_with_us(order, CANCELLED)


def test_a_delivery_that_is_told_early_waits_for_its_turn() -> None:
    order = given(flow, PLACED).when(DELIVERED).then_deferred(Reason.UNEXPECTED)
    order.step_done(charge, PAYMENT).step_done(reserve, "shelf-1").step_done(ship, "T-77")
    order.then(state="delivered", ended=True)


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(LEDGER_VARIABLE, str(tmp_path / "ledger"))
    monkeypatch.setattr(outside, "ANSWER_SECONDS", 0.0)
    return tmp_path / "ledger"


def call(step: str, key: str, *, undone: Call | None = None) -> Call:
    return Call(idempotency_key=key, attempt=1, key=ORDER, step=step, undone=undone)


async def test_the_bank_charges_once_for_a_key_however_often_it_is_asked(ledger: Path) -> None:
    order = Order(order_id=ORDER, customer="Ada", card="good", amount=500, items=[])
    first, second = [await charge(order, call("charge", "key-1")) for _ in range(2)]
    other = await charge(order, call("charge", "key-2"))
    assert first == second != other
    assert [(one.service, one.key, one.answer) for one in entries(ledger)] == [
        ("charge", "key-1", first.number),
        ("charge", "key-1", first.number),
        ("charge", "key-2", other.number),
    ]


async def test_a_busy_bank_is_long_in_saying_that_it_has_charged_and_says_so_at_once_when_it_is_asked_again(
    ledger: Path,
) -> None:
    order = Order(order_id=ORDER, customer="Ada", card=SLOW_CARD, amount=500, items=[])
    first = asyncio.create_task(charge(order, call("charge", "key-1")))
    await asyncio.sleep(0)
    assert [one.key for one in entries(ledger)] == ["key-1"], "it has charged"
    second = await charge(order, call("charge", "key-1"))
    assert not first.done()
    first.cancel()
    assert {one.answer for one in entries(ledger)} == {second.number}


async def test_what_was_never_charged_is_not_refunded(ledger: Path) -> None:
    order = Order(order_id=ORDER, customer="Ada", card="good", amount=500, items=[])
    of = call("charge", "key-1")
    await refund(order, None, call("refund", "back-1", undone=of))
    await charge(order, of)
    await refund(order, None, call("refund", "back-2", undone=of))
    assert [(one.service, bool(one.answer)) for one in entries(ledger)] == [
        ("refund", False),
        ("charge", True),
        ("refund", True),
    ]


async def test_a_refused_card_is_written_down_and_charged_nothing(ledger: Path) -> None:
    order = Order(order_id=ORDER, customer="Ada", card=REFUSED_CARD, amount=500, items=[])
    with pytest.raises(CardRefused, match=r"refuses 5\.00"):
        await charge(order, call("charge", "key-1"))
    assert [(one.service, one.answer) for one in entries(ledger)] == [("charge", "")]


def test_importing_the_example_does_nothing(tmp_path: Path) -> None:
    words = [sys.executable, "-c", "import statemachines.shipped.orders"]
    subprocess.run(words, cwd=tmp_path, check=True)
    assert list(tmp_path.iterdir()) == []
