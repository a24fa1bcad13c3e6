"""How long a watchdog waits, and how it finds out which handler it is."""

from __future__ import annotations

import faulthandler
import re
import tempfile
from datetime import UTC, datetime
from typing import Any

from pydantic import field_validator

from connectors.executor import Work
from connectors.source import RawRecord
from engine.batch.batch import Batch
from engine.routing import Loaded, make_routes
from engine.steps.executors import Executors
from engine.watchdog import Patience, find_handler, find_in_step
from statemachines.call import Call
from statemachines.context import Context
from statemachines.definition import Pipeline, Topic
from statemachines.effects import Publish
from statemachines.events import Event
from statemachines.handlers import act, ask
from statemachines.machine import compile_pipeline

BUSY = (7, 41, 900, 0)
IDLE = (7, 41, 0, 0)


def stopped() -> bool:
    return False


def runs() -> bool:
    return True


class Clock:
    """Looks once a second."""

    def __init__(self, seconds_max: float = 3.0) -> None:
        self.patience = Patience(seconds_max, 1.0)
        self.now = 100.0

    def look(
        self, beat: tuple[int, int, int, int] = BUSY, *, after: float = 1.0, is_running: bool = True
    ) -> bool:
        self.now += after
        return self.patience.look(beat, self.now, runs if is_running else stopped)


def test_patience_ends_when_one_record_keeps_the_engine_busy_for_too_long() -> None:
    clock = Clock()
    assert [clock.look() for _ in range(4)] == [False, False, False, True]


def test_patience_begins_anew_with_each_record_and_each_batch() -> None:
    clock = Clock()
    beats = [BUSY, BUSY, BUSY, *[(7, 42, 900, 0)] * 3, *[(7, 42, 901, 0)] * 2]
    assert not any(clock.look(beat) for beat in beats)


def test_an_idle_engine_may_be_idle_for_ever() -> None:
    clock = Clock()
    assert not any(clock.look(IDLE) for _ in range(100))


def test_time_in_which_the_engine_was_stopped_does_not_count() -> None:
    clock = Clock()
    assert not any(clock.look() for _ in range(3))
    assert not any(clock.look(is_running=False) for _ in range(100))
    assert not clock.look(), "it went on some time within this second"
    assert clock.look()


def test_of_a_look_that_comes_late_only_as_much_counts_as_of_a_punctual_one() -> None:
    clock = Clock()
    assert not clock.look()
    assert not clock.look(after=3_600.0)
    assert not clock.look()
    assert clock.look()


class Rang(Event, type="rang"):
    text: str

    @field_validator("text")
    @classmethod
    def check(cls, text: str) -> str:
        Where.note()
        return text


class Nothing(Context):
    pass


class Where:
    """Keeps the trace of the last handler that asked for it."""

    text = ""

    @classmethod
    def note(cls) -> None:
        with tempfile.TemporaryFile() as file:
            faulthandler.dump_traceback(file, all_threads=False)
            file.seek(0)
            cls.text = file.read().decode()


def deeper(calls: int) -> None:
    if calls:
        deeper(calls - 1)
    else:
        Where.note()


def rings(context: Nothing, event: Rang) -> None:
    deeper(3)


def holds(context: Nothing, event: Rang) -> bool:
    deeper(0)
    return True


def publishes(context: Nothing, event: Rang) -> Any:
    Where.note()
    yield Publish("out", event)


def recurses(context: Nothing, event: Rang) -> None:
    deeper(150)


EVENT = Rang.model_construct(text="x")


def test_an_action_is_named_with_the_line_that_it_is_in() -> None:
    act(rings, "rings", Nothing(), EVENT, "k")
    assert find_handler(Where.text) == f"rings ({__file__}:{rings.__code__.co_firstlineno + 1})"


def test_a_guard_is_named() -> None:
    ask(holds, "holds", Nothing(), EVENT)
    assert find_handler(Where.text).startswith(f"holds ({__file__}:")


def test_an_action_that_yields_its_effects_is_named() -> None:
    act(publishes, "publishes", Nothing(), EVENT, "k")
    assert find_handler(Where.text).startswith(f"publishes ({__file__}:")


def test_the_validation_of_an_event_is_named() -> None:
    pipeline = Pipeline("bells", Nothing, topics=[Topic("bells")])
    pipeline.state("quiet", initial=True, final=True)
    pipeline.start(Rang, lambda event: Nothing())
    routes = make_routes([Loaded(compile_pipeline(pipeline), 1, 1)], {})
    batch = Batch(datetime.now(UTC), iter((1,)), "here", [0, 0, 0, 0])
    value = b'{"text": "x"}'
    batch.read([RawRecord("bells", 0, 0, 0, b"k", value, [("type", b"rang")])], 1, routes["bells"])
    batch.meet(batch.arrivals)
    assert len(batch.commit.rows) == 1
    assert find_handler(Where.text).startswith(f"check ({__file__}:")


def test_where_the_trace_is_cut_off_the_outermost_call_that_is_left_is_named() -> None:
    act(recurses, "recurses", Nothing(), EVENT, "k")
    assert find_handler(Where.text).startswith(f"deeper ({__file__}:")
    assert find_handler(Where.text).endswith("or what called it,")


async def test_in_a_step_all_calls_are_told_the_innermost_first() -> None:
    async def works(_context: Any, _call: Any) -> None:
        deeper(1)

    step: Any = Pipeline("bells", Nothing).step()(works)
    await Executors().start(Work(step, (Nothing(), Call("k", 1, "b1", "works")), "k", 1)).released
    assert re.fullmatch(
        r"note \(.*\), called by deeper \(.*\), called by deeper \(.*\), called by works \(.*\)",
        find_in_step(Where.text),
    )
    assert find_in_step("") == "what is not written in Python"
    endless = "".join(f'  File "x.py", line {line} in f\n' for line in range(100))
    assert find_in_step(endless).endswith(", called by f (x.py:9), called by ...")


def test_without_a_trace_the_handler_stays_unnamed() -> None:
    assert find_handler("") == "A handler that could not be named"
    inside = 'Stack (most recent call first):\n  File "/x/statemachines/handlers.py", line 57 in act\n'
    assert find_handler(inside) == "A handler that is not written in Python"
