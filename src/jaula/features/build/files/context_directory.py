"""The build context: a tar from the client or the content of a URL, as a directory.

Follows the Docker Engine API 1.45, ``ImageBuild``: the body is a tar, compressed or not, or
``remote`` is the URL of a repository, of a tar or of a single Dockerfile. All files in the context
are owned by root. Device nodes are not created.

A client omits the paths in ``.dockerignore`` itself, except for the Dockerfile and that file, which
the engine needs. They are removed here after they were read.
"""

from __future__ import annotations

import errno
import os
import posixpath
from typing import TYPE_CHECKING

import msgspec

from jaula.errors import InvalidRequest, NotFound
from jaula.features.build.files import add_archive, dockerignore
from jaula.features.build.files.copy_target import CopyTarget, copy_sources
from jaula.features.build.files.file_errno import translate_os_errors
from jaula.features.build.files.remote import git_url
from jaula.features.build.files.unpack_quota import QuotaStream
from jaula.kernel import openat2
from jaula.storage.compression import Source
from jaula.storage.cp.extract_archive import ArchiveExtractor
from jaula.storage.tar.sandboxed import open_archive
from jaula.storage.tar.tar_reader import Limits
from jaula.storage.trees import open_subdirectory, walk

if TYPE_CHECKING:
    from jaula.features.build.files.remote.remote import RemoteSources
    from jaula.images.registry.cancellation import Cancellation

_DOCKERFILE_LIMIT = 4 << 20  # bytes
_IGNORE_LIMIT = 1 << 20  # bytes
NAMES = ("Dockerfile", "dockerfile")
"""Default paths of the Dockerfile, in order."""


class ContextLocation(msgspec.Struct, frozen=True):
    """A Dockerfile: its path in the context, and its text."""

    name: str
    text: str


def receive(
    stream: Source,
    directory: int,
    *,
    limits: Limits = Limits(entries=1_000_000, bytes=64 << 30),  # noqa: B008 - frozen
    cancel: Cancellation | None = None,
) -> None:
    """Unpack a client's tar into an empty directory, a descriptor.

    :raises InvalidRequest: if the tar is damaged or hostile.
    :raises Unavailable: if the disk is full.
    """
    extraction = ArchiveExtractor(directory, "/", owner=lambda uid, gid: (0, 0), parents=(0, 0))
    with (
        translate_os_errors("the build context"),
        # A context of the docker command may end with the last byte of its last entry.
        open_archive(stream, "the build context", limits=limits, padded=False) as archive,
    ):
        extraction.run(QuotaStream(archive, directory, None, cancel))
        archive.drain()


def is_repository(address: str) -> bool:
    """Return whether a context URL is a repository's.

    ``github.com/`` without a scheme is one, too.
    """
    return git_url.is_git(address) or address.startswith("github.com/")


def fetch(
    address: str, directory: int, remotes: RemoteSources, cancel: Cancellation | None = None
) -> str | None:
    """Fetch a URL into an empty directory. Return the text if it is a single Dockerfile, else None.

    :raises InvalidRequest: if it is not a repository, a tar or a Dockerfile.
    """
    root_target = CopyTarget("/", "/")
    if is_repository(address):
        url = f"https://{address}" if address.startswith("github.com/") else address
        source = remotes.repository(url, "", keep_git_dir=False)
        copy_sources([source], directory, root_target, owner=(0, 0), cancel=cancel)
        return None
    file = remotes.file(address, "")
    if add_archive.is_packed(file):
        descriptor = file.open()
        with open(descriptor, "rb") as stream:
            receive(stream, directory, cancel=cancel)
        return None
    data = openat2.read_file_in_root(file.tree.root, "file", _DOCKERFILE_LIMIT)
    return _text(data, address)


def dockerfile(directory: int, name: str = "") -> ContextLocation:
    """Read the Dockerfile of a context. ``name`` is its path, '' for the default.

    :raises NotFound: if it does not exist.
    :raises InvalidRequest: if it is not a text file.
    """
    for candidate in [name] if name else NAMES:
        path = posixpath.normpath("/" + candidate).lstrip("/")
        try:
            data = openat2.read_file_in_root(directory, path or ".", _DOCKERFILE_LIMIT)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                continue
            raise InvalidRequest(f"the Dockerfile {candidate!r}: {error.strerror}") from None
        return ContextLocation(path, _text(data, candidate))
    raise NotFound(f"Cannot locate specified Dockerfile: {name or NAMES[0]}")


def _text(data: bytes, name: str) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{name}: byte {error.start} is not UTF-8") from None
    if "\0" in text:
        raise InvalidRequest(f"{name} is not a text file: it contains a null byte")
    return text


def remove_ignored(directory: int, name: str, *, everything: bool) -> None:
    """Remove the Dockerfile ``name`` and the ignore file if they are ignored.

    ``everything`` removes all ignored paths: a client omits them itself, a repository does not.
    """
    ignore = _ignore(directory, name)
    if ignore is None:
        return
    if not everything:
        for path in (name, *dockerignore.files(name)):
            while path and ignore.excludes_path(path):
                _remove(directory, os.fsencode(path))
                path = posixpath.dirname(path)  # a directory sent only for this file
        return
    ignored: list[bytes] = []
    for parent, _, entries in walk(directory):
        for entry, _ in entries:
            inner = parent + b"/" + entry if parent else entry
            if ignore.excludes_path(os.fsdecode(inner)):
                ignored.append(inner)
    for inner in reversed(ignored):  # the content of a directory before the directory
        _remove(directory, inner)


def _ignore(directory: int, name: str) -> dockerignore.Dockerignore | None:
    """Return the patterns of the ignore file. One specific to the Dockerfile takes precedence."""
    for path in dockerignore.files(name):
        if (ignore := _read_ignore(directory, path)) is not None:
            return ignore
    return None


def ignore_patterns(directory: int, path: str) -> tuple[str, ...] | None:
    """Return the cleaned patterns of an ignore file, in order; None if it does not exist.

    :raises InvalidRequest: if it cannot be read, or a pattern is malformed.
    """
    ignore = _read_ignore(directory, path)
    return None if ignore is None else ignore.texts


def _read_ignore(directory: int, path: str) -> dockerignore.Dockerignore | None:
    try:
        data = openat2.read_file_in_root(directory, path, _IGNORE_LIMIT)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}") from None
    return dockerignore.Dockerignore.read(data.decode("utf-8", "surrogateescape"))


def _remove(directory: int, path: bytes) -> None:
    """Remove a file, or a directory if it is empty."""
    parent, name = posixpath.split(path)
    try:
        parent_fd = open_subdirectory(directory, parent)
    except FileNotFoundError:
        return
    try:
        try:
            os.unlink(name, dir_fd=parent_fd)
        except IsADirectoryError:
            os.rmdir(name, dir_fd=parent_fd)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
            raise
    finally:
        os.close(parent_fd)
