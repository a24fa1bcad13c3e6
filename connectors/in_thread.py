"""Reading what blocks, such as standard input, without holding up the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Iterator
from itertools import islice
from typing import Final, TypeVar

T = TypeVar("T")

CHUNKS_AHEAD_MAX: Final = 2


async def iterate_in_thread(items: Iterator[T], *, chunk: int) -> AsyncGenerator[T]:
    """The items of an iterator that blocks, asked for in a thread, up to ``chunk`` at a time.

    What the iterator raises is raised here. The thread is a daemon: one that waits for input which never comes
    does not keep the process from ending.
    """
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[tuple[list[T], BaseException | None]] = asyncio.Queue()
    room = threading.Semaphore(CHUNKS_AHEAD_MAX)
    over = threading.Event()

    def work() -> None:
        while room.acquire() and not over.is_set():
            got: list[T] = []
            failure: BaseException | None = None
            try:
                # Not list(), which would lose the items before the failure.
                for item in islice(items, chunk):
                    got.append(item)  # noqa: PERF402
            except BaseException as error:  # noqa: BLE001 - raised again by whoever reads the chunks
                failure = error
            # The loop may be closed by the time that something comes.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(chunks.put_nowait, (got, failure))
            if failure is not None or not got:
                return

    threading.Thread(target=work, name="reads rows", daemon=True).start()
    try:
        while True:
            got, failure = await chunks.get()
            for item in got:
                yield item
            if failure is not None:
                raise failure
            if not got:
                return
            room.release()
    finally:
        over.set()
        room.release()
