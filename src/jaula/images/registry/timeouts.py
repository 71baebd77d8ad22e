"""Timeouts of requests to registries, and limits of what a registry may send."""

from __future__ import annotations

import msgspec


class Timeouts(msgspec.Struct, frozen=True):
    """Times are in seconds. A blob slower than ``least`` bytes in ``window`` is given up.

    ``attempts`` is the number of failures in a row without ``progress`` bytes in between.
    """

    connect: float = 15
    stall: float = 60  # until the next bytes
    document: float = 60  # for a whole response that is not a blob
    commit: float = 600  # for the response to an upload: the registry hashes and stores it
    window: float = 30
    least: int = 30 << 10
    attempts: int = 5
    progress: int = 1 << 20
    pause: float = 0.5  # before the second attempt; doubled for each further one
    longest_pause: float = 8


ERROR_LIMIT = 64 << 10
"""Bytes of an error response."""

TOKEN_LIMIT = 1 << 20
"""Bytes of a token server's response."""

REDIRECTS = 5
