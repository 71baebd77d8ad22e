"""``jaula cp``: the target of a copy, and the archives that carry it.

Follows docker's reference page ``docker container cp``: whether the destination exists and is a
directory decides if it is copied into, replaced or created. One function decides for both
directions.

The contents of a container are untrusted. They are unpacked as in a container
(:mod:`jaula.storage.cp.extract_archive`): links are followed inside the destination only and,
without ``-a``, set-user-ID bits and file capabilities are dropped.
"""

from __future__ import annotations

import os
import stat

from jaula.cli.cli_errors import CliError, EngineError, Unreachable
from jaula.cli.client.api_client import Client, checked, quote, target
from jaula.spec import fast_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from jaula.cli.client.http_client import Connection, Response
    from jaula.cli.output.progress_line import Progress
    from jaula.storage.tar.tar_entry import TarEntry
    from jaula.storage.tar.tar_reader import TarReader

_DIRECTORY = 1 << 31  # Go's fs.ModeDir
_LINK = 1 << 27  # Go's fs.ModeSymlink


class CopyEndpoint:
    """One end of a copy: its path, whether it exists and whether it is a directory."""

    def __init__(self, path: str, *, exists: bool, directory: bool) -> None:
        self.path = path
        self.exists = exists
        self.directory = directory

    @property
    def contents(self) -> bool:
        """Return whether the path ends in ``/.``: the contents of the directory, not itself."""
        return self.path == "." or self.path.endswith("/.")

    @property
    def must_be_directory(self) -> bool:
        return self.contents or self.path.endswith("/")


def resolve_target(source: CopyEndpoint, destination: CopyEndpoint) -> tuple[str, str]:
    """Return the directory to unpack in, and the new name of the copy (empty: unchanged).

    :raises CliError: when source and destination do not fit.
    """
    path = destination.path
    if destination.exists:
        if destination.directory:
            return path, ""
        if source.directory:
            raise CliError(f"cannot copy a directory to {path}, which is a file")
        if destination.must_be_directory:
            raise CliError(f"{path} is not a directory")
    elif destination.must_be_directory and not source.directory:
        raise CliError(f"destination directory {path} must exist")
    bare = path.rstrip("/")
    if bare.endswith("/."):
        bare = bare[:-2].rstrip("/")
    directory, _, name = bare.rpartition("/")
    if "/" in bare:
        return directory or "/", name
    return ".", name


def split_argument(text: str) -> tuple[str, str]:
    """Split ``CONTAINER:PATH``. The container is empty for a local path."""
    if text.startswith("/"):
        return "", text
    container, colon, path = text.partition(":")
    if not colon or container.startswith("."):
        return "", text
    return container, path


# -- paths in the container ------------------------------------------------------------------------


def stat_path(client: Client, container: str, path: str) -> dict[str, Any] | None:
    """Return the engine's stat document of a path, or None if the path does not exist."""
    connection = client.connection()
    route = f"/containers/{quote(container)}/archive"
    connection.send("HEAD", target(route, (("path", path),)))
    response = connection.response()
    connection.close()  # it is unknown whether the answer to HEAD has a body
    if response.status < 400:
        return path_stat(response)
    try:  # the error message is in the body of the same request with GET
        client.request("GET", route, (("path", path),))
    except EngineError as error:
        if not error.reason.startswith("Could not find the file"):
            raise
    return None


def path_stat(response: Response) -> dict[str, Any]:
    """Return the stat document in the headers of an archive response."""
    from binascii import a2b_base64

    text = response.headers.get("x-docker-container-path-stat", "")
    document: dict[str, Any] = fast_json.decode(a2b_base64(text))
    return document


def follow_link(client: Client, container: str, path: str) -> tuple[str, dict[str, Any] | None]:
    """Follow a symbolic link at ``path`` and return the path with its stat document."""
    status = stat_path(client, container, path)
    if status is not None and status["mode"] & _LINK:
        path = os.path.join(os.path.dirname(path), status["linkTarget"])
        status = stat_path(client, container, path)
    return path, status


def is_directory(status: dict[str, Any]) -> bool:
    """Return whether a stat document is of a directory."""
    return bool(status["mode"] & _DIRECTORY)


# -- to a container --------------------------------------------------------------------------------


class Upload:
    """A PUT whose body is written piece by piece. An early answer ends the upload."""

    def __init__(
        self, client: Client, container: str, path: str, *, archive: bool, progress: Progress
    ) -> None:
        self._progress = progress
        query = (
            ("path", path),
            ("noOverwriteDirNonDir", "true"),
            ("copyUIDGID", "true" if archive else ""),
        )
        self._connection: Connection = client.connection()
        self.size = 0
        request_target = target(f"/containers/{quote(container)}/archive", query)
        headers = (("Content-Type", "application/x-tar"), ("Transfer-Encoding", "chunked"))
        self._connection.send("PUT", request_target, None, headers)

    def write(self, data: bytes) -> None:
        self.size += len(data)
        self._progress.add(len(data))
        self._connection.send_raw(b"%x\r\n%s\r\n" % (len(data), data))

    def end(self) -> None:
        """End the body and read the engine's answer.

        :raises EngineError: when the engine refused.
        """
        try:
            self._connection.send_raw(b"0\r\n\r\n")
        except Unreachable:
            self._connection.reusable = False  # the engine's error answer may be unread
        self.read_answer()

    def read_answer(self) -> None:
        checked(self._connection.response()).read()
        self._connection.close()


def upload(
    client: Client,
    container: str,
    source: str,
    path: str,
    *,
    archive: bool,
    follow: bool,
    progress: Progress,
) -> int:
    """Copy a local path into a container and return the number of bytes sent.

    :raises CliError: when the path cannot be read or does not fit the destination.
    """
    from jaula.storage.cp.create_archive import ArchiveWriter

    source_path = source.rstrip("/") or "/"
    flags = os.O_PATH | os.O_CLOEXEC
    if not follow and source == source_path:
        flags |= os.O_NOFOLLOW
    try:
        descriptor = os.open(source_path, flags)
    except OSError as error:
        raise CliError(f"{source}: {(error.strerror or '').lower()}") from None
    try:
        local = CopyEndpoint(
            source, exists=True, directory=stat.S_ISDIR(os.fstat(descriptor).st_mode)
        )
        if local.must_be_directory and not local.directory:
            raise CliError(f"{source} is not a directory")
        path, status = follow_link(client, container, path)
        remote = CopyEndpoint(
            path,
            exists=status is not None,
            directory=bool(status and is_directory(status)),
        )
        directory, renamed = resolve_target(local, remote)
        name = renamed or (
            "." if local.contents else os.path.basename(os.path.abspath(source_path))
        )
        request = Upload(client, container, directory, archive=archive, progress=progress)
        buffer = _ChunkBuffer(request)
        try:
            ArchiveWriter(buffer.add).write(descriptor, name)
            buffer.flush()
        except Unreachable:
            request.read_answer()
            raise
        request.end()
        return request.size
    finally:
        os.close(descriptor)


def send_archive(
    client: Client, container: str, path: str, *, archive: bool, progress: Progress
) -> int:
    """Unpack a tar from standard input in a directory of a container; return its size in bytes.

    :raises CliError: when the destination is not a directory.
    """
    path, status = follow_link(client, container, path)
    if status is None or not is_directory(status):
        raise CliError(f'destination "{container}:{path}" must be a directory')
    request = Upload(client, container, path, archive=archive, progress=progress)
    try:
        while chunk := os.read(0, 1 << 18):
            request.write(chunk)
    except Unreachable:
        request.read_answer()
        raise
    request.end()
    return request.size


class _ChunkBuffer:
    """Collects few large chunks instead of one for each tar header."""

    def __init__(self, request: Upload) -> None:
        self._request = request
        self._buffer = bytearray()

    def add(self, data: bytes | memoryview) -> None:
        self._buffer += data
        if len(self._buffer) >= 1 << 18:
            self.flush()

    def flush(self) -> None:
        if self._buffer:
            self._request.write(bytes(self._buffer))
            self._buffer = bytearray()


# -- from a container ------------------------------------------------------------------------------


def fetch(client: Client, container: str, path: str, *, follow: bool) -> Response:
    """Request the archive of a path in a container."""
    if follow:
        path, _ = follow_link(client, container, path)
    return client.open("GET", f"/containers/{quote(container)}/archive", (("path", path),))


def download(
    client: Client,
    container: str,
    path: str,
    destination: str,
    *,
    archive: bool,
    follow: bool,
    progress: Progress,
) -> int:
    """Copy a path of a container to a local path and return the number of bytes received.

    :raises CliError: when the destination cannot be opened or does not fit.
    """
    from jaula.storage.cp.extract_archive import ArchiveExtractor
    from jaula.storage.tar.tar_reader import TarReader

    response = fetch(client, container, path, follow=follow)
    status = path_stat(response)
    source = CopyEndpoint(path, exists=True, directory=is_directory(status))
    local = CopyEndpoint(
        destination, exists=os.path.lexists(destination), directory=os.path.isdir(destination)
    )
    directory, renamed = resolve_target(source, local)
    try:
        root = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise CliError(f"{directory}: {(error.strerror or '').lower()}") from None
    body = TarBody(progress.counted(response.chunks()))
    owns = archive and os.geteuid() == 0
    try:
        ArchiveExtractor(
            root,
            "/",
            owner=(lambda uid, gid: (uid, gid)) if owns else None,
            keep_kinds=True,
            privileges=owns,
        ).run(RenamedMembers(TarReader(body), status["name"], renamed))
    finally:
        os.close(root)
    return body.size


class RenamedMembers:
    """An archive whose topmost name is replaced."""

    def __init__(self, reader: TarReader, old: str, new: str) -> None:
        self._reader = reader
        self._old = os.fsencode(old)
        self._new = os.fsencode(new)

    def __iter__(self) -> Iterator[TarEntry]:
        for entry in self._reader:
            if self._new:
                entry.name = self._renamed(entry.name)
                if entry.type == ord("1"):
                    entry.link = self._renamed(entry.link)
            yield entry

    def data(self) -> Iterator[memoryview]:
        return self._reader.data()

    def _renamed(self, name: bytes) -> bytes:
        if name == self._old or name.startswith(self._old.rstrip(b"/") + b"/"):
            rest = name[len(self._old.rstrip(b"/")) :]
            return self._new + rest
        return self._new + b"/" + name


class TarBody:
    """The pieces of a response as a readable file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._buffer = b""
        self.size = 0

    def readinto(self, buffer: memoryview, /) -> int:
        if not self._buffer:
            self._buffer = next(self._chunks, b"")
            self.size += len(self._buffer)
        chunk, self._buffer = self._buffer[: len(buffer)], self._buffer[len(buffer) :]
        buffer[: len(chunk)] = chunk
        return len(chunk)
