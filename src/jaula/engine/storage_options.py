"""``--storage-opt``: what may be asked of the storage driver for one container.

Docker's only option here is ``size``; its number is written as for Docker, with units of 1024.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from jaula.errors import InvalidRequest

_SIZE = re.compile(r"([0-9]+)(?:\.([0-9]+))? ?([kmgtp]?)(?:i?b)?", re.ASCII | re.IGNORECASE)
_UNITS = ("", "k", "m", "g", "t", "p")
_LEAST = 1 << 20  # bytes; below it a container cannot even be started everywhere


def size_limit(options: Mapping[str, str]) -> int | None:
    """Bytes that the container may write, None for as many as there are.

    :raises InvalidRequest: an option that is not known, or a size that is none.
    """
    found: int | None = None
    for name, text in options.items():
        if name.lower() != "size":
            raise InvalidRequest(f"unknown option {name[:80]!r} in --storage-opt", hint="size=10g")
        match = _SIZE.fullmatch(text.strip())
        if match is None:
            raise InvalidRequest(f"invalid size in --storage-opt: {text[:80]!r}", hint="size=10g")
        whole, fraction, unit = match[1], match[2] or "", match[3].lower()
        factor = 1024 ** _UNITS.index(unit)
        found = int(whole) * factor + int(fraction or 0) * factor // 10 ** len(fraction)
        if not _LEAST <= found < 2**63:
            raise InvalidRequest(
                f"invalid size in --storage-opt: {text[:80]!r}", hint="1m is the least"
            )
    return found
