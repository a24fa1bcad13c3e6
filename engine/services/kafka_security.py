"""A certificate authority, a server certificate and a user for a Kafka that speaks SASL_SSL."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from engine.services.errors import ServiceError
from engine.services.kafka_jars import java_tool

USERNAME = "pointsman"
VALIDITY_DAYS = "3650"
FAST_START = "-J-XX:TieredStopAtLevel=1"


@dataclass(frozen=True, slots=True)
class Security:
    """Files of one broker: the authority's certificate (PEM), the password of `username` (one line)."""

    ca_file: Path
    username: str
    password_file: Path
    keystore: Path

    @property
    def password(self) -> str:
        return self.password_file.read_text().strip()


def prepare(folder: Path) -> Security:
    """Make the files in this folder where it does not exist, and say where they lie. Raises ServiceError."""
    if not folder.exists():
        # Beside its place, so that a folder that is there is a whole one.
        unfinished = folder.with_name(f"{folder.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700, parents=True)
        security = _files_in(unfinished)
        with os.fdopen(
            os.open(security.password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w"
        ) as file:
            file.write(secrets.token_urlsafe(24) + "\n")
        _make_certificates(security)
        unfinished.rename(folder)
    return _files_in(folder)


def _files_in(folder: Path) -> Security:
    return Security(folder / "ca.pem", USERNAME, folder / "password", folder / "keystore.p12")


def broker_settings(security: Security) -> dict[str, str]:
    """What the broker is told: TLS with this certificate, SASL by PLAIN and SCRAM-SHA-512 on it.

    The SCRAM credential itself is given to the cluster when its storage is formatted.
    """
    plain = (
        "org.apache.kafka.common.security.plain.PlainLoginModule required "
        f'username="{security.username}" password="{security.password}" '
        f'user_{security.username}="{security.password}";'
    )
    return {
        "ssl.keystore.location": str(security.keystore),
        "ssl.keystore.password": security.password,
        "ssl.keystore.type": "PKCS12",
        "ssl.truststore.location": str(security.ca_file),
        "ssl.truststore.type": "PEM",
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "listener.name.sasl_ssl.plain.sasl.jaas.config": plain,
        "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        ),
    }


def client_settings(security: Security) -> dict[str, str]:
    """The same, as a librdkafka client is told it."""
    return {
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": str(security.ca_file),
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": security.username,
        "sasl.password": security.password,
    }


def _make_certificates(security: Security) -> None:
    pair = ("-genkeypair", "-keyalg", "EC", "-groupname", "secp256r1", "-validity", VALIDITY_DAYS)
    authority = (
        *("-alias", "authority", "-dname", "CN=Pointsman local authority"),
        *("-ext", "bc:critical=ca:true", "-ext", "ku:critical=keyCertSign,cRLSign"),
    )
    server = (
        *("-alias", "server", "-dname", "CN=localhost", "-signer", "authority"),
        *("-ext", "san=dns:localhost,ip:127.0.0.1", "-ext", "ku:critical=digitalSignature"),
        *("-ext", "eku=serverAuth"),
    )
    export = ("-exportcert", "-rfc", "-alias", "authority", "-file", str(security.ca_file))
    _keytool(security, *pair, *authority)
    _keytool(security, *pair, *server)
    _keytool(security, *export)
    # The broker presents the first key it finds; the authority's must not be among them.
    _keytool(security, "-delete", "-alias", "authority")


def _keytool(security: Security, *arguments: str) -> None:
    done = subprocess.run(
        [
            *(
                java_tool("keytool"),
                FAST_START,
                *arguments,
                "-keystore",
                str(security.keystore),
                "-storetype",
                "PKCS12",
            ),
            *("-storepass:file", str(security.password_file)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip()
        raise ServiceError(f"keytool could not make the certificates in {security.keystore.parent}: {said}")
