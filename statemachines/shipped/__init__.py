"""Pipelines that come with the package: examples to read, to run in the demo, and to start from."""
