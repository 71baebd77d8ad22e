"""``--storage-opt size=``: the bytes that a container may write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from jaula.errors import InvalidRequest
from jaula.spec import units

if TYPE_CHECKING:
    from jaula.engine.containers.bounds import Bounds
    from jaula.storage.drivers.storage_driver import SnapshotDriver

_MIN_SIZE = 1 << 20  # bytes; with less a container cannot be started on some drivers


def default_size(bounds: Bounds, snapshots: SnapshotDriver) -> int | None:
    """Return the bytes that a container without ``--storage-opt size=`` may write, None for any."""
    return bounds.storage_size if bounds.storage_size and snapshots.has_quotas else None


def size_limit(options: Mapping[str, str]) -> int | None:
    """Return the bytes that ``--storage-opt size=`` lets a container write, None for no limit.

    ``size`` is Docker's only option here; its units are powers of 1024, as Docker's.

    :raises InvalidRequest: when an option is unknown or a size is not valid.
    """
    limit: int | None = None
    for name, text in options.items():
        if name.lower() != "size":
            raise InvalidRequest(f"unknown option {name[:80]!r} in --storage-opt", hint="size=10g")
        try:
            limit = units.size(text)
        except ValueError:
            limit = 0
        if limit < _MIN_SIZE:
            raise InvalidRequest(
                f"invalid size in --storage-opt: {text[:80]!r}", hint="size=10g; the minimum is 1m"
            )
    return limit


def snapshot_size(
    options: Mapping[str, str], bounds: Bounds, snapshots: SnapshotDriver
) -> int | None:
    """Return the bytes that a new container may write, None for any.

    :raises InvalidRequest: when an option is unknown or a size is not valid.
    """
    size = size_limit(options)
    return default_size(bounds, snapshots) if size is None else size
