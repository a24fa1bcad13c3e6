"""The engine of the demo: a process of its own, which is killed in the middle of its work, and started again."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Self

from engine.embedded import Embedded
from engine.errors import PointsmanError
from engine.services.process import ServerProcess, tail
from statemachines.shipped.outside import LEDGER_VARIABLE

PROGRAM = "engine.demo.engine_process"
STOP_SECONDS = 12.0


class EngineEndedError(PointsmanError):
    """The engine ended by itself."""


class EngineProcess:
    """An engine under a guard: it ends with us, however we end."""

    def __init__(self, services: Embedded, folder: Path, ledger: Path) -> None:
        self._argv = [sys.executable, "-P", "-m", PROGRAM, services.engine, services.kafka.bootstrap]
        self._folder = folder
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("POINTSMAN_")},
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            LEDGER_VARIABLE: str(ledger),
        }
        self._killing = False
        self._process = self._start()

    @property
    def pid(self) -> int:
        """That of the one that runs now."""
        return self._process.pid

    def kill_and_start_again(self) -> None:
        """End it as a power failure would, and begin anew under the same name."""
        self._killing = True
        self._process.stop(signal.SIGKILL, STOP_SECONDS)
        self._process = self._start()
        self._killing = False

    def check(self) -> None:
        """Raises EngineEndedError where it runs no more."""
        if not self._killing and not self._process.running:
            raise EngineEndedError(f"The engine ended by itself. It said:\n{tail(self._process.log)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stop(signal.SIGTERM, STOP_SECONDS)

    def _start(self) -> ServerProcess:
        log = self._folder / "engine.log"
        return ServerProcess.start("The engine", self._argv, cwd=self._folder, log=log, env=self._environment)
