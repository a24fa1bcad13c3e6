"""What can go wrong, as sentences: what happened, where, and what to do now."""

from __future__ import annotations


class PointsmanError(Exception):
    """Base class: the message is meant for a person."""

    exit_code = 1


class UsageError(PointsmanError):
    """Bad usage or bad input; nothing was done."""

    exit_code = 2


class ServiceUnreachableError(PointsmanError):
    """A service cannot be reached; the message names it, with its address without a password."""

    exit_code = 3


class UnusableAddressError(ServiceUnreachableError):
    """A service was not even asked: what is needed for that cannot be used. Mended, it works again."""

    exit_code = 2


class SchemaError(PointsmanError):
    """The database has another version of the schema, or none."""

    exit_code = 2


class RefusedError(PointsmanError):
    """The engine refuses to start or to go on, because a promise could not be kept."""

    exit_code = 2
