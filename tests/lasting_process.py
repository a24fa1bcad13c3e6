"""A process that does the work of an attempt for ``tests.lasting``, and outlives the engine that has begun it.

``python -I -S lasting_process.py PATH GRACE ARGUMENT...``: a child of it runs the command, and listens on the socket
PATH meanwhile, which nobody else can do by that name; it listens once this ends. Whoever is connected sees it end; a
word of theirs ends it. What came of it is in PATH.ended by then.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path


def main(path: str, grace: float, arguments: list[str]) -> None:
    listener = socket.socket(socket.AF_UNIX)
    own = f"{path}.{os.getpid()}"
    listener.bind(own)
    listener.listen()
    try:
        os.link(own, path)
    except FileExistsError:
        return
    finally:
        Path(own).unlink()
    if os.fork():
        return
    work = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    watching: list[socket.socket] = []
    threading.Thread(target=listen, args=(listener, watching, work, grace), daemon=True).start()
    output, said = work.communicate()
    end(work, signal.SIGKILL)
    came = [work.returncode, output.decode(errors="replace"), said.decode(errors="replace")]
    new = Path(f"{path}.new")
    new.write_text(json.dumps(came))
    new.rename(f"{path}.ended")
    listener.close()
    os._exit(0)


def listen(
    listener: socket.socket, watching: list[socket.socket], work: subprocess.Popen[bytes], grace: float
) -> None:
    while True:
        connection, _ = listener.accept()
        watching.append(connection)
        threading.Thread(target=heed, args=(connection, work, grace), daemon=True).start()


def heed(connection: socket.socket, work: subprocess.Popen[bytes], grace: float) -> None:
    if connection.recv(16):
        end(work, signal.SIGTERM)
        timer = threading.Timer(grace, end, (work, signal.SIGKILL))
        timer.daemon = True
        timer.start()


def end(work: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(work.pid, number)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), sys.argv[3:])
