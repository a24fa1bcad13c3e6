"""A Kafka that lets nobody do what was not allowed: by certificates, by tokens, and by passwords, each on its own port.

The port without security is the superuser's, who makes topics and says what is allowed.
"""

from __future__ import annotations

import base64
import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from confluent_kafka import admin as kafka_admin

from connectors.kafka.settings import KafkaSettings
from engine.services import ports
from engine.services.ports import HOST
from tests import services
from tests.authority import Authority, Certificate
from tests.scratch import scratch_folder

USERS = ("engine", "publisher", "onlooker")
PASSWORD = "of-tests"
KNOWN_SECONDS = 30.0
REAUTH_MILLISECONDS = 2000
"""So long a connection lasts of those who are known by a token: aiokafka does not renew one, and makes another."""
_ANY_HOST = "*"
acls: Any = kafka_admin  # confluent's client does not say what it exports


class Allowed(NamedTuple):
    """One thing that a user may do."""

    operation: str
    resource: str
    """TOPIC, GROUP, TRANSACTIONAL_ID or BROKER, which is the cluster."""
    name: str
    prefixed: bool = False


@dataclass(frozen=True)
class SecuredKafka:
    """Where each way in is."""

    bootstrap: str
    by_certificate: str
    by_token: str
    by_password: str
    authority: Authority
    client: Certificate

    def certified(self, **other: Any) -> KafkaSettings:
        """Known by the certificate."""
        settings: dict[str, Any] = {
            "security_protocol": "SSL",
            "ca_file": self.authority.file,
            "certificate_file": self.client.file,
            "key_file": self.client.key,
        }
        return KafkaSettings(self.by_certificate, **{**settings, **other})

    def token_bearer(self, file: Path) -> KafkaSettings:
        """Known by what is in the file."""
        return KafkaSettings(
            self.by_token, security_protocol="SASL_PLAINTEXT", sasl_mechanism="OAUTHBEARER", token_file=file
        )

    def user(self, name: str) -> dict[str, str]:
        """The settings of one of `USERS`, as variables of the command line without their beginning."""
        return {
            "KAFKA": self.by_password,
            "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
            "KAFKA_USERNAME": name,
            "KAFKA_PASSWORD": PASSWORD,
        }

    def allow(self, user: str, allowed: list[Allowed]) -> None:
        """Let a user do these things, and no others; return once the broker knows."""
        admin = acls.AdminClient({"bootstrap.servers": self.bootstrap})
        mine = acls.AclBindingFilter(
            *(acls.ResourceType.ANY, None, acls.ResourcePatternType.ANY, f"User:{user}", None),
            *(acls.AclOperation.ANY, acls.AclPermissionType.ANY),
        )
        wanted = {_binding(user, one) for one in allowed}
        found = {*admin.describe_acls(mine).result()}
        for one in found - wanted:
            [gone] = admin.delete_acls([_as_filter(one)]).values()
            gone.result()
        if new := [*wanted - found]:
            for made in admin.create_acls(new).values():
                made.result()
        deadline = time.monotonic() + KNOWN_SECONDS
        while {*admin.describe_acls(mine).result()} != wanted:
            assert time.monotonic() < deadline, "the broker does not know what is allowed"


def token(user: str, *, seconds: float = 3600.0) -> str:
    """What the broker takes for a token that is good for so long: nobody has signed it."""

    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    now = time.time()
    return f"{part({'alg': 'none'})}.{part({'sub': user, 'iat': now - 1, 'exp': now + seconds})}."


@contextlib.contextmanager
def secured_kafka() -> Iterator[SecuredKafka]:
    """Started, with a user of each kind who may do everything: CN=client, and bearer."""
    with scratch_folder("kafka") as folder:
        authority = Authority(folder)
        server, client = authority.issue("broker", of="IP:127.0.0.1"), authority.issue("client")
        keystore = folder / "keystore.pem"
        keystore.write_text(server.key.read_text() + server.file.read_text())
        plain, controller, *others = (ports.choose(0, "Apache Kafka", "") for _ in range(5))
        at = dict(zip(("SSL", "TOKENS", "USERS"), others, strict=True))
        listeners = f"PLAINTEXT://{HOST}:{plain}," + ",".join(
            f"{name}://{HOST}:{port}" for name, port in at.items()
        )
        settings = {
            **services.STEADY,
            "controller.quorum.voters": f"1@{HOST}:{controller}",
            "listeners": f"{listeners},CONTROLLER://{HOST}:{controller}",
            "advertised.listeners": listeners,
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": (
                "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,TOKENS:SASL_PLAINTEXT,USERS:SASL_PLAINTEXT"
            ),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(keystore),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(authority.file),
            "listener.name.ssl.ssl.client.auth": "required",
            "listener.name.tokens.sasl.enabled.mechanisms": "OAUTHBEARER",
            "listener.name.tokens.oauthbearer.sasl.jaas.config": (
                "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required "
                'unsecuredLoginStringClaim_sub="broker";'
            ),
            "listener.name.tokens.oauthbearer.connections.max.reauth.ms": str(REAUTH_MILLISECONDS),
            "listener.name.users.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.users.plain.sasl.jaas.config": (
                "org.apache.kafka.common.security.plain.PlainLoginModule required "
                + " ".join(f'user_{user}="{PASSWORD}"' for user in USERS)
                + ";"
            ),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS;User:CN=client;User:bearer",
            "allow.everyone.if.no.acl.found": "false",
        }
        with services.java_kafka(folder, settings=settings, port=plain) as broker:
            assert broker.bootstrap == f"{HOST}:{plain}"
            yield SecuredKafka(
                broker.bootstrap,
                by_certificate=f"{HOST}:{at['SSL']}",
                by_token=f"{HOST}:{at['TOKENS']}",
                by_password=f"{HOST}:{at['USERS']}",
                authority=authority,
                client=client,
            )


def _binding(user: str, one: Allowed) -> Any:
    return acls.AclBinding(
        acls.ResourceType[one.resource],
        one.name,
        acls.ResourcePatternType.PREFIXED if one.prefixed else acls.ResourcePatternType.LITERAL,
        f"User:{user}",
        _ANY_HOST,
        acls.AclOperation[one.operation],
        acls.AclPermissionType.ALLOW,
    )


def _as_filter(one: Any) -> Any:
    return acls.AclBindingFilter(
        *(one.restype, one.name, one.resource_pattern_type, one.principal, one.host),
        *(one.operation, one.permission_type),
    )
