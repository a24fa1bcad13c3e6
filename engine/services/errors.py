"""What is raised when a service of this machine cannot be started or does not answer."""

from __future__ import annotations

from engine.errors import PointsmanError


class ServiceError(PointsmanError):
    """A service cannot run here. The message says what, where, and what to do now."""

    exit_code = 3
