"""Copy sources into a root: the target path, owners and modes.

Follows the Dockerfile reference: a target that ends with a slash is a directory. Missing
directories are created. Symbolic links on the way are followed inside the root. The content of a
directory is merged file by file. As in BuildKit, a directory never replaces a file, nor a file a
directory.

The root was written by a ``RUN`` and is untrusted. The kernel resolves the target inside the root
once. Everything after that happens below the resolved directory
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
from jaula.features.build.files import add_archive
from jaula.features.build.files.file_errno import quote_path, translate_os_errors
from jaula.features.build.files.source_archives import Source
from jaula.features.build.files.unpack_quota import QuotaStream
from jaula.kernel import openat2
from jaula.storage.cp.extract_archive import ArchiveExtractor

if TYPE_CHECKING:
    from jaula.features.build.files.chmod import Change
    from jaula.images.registry.cancellation import Cancellation

_LINKS_LIMIT = 40  # symbolic links that the kernel follows in one path

Ids = tuple[int, int]


class CopyTarget:
    """The target of an instruction. ``path`` is absolute; ``directory`` requires a directory."""

    def __init__(self, text: str, workdir: str) -> None:
        self.text = text
        self.directory = text.endswith("/") or posixpath.basename(text) in (".", "..")
        self.path = "/" + posixpath.normpath(posixpath.join("/", workdir, text)).lstrip("/")


def copy_sources(
    sources: Sequence[Source],
    root: int,
    target: CopyTarget,
    *,
    owner: Ids | None = None,
    mode: Change | None = None,
    cancel: Cancellation | None = None,
) -> None:
    """Copy ``sources`` below the directory ``root``, a descriptor.

    ``owner`` is ``--chown``; None keeps the owners of each source. ``mode`` is ``--chmod``.

    :raises InvalidRequest: if existing files conflict with the sources.
    :raises Unavailable: if the disk is full.
    """
    with translate_os_errors(f"cannot copy to {quote_path(target.text)}"):
        several = len(sources) > 1 and not all(source.contents_only for source in sources)
        if several and not target.directory and not _is_directory(root, target.path):
            raise InvalidRequest(
                f"cannot copy several files to {quote_path(target.text)}",
                hint="end the target with a slash if it is a directory",
            )
        for source in sources:
            parent_fd, name = _resolve(root, target, source, owner or (0, 0))
            try:
                _copy(source, parent_fd, name, owner, mode, cancel)
            finally:
                os.close(parent_fd)


def _copy(
    source: Source,
    parent_fd: int,
    name: bytes,
    owner: Ids | None,
    mode: Change | None,
    cancel: Cancellation | None,
) -> None:
    unpacking = isinstance(source, add_archive.PackedArchive)
    if unpacking:  # an archive states owners and modes itself
        mode = None

    def owned(uid: int, gid: int) -> Ids:
        if owner is not None and not unpacking:
            return owner
        return (uid, gid) if source.keeps_owners else (0, 0)

    extraction = ArchiveExtractor(
        parent_fd,
        "/",
        owner=owned,
        parents=owner or (0, 0),
        keep_kinds=not unpacking,
        devices=True,
    )
    archive = source.archive(name)
    try:
        extraction.run(QuotaStream(archive, parent_fd, mode, cancel))
    finally:
        add_archive.close(archive)


def _resolve(root: int, target: CopyTarget, source: Source, parents: Ids) -> tuple[int, bytes]:
    """Return a descriptor of the directory that a source is copied to, and its name there."""
    if source.contents_only or target.directory:
        return _directory(root, target.path, parents), source.name
    path = target.path
    for _ in range(_LINKS_LIMIT):
        try:
            existing = openat2.open_in_root(root, path, os.O_PATH)
        except FileNotFoundError:
            existing = -1
        if existing >= 0:
            if stat.S_ISDIR(os.fstat(existing).st_mode):
                return existing, source.name
            os.close(existing)
        parent, name = posixpath.split(path)
        parent_fd = _directory(root, parent or "/", parents)
        try:
            link = os.readlink(name, dir_fd=parent_fd)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return parent_fd, os.fsencode(name)
            os.close(parent_fd)
            raise
        os.close(parent_fd)
        path = posixpath.join(parent, link)
        if posixpath.basename(path) in ("", ".", ".."):
            return _directory(root, path, parents), source.name
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _directory(root: int, path: str, owner: Ids) -> int:
    """Return an ``O_PATH`` descriptor of a directory. Created directories belong to ``owner``."""

    def made(descriptor: int) -> None:
        os.chown(f"/proc/self/fd/{descriptor}", *owner)
        os.chmod(f"/proc/self/fd/{descriptor}", 0o755)  # independent of the umask

    return openat2.make_directory_in_root(root, path, made=made)


def _is_directory(root: int, path: str) -> bool:
    try:
        os.close(openat2.open_in_root(root, path, os.O_PATH | os.O_DIRECTORY))
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
