"""Files of a repository, or one file of a server, that a client reads before it builds.

``docker buildx bake URL`` reads its definition so. The files stay until the client's connection
ends. What a repository has is hostile: a path is resolved by the kernel beneath its directory.
"""

from __future__ import annotations

import os
import posixpath
import stat
from contextlib import ExitStack
from typing import TYPE_CHECKING

from jaula.engine.threads import in_own_thread, in_thread, shielded
from jaula.errors import InvalidRequest, NotFound
from jaula.features.build.build_options import BuildOptions
from jaula.features.build.builder.build_request import (
    create_directory,
    open_remotes,
    remove_directory,
)
from jaula.features.build.files.remote import git_url
from jaula.images.registry.cancellation import Cancellation
from jaula.kernel import openat2

if TYPE_CHECKING:
    from jaula.features.build.builder.build_session import BuildSession
    from jaula.features.build.builder.job import BuildServices
    from jaula.features.build.files.remote.remote import RemoteSources

_FILE_LIMIT = 2 << 20  # bytes of one answer


class RemoteTree:
    """The files of ``directory`` below ``root``, a descriptor; only ``name`` if it is not ''."""

    def __init__(self, root: int, directory: str, name: str, held: ExitStack) -> None:
        self._root = root
        self._directory = directory
        self._name = name
        self._held = held

    async def size(self, path: str) -> int:
        """Return the size of a file in bytes.

        :raises NotFound: when it does not exist.
        """
        return await in_thread(self._size, path)

    async def read(self, path: str, offset: int, length: int) -> bytes:
        """Return a part of a file; ``length`` 0 means all of the rest.

        :raises NotFound: when it does not exist.
        :raises InvalidRequest: when the part is too large.
        """
        return await in_thread(self._read, path, offset, length)

    async def close(self) -> None:
        """Remove the files."""
        await in_thread(self._held.close)

    def _open(self, path: str) -> int:
        """Open a regular file."""
        relative = posixpath.join(self._directory, self._name or path.lstrip("/"))
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
        try:
            descriptor = openat2.open_in_root(self._root, relative or ".", flags)
        except (OSError, ValueError) as error:  # ValueError: a null byte
            reason = getattr(error, "strerror", None) or "invalid path"
            raise NotFound(f"open {path[:256]!r}: {reason}") from None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise NotFound(f"{path[:256]} is not a file")
        return descriptor

    def _size(self, path: str) -> int:
        descriptor = self._open(path)
        try:
            return os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)

    def _read(self, path: str, offset: int, length: int) -> bytes:
        if not (0 <= offset < 1 << 62 and 0 <= length < 1 << 62):
            raise InvalidRequest("the part of the file is not valid")
        descriptor = self._open(path)
        try:
            size = min(length or 1 << 62, max(os.fstat(descriptor).st_size - offset, 0))
            if size > _FILE_LIMIT:
                raise InvalidRequest(f"{path[:256]} exceeds the limit of {_FILE_LIMIT} bytes")
            return os.pread(descriptor, size, offset)
        finally:
            os.close(descriptor)


async def open_remote_tree(
    shared: BuildServices, address: str, session: BuildSession | None
) -> RemoteTree:
    """Fetch a repository, or a file, by the rules of a build without the host's network.

    :raises JaulaError: when it cannot be fetched.
    """
    cancellation = Cancellation()
    with ExitStack() as opening:
        directory = create_directory(shared.work)
        opening.callback(remove_directory, directory)
        options = BuildOptions()
        remotes = open_remotes(shared.services, options, directory, opening, session, cancellation)
        try:
            fetched = await shielded(in_own_thread(lambda: _fetch(remotes, address)))
        finally:
            cancellation.cancel()
        return RemoteTree(*fetched, opening.pop_all())


def _fetch(remotes: RemoteSources, address: str) -> tuple[int, str, str]:
    """Return the arguments of :class:`RemoteTree`."""
    if git_url.is_git(address):
        source = remotes.repository(address, "", keep_git_dir=False)
        return source.tree.root, os.fsdecode(source.path), ""
    file = remotes.file(address, "")
    return file.tree.root, "", os.fsdecode(file.path)
