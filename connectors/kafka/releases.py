"""Which release of Kafka a broker is: it does not say so, but it tells the newest metadata that it knows.

aiokafka asks for the versions of requests in a form that leaves this out, so the newer form is spoken here.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

from aiokafka.protocol.api import Request, RequestStruct, Response, ResponseHeader_v0
from aiokafka.protocol.types import CompactArray, CompactString, Int16, Int32, Schema, TaggedFields

SUPPORTED_FEATURES_TAG = 0
FEATURES = CompactArray(
    ("name", CompactString("utf-8")), ("min", Int16), ("max", Int16), ("tags", TaggedFields)
)
METADATA_VERSIONS = {1: (3, 0), 2: (3, 1), 3: (3, 2), 4: (3, 3), 8: (3, 4), 9: (3, 5), 12: (3, 6), 15: (3, 7)}
METADATA_VERSIONS |= {20: (3, 8), 21: (3, 9), 22: (4, 0), 26: (4, 1), 28: (4, 2), 30: (4, 3)}
"""The first level of `metadata.version` that each release knows (`MetadataVersion.java` of Kafka)."""


class _VersionsResponse(Response):
    API_KEY = 18
    API_VERSION = 3
    SCHEMA = Schema(
        ("error_code", Int16),
        (
            "api_versions",
            CompactArray(("api_key", Int16), ("min", Int16), ("max", Int16), ("tags", TaggedFields)),
        ),
        ("throttle_time_ms", Int32),
        ("tags", TaggedFields),
    )


class _VersionsRequest(RequestStruct):
    API_KEY = 18
    API_VERSION = 3
    RESPONSE_TYPE = _VersionsResponse
    FLEXIBLE_VERSION = True
    SCHEMA = Schema(
        ("client_software_name", CompactString("utf-8")),
        ("client_software_version", CompactString("utf-8")),
        ("tags", TaggedFields),
    )

    def parse_response_header(self, read_buffer: BytesIO | bytes) -> ResponseHeader_v0:
        """The old header whatever the version, so that those who do not know the new one can read it."""
        return ResponseHeader_v0.decode(read_buffer)


class VersionsRequest(Request[_VersionsRequest]):
    """Asks a broker of Kafka 2.4 or newer what it knows."""

    API_KEY = 18

    def build(self, request_struct_class: type[_VersionsRequest]) -> _VersionsRequest:
        return request_struct_class("pointsman", "1", {})


def release_of(answer: Any) -> tuple[int, int] | None:
    """The release, such as (4, 0): of newer ones the newest known here; None where it is not told."""
    raw = answer.tags.get(SUPPORTED_FEATURES_TAG)
    if raw is None:
        return None
    for name, _, newest, _ in FEATURES.decode(BytesIO(raw)) or ():
        if name == "metadata.version":
            return max(release for level, release in METADATA_VERSIONS.items() if level <= newest)
    return None
