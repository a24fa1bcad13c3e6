"""Tokens that a broker refuses: aiokafka takes them for accepted, and what it asks next is answered with errors.

By RFC 7628 a broker says that it refuses a token in what looks like another question, as JSON.
"""

from __future__ import annotations

from typing import Any

from aiokafka.conn import AIOKafkaConnection, OAuthAuthenticator
from aiokafka.errors import SaslAuthenticationFailed


class _Tokens(OAuthAuthenticator):
    async def step(self, payload: bytes | None) -> Any:
        if payload:
            raise SaslAuthenticationFailed(payload.decode("utf-8", "replace"))
        return await super().step(payload)  # type: ignore[no-untyped-call]  # aiokafka is untyped


def _authenticator(connection: Any) -> Any:
    make: Any = _Tokens
    return make(sasl_oauth_token_provider=connection._sasl_oauth_token_provider)  # noqa: SLF001 - as aiokafka's own


def refuse_where_refused() -> None:
    """Have connections of aiokafka fail where a token is refused; to say it again changes nothing."""
    AIOKafkaConnection.authenticator_oauth = _authenticator  # type: ignore[method-assign]
