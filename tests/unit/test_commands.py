"""Commands as the work of steps, as real processes."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter

from connectors import commands
from connectors.command_guard import NOT_WANTED
from connectors.commands import run_command
from statemachines import Command, CommandError, CommandOutputError

PYTHON = [sys.executable, "-I", "-S", "-c"]
SECONDS = 60.0


class Size(BaseModel):
    width: int


class RefusedError(Exception):
    pass


def python(text: str) -> list[str]:
    return [*PYTHON, text]


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # One that nobody has waited for as yet has ended all the same.
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        # It has gone since, or there is no /proc here.
        return not Path("/proc/self/stat").exists()


def open_files() -> int:
    """Without those that tests before this one have left to the garbage collector, which may come at any time."""
    gc.collect()
    return len([*Path("/dev/fd").iterdir()])


def pids_of(path: Path) -> list[int]:
    return [int(one) for one in path.read_text().split()] if path.exists() else []


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110 - other processes set no events
            await asyncio.sleep(0.01)


async def pids_in(path: Path) -> list[int]:
    await until(lambda: bool(pids_of(path)))
    return pids_of(path)


SAYS_PIDS = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-I", "-S", "-c", {child!r}])
with open({path!r} + ".new", "w") as file:
    file.write(f"{{os.getpid()}} {{child.pid}}")
os.rename({path!r} + ".new", {path!r})
{then}
"""
"""Has a child, and tells both of their numbers."""
FOR_EVER = "import time\nwhile True: time.sleep(60)"
STUBBORN = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: time.sleep(60)"


def family(path: Path, *, then: str = FOR_EVER, child: str = FOR_EVER) -> list[str]:
    return python(SAYS_PIDS.format(child=child, path=str(path), then=then))


async def test_a_command_gets_json_and_answers_with_json() -> None:
    twice = "import json, sys; print(json.dumps({'width': 2 * json.load(sys.stdin)['width']}))"
    assert await run_command(Command(python(twice), send=Size(width=4), result=Size)) == Size(width=8)
    assert await run_command(Command(python(twice), send={"width": 5}, result=Size)) == Size(width=10)


async def test_arguments_arrive_as_they_are() -> None:
    said = [*python("import json, sys; print(json.dumps(sys.argv[1:]))"), "$HOME", "a b", "*", "--", "'\"é"]
    assert await run_command(Command(said, result=TypeAdapter(list[str]))) == [
        "$HOME",
        "a b",
        "*",
        "--",
        "'\"é",
    ]


async def test_environment_and_folder_are_those_that_are_given(tmp_path: Path) -> None:
    said = python(
        "import json, os; print(json.dumps([os.getcwd(), os.environ.get('SIZE'), os.environ.get('HOME')]))"
    )
    answer = await run_command(
        Command(said, result=TypeAdapter(list[str | None]), env={"SIZE": "4"}, cwd=tmp_path)
    )
    assert answer == [str(tmp_path), "4", None]


async def test_what_is_written_without_being_asked_for_is_not_looked_at() -> None:
    await run_command(Command(python("import sys; sys.stdout.buffer.write(bytes(range(256)))")))


async def test_a_command_that_does_not_read_what_is_sent_is_done_all_the_same() -> None:
    assert await run_command(Command(python("print(7)"), send="x" * 3_000_000, result=int)) == 7


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("print('no json')", "Invalid JSON"),
        ("pass", "EOF"),
        ('print(\'{"width": "wide"}\')', "width: Input should be a valid integer"),
        ("print('{\"width\": 1}'); print('done')", "trailing characters"),
        ("import sys; sys.stdout.buffer.write(b'\\xff\\x00\\xfe')", "Invalid JSON"),
    ],
)
async def test_what_is_no_result_is_told_with_what_to_do(written: str, why: str) -> None:
    with pytest.raises(CommandOutputError, match=r"belongs to standard error") as raised:
        await run_command(Command(python(written), result=Size))
    assert why in str(raised.value)
    assert raised.value.code == 0


async def test_one_that_writes_too_much_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "pids"
    floods = family(path, then="while True: sys.stdout.write('x' * 65536)")
    with pytest.raises(CommandOutputError, match=r"more than 1000000 bytes"):
        await run_command(Command(floods, result=Size))
    pids = await pids_in(path)
    await until(lambda: not any(map(is_there, pids)))


async def test_as_much_as_is_allowed_is_taken() -> None:
    exactly = f"print('\"' + 'x' * {commands.OUTPUT_BYTES_MAX - 3} + '\"')"
    assert len(await run_command(Command(python(exactly), result=str))) == commands.OUTPUT_BYTES_MAX - 3


async def test_a_failure_says_the_code_and_the_end_of_what_was_said() -> None:
    fails = "import sys; sys.stderr.write('x' * 100_000 + 'no such picture'); sys.exit(3)"
    with pytest.raises(CommandError, match=r"ended with code 3: x*no such picture$") as raised:
        await run_command(Command(python(fails)))
    assert raised.value.code == 3
    assert raised.value.signal is None
    assert len(raised.value.stderr) == commands.ERROR_BYTES_KEPT


async def test_codes_stand_for_exceptions() -> None:
    fails = "import sys; sys.stderr.write('the card is refused\\n'); sys.exit(3)"
    with pytest.raises(RefusedError, match=r"^the card is refused$"):
        await run_command(Command(python(fails), exits={3: RefusedError}))
    with pytest.raises(RefusedError, match=r"ended with code 4"):
        await run_command(Command(python("import sys; sys.exit(4)"), exits={4: RefusedError}))


async def test_a_signal_is_named() -> None:
    with pytest.raises(CommandError, match=r"was ended by SIGKILL .*no memory left") as raised:
        await run_command(Command(python("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")))
    assert raised.value.signal == "SIGKILL"
    assert raised.value.code is None
    with pytest.raises(CommandError, match=r"was ended by SIGSEGV$"):
        await run_command(Command(python("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")))


async def test_a_command_that_is_not_there_is_named() -> None:
    with pytest.raises(CommandError, match=r"'no-such-command' cannot be started: .*No such file"):
        await run_command(Command(["no-such-command"]))
    with pytest.raises(CommandError, match=r"cannot be started in '/no/such/folder': "):
        await run_command(Command(["true"], cwd="/no/such/folder"))
    with pytest.raises(CommandError, match=r"cannot be started: .*null byte"):
        await run_command(Command(["true", "\0"]))


async def test_one_string_is_no_command() -> None:
    with pytest.raises(TypeError, match=r"a list of its arguments"):
        await run_command(Command("convert -"))
    with pytest.raises(TypeError, match=r"a list of strings"):
        await run_command(Command([]))


async def test_all_of_a_group_ends_where_the_attempt_is_cancelled(tmp_path: Path) -> None:
    path = tmp_path / "pids"
    task = asyncio.create_task(run_command(Command(family(path))))
    pids = await pids_in(path)
    assert all(map(is_there, pids))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not any(map(is_there, pids)))


SAYS_HOW_FAR_IT_IS = """
import os, runpy, subprocess, sys
folder, read, start = {folder!r}, os.read, subprocess.Popen
def says(word, function):
    def said(*given, **more):
        made = function(*given, **more) if word == "started" else None
        open(os.path.join(folder, word), "w").close()
        return made or function(*given, **more)
    return said
os.read, subprocess.Popen = says("waits", read), says("started", start)
sys.argv[0] = {guard!r}
runpy.run_path({guard!r}, run_name="__main__")
"""
"""The guard, which says when it has started the command, and before it waits for a word of whoever has started it."""


async def test_one_that_is_cancelled_while_it_is_being_started_does_not_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = tmp_path / "guard.py"
    guard.write_text(SAYS_HOW_FAR_IT_IS.format(folder=str(tmp_path), guard=str(commands.GUARD)))
    monkeypatch.setattr(commands, "GUARD", guard)
    running = asyncio.create_task(run_command(Command(python("pass"))))
    await asyncio.sleep(0)
    while not (tmp_path / "waits").exists():
        # A loop that is busy, so that it does not hear that the process is there.
        time.sleep(0.01)  # noqa: ASYNC251 - on purpose
    running.cancel()
    await asyncio.wait({running})
    assert running.cancelled()
    assert not (tmp_path / "started").exists()


async def test_a_guard_that_nobody_tells_to_begin_ends(tmp_path: Path) -> None:
    control, ours = os.pipe()
    words = [sys.executable, "-I", "-S", str(commands.GUARD), str(control), "0", *python(FOR_EVER)]
    guard = await asyncio.create_subprocess_exec(*words, pass_fds=(control,))
    os.close(control)
    os.close(ours)
    assert await asyncio.wait_for(guard.wait(), SECONDS) == NOT_WANTED


async def test_one_whose_guard_is_gone_before_it_is_told_to_begin_says_how_that_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = tmp_path / "guard.py"
    guard.write_text("import sys; sys.exit('no room for a guard')")
    monkeypatch.setattr(commands, "GUARD", guard)
    loop = asyncio.get_running_loop()
    start = loop.subprocess_exec

    async def started_and_gone(*given: Any, **options: Any) -> Any:
        transport, protocol = await start(*given, **options)
        await until(lambda: not is_there(transport.get_pid()))
        return transport, protocol

    monkeypatch.setattr(loop, "subprocess_exec", started_and_gone)
    before = open_files()
    with pytest.raises(CommandError, match="ended with code 1: no room for a guard") as raised:
        await run_command(Command(python("pass")))
    assert raised.value.code == 1
    assert open_files() == before


async def test_what_does_not_heed_sigterm_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "pids"
    task = asyncio.create_task(
        run_command(Command(family(path, then=STUBBORN, child=STUBBORN), grace_seconds=0.2))
    )
    pids = await pids_in(path)
    task.cancel()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not any(map(is_there, pids)))


async def test_what_a_command_leaves_behind_in_its_group_is_ended_with_it(tmp_path: Path) -> None:
    path = tmp_path / "pids"
    assert await run_command(Command(family(path, then="print(5)"), result=int)) == 5
    _, child = await pids_in(path)
    await until(lambda: not is_there(child))


async def test_what_has_left_the_group_and_holds_the_pipes_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "PIPES_SECONDS", 0.1)
    path = tmp_path / "pids"
    waits = "import os\nwhile not os.path.exists('left'): pass\nprint(5)"
    leaves = family(path, then=waits, child="import os\nos.setsid()\nopen('left', 'w')\n" + FOR_EVER)
    assert await run_command(Command(leaves, result=int, cwd=tmp_path)) == 5
    _, child = await pids_in(path)
    os.kill(child, signal.SIGKILL)


async def test_a_command_ends_with_the_process_that_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "pids"
    runs = (
        "import asyncio\nfrom connectors.commands import run_command\nfrom statemachines import Command\n"
        f"asyncio.run(run_command(Command({family(path)!r})))"
    )
    engine = await asyncio.create_subprocess_exec(sys.executable, "-c", runs)
    pids = await pids_in(path)
    engine.kill()
    await engine.wait()
    await until(lambda: not any(map(is_there, pids)))


async def test_nothing_is_left_open() -> None:
    await run_command(Command(python("print(1)"), result=int))
    before = open_files()
    for _ in range(3):
        await run_command(Command(python("print(1)"), result=int))
        with pytest.raises(CommandError):
            await run_command(Command(["no-such-command"]))
        with pytest.raises(CommandError):
            await run_command(Command(["true"], cwd="/no/such/folder"))
    assert open_files() == before
