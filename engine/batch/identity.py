"""What an event is known by for ever, so that it is taken once."""

from __future__ import annotations

from connectors.decode import Decoded
from engine.log import digest_of
from engine.routing import Route, is_known_by_both
from statemachines.events import Envelope
from statemachines.policies import Once
from statemachines.turns import business_key


def identity_of(once: Once | None, decoded: Decoded) -> bytes:
    """The digest of what an event is known by for ever: a business key, where its data tells one, or source and id."""
    envelope = decoded.envelope
    name = None if once is None else business_key(once, envelope.type, decoded.data)
    return digest_of(envelope.source, envelope.id) if name is None else digest_of("business key", name)


def id_digest_of(route: Route, envelope: Envelope) -> bytes:
    """The digest of source and id, where an event of this type is asked for by either; else empty."""
    return digest_of(envelope.source, envelope.id) if is_known_by_both(route, envelope.type) else b""
