"""What a container changed as the tar of a new layer.

Follows opencontainers/image-spec 1.1 ``layer.md``: what was added or modified as it is now, with
its parents; what was deleted as an empty file ``.wh.NAME``. The same changes give the same bytes:
entries in order of path, no names of owners, whole seconds.

It is written from the merged tree and the list of differences, so that it does not matter how a
driver keeps them.
"""

from __future__ import annotations

import os
import posixpath

from jaula.kernel import paths
from jaula.kernel.paths import RESOLVE
from jaula.storage.cp.create_archive import ArchiveWriter
from jaula.storage.drivers.driver import ChangeKind
from jaula.storage.tar import writer
from jaula.storage.tar.writer import Sink

Differences = dict[bytes, ChangeKind]
"""Relative paths, parents of changes included."""

_WHITEOUT = b".wh."


def write_layer(merged: int, differences: Differences, sink: Sink) -> None:
    """Write the archive; ``merged`` is the container's root as a descriptor."""
    out = ArchiveWriter(sink)
    for path, kind in sorted(differences.items(), key=lambda item: item[0].split(b"/")):
        if kind is ChangeKind.DELETED:
            folder, name = posixpath.split(path)
            out.add(writer.new_entry(posixpath.join(folder, _WHITEOUT + name), mode=0))
            continue
        resolve = RESOLVE.BENEATH | RESOLVE.NO_SYMLINKS
        try:
            place = paths.openat2(merged, path, os.O_PATH | os.O_NOFOLLOW, resolve=resolve)
        except FileNotFoundError:
            continue  # it went away meanwhile, in a container that was not paused
        try:
            out.one(place, path, os.fstat(place))
        finally:
            os.close(place)
    out.finish()
