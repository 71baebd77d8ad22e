"""The digest of the sources of a ``COPY``: names, modes, effective owners, content, attributes.

Times are not included, so two checkouts of one commit are equal. Each part is preceded by its
length, so that different selections never give the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec.msgpack

from jaula.features.build.files.add_archive import PackedArchive
from jaula.storage.tar.tar_entry import REGULAR

if TYPE_CHECKING:
    from jaula.features.build.files.source_archives import Source
    from jaula.images.registry.cancellation import Cancellation

_VERSION = 1


def digest(sources: Iterable[Source], cancel: Cancellation | None = None) -> str:
    """Return ``sha256:...`` of the sources in their order."""
    total = hashlib.sha256(msgspec.msgpack.encode(("copy", _VERSION)))
    for source in sources:
        total.update(msgspec.msgpack.encode(("source", source.name, source.contents_only)))
        if isinstance(source, PackedArchive):
            source = source.file  # the same file has the same content
        archive = source.archive(source.name)
        for entry in archive:
            if cancel is not None:
                cancel.check()
            owner = (entry.uid, entry.gid) if source.keeps_owners else (0, 0)
            facts = (
                entry.name,
                entry.type,
                entry.mode,
                owner,
                entry.size,
                entry.link,
                (entry.major, entry.minor),
                sorted(entry.xattrs.items()),
            )
            total.update(msgspec.msgpack.encode(facts))
            if entry.type == REGULAR:
                for chunk in archive.data():
                    total.update(chunk)
    return "sha256:" + total.hexdigest()
