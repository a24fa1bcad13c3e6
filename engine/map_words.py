"""What is told of runs whose version is not loaded: how they are mapped to another one."""

from __future__ import annotations


def map_command(pipeline: str, version: int | None = None, to: int | None = None) -> str:
    """What has runs of a version that is not loaded follow another one."""
    said = f"--from {'VERSION' if version is None else version} --to {'VERSION' if to is None else to}"
    return f"pointsman definitions map {pipeline} {said} --reason TEXT"
