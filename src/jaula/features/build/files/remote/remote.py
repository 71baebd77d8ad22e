"""Fetch the remote sources of a build, each into its own directory."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache

import msgspec

from jaula.errors import InvalidRequest
from jaula.features.build.files.copied_directory import DirectorySource
from jaula.features.build.files.remote import git_url
from jaula.features.build.files.remote.git import TREE, GitRepositories, without_git
from jaula.features.build.files.remote.http_download import Downloads
from jaula.features.build.files.source_archives import File, Tree
from jaula.storage.trees import DIRECTORY_FLAGS

_PREFIX = "sha256:"


class RemoteSources:
    """A context manager that closes its descriptors. The files stay in ``directory``, a descriptor.

    The caller removes that directory with the build. ``downloads`` and ``repositories`` create the
    transports at the first remote source: most builds have none.
    """

    def __init__(
        self,
        directory: int,
        downloads: Callable[[], Downloads],
        repositories: Callable[[], GitRepositories],
    ) -> None:
        self._directory = directory
        self._downloads = cache(downloads)
        self._repositories = cache(repositories)
        self._open: list[int] = []
        self.fetched: dict[str, str] = {}
        """The digest of each source that was fetched, by its address: ``sha256:`` or ``sha1:``."""

    def __enter__(self) -> RemoteSources:
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            os.close(self._open.pop())

    def file(self, url: str, checksum: str) -> File:
        """Fetch a file. It is readable only for its owner, as in Docker.

        :raises InvalidRequest: if its digest is not ``checksum`` (``sha256:...``, or '').
        """
        if checksum:
            _check_checksum(checksum)
        tree = self._new(url)
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
        target = os.open("file", flags, 0o600, dir_fd=tree.root)
        try:
            download = self._downloads().fetch(url, target)
            if checksum and download.digest != checksum:
                raise InvalidRequest(
                    f"{url} has the digest {download.digest}, but {checksum} was requested"
                )
            self.fetched[url] = download.digest
            time = download.mtime
            if time is not None:
                os.utime(target, (time, time))
        finally:
            os.close(target)
        return File(tree, b"file", os.fsencode(download.name))

    def repository(self, url: str, checksum: str, *, keep_git_dir: bool) -> DirectorySource:
        """Fetch a commit of a repository, or one directory of it."""
        address = git_url.parse(url)
        if checksum:
            address = msgspec.structs.replace(address, commit=checksum)
        checkout = self._new(url)
        commit = self._repositories().check_out(address, checkout.root)
        self.fetched[url] = f"{'sha256' if len(commit) == 64 else 'sha1'}:{commit}"
        root = os.open(TREE, DIRECTORY_FLAGS, dir_fd=checkout.root)
        self._open.append(root)
        keep = None if keep_git_dir else without_git
        return DirectorySource(Tree(root, url), os.fsencode(address.subdir), keep)

    def _new(self, url: str) -> Tree:
        name = f"fetched-{len(self._open)}"
        os.mkdir(name, 0o700, dir_fd=self._directory)
        descriptor = os.open(name, DIRECTORY_FLAGS, dir_fd=self._directory)
        self._open.append(descriptor)
        return Tree(descriptor, url)


def _check_checksum(checksum: str) -> None:
    digits = checksum.removeprefix(_PREFIX)
    has_form = checksum.startswith(_PREFIX) and len(digits) == 64
    if not has_form or not set(digits) <= set("0123456789abcdef"):
        raise InvalidRequest(
            f"--checksum {checksum[:100]!r} is not a digest", hint="use sha256:HEX"
        )
