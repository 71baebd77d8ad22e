"""Which versions of the Docker Engine API are spoken, and the headers that say so.

Source: moby ``api/server/middleware/version.go``; the messages are Docker's, since clients match
them. A path without a version means the newest.
"""

from __future__ import annotations

from jaula import __version__
from jaula.errors import InvalidRequest

MAXIMUM = (1, 45)
MINIMUM = (1, 24)

SERVER = f"jaula/{__version__} (linux)"

HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"Api-Version", b"1.45"),
    (b"Docker-Experimental", b"false"),
    (b"Ostype", b"linux"),
    (b"Server", SERVER.encode("ascii")),
)
"""In every answer, those to hijacked requests included."""


def parse(segment: str) -> tuple[int, int] | None:
    """The version that a path's first segment names (``v1.45``), None if it names none."""
    if segment[:1] != "v":
        return None
    major, dot, minor = segment[1:].partition(".")
    if not dot or not (major + minor).isascii() or len(segment) > 16:
        return None
    if not (major.isdecimal() and minor.isdecimal()):
        return None
    return int(major), int(minor)


def check(version: tuple[int, int]) -> None:
    """Raise :class:`InvalidRequest` for a client that is too old or too new."""
    text = f"{version[0]}.{version[1]}"
    if version < MINIMUM:
        raise InvalidRequest(
            f"client version {text} is too old. Minimum supported API version is "
            f"{MINIMUM[0]}.{MINIMUM[1]}, please upgrade your client to a newer version"
        )
    if version > MAXIMUM:
        raise InvalidRequest(
            f"client version {text} is too new. Maximum supported API version is "
            f"{MAXIMUM[0]}.{MAXIMUM[1]}"
        )
