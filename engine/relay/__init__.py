"""The way out: what the outbox holds is published exactly once, in the order of its commits."""

from engine.relay.decisions import RelayAccepted, RelayStatus, relay_accept, relay_status
from engine.relay.events import Cleaned, Halted, Published, Refused, RelayEvent, Restarted
from engine.relay.limits import RelayLimits
from engine.relay.relay import Relay

__all__ = [
    "Cleaned",
    "Halted",
    "Published",
    "Refused",
    "Relay",
    "RelayAccepted",
    "RelayEvent",
    "RelayLimits",
    "RelayStatus",
    "Restarted",
    "relay_accept",
    "relay_status",
]
