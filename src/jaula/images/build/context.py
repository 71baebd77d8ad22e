"""A build's context: what a client sends, or what an address leads to, as a directory.

Follows the Docker Engine API 1.45, ``ImageBuild``: the body is a tar, compressed or not, or
``remote`` is a repository's address, or that of a tar or of a Dockerfile alone. Everything is
root's in it. No device node is made.

A client leaves out itself what ``.dockerignore`` names, but for the Dockerfile and that file, which
the engine needs; they are taken away here once they were read.
"""

from __future__ import annotations

import errno
import os
import posixpath
from typing import TYPE_CHECKING

import msgspec

from jaula.errors import InvalidRequest, NotFound
from jaula.images.build import add_archive, dockerignore
from jaula.images.build.copy_target import CopyTarget, place
from jaula.images.build.errors import explained
from jaula.images.build.quota import QuotaStream
from jaula.images.build.remote import git_url
from jaula.kernel import paths
from jaula.storage.compression import Source, decompress_stream
from jaula.storage.cp.extract_archive import ArchiveExtractor
from jaula.storage.tar.reader import Limits, TarReader
from jaula.storage.trees import open_subdirectory, walk

if TYPE_CHECKING:
    from jaula.images.build.remote.remote import RemoteSources
    from jaula.images.registry.cancellation import Cancellation

_DOCKERFILE_LIMIT = 4 << 20  # bytes
_IGNORE_LIMIT = 1 << 20  # bytes
NAMES = ("Dockerfile", "dockerfile")
"""Where a Dockerfile is that nobody named, in this order."""


class ContextLocation(msgspec.Struct, frozen=True):
    """A Dockerfile: where it is in its context, and its text."""

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

    :raises InvalidRequest: it is damaged or hostile.
    :raises Unavailable: the disk is full.
    """
    source, _ = decompress_stream(stream)
    # The docker command's contexts may end with their last entry's last byte.
    reader = TarReader(source, limits=limits, padded=False)
    copying = ArchiveExtractor(directory, "/", owner=lambda uid, gid: (0, 0), parents=(0, 0))
    with explained("the build context"):
        copying.run(QuotaStream(reader, directory, None, cancel))
        reader.drain()


def is_repository(address: str) -> bool:
    """Whether a context's address is a repository's; ``github.com/`` alone begins one, too."""
    return git_url.is_git(address) or address.startswith("github.com/")


def fetch(
    address: str, directory: int, remotes: RemoteSources, cancel: Cancellation | None = None
) -> str | None:
    """Put what is at an address into an empty directory; the text of a Dockerfile alone, or None.

    :raises InvalidRequest: it is none of a repository, a tar and a Dockerfile.
    """
    whole = CopyTarget("/", "/")
    if is_repository(address):
        url = f"https://{address}" if address.startswith("github.com/") else address
        folder = remotes.repository(url, "", keep_git_dir=False)
        place([folder], directory, whole, owner=(0, 0), cancel=cancel)
        return None
    file = remotes.file(address, "")
    if add_archive.is_packed(file):
        descriptor = file.open()
        with open(descriptor, "rb") as stream:
            receive(stream, directory, cancel=cancel)
        return None
    data = paths.read_file_in_root(file.tree.root, "file", _DOCKERFILE_LIMIT)
    return _text(data, address)


def dockerfile(directory: int, name: str = "") -> ContextLocation:
    """Read the Dockerfile of a context; ``name`` is its path in there, '' the usual one.

    :raises NotFound: there is none.
    :raises InvalidRequest: it is no text.
    """
    for candidate in [name] if name else NAMES:
        path = posixpath.normpath("/" + candidate).lstrip("/")
        try:
            data = paths.read_file_in_root(directory, path or ".", _DOCKERFILE_LIMIT)
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
        raise InvalidRequest(f"{name} is no text: it holds a zero byte")
    return text


def leave_out(directory: int, name: str, *, everything: bool) -> None:
    """Take away the Dockerfile ``name`` and the ignore file where they are to be ignored.

    ``everything`` takes away all that is: a client leaves it out itself, a repository does not.
    """
    ignore = _ignore(directory, name)
    if ignore is None:
        return
    if not everything:
        for path in (name, *dockerignore.files(name)):
            while path and ignore.leaves_out(path):
                _remove(directory, os.fsencode(path))
                path = posixpath.dirname(path)  # which was sent for its sake
        return
    ignored: list[bytes] = []
    for above, _, entries in walk(directory):
        for entry, _ in entries:
            inner = above + b"/" + entry if above else entry
            if ignore.leaves_out(os.fsdecode(inner)):
                ignored.append(inner)
    for inner in reversed(ignored):  # what is in a directory before it
        _remove(directory, inner)


def _ignore(directory: int, name: str) -> dockerignore.Dockerignore | None:
    """What the context's ignore file says; the one beside a Dockerfile comes first."""
    for path in dockerignore.files(name):
        try:
            data = paths.read_file_in_root(directory, path, _IGNORE_LIMIT)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                continue
            raise InvalidRequest(f"{path} cannot be read: {error.strerror}") from None
        return dockerignore.Dockerignore.read(data.decode("utf-8", "surrogateescape"))
    return None


def _remove(directory: int, path: bytes) -> None:
    """Remove a file, or a directory in which nothing is left."""
    above, name = posixpath.split(path)
    try:
        folder = open_subdirectory(directory, above)
    except FileNotFoundError:
        return
    try:
        try:
            os.unlink(name, dir_fd=folder)
        except IsADirectoryError:
            os.rmdir(name, dir_fd=folder)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
            raise
    finally:
        os.close(folder)
