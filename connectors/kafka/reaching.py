"""Why Kafka does not let us in: aiokafka's clients tell that they could not, and keep the reason to themselves.

So one more connection is made, whose steps are looked at. A broker that refuses a certificate, or a token, only says so
in what comes next.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Any

from aiokafka.conn import AIOKafkaConnection, collect_hosts
from aiokafka.errors import KafkaConnectionError, KafkaError, UnsupportedSaslMechanismError
from aiokafka.protocol.metadata import MetadataRequest

from connectors.credentials import HOST_NAME_CODES
from connectors.kafka.settings import CredentialsError, KafkaSettings

SECONDS = 5.0
"""For all addresses together."""
_BY_TLS = ("SSL", "SASL_SSL")
_BY_SOMEBODY = (ssl.SSLError, KafkaError, ConnectionResetError, ConnectionAbortedError, BrokenPipeError)
"""All other errors of a connection say that nobody is there."""


async def why_not(settings: KafkaSettings, error: BaseException) -> str:
    """A sentence that begins with the address: what is in the way, and what to do. ``error`` is what a client said."""
    try:
        options = settings.client_options()
    except CredentialsError as unusable:
        return f"Kafka at {settings.bootstrap} is not asked: {unusable}"
    hosts: Any = collect_hosts(options.pop("bootstrap_servers"))  # type: ignore[no-untyped-call]  # aiokafka is untyped
    whys: list[BaseException | None] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SECONDS):
            for host, port, _ in hosts:
                whys.append(await _try(host, port, options))
                if _is_of_security(whys[-1]):
                    break
    for why in whys:
        if why is not None and _is_of_security(why):
            return f"Kafka at {settings.bootstrap} does not let us in: {_words(settings, why)}"
    first = next((one for one in whys if one is not None), error)
    said = str(first) or type(first).__name__
    return (
        f"Kafka at {settings.bootstrap} does not answer ({said}). Look whether it runs there, and whether the address "
        "is right."
    )


async def _try(host: str, port: int, options: dict[str, Any]) -> BaseException | None:
    """What went wrong; None where nothing did, this time."""
    make: Any = AIOKafkaConnection  # aiokafka is untyped
    connection = make(host, port, request_timeout_ms=round(SECONDS * 1000), **options)
    try:
        await connection.connect()
        await connection.send(MetadataRequest([]))
    except KafkaConnectionError as error:
        return error.__cause__ if isinstance(error.__cause__, ssl.SSLError) else error
    except (KafkaError, OSError, TimeoutError) as error:
        return error
    finally:
        connection.close()
    return None


def _is_of_security(error: BaseException | None) -> bool:
    """Whether somebody was there."""
    return isinstance(error, _BY_SOMEBODY)


def _words(settings: KafkaSettings, error: BaseException) -> str:
    protocol, said = settings.security_protocol, str(error) or type(error).__name__
    match error:
        case CredentialsError():
            return said
        case ssl.SSLCertVerificationError():
            if error.verify_code in HOST_NAME_CODES:
                return f"its certificate is for another host ({said}). Use a name that is in it."
            authority = settings.ca_file or "those that this system trusts"
            return (
                f"it has no good certificate of the authority in {authority} ({said}). If it is your Kafka, name its "
                "authority: POINTSMAN_KAFKA_CA_FILE."
            )
        case ssl.SSLError() if "CERTIFICATE" in said or "UNKNOWN_CA" in said:
            return f"{_of_certificate(settings)} ({said})."
        case UnsupportedSaslMechanismError():
            return f"it does not offer {settings.sasl_mechanism}. Set POINTSMAN_KAFKA_SASL_MECHANISM to what it does."
        case KafkaConnectionError() | OSError() if protocol in _BY_TLS:
            return (
                f"it broke off ({said}). If it speaks TLS at all: {_of_certificate(settings)}; if it does not, "
                "correct POINTSMAN_KAFKA_SECURITY_PROTOCOL."
            )
        case KafkaConnectionError() | OSError():
            return (
                f"it broke off ({said}). It may ask for TLS or a password: correct "
                f"POINTSMAN_KAFKA_SECURITY_PROTOCOL, which is {protocol}."
            )
        case KafkaError() if settings.sasl_mechanism == "OAUTHBEARER":
            return (
                f"it does not take the token in {settings.token_file} ({said}). Look whether that has expired, and "
                "is of the issuer and for whom the broker expects."
            )
        case KafkaError():
            return f"it does not take the user {settings.username} with this password ({said})."
        case _:
            return f"{said}."


def _of_certificate(settings: KafkaSettings) -> str:
    if settings.certificate_file is None:
        return "it may ask for a certificate of ours: POINTSMAN_KAFKA_CERTIFICATE_FILE and POINTSMAN_KAFKA_KEY_FILE"
    return (
        f"it may not take our certificate {settings.certificate_file}: look whether that is of an authority that the "
        "broker trusts, and has not expired"
    )
