"""TCP ports on loopback."""

from __future__ import annotations

import errno
import random
import socket
import sys
from pathlib import Path

from engine.services.errors import ServiceError

HOST = "127.0.0.1"
LOWEST_PORT = 10_000
PORT_MAX = 65_535
EPHEMERAL_FROM_DEFAULT = 32_768
ATTEMPTS_MAX = 200


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of loopback now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections of the past that linger do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def answers(port: int, timeout_seconds: float = 0.5) -> bool:
    """Whether something accepts connections on this port of loopback."""
    try:
        socket.create_connection((HOST, port), timeout=timeout_seconds).close()
    except OSError:
        return False
    return True


def choose(port: int, what: str, option: str) -> int:
    """The port itself if it is free, or any free one for 0.

    Free ports are taken from below the range that the system gives to outgoing connections: else a client
    that reconnects to a stopped server could be given that very port, and the server could not start again. Nor is
    one chosen twice, by processes that are there at the same time: a server listens only seconds later.
    """
    if port:
        if not is_free(port):
            raise ServiceError(
                f"{what} cannot listen on {HOST}:{port}: the port is in use. "
                f"Stop what listens there, or choose another port ({option})."
            )
        return port
    ceiling = max(_first_ephemeral_port(), LOWEST_PORT + 1000)
    for _ in range(ATTEMPTS_MAX):
        candidate = random.randrange(LOWEST_PORT, ceiling)  # noqa: S311 - not a secret
        if is_free(candidate) and _mark(candidate):
            return candidate
    raise ServiceError(f"{what} finds no free port on {HOST}. Name one yourself ({option}).")


def again(port: int) -> int:
    """The port that a server had before, if it is free, and nobody else has chosen it; else 0."""
    return port if 0 < port <= PORT_MAX and is_free(port) and _mark(port) else 0


def _mark(port: int) -> bool:
    """Have nobody else choose this port as long as this process is there; whether nobody has yet."""
    if sys.platform != "linux":
        return True
    mark = socket.socket(socket.AF_UNIX)
    try:
        # A name of the kernel's, which no file stands for: it is gone with the process.
        mark.bind(f"\0pointsman port {port}")
    except OSError as error:
        mark.close()
        return error.errno != errno.EADDRINUSE
    mark.detach()
    return True


def _first_ephemeral_port() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return EPHEMERAL_FROM_DEFAULT
