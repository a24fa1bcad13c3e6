"""Files with certificates, keys and tokens: whether they can be used, as sentences."""

from __future__ import annotations

import contextlib
import os
import ssl
import stat
from pathlib import Path
from typing import Any

HOST_NAME_CODES = (62, 63, 64)
"""What OpenSSL says of a certificate that is good, and another host's (X509_V_ERR_..._MISMATCH)."""
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WHERE_ROOT_OWNS = stat.S_IWGRP | stat.S_IXGRP | stat.S_IRWXO
"""Libpq's rule: root may let a group read, as in a mounted secret."""


def why_unusable(what: str, file: Path, named: str, *, secret: bool = False) -> str | None:
    """Why a file cannot be used; None where it can. ``named``: the settings that say which file it is."""
    try:
        with file.open("rb"):
            pass
    except FileNotFoundError:
        return (
            f"There is no file {file}, which {named} says has the {what}. Put it there, or name another one."
        )
    except OSError as error:
        return f"The {what} {file} ({named}) cannot be read: {error.strerror}. Let this user read it."
    return why_not_secret(what, file) if secret else None


def why_not_secret(what: str, file: Path) -> str | None:
    """Why a file is not as secret as it should be; None where it is."""
    found = file.stat()
    forbidden = _OTHERS_WHERE_ROOT_OWNS if found.st_uid == 0 and os.geteuid() != 0 else _OTHERS
    if not found.st_mode & forbidden:
        return None
    return (
        f"Others may read the {what} {file} ({stat.filemode(found.st_mode)}). Let only its owner: chmod 600 {file} "
        "(or 640, where it is root's and our group's)."
    )


def why_no_authority(file: Path, named: str) -> str | None:
    """Why a file does not say whom to trust; None where it does."""
    if why := why_unusable("authority's certificate", file, named):
        return why
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except ssl.SSLError as error:
        return f"There is no certificate in {file} ({named}): {_reason(error)}. It has to be PEM."
    return None


def why_no_certificate(file: Path, key: Path | None, named: tuple[str, str]) -> str | None:
    """Why a certificate and its key (None: in the same file) cannot be used; None where they can."""
    if why := why_unusable("certificate", file, named[0]):
        return why
    if key is not None and (why := why_unusable("certificate's key", key, named[1])):
        return why
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(file, key, password=_no_password)
    except ssl.SSLError as error:
        where = file if key is None else f"{file} and {key}"
        return (
            f"{where} ({' and '.join(named)}) are no certificate with its key: {_reason(error)}. Both have to be PEM, "
            "the key without a password."
        )
    return None


class RenewingContext(ssl.SSLContext):
    """What a client needs of TLS; files that were renewed count from its next connection on.

    An authority that is not in its file any more is trusted until the next start.
    """

    _files: tuple[Path | None, Path | None, Path | None]
    _loaded: list[int]

    @classmethod
    def of(cls, authority: Path | None, certificate: Path | None, key: Path | None) -> RenewingContext:
        """Trust this authority (None: those of the system), and show this certificate. Raises OSError."""
        context = cls(ssl.PROTOCOL_TLS_CLIENT)
        context._files = (authority, certificate, key)
        if authority is None:
            context.load_default_certs()
        context._loaded = context._changed()
        context._load()
        return context

    def wrap_bio(self, *arguments: Any, **more: Any) -> ssl.SSLObject:
        """Called for each connection."""
        # What cannot be used now may be half-written, and what was loaded before goes on.
        with contextlib.suppress(OSError):
            if (changed := self._changed()) != self._loaded:
                RenewingContext.of(*self._files)
                self._load()
                self._loaded = changed
        return super().wrap_bio(*arguments, **more)

    def _changed(self) -> list[int]:
        return [file.stat().st_mtime_ns for file in self._files if file is not None]

    def _load(self) -> None:
        authority, certificate, key = self._files
        if authority is not None:
            self.load_verify_locations(authority)
        if certificate is not None:
            self.load_cert_chain(certificate, key, _no_password)


def _no_password() -> str:
    # Without it OpenSSL would ask at the terminal.
    return ""


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or "it is not PEM").replace("_", " ").lower()
