"""What attempts do in the tests of executors: they say that they have begun, and then what they are told to.

One that is told to be ``tidy`` says so when it is to end, and goes on to put its things in order; another such word
cuts that short. A test's ``Desk`` is who tells them, by a connection that is closed once nothing of it goes on.
As a function (``work``, ``work_in_loop``), and as a process of its own (``python -I -S worker.py PORT NAME``), which
writes its result to standard output.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any


class WorkerError(Exception):
    """An attempt was told to fail."""


def work(port: int, name: str, beat: Callable[[], None]) -> Any:
    """Do what the desk says, in a thread or a process."""
    with socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile("rw") as desk:
        desk.write(f"begun {name}\n")
        desk.flush()
        for line in desk:
            answer = _answer(line, beat)
            if answer is not None:
                return answer[0]
            desk.write("heard\n")
            desk.flush()
    raise WorkerError("the desk is closed")


async def work_in_loop(port: int, name: str, beat: Callable[[], None]) -> Any:
    """Do what the desk says, in the loop."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    is_deaf = is_tidy = False
    try:
        writer.write(f"begun {name}\n".encode())
        while True:
            try:
                line = (await reader.readline()).decode()
            except asyncio.CancelledError:
                if not (is_deaf or is_tidy):
                    raise
                if is_tidy:
                    is_tidy = False
                    writer.write(b"heard\n")
                continue
            if not line:
                raise WorkerError("the desk is closed")
            is_deaf = is_deaf or line == "deaf\n"
            is_tidy = is_tidy or line == "tidy\n"
            answer = _answer(line, beat)
            if answer is not None:
                return answer[0]
            writer.write(b"heard\n")
    finally:
        writer.close()


def _answer(line: str, beat: Callable[[], None]) -> tuple[Any] | None:
    """Its result in a tuple; None: it goes on."""
    word, _, rest = line.strip().partition(" ")
    if word == "answer":
        return (json.loads(rest),)
    if word == "junk":
        return (object(),)
    if word == "raise":
        raise WorkerError(rest)
    if word == "exit":
        sys.exit(5)
    if word == "beat":
        beat()
    return None


def main(port: int, name: str) -> None:
    """Be a process that does so."""

    def beat() -> None:
        sys.stderr.write("on it\n")
        sys.stderr.flush()

    def tidy_up(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        connection.send(b"heard\n")

    def heed(line: str) -> None:
        if line == "deaf\n":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if line == "tidy\n":
            signal.signal(signal.SIGTERM, tidy_up)
        if line == "die\n":
            os.kill(os.getpid(), signal.SIGKILL)

    with socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile("rw") as desk:
        desk.write(f"begun {name}\n")
        desk.flush()
        for line in desk:
            heed(line)
            try:
                answer = _answer(line, beat)
            except WorkerError as error:
                sys.stderr.write(str(error))
                sys.exit(3)
            if answer is not None:
                with contextlib.suppress(TypeError):
                    sys.stdout.write(json.dumps(answer[0]))
                    return
                sys.stdout.write("no json")
                return
            desk.write("heard\n")
            desk.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
