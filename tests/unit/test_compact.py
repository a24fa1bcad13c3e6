"""JSON that is kept takes no more memory than it needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from statemachines.compact import dumps_compact

KEPT = 5_000
BYTES_EACH_MAX = 1_000
"""What orjson itself leaves behind is four times as large."""
MEMORIES = f"""
from statemachines.memory import Delayed, Memory, write_memory as write
each = [Memory(delayed=(Delayed(number, 1, 1, "after.taken.1", None),)) for number in range({KEPT})]
"""
CONTEXTS = f"""
from statemachines import Context
from statemachines.plain import plain_of

class Order(Context):
    number: int

write = plain_of(Order).write
each = [Order(number=number) for number in range({KEPT})]
"""
MEASURING = """
from pathlib import Path

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

write(each[0])
before = resident()
kept = [write(one) for one in each]
print((resident() - before) // len(kept))
"""


@pytest.mark.parametrize("value", [{}, [], {"a": [1, "ä", None]}, "x" * 5_000, [[1.5, True]] * 1_000])
def test_it_says_what_orjson_says(value: object) -> None:
    assert dumps_compact(value) == orjson.dumps(value)
    assert dumps_compact(value, orjson.OPT_SORT_KEYS) == orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def test_what_orjson_refuses_is_refused() -> None:
    with pytest.raises(TypeError):
        dumps_compact({"a": object()})


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="it asks Linux how much memory is taken")
@pytest.mark.parametrize("each", [MEMORIES, CONTEXTS], ids=["memories", "plain contexts"])
def test_what_many_runs_remember_takes_little_memory(each: str) -> None:
    measured = subprocess.run(
        [sys.executable, "-c", each + MEASURING], capture_output=True, text=True, check=True, timeout=60
    )
    assert int(measured.stdout) < BYTES_EACH_MAX
