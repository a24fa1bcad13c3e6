"""What the benchmarks of steps would not let pass: the ledger is held beside what should have been done."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import dbos, ledger, pipelines
from benchmarks.cases import begun, limited, recovery, sagas
from benchmarks.ledger import Line, most_at_once, read, under_two_keys, wrong_sagas
from benchmarks.processes import MeasuringError
from statemachines import Call
from statemachines.validation import find_mistakes

SHIPPED = ["charge", "reserve", "ship"]
UNDONE = [*SHIPPED, "release", "refund"]
ENDS = {("shipped", 2): 1, ("undone", 2): 1}


def lines(run: str, steps: list[str], *, key: str = "") -> list[Line]:
    return [Line(step, run, key or f"{run}-{step}", ends=False) for step in steps]


RIGHT = [*lines("order-0", UNDONE), *lines("order-1", SHIPPED)]


def test_sagas_that_were_done_as_they_should_be_are_right() -> None:
    assert wrong_sagas(RIGHT, range(2)) == []


@pytest.mark.parametrize(
    ("wrong", "saying"),
    [
        ([*RIGHT, *lines("order-1", ["charge"])], "order-1 has done charge reserve ship charge"),
        (RIGHT[:-1], "order-1 has done charge reserve, and not"),
        (RIGHT[5:], "order-0 has done nothing"),
        (
            [*lines("order-0", [*SHIPPED, "refund", "release"]), *RIGHT[5:]],
            "and not charge reserve ship release",
        ),
        ([*RIGHT[:5], *lines("order-1", SHIPPED, key="same")], "order-1 has done 3 steps under 1 keys"),
    ],
)
def test_sagas_that_were_not_are_named(wrong: list[Line], saying: str) -> None:
    [sentence] = wrong_sagas(wrong, range(2))
    assert saying in sentence


def written(folder: Path, entries: list[Line]) -> Path:
    file = folder / "ledger"
    text = [f"{one.step} {one.run} {one.key} {one.at}{' ends' if one.ends else ''}\n" for one in entries]
    file.write_text("".join(text))
    return file


def test_what_is_written_is_what_is_read_but_for_a_line_that_is_not_whole_yet(tmp_path: Path) -> None:
    entries = [*RIGHT, Line("ship", "order-1", "k", ends=True, at=2.5)]
    file = written(tmp_path, entries)
    assert read(file) == entries
    file.write_text(f"{file.read_text()}charge order")
    assert (read(file), ledger.count(file)) == (entries, len(entries))
    assert (read(tmp_path / "none"), ledger.count(tmp_path / "none")) == ([], 0)


def test_a_run_that_ends_where_it_should_not_is_no_measurement(tmp_path: Path) -> None:
    file = written(tmp_path, RIGHT)
    sagas.check(ENDS, file, 2)
    with pytest.raises(MeasuringError, match="runs ended as"):
        sagas.check({("shipped", 2): 2}, file, 2)
    with pytest.raises(MeasuringError, match="the ledger says: order-1 has done nothing"):
        sagas.check(ENDS, written(tmp_path, RIGHT[:5]), 2)


def lasting(*words: str) -> list[Line]:
    """``a`` begins, ``a.`` ends."""
    return [Line("ship", word.rstrip("."), word.rstrip("."), ends=word.endswith(".")) for word in words]


def test_a_limit_that_is_exceeded_and_an_order_that_is_not_kept_are_found() -> None:
    asked = {"a": 1.0, "b": 1.0, "c": 2.0}
    right = lasting("b", "a", "b.", "c", "a.", "c.")
    limited.check(right, asked)
    assert most_at_once(right) == 2
    assert most_at_once(lasting("a", "b", "c", "a.", "b.", "c.")) == 3
    with pytest.raises(MeasuringError, match="the step of c began before that of b"):
        limited.check(lasting("a", "c", "b", "a.", "b.", "c."), asked)
    with pytest.raises(MeasuringError, match="3 steps began and 2 ended, of 3 runs"):
        limited.check(right[:-1], asked)


def test_a_step_that_was_done_twice_outside_is_found(tmp_path: Path) -> None:
    run, ended = lines("order-0", ["ship", "ship"]), [Line("ship", "order-0", "order-0-ship", ends=True)]
    recovery.check(written(tmp_path, [*run, *ended]), 1)
    with pytest.raises(MeasuringError, match="the step of order-0 began 1 times"):
        recovery.check(written(tmp_path, [*run[:1], *ended]), 1)
    with pytest.raises(MeasuringError, match="the step of order-0 ended 2 times"):
        recovery.check(written(tmp_path, [*run, *ended, *ended]), 1)
    other = [*run[:1], *lines("order-0", ["ship"], key="other"), *ended]
    assert under_two_keys(other) == ["order-0"]
    with pytest.raises(MeasuringError, match="under two keys, order-0 among them"):
        recovery.check(written(tmp_path, other), 1)


def test_a_step_is_as_late_as_its_first_line_and_none_is_left_out() -> None:
    due = {f"order-{number}": 100.0 + number for number in range(101)}
    first = [Line("charge", run, run, ends=False, at=at + (at - 100) / 1_000) for run, at in due.items()]
    others = [Line(step, run, run, ends=False, at=999.0) for run in due for step in ("charge", "ship")]
    p50, p99 = begun.latencies([*first, *others], due, since=0.0)
    assert (p50, p99) == pytest.approx((50.0, 99.0))
    p50, _ = begun.latencies(first, due, since=150.0)
    assert p50 == pytest.approx(75.0)
    with pytest.raises(MeasuringError, match="the step of order-7 never began, and 0 others"):
        begun.latencies([one for one in first if one.run != "order-7"], due, since=0.0)
    with pytest.raises(MeasuringError, match="0 steps began after the first seconds"):
        begun.latencies(first, due, since=1_000.0)


async def test_steps_that_last_end_when_the_gate_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = tmp_path / "gate"
    monkeypatch.setenv(ledger.GATE, str(gate))
    monkeypatch.setattr(ledger, "GATE_LOOK_SECONDS", 0.0)
    waiting = [asyncio.create_task(ledger.may_end()) for _ in range(3)]
    assert not (await asyncio.wait(waiting, timeout=0.05))[0]
    gate.touch()
    await asyncio.wait_for(asyncio.gather(*waiting), 60)


def test_steps_write_into_the_ledger_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ledger.LEDGER, str(tmp_path / "ledger"))
    ledger._file.cache_clear()
    try:
        call = Call(idempotency_key="k-1", attempt=1, key="order-7", step="charge")
        ledger.write(call)
        ledger.write(call, ends=True)
    finally:
        ledger._file.cache_clear()
    first, last = read(tmp_path / "ledger")
    assert time.time() - 60 < first.at <= last.at <= time.time() + 0.001
    assert [replace(one, at=0.0) for one in (first, last)] == [
        Line("charge", "order-7", "k-1", ends=False),
        Line("charge", "order-7", "k-1", ends=True),
    ]


def test_one_order_in_ten_is_refused_by_both() -> None:
    assert [order for order in range(30) if ledger.is_refused(f"order-{order}")] == [0, 10, 20]
    text = dbos.PROGRAM.read_text("utf-8")
    assert f"REFUSED_ONE_IN = {ledger.REFUSED_ONE_IN}\n" in text


def test_dbos_is_run_where_it_is_and_told_of_where_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert dbos.python_with_dbos({dbos.PYTHON: "/somewhere/python"}) == "/somewhere/python"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert dbos.python_with_dbos({}) is None
    assert "pip install -e '.[benchmarks]'" in dbos.MISSING
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert dbos.python_with_dbos({}) == sys.executable


def test_the_pipelines_that_are_measured_have_no_mistakes() -> None:
    for flow in (pipelines.orders_saga, pipelines.orders_limited, pipelines.orders_held):
        assert find_mistakes(flow) == []
