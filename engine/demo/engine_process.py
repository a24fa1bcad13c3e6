"""The engine of the demo, as a process of its own, which can be killed: ``python -m engine.demo.engine_process``.

It is what ``pointsman run --instance`` starts, but for the group: the small broker has none that knows who comes back.
"""

from __future__ import annotations

import sys

from connectors.kafka.settings import KafkaSettings
from engine.assembly import EngineSettings
from engine.cli import logs
from engine.cli.definitions import compile_all
from engine.cli.run import in_loop
from engine.demo.story import INSTANCE, NAMESPACE, PIPELINES


def main() -> int:
    """Run until a signal ends it."""
    postgres, bootstrap = sys.argv[1:]
    logs.configure("text", "info")
    settings = EngineSettings(
        postgres=postgres,
        kafka=KafkaSettings(bootstrap, check_crcs=False),
        namespace=NAMESPACE,
        instance=INSTANCE,
        alone=True,
    )
    return in_loop(settings, compile_all([PIPELINES], NAMESPACE)).exit_code


if __name__ == "__main__":
    sys.exit(main())
