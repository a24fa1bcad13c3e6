"""``pointsman run`` with a relay that can be stopped at a chosen point: ``python -m tests.chaos.engine_process``.

Takes the arguments of ``pointsman``. Ends when standard input does, so that it does not outlive its test.
FREEZE makes it stop itself (SIGSTOP) between the next commit of its relay in Kafka and the clean-up in
Postgres; GO_ON takes that back.
"""

from __future__ import annotations

import os
import signal
import threading
from functools import partial
from unittest.mock import patch

from engine import running
from engine.cli import main
from engine.relay import Published, Relay, RelayEvent

FREEZE = signal.SIGRTMIN
GO_ON = signal.SIGRTMIN + 1
UNREACHABLE = 3
"""How ``pointsman`` ends where a service is away at its start."""


class Freezer:
    """Stops the process between the relay's commit and its clean-up, when asked to."""

    def __init__(self) -> None:
        self._wanted = False
        signal.signal(FREEZE, lambda *_: setattr(self, "_wanted", True))
        signal.signal(GO_ON, lambda *_: setattr(self, "_wanted", False))

    def on_event(self, event: RelayEvent) -> None:
        if self._wanted and isinstance(event, Published):
            self._wanted = False
            print(f"frozen after row {event.sequence}", flush=True)
            os.kill(os.getpid(), signal.SIGSTOP)


def end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=end_with_parent, daemon=True).start()
    with patch.object(running, "Relay", partial(Relay, on_event=Freezer().on_event)):
        print("can be frozen", flush=True)
        main()
