"""What a command works with: an option, else an environment variable, else a default; and which it was.

Every setting has a name; its variable is ``POINTSMAN_<NAME>``. Secrets have no option: arguments can be read
in process lists.
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import re
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from engine.errors import UsageError
from engine.limits import OFF_AT_ZERO, EngineLimits
from engine.setting_kinds import HIDDEN, KINDS, LIMIT, NAMESPACE, PREFIX, Setting
from statemachines.suggest import did_you_mean, nearest

if TYPE_CHECKING:
    from connectors.kafka.settings import KafkaSettings
    from engine.assembly import EngineSettings

_ELSEWHERE = frozenset({"POINTSMAN_DEBUG"})
"""Variables that are no setting of a command."""
PORT_MAX = 65_535
_KAFKA_PORT = 9092
"""Kafka's own, where an address has none."""
_BROKER = re.compile(r"(?P<host>\[[^\s/\[\]]+\]|[^\s:/@\[\]]+)(?::(?P<port>[0-9]{1,5}))?")
_FOR_TESTS = ("POINTSMAN_TEST_", "POINTSMAN_REQUIRE")


class Settings:
    """All settings of one command."""

    def __init__(self, found: Mapping[str, Setting]) -> None:
        self.found = found

    @classmethod
    def resolve(cls, options: Mapping[str, str | None], environ: Mapping[str, str]) -> Settings:
        """Options over environment over defaults; an empty variable counts as not set.

        Raises:
            UsageError: a value that cannot be, or a limit that there is not.
        """
        assert options.keys() <= KINDS.keys(), options
        _refuse_unknown_limits(environ)
        found = {}
        for name, kind in KINDS.items():
            if (given := options.get(name)) is not None:
                setting = Setting(kind, given, "option")
            elif from_environment := environ.get(kind.variable):
                setting = Setting(kind, from_environment, "environment")
            else:
                setting = Setting(kind, kind.default, "default")
            found[name] = _checked(setting)
        return cls(found)

    def value(self, name: str) -> str | None:
        """The value of a setting, or None where it has none."""
        return self.found[name].value

    @property
    def namespace(self) -> str:
        """What runs and positions belong to."""
        return self.value("namespace") or "default"

    @property
    def postgres(self) -> str:
        """The address of the store. Raises UsageError where there is none."""
        return self._needed("postgres", "postgresql://pointsman_engine@db.example.org/pointsman")

    @property
    def kafka(self) -> KafkaSettings:
        """How Kafka is reached. Raises UsageError where that is not known, or cannot be so."""
        from connectors.kafka.settings import KafkaSettings  # noqa: PLC0415 - needs an extra to be installed

        bootstrap = self._needed("kafka", "broker.example.org:9092")
        settings = KafkaSettings(
            bootstrap,
            self.value("kafka_security_protocol"),  # type: ignore[arg-type]  # one of its choices
            self.value("kafka_sasl_mechanism"),  # type: ignore[arg-type]  # one of its choices
            username=self.value("kafka_username"),
            password=self.value("kafka_password"),
            check_crcs=self.value("kafka_check_crcs") == "true",
            password_file=self._file("kafka_password_file"),
            ca_file=self._file("kafka_ca_file"),
            certificate_file=self._file("kafka_certificate_file"),
            key_file=self._file("kafka_key_file"),
            token_file=self._file("kafka_token_file"),
        )
        self._check_security()
        try:
            settings.client_options()
        except (OSError, ValueError, ssl.SSLError) as error:
            said = str(error).rstrip(".")
            raise UsageError(f"Kafka's security settings (POINTSMAN_KAFKA_...) cannot be: {said}.") from error
        return settings

    @property
    def first(self) -> Literal["earliest", "latest"] | datetime:
        """Where reading begins for partitions that have no position yet."""
        match self.value("from"):
            case ("earliest" | "latest") as word:
                return word
            case other:
                return _time(other or "")

    @property
    def listen(self) -> tuple[str, int] | None:
        """Host and port of health and metrics, or None where they are not wanted. Raises UsageError."""
        port = self.value("health_port")
        if port is None:
            return None
        if not port.isdecimal() or int(port) > PORT_MAX:
            raise UsageError(
                f"{_said(self.found['health_port'])}; a port is a number up to {PORT_MAX}, and 0 takes a free one."
            )
        return self.value("health_host") or "127.0.0.1", int(port)

    @property
    def limits(self) -> EngineLimits:
        """The engine's limits. Raises UsageError."""
        numbers = {}
        for field in dataclasses.fields(EngineLimits):
            setting = self.found[LIMIT + field.name]
            numbers[field.name] = _number(setting, float if isinstance(field.default, float) else int)
        try:
            return EngineLimits(**numbers)  # type: ignore[arg-type]  # each as its field's default is
        except ValueError as error:
            raise UsageError(f"The limits do not go together: {error} (POINTSMAN_LIMIT_...).") from None

    def for_engine(self, *, strict: bool = True) -> EngineSettings:
        """What an engine is put together from. Raises UsageError."""
        from engine.assembly import EngineSettings  # noqa: PLC0415 - needs an extra to be installed

        return EngineSettings(
            postgres=self.postgres,
            kafka=self.kafka,
            namespace=self.namespace,
            group=self.value("group"),
            instance=self.value("instance"),
            first=self.first,
            strict=strict,
            limits=self.limits,
            listen=self.listen,
        )

    def _needed(self, name: str, example: str) -> str:
        kind, value = self.found[name].kind, self.value(name)
        if value is None:
            raise UsageError(
                f"The address of {name.capitalize()} is not known. Give {kind.option} ADDRESS or set "
                f"{kind.variable} (such as {example}). On one machine, `pointsman dev` brings both."
            )
        return value

    def _file(self, name: str) -> Path | None:
        value = self.value(name)
        return Path(value) if value else None

    def _check_security(self) -> None:
        protocol, mechanism = self.value("kafka_security_protocol"), self.value("kafka_sasl_mechanism")
        has = {name for name in KINDS if name.startswith("kafka_") and self.value(name)}
        missing: list[str] = []
        if protocol and protocol.startswith("SASL"):
            if mechanism == "OAUTHBEARER":
                missing = [] if "kafka_token_file" in has else ["POINTSMAN_KAFKA_TOKEN_FILE"]
            else:
                if "kafka_username" not in has:
                    missing.append("POINTSMAN_KAFKA_USERNAME")
                if not has & {"kafka_password", "kafka_password_file"}:
                    missing.append("POINTSMAN_KAFKA_PASSWORD_FILE")
        if missing:
            raise UsageError(f"{protocol} with {mechanism} needs {' and '.join(missing)}.")
        if {"kafka_password", "kafka_password_file"} <= has:
            raise UsageError("Give POINTSMAN_KAFKA_PASSWORD or POINTSMAN_KAFKA_PASSWORD_FILE, not both.")


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Variables that look like settings and are none, sorted.

    They are no mistake by themselves: Kubernetes makes POINTSMAN_SERVICE_HOST for a service of that name.
    """
    known = {kind.variable for kind in KINDS.values()} | _ELSEWHERE
    return [
        variable
        for variable in sorted(environ)
        if variable.startswith(PREFIX) and variable not in known and not variable.startswith(_FOR_TESTS)
    ]


def meant_by(variable: str) -> str | None:
    """The variable of a setting that this one is a slip of; None: of none. One of a limit may lack its LIMIT."""
    meant = {name: kind.variable for name, kind in KINDS.items()}
    meant |= {name.removeprefix(LIMIT): kind.variable for name, kind in KINDS.items()}
    near = nearest(variable.removeprefix(PREFIX), meant)
    return None if near is None else meant[near]


def strange_variables(environ: Mapping[str, str], *, only_slips: bool = False) -> list[str]:
    """A sentence of each variable that looks like a setting and is none; or only of those that are slips of one."""
    found = {variable: meant_by(variable) for variable in unknown_variables(environ)}
    return [
        f"{variable} is set, and no setting of Pointsman." + (f" Did you mean {meant}?" if meant else "")
        for variable, meant in found.items()
        if meant or not only_slips
    ]


def _refuse_unknown_limits(environ: Mapping[str, str]) -> None:
    start = PREFIX + LIMIT.upper()
    for variable in unknown_variables(environ):
        if variable.startswith(start):
            known = [kind.variable for kind in KINDS.values() if kind.variable.startswith(start)]
            raise UsageError(f"There is no setting {variable}. {did_you_mean(variable, known)}")


def _checked(setting: Setting) -> Setting:
    value, kind = setting.value, setting.kind
    if value is None:
        return setting
    if not _is_unicode(value):
        raise UsageError(f"{_said(setting)}, which is no Unicode text.")
    if kind.choices and value not in kind.choices:
        same = next((choice for choice in kind.choices if choice.lower() == value.lower()), None)
        if same is None:
            raise UsageError(f"{_said(setting)}; it can be {', '.join(kind.choices)}.")
        return dataclasses.replace(setting, value=same)
    if kind.name == "namespace" and not NAMESPACE.fullmatch(value):
        raise UsageError(
            f"{_said(setting)}; a namespace has up to 100 letters, digits, dots, dashes and underscores."
        )
    if not value.strip():
        raise UsageError(f"{_said(setting)}; it cannot be empty: say which, or leave it out.")
    if kind.name == "kafka":
        return dataclasses.replace(setting, value=",".join(_broker(one, setting) for one in value.split(",")))
    if kind.name.endswith("_file") and not Path(value).is_file():
        raise UsageError(f"{_said(setting)}, and there is no such file.")
    return setting


def _broker(text: str, setting: Setting) -> str:
    """An address of a broker, with its port. Raises UsageError: it is none."""
    address = text.strip()
    with contextlib.suppress(ValueError):
        return f"[{ipaddress.IPv6Address(address)}]:{_KAFKA_PORT}"
    found = _BROKER.fullmatch(address)
    port = int(found["port"] or _KAFKA_PORT) if found else 0
    if found is None or not 0 < port <= PORT_MAX:
        raise UsageError(
            f"{_said(setting)}; it is HOST:PORT, such as broker.example.org:9092, or several of them with commas "
            f"between them, and {address!r} is none."
        )
    return f"{found['host']}:{port}"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _number(setting: Setting, kind: type[int | float]) -> int | float:
    try:
        number = kind(setting.value or "")
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise UsageError(f"{_said(setting)}; it must be {wanted}.") from None
    if number == 0 and setting.kind.name.removeprefix(LIMIT) in OFF_AT_ZERO:
        return number
    if not 0 < number < float("inf"):
        raise UsageError(f"{_said(setting)}; it must be more than nothing, and finite.")
    return number


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"--from is {text!r}; it can be earliest, latest, or a time like 2026-01-31T12:00:00+01:00."
        ) from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _said(setting: Setting) -> str:
    named = setting.kind.option if setting.origin == "option" else setting.kind.variable
    return f"{named} is {HIDDEN if setting.kind.secret else repr(setting.value)}"
