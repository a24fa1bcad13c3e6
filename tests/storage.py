"""Notifications as Amazon S3 sends them, and a pipeline that follows each object of a bucket."""

from __future__ import annotations

import copy
from typing import Any

import orjson
from pydantic import BaseModel

from connectors.source import RawRecord
from statemachines import Context, Event, Pipeline, Topic
from tests.feeding import raw

TOPIC = Topic(
    "s3", each="Records", each_missing="ignore", type="eventName", id="s3.object.sequencer", time="eventTime"
)
BROKEN: set[int] = set()
"""Sizes of objects on which the pipeline's code breaks."""

RECORD: dict[str, Any] = {
    "eventVersion": "2.1",
    "eventSource": "aws:s3",
    "awsRegion": "us-west-2",
    "eventTime": "2026-03-01T11:59:00.123Z",
    "eventName": "ObjectCreated:Put",
    "userIdentity": {"principalId": "AWS:EXAMPLE"},
    "requestParameters": {"sourceIPAddress": "127.0.0.1"},
    "responseElements": {
        "x-amz-request-id": "C3D13FE58DE4C810",
        "x-amz-id-2": "FMyUVURIY8/IgAtTv8xRjskZQpcIZ9KG4V5Wp6S7S/JRWeUWerMUE5JgHvANOjpD",
    },
    "s3": {
        "s3SchemaVersion": "1.0",
        "configurationId": "testConfigRule",
        "bucket": {
            "name": "amzn-s3-demo-bucket",
            "ownerIdentity": {"principalId": "EXAMPLE"},
            "arn": "arn:aws:s3:::amzn-s3-demo-bucket",
        },
        "object": {
            "key": "HappyFace.jpg",
            "size": 1024,
            "eTag": "d41d8cd98f00b204e9800998ecf8427e",
            "sequencer": "0055AED6DCD90281E5",
        },
    },
}
"""The shape of the documentation's example."""

TEST_EVENT = {
    "Service": "Amazon S3",
    "Event": "s3:TestEvent",
    "Time": "2014-10-13T15:57:02.089Z",
    "Bucket": "amzn-s3-demo-bucket",
    "RequestId": "5582815E1AEA5ADF",
    "HostId": "8cLeGAmw098X5cv4Zkwcmo8vvZa3eH3eKxsPzbB9wrR+YstdA6Knx4Ip8EXAMPLE",
}
"""What S3 sends when it is told where to send notifications."""


def put(key: str, sequencer: str, *, name: str = "ObjectCreated:Put", size: int = 1024) -> dict[str, Any]:
    """One notification."""
    made = copy.deepcopy(RECORD)
    made["eventName"] = name
    made["s3"]["object"] |= {"key": key, "sequencer": sequencer, "size": size}
    return made


def removed(key: str, sequencer: str) -> dict[str, Any]:
    return put(key, sequencer, name="ObjectRemoved:Delete")


def sent(*elements: Any, topic: str = "s3", **beside: Any) -> RawRecord:
    """A record with all of them."""
    return raw(orjson.dumps({"Records": list(elements), **beside}), topic=topic)


class Object(BaseModel):
    key: str
    size: int


class Part(BaseModel):
    object: Object


class Created(Event, type="ObjectCreated:Put", key="s3.object.key"):
    s3: Part


class Removed(Event, type="ObjectRemoved:Delete", key="s3.object.key"):
    s3: Part


class Kept(Context):
    sizes: list[int]
    at: str


def keep(event: Created) -> Kept:
    return Kept(sizes=[event.s3.object.size], at=str(event.meta.time))


def grow(kept: Kept, event: Created) -> None:
    if event.s3.object.size in BROKEN:
        raise LookupError("broken for now")
    kept.sizes.append(event.s3.object.size)


def objects(topic: Topic = TOPIC, name: str = "objects") -> Pipeline[Kept]:
    flow = Pipeline(name, Kept, topics=[topic])
    there = flow.state("there", initial=True)
    flow.state("gone", final=True)
    flow.start(Created, keep)
    there.on(Created, do=grow)
    there.on(Removed, to="gone")
    return flow
