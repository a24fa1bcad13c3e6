"""The first thing that anyone sees: orders on their way, some doubled, some broken, and what comes of it."""
