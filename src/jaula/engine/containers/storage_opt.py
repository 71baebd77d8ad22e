"""``--storage-opt``: what may be asked of the storage driver for one container.

Docker's only option here is ``size``; its number is written as for Docker, with units of 1024.
"""

from __future__ import annotations

from collections.abc import Mapping

from jaula.errors import InvalidRequest
from jaula.spec import units

_LEAST = 1 << 20  # bytes; with less a container cannot even be started everywhere


def size_limit(options: Mapping[str, str]) -> int | None:
    """Bytes that the container may write, None for as many as there are.

    :raises InvalidRequest: an option that is not known, or a size that is none.
    """
    found: int | None = None
    for name, text in options.items():
        if name.lower() != "size":
            raise InvalidRequest(f"unknown option {name[:80]!r} in --storage-opt", hint="size=10g")
        try:
            found = units.size(text)
        except ValueError:
            found = 0
        if found < _LEAST:
            raise InvalidRequest(
                f"invalid size in --storage-opt: {text[:80]!r}", hint="size=10g; 1m is the least"
            )
    return found
