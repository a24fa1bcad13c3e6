"""Reading what blocks, such as standard input, without holding up the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Iterator
from itertools import islice
from typing import Final, Generic, TypeVar

T = TypeVar("T")

CHUNKS_AHEAD_MAX: Final = 2


class InThread(Generic[T]):
    """The items of an iterator that blocks, asked for in a thread, up to ``chunk`` at a time.

    What the iterator raises is raised here. The thread is a daemon: one that waits for input which never comes
    does not keep the process from ending.
    """

    def __init__(self, items: Iterator[T], *, chunk: int) -> None:
        self._items = items
        self._chunk = chunk
        self._chunks: asyncio.Queue[tuple[list[T], BaseException | None]] = asyncio.Queue()
        self._room = threading.Semaphore(CHUNKS_AHEAD_MAX)
        self._over = threading.Event()

    def end(self) -> None:
        """Have no further item come, also where one is waited for."""
        self._over.set()
        self._room.release()
        self._chunks.put_nowait(([], None))

    async def each(self) -> AsyncGenerator[T]:
        """The items, once."""
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._work, args=(loop,), name="reads rows", daemon=True).start()
        try:
            while True:
                got, failure = await self._chunks.get()
                for item in got:
                    if self._over.is_set():
                        return
                    yield item
                if failure is not None:
                    raise failure
                if not got:
                    return
                self._room.release()
        finally:
            self._over.set()
            self._room.release()

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._room.acquire() and not self._over.is_set():
            got: list[T] = []
            failure: BaseException | None = None
            try:
                # Not list(), which would lose the items before the failure.
                for item in islice(self._items, self._chunk):
                    got.append(item)  # noqa: PERF402
            except BaseException as error:  # noqa: BLE001 - raised again by whoever reads the chunks
                failure = error
            # The loop may be closed by the time that something comes.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._chunks.put_nowait, (got, failure))
            if failure is not None or not got:
                return
