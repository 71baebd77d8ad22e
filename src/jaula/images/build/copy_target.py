"""Copying sources into a root: where they land, and whose they become there.

Follows the Dockerfile reference: a target that ends with a slash is a directory; what is missing is
made, links on the way are followed inside the root; a directory's content is merged with what is
there, file by file. A directory never takes a file's place here, nor the reverse, as in BuildKit.

The root was written by a ``RUN`` and is hostile: the target is resolved by the kernel inside of it,
once, and from there on everything is done below the directory that was found
(:class:`jaula.storage.cp.extract_archive.ArchiveExtractor`).
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaula.errors import InvalidRequest
from jaula.images.build import add_archive
from jaula.images.build.errors import explained, shown
from jaula.images.build.quota import QuotaStream
from jaula.images.build.sources import Source
from jaula.kernel import paths
from jaula.storage.cp.extract_archive import ArchiveExtractor

if TYPE_CHECKING:
    from jaula.images.build.chmod import Change
    from jaula.images.registry.cancellation import Cancellation

_LINKS = 40  # as many as the kernel follows in one path

Ids = tuple[int, int]


class CopyTarget:
    """Where an instruction copies to: ``path`` is absolute, ``directory`` that it must be one."""

    def __init__(self, text: str, workdir: str) -> None:
        self.text = text
        self.directory = text.endswith("/") or posixpath.basename(text) in (".", "..")
        self.path = "/" + posixpath.normpath(posixpath.join("/", workdir, text)).lstrip("/")


def place(
    sources: Sequence[Source],
    root: int,
    target: CopyTarget,
    *,
    owner: Ids | None = None,
    mode: Change | None = None,
    cancel: Cancellation | None = None,
) -> None:
    """Copy ``sources`` below the directory ``root``, a descriptor.

    ``owner`` is ``--chown``: None leaves owners as each source has them. ``mode`` is ``--chmod``.

    :raises InvalidRequest: they do not fit what is there.
    :raises Unavailable: the disk is full.
    """
    with explained(f"cannot copy to {shown(target.text)}"):
        several = len(sources) > 1 and not all(source.fills for source in sources)
        if several and not target.directory and not _is_directory(root, target.path):
            raise InvalidRequest(
                f"more than one file cannot become {shown(target.text)}",
                hint="a directory as target ends with a slash",
            )
        for source in sources:
            folder, name = _landing(root, target, source, owner or (0, 0))
            try:
                _copy(source, folder, name, owner, mode, cancel)
            finally:
                os.close(folder)


def _copy(
    source: Source,
    folder: int,
    name: bytes,
    owner: Ids | None,
    mode: Change | None,
    cancel: Cancellation | None,
) -> None:
    unpacking = isinstance(source, add_archive.PackedArchive)
    if unpacking:  # what is in an archive has owners and modes of its own
        mode = None

    def owned(uid: int, gid: int) -> Ids:
        if owner is not None and not unpacking:
            return owner
        return (uid, gid) if source.keeps_owners else (0, 0)

    copying = ArchiveExtractor(
        folder,
        "/",
        owner=owned,
        parents=owner or (0, 0),
        keep_kinds=not unpacking,
        devices=True,
    )
    archive = source.archive(name)
    try:
        copying.run(QuotaStream(archive, folder, mode, cancel))
    finally:
        add_archive.close(archive)


def _landing(root: int, target: CopyTarget, source: Source, parents: Ids) -> tuple[int, bytes]:
    """The directory that a source is copied to, as a descriptor, and its name in there."""
    if source.fills or target.directory:
        return _directory(root, target.path, parents), source.name
    path = target.path
    for _ in range(_LINKS):
        try:
            there = paths.open_in_root(root, path, os.O_PATH)
        except FileNotFoundError:
            there = -1
        if there >= 0:
            if stat.S_ISDIR(os.fstat(there).st_mode):
                return there, source.name
            os.close(there)
        above, name = posixpath.split(path)
        folder = _directory(root, above or "/", parents)
        try:
            led = os.readlink(name, dir_fd=folder)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return folder, os.fsencode(name)
            os.close(folder)
            raise
        os.close(folder)
        path = posixpath.join(above, led)
        if posixpath.basename(path) in ("", ".", ".."):
            return _directory(root, path, parents), source.name
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _directory(root: int, path: str, owner: Ids) -> int:
    """An ``O_PATH`` descriptor of a directory; what is made for it is ``owner``'s."""

    def made(descriptor: int) -> None:
        os.chown(f"/proc/self/fd/{descriptor}", *owner)
        os.chmod(f"/proc/self/fd/{descriptor}", 0o755)  # whatever the umask is

    return paths.make_directory_in_root(root, path, made=made)


def _is_directory(root: int, path: str) -> bool:
    try:
        os.close(paths.open_in_root(root, path, os.O_PATH | os.O_DIRECTORY))
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
