"""The end of an engine that was asked to end and does not get to it: a handler keeps it busy, say.

Whoever asked may kill it after ten seconds. What asks is a signal, and what the interpreter does of one waits for its
turn. So the signal itself, in C, writes into a pipe, which nobody reads: as soon as there is something in it, the time
of all who look at the pipe begins. They are a thread of the engine, which ends it as documented, and its watchdog,
which ends it where a handler holds the interpreter's lock.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import select
import signal
import threading
import time

log = logging.getLogger("pointsman.engine")

LAST_RESORT_SECONDS = 9.5
"""After being asked to end."""


class LastResort:
    """Ends this process with 0 if it is there for too long after it was asked to end.

    Nothing is lost by it: what is not committed is read again, by whoever gets the partitions.
    """

    def __init__(self) -> None:
        self.asked, self._tell = os.pipe()
        """Readable once it was asked to; nobody may read it."""
        # A handler of a signal must not wait for room.
        os.set_blocking(self._tell, False)
        threading.Thread(target=self._wait, name="last resort", daemon=True).start()

    def begin_by(self, *signals: signal.Signals) -> None:
        """Have these ask for the end; what the interpreter is to do of them must be said before."""
        for number in signals:
            faulthandler.register(number, file=self._tell, all_threads=False, chain=True)

    def _wait(self) -> None:
        select.select([self.asked], [], [])
        time.sleep(LAST_RESORT_SECONDS)
        log.warning("did not end in time; ended without saying goodbye")
        os._exit(0)
