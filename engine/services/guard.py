"""Runs one server for one parent, and ends it when the parent is gone, however the parent ended.

Started by `engine.services.process` as a file of its own (`python -I -S guard.py`), so that it costs little
and imports nothing of ours. A pipe from the parent carries one line of JSON and then stays open: its end is
the parent's end, also after SIGKILL. A death signal of the kernel would not do: it fires when the *thread*
that started the server ends, and only Linux has it. It is used here for the opposite case, that the guard
itself is killed.

A child that the parent forks without executing another program holds the pipe too: the server then ends with
the last of them.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
from typing import Any

PR_SET_PDEATHSIG = 1
ORPHAN_GRACE_SECONDS = 5.0


def main() -> int:
    spec: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    ends_with = int(spec["orphan_signal"])
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def die_with_guard() -> None:
        if libc is not None:
            libc.prctl(PR_SET_PDEATHSIG, ends_with)

    as_user: dict[str, Any] = {}
    if spec["uid"] is not None:
        as_user = {"user": spec["uid"], "group": spec["gid"], "extra_groups": []}
    try:
        # One thread exists at this point, which is what makes preexec_fn safe.
        child = subprocess.Popen(
            spec["argv"],
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            stderr=sys.stderr,
            cwd=spec["cwd"],
            env=spec["env"],
            preexec_fn=die_with_guard,  # noqa: PLW1509 - see above
            **as_user,
        )
    except OSError as error:
        answer({"error": str(error)})
        return 127
    answer({"pid": child.pid})
    threading.Thread(target=end_with_parent, args=(child, ends_with), daemon=True).start()
    return child.wait()


def answer(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def end_with_parent(child: subprocess.Popen[bytes], ends_with: int) -> None:
    while os.read(0, 4096):
        pass
    with contextlib.suppress(ProcessLookupError):
        child.send_signal(ends_with)
        child.send_signal(signal.SIGCONT)
    try:
        child.wait(ORPHAN_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()


if __name__ == "__main__":
    code = main()
    os._exit(code if code >= 0 else 128 - code)
