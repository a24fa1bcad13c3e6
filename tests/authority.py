"""A certificate authority of a test's own, by the command openssl."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.services import UNAVAILABLE

DAYS = "30"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate with its key, both PEM; the key is for its owner alone."""

    file: Path
    key: Path


class Authority:
    """Makes certificates, in a folder that is there."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        if shutil.which("openssl") is None:
            pytest.skip(f"{UNAVAILABLE}the command openssl, which makes certificates for tests")
        self._folder = folder
        self._key = folder / f"{name}.key"
        self.file = folder / f"{name}.pem"
        _openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", f"/CN={name} of tests", "-days", DAYS, "-keyout", self._key, "-out", self.file),
        )

    def issue(self, name: str, *, of: str = "DNS:localhost,IP:127.0.0.1") -> Certificate:
        """A certificate for this common name; ``of`` are the other names that it is for."""
        request, extensions = self._folder / f"{name}.csr", self._folder / f"{name}.ext"
        made = Certificate(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        extensions.write_text(f"subjectAltName={of}\nbasicConstraints=CA:FALSE\n")
        _openssl(
            *("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", f"/CN={name}", "-keyout", made.key, "-out", request),
        )
        made.key.chmod(0o600)
        _openssl(
            *("x509", "-req", "-in", request, "-CA", self.file, "-CAkey", self._key, "-CAcreateserial"),
            *("-days", DAYS, "-extfile", extensions, "-out", made.file),
        )
        return made


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
