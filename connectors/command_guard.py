"""The process between an engine and a command: it sees to it that all of the command ends when it has to.

It is run as a script, alone (``python -I -S command_guard.py FD SECONDS ARGUMENT...``), and has standard input, output
and error from whoever starts it. The command begins once there is a byte in the pipe of the file descriptor, by which
whoever starts this says that it knows of it: who gives that up before, and kills this, kills a command that has not
begun. It is the leader of a group of processes of its own. All of the group ends once the pipe closes, also because who
held its other end was killed: by SIGTERM first, and after so many seconds by SIGKILL. What the command has left behind
in its group when it ends is killed, too. It ends as the command did.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

CANNOT_START = 127
"""The exit code where there is no such command, as shells have it."""
NOT_WANTED = 1
"""The exit code where nobody is there any more to hear it."""


def main(control: int, grace_seconds: float, arguments: list[str]) -> int:
    """Run the command, and return its exit code; negative, the signal that ended it."""
    if not os.read(control, 1):
        return NOT_WANTED
    try:
        # Not by subprocess.run: who waits must not be who ends it.
        command = subprocess.Popen(arguments, start_new_session=True)  # noqa: S603 - it is the step's own command
    except (OSError, ValueError) as error:
        sys.stderr.write(f"the command {arguments[0]!r} cannot be started: {error}\n")
        return CANNOT_START
    ended = threading.Event()
    watching = threading.Thread(
        target=_end_in_time, args=(control, grace_seconds, command.pid, ended), daemon=True
    )
    watching.start()
    code = command.wait()
    ended.set()
    _signal_group(command.pid, signal.SIGKILL)
    return code


def _end_in_time(control: int, grace_seconds: float, group: int, ended: threading.Event) -> None:
    while os.read(control, 1024):
        pass
    _signal_group(group, signal.SIGTERM)
    ended.wait(grace_seconds)
    _signal_group(group, signal.SIGKILL)


def _signal_group(group: int, number: int) -> None:
    # The group is gone, or (macOS) only zombies are left of it.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _end_as(code: int) -> None:
    """End this process with the code, or by the signal."""
    sys.stderr.flush()
    if code < 0:
        with contextlib.suppress(OSError, ValueError):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    _end_as(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
