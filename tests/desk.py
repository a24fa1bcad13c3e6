"""Who tells attempts what to do, in the tests of executors: they connect, wherever they go on (``tests/worker.py``)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

DESK_SECONDS = 90.0


@dataclass(eq=False)
class Seat:
    """An attempt that has begun."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    heard: int = 0
    """So many words it has answered, and goes on."""
    is_gone: bool = False


@dataclass(eq=False)
class Desk:
    """Hears of all attempts."""

    port: int = 0
    seats: dict[str, list[Seat]] = field(default_factory=dict)
    """By name, in the order in which they began."""
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def begun(self, name: str, times: int = 1) -> None:
        """Wait until it has."""
        await self._until(lambda: len(self.seats.get(name, ())) >= times)

    async def gone(self, name: str) -> None:
        """Wait until nothing of it goes on."""
        await self._until(lambda: self.seats[name][-1].is_gone)

    def times(self, name: str) -> int:
        """How often it has begun."""
        return len(self.seats.get(name, ()))

    def tell(self, name: str, word: str) -> None:
        """Tell the last one of the name."""
        self.seats[name][-1].writer.write(f"{word}\n".encode())

    async def ask(self, name: str, word: str) -> None:
        """Tell it, and wait until it has heard that and goes on."""
        seat = self.seats[name][-1]
        before = seat.heard
        self.tell(name, word)
        await self._until(lambda: seat.heard > before or seat.is_gone)
        assert not seat.is_gone, f"{name} does not go on"

    async def heard(self, name: str, words: int) -> None:
        """Wait until it has said so often that it heard something."""
        seat = self.seats[name][-1]
        await self._until(lambda: seat.heard >= words or seat.is_gone)
        assert not seat.is_gone, f"{name} does not go on"

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DESK_SECONDS), self.changed:
            await self.changed.wait_for(condition)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Listen to one."""
        seat = Seat(reader, writer)
        with contextlib.suppress(ConnectionError):
            async for line in reader:
                word, _, name = line.decode().strip().partition(" ")
                if word == "begun":
                    self.seats.setdefault(name, []).append(seat)
                else:
                    seat.heard += 1
                async with self.changed:
                    self.changed.notify_all()
        seat.is_gone = True
        writer.close()
        async with self.changed:
            self.changed.notify_all()


@contextlib.asynccontextmanager
async def open_desk() -> AsyncIterator[Desk]:
    """One that listens; at its end all that still listen to it end."""
    desk = Desk()
    server = await asyncio.start_server(desk.serve, "127.0.0.1", 0)
    desk.port = server.sockets[0].getsockname()[1]
    try:
        yield desk
    finally:
        server.close()
        for name, seats in desk.seats.items():
            for seat in seats:
                seat.writer.close()
            await desk.gone(name)
        await server.wait_closed()
