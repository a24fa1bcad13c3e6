"""An executor whose attempts outlive engines: processes of their own, which are found again by their keys."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from connectors.executor import CancelledError, Ended, LostError, Running, Work
from statemachines import Described

R_co = TypeVar("R_co", covariant=True)
PROCESS = Path(__file__).with_name("lasting_process.py")


@dataclass(frozen=True)
class Lasting(Described[R_co]):
    """A command that goes on when the engine ends."""

    arguments: tuple[str, ...]
    grace_seconds: float = 5.0


class LastingError(Exception):
    """It has failed."""


class LastingExecutor:
    """Has what it knows in a folder, whose name must be short."""

    keeps = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._followed: set[_Followed] = set()

    def start(self, work: Work) -> Running:
        assert isinstance(work.described, Lasting)
        return self._follow(_Followed(self.path(work), work.described, begins=True))

    async def attach(self, work: Work) -> Running | None:
        path = self.path(work)
        if not path.exists():
            return None
        assert isinstance(work.described, Lasting)
        return self._follow(_Followed(path, work.described, begins=False))

    async def close(self) -> None:
        for one in [*self._followed]:
            one.let_go()

    def path(self, work: Work) -> Path:
        """What an attempt is found by."""
        return self._folder / hashlib.sha256(work.name.encode()).hexdigest()[:16]

    def _follow(self, one: _Followed) -> _Followed:
        self._followed.add(one)
        one.released.add_done_callback(lambda _: self._followed.discard(one))
        return one


class _Followed:
    """An attempt that is watched from here."""

    can_stop = True

    def __init__(self, path: Path, described: Lasting[Any], *, begins: bool) -> None:
        self._path = path
        self._described = described
        self.stop_seconds = described.grace_seconds
        self.gone_on_seconds = 0.0 if begins else time.time() - path.stat().st_mtime
        self._cancelled = asyncio.Event()
        self._task = asyncio.create_task(self._watch(begins=begins))
        self.ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self.released: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def cancel(self) -> None:
        self._cancelled.set()

    def let_go(self) -> None:
        """Watch no more."""
        self._task.cancel()

    async def _watch(self, *, begins: bool) -> None:
        if begins:
            await self._begin()
        with contextlib.suppress(ConnectionError):
            reader, writer = await asyncio.open_unix_connection(str(self._path))
            asked = asyncio.create_task(self._cancelled.wait())
            over = asyncio.create_task(reader.read())
            try:
                await asyncio.wait({asked, over}, return_when=asyncio.FIRST_COMPLETED)
                if self._cancelled.is_set():
                    writer.write(b"end")
                await over
            finally:
                asked.cancel()
                over.cancel()
                writer.close()
        self.ended.set_result(self._read())
        self.released.set_result(None)

    async def _begin(self) -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(PROCESS), str(self._path)),
            *(str(self._described.grace_seconds), *self._described.arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        await process.wait()

    def _read(self) -> Ended:
        try:
            code, output, said = json.loads(self._path.with_name(f"{self._path.name}.ended").read_text())
        except FileNotFoundError:
            return Ended(error=LostError("its process is gone, and nobody knows what it did"), lost=True)
        if code == 0:
            try:
                return Ended(json.loads(output))
            except ValueError:
                return Ended(error=LastingError(f"{output!r} is no result"))
        if self._cancelled.is_set():
            return Ended(error=CancelledError("it was cancelled"))
        return Ended(error=LastingError(f"it ended with {code}: {said}"))
