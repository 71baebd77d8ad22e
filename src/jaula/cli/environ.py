"""The environment of the client.

A module of its own: ``import os`` costs start-up time, ``posix.environ`` does not.
"""

from __future__ import annotations

from posix import environ


def variable(name: str) -> str | None:
    """Return the value of an environment variable, or None if it is not set."""
    value = environ.get(name.encode("utf-8", "surrogateescape"))
    return None if value is None else value.decode("utf-8", "surrogateescape")


def variables() -> list[str]:
    """Return all environment variables, each ``NAME=value``."""
    return [b"=".join(pair).decode("utf-8", "surrogateescape") for pair in sorted(environ.items())]


def text(name: str) -> str:
    """Return the value of an environment variable, or an empty string if it is not set."""
    return variable(name) or ""
