"""TLS to Postgres: the files that an address or libpq's variables name, and what its errors mean.

asyncpg does the work, with the names and defaults of libpq: ``sslmode``, ``sslrootcert``, ``sslcert`` and ``sslkey`` of
the address, else PGSSLMODE and so on, else the files in ``~/.postgresql``. What it leaves out, and libpq does not, is
to refuse a key that others may read.
"""

from __future__ import annotations

import contextlib
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs

from asyncpg.exceptions import ConnectionDoesNotExistError, InvalidAuthorizationSpecificationError

from connectors.credentials import HOST_NAME_CODES, why_no_authority, why_no_certificate, why_unusable

VERIFYING = ("verify-ca", "verify-full")
UNENCRYPTED = "disable"
_REFUSES_TLS = "rejected SSL upgrade"
_OURS = "sslcert and sslkey, or PGSSLCERT and PGSSLKEY"


@dataclass(frozen=True, slots=True)
class Encryption:
    """What is asked for."""

    mode: str
    """The ``sslmode``."""
    authority: Path | None
    certificate: Path | None
    key: Path | None

    @property
    def verifies(self) -> bool:
        """Whether it is made sure who answers; by libpq's rule ``require`` does it, too, where it has an authority."""
        return self.mode in VERIFYING or (self.mode == "require" and self.authority is not None)


def asked_for(dsn: str) -> Encryption:
    """What an address asks for, and the variables where it says nothing."""
    fields = parse_qs(dsn.partition("?")[2])

    def value(name: str) -> str | None:
        given = fields.get(name)
        return given[-1] if given else os.environ.get(f"PG{name.upper()}")

    def file(name: str, default: str) -> Path | None:
        if given := value(name):
            return Path(given)
        return _at_home(default)

    return Encryption(
        mode=(value("sslmode") or "prefer").replace("_", "-"),
        authority=file("sslrootcert", "root.crt"),
        certificate=file("sslcert", "postgresql.crt"),
        key=file("sslkey", "postgresql.key"),
    )


def _at_home(name: str) -> Path | None:
    """A file of libpq's folder; None where there is none, or it cannot be seen, or nobody knows where home is."""
    with contextlib.suppress(OSError, RuntimeError):
        path = Path("~/.postgresql", name).expanduser()
        return path if path.exists() else None
    return None


def why_impossible(asked: Encryption) -> str | None:
    """Why this cannot even be tried, as a sentence; None where it can."""
    if asked.mode == UNENCRYPTED:
        return None
    if asked.mode in VERIFYING and asked.authority is None:
        return (
            f"sslmode={asked.mode} needs the certificate of the authority that is trusted: name its file in "
            "sslrootcert or PGSSLROOTCERT."
        )
    if asked.mode in (*VERIFYING, "require") and asked.authority is not None:
        why = why_no_authority(asked.authority, "sslrootcert or PGSSLROOTCERT")
        if why is not None:
            return why
    if asked.certificate is None:
        return None
    named = ("sslcert or PGSSLCERT", "sslkey or PGSSLKEY")
    if asked.key is not None and (why := why_unusable("key", asked.key, named[1], secret=True)):
        return why
    return why_no_certificate(asked.certificate, asked.key, named)


def cure_of(asked: Encryption, error: BaseException) -> str | None:
    """What to do about an error that comes of TLS, or may; None for any other."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in HOST_NAME_CODES:
            return (
                "The certificate of who answers is for another host. Use a name that is in it, or sslmode=verify-ca, "
                "which leaves names alone."
            )
        return (
            f"Who answers has no good certificate of the authority in {asked.authority}. If it is your Postgres, name "
            "its authority: sslrootcert or PGSSLROOTCERT."
        )
    if isinstance(error, InvalidAuthorizationSpecificationError):
        return _cure_of_refusal(asked, str(error))
    if _REFUSES_TLS in str(error):
        return (
            f"It does not speak TLS, and sslmode={asked.mode} asks for it. Set ssl = on there, or ask for less "
            "(sslmode or PGSSLMODE)."
        )
    closed = isinstance(error, ssl.SSLError | ConnectionDoesNotExistError)
    if not closed or asked.mode == UNENCRYPTED:
        return None
    if asked.certificate is None:
        return f"If it asks for a certificate of ours: {_OURS}."
    return (
        f"It may not take our certificate {asked.certificate}: look whether that is of the authority in its "
        "ssl_ca_file, and has not expired."
    )


def _cure_of_refusal(asked: Encryption, said: str) -> str | None:
    """By Postgres' own words, which may be in another language; None where they say nothing of TLS."""
    if "valid client certificate" in said:
        return f"Show one: {_OURS}."
    if "certificate authentication failed" in said:
        return f"The common name in {asked.certificate} must be the user's name, or be mapped to it (pg_ident.conf)."
    if "no encryption" in said:
        return "It may let you in over TLS: sslmode=verify-full with sslrootcert, or PGSSLMODE and PGSSLROOTCERT."
    return None
