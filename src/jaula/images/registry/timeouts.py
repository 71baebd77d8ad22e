"""How long a registry is waited for, and how much it may send."""

from __future__ import annotations

import msgspec


class Timeouts(msgspec.Struct, frozen=True):
    """Times are seconds. A blob that comes slower than ``least`` bytes in ``window`` is given up.

    ``attempts`` is how often in a row a blob may break off without ``progress`` bytes between.
    """

    connect: float = 15
    stall: float = 60  # for the next bytes
    document: float = 60  # for a whole answer that is no blob
    commit: float = 600  # for the answer to something that was sent: it is hashed, and stored away
    window: float = 30
    least: int = 30 << 10
    attempts: int = 5
    progress: int = 1 << 20
    pause: float = 0.5  # before the second attempt; each further one waits twice as long
    longest_pause: float = 8


ERROR_LIMIT = 64 << 10
"""Bytes of an answer that says what went wrong."""

TOKEN_LIMIT = 1 << 20
"""Bytes of a token server's answer."""

REDIRECTS = 5
