"""The process behind `engine.services.mock_broker`: one mock cluster, until standard input ends.

Run as a file of its own. It prints its address, `host:port`, once clients can connect.
"""

from __future__ import annotations

import os
import sys

from confluent_kafka import Producer

READY_SECONDS = 15.0
WARNINGS_AND_WORSE = 4


def main() -> None:
    # The cluster lives in this client, and as long as it does.
    client = Producer(
        {"bootstrap.servers": "", "test.mock.num.brokers": 1, "log_level": WARNINGS_AND_WORSE},
    )
    (broker,) = client.list_topics(timeout=READY_SECONDS).brokers.values()
    sys.stdout.write(f"{broker.host}:{broker.port}\n")
    sys.stdout.flush()
    while os.read(0, 4096):
        pass
    # Not by the clean-up of the client, which would wait for its threads.
    os._exit(0)


if __name__ == "__main__":
    main()
