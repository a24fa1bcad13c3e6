"""What a question may end with beside an answer."""

from __future__ import annotations

from engine.errors import PointsmanError


class NotFoundError(PointsmanError):
    """The one thing that was asked for is not there; the message says what is."""

    exit_code = 1
