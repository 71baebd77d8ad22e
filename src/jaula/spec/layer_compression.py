"""The compression of layers, of a push or of an output of a build."""

from __future__ import annotations

import re

import msgspec

from jaula.errors import InvalidRequest

_GZIP_LEVELS = range(-1, 10)

COMPRESSIONS = ("gzip", "zstd", "estargz", "zstd:chunked", "uncompressed")


class LayerCompression(msgspec.Struct, frozen=True):
    """Compression of the layers of an output or a push: ``kind`` is one of COMPRESSIONS.

    Without a ``level`` it is the compressor's own. ``force`` converts compressed layers too, which
    are those of base images, for example. ``estargz`` changes the diff ids of the layers.
    """

    kind: str = "gzip"
    level: int | None = None
    force: bool = False


def parse_compression(kind: str, level: str | None, *, force: bool) -> LayerCompression:
    """Return a compression that a client requests. Pure.

    :raises InvalidRequest: when the type does not exist, or the level is not one of it.
    """
    if kind not in COMPRESSIONS:
        raise InvalidRequest(
            f"unsupported compression type {kind[:64]!r}",
            hint=f"must be one of {', '.join(COMPRESSIONS)}",
        )
    if level is None:
        return LayerCompression(kind, None, force)
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", level, re.ASCII):
        raise InvalidRequest(f"non-integer value {level[:64]!r} specified for compression-level")
    if kind in ("gzip", "estargz") and int(level) not in _GZIP_LEVELS:
        raise InvalidRequest(f"{kind}: invalid compression level: {level}", hint="must be 0 to 9")
    return LayerCompression(kind, int(level), force)
