"""``python -m engine.cli`` is ``pointsman``."""

from engine.cli import main

main()
