"""Signal names in requests: ``SIGTERM``, ``TERM``, ``15``, ``RTMIN+3``."""

from __future__ import annotations

import signal

from jaula.errors import InvalidRequest


def parse(text: str) -> int:
    """Return the number of a signal.

    :raises InvalidRequest: when the signal does not exist.
    """
    plain = text.strip().upper()[:20]  # longer than any name or number
    if plain.isascii() and plain.isdigit():
        number = int(plain)
        if 1 <= number <= int(signal.SIGRTMAX):
            return number
    else:
        name = plain.removeprefix("SIG")
        base, plus, offset = name.partition("+")
        minus = ""
        if not plus:
            base, minus, offset = name.partition("-")
        known = {n.removeprefix("SIG"): int(s) for n, s in signal.Signals.__members__.items()}
        if base in known and not (plus or minus):
            return known[base]
        if base in ("RTMIN", "RTMAX") and offset.isascii() and offset.isdigit():
            number = known[base] + (int(offset) if plus else -int(offset))
            if int(signal.SIGRTMIN) <= number <= int(signal.SIGRTMAX):
                return number
    raise InvalidRequest(f"invalid signal: {text[:80]}")
