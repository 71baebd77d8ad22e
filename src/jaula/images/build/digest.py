"""The digest of what a ``COPY`` takes: names, modes, owners that count, content, attributes.

No times: two checkouts of one commit are the same. Everything has its length before it, so that no
two selections run into the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from jaula.images.build.add_archive import PackedArchive
from jaula.storage.tar.entry import REGULAR

if TYPE_CHECKING:
    from jaula.images.build.sources import Source
    from jaula.images.registry.cancellation import Cancellation

_VERSION = 1


def digest(sources: Iterable[Source], cancel: Cancellation | None = None) -> str:
    """``sha256:...`` of the sources in their order."""
    whole = hashlib.sha256(msgspec.msgpack.encode(("copy", _VERSION)))
    for source in sources:
        whole.update(msgspec.msgpack.encode(("source", source.name, source.fills)))
        if isinstance(source, PackedArchive):
            source = source.file  # the same file has the same content
        archive = source.archive(source.name)
        for entry in archive:
            if cancel is not None:
                cancel.check()
            owner = (entry.uid, entry.gid) if source.keeps_owners else (0, 0)
            described = (
                entry.name,
                entry.type,
                entry.mode,
                owner,
                entry.size,
                entry.link,
                (entry.major, entry.minor),
                sorted(entry.xattrs.items()),
            )
            whole.update(msgspec.msgpack.encode(described))
            if entry.type == REGULAR:
                for piece in archive.data():
                    whole.update(piece)
    return "sha256:" + whole.hexdigest()
