"""The client's own environment."""

from __future__ import annotations

from posix import environ


def variable(name: str) -> str | None:
    """A variable of the client's own environment."""
    value = environ.get(name.encode("utf-8", "surrogateescape"))
    return None if value is None else value.decode("utf-8", "surrogateescape")


def text(name: str) -> str:
    """The same, empty where it is not set."""
    return variable(name) or ""
