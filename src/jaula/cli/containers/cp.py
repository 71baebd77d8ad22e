"""``jaula cp``: what is copied where, and the archives that carry it.

Follows docker's reference page ``docker container cp``: whether the destination is there and is a
directory decides if it is copied into, replaced or made. Both directions are decided by one
function over what is known of both ends.

What comes from a container is hostile: it is unpacked as in a container
(:mod:`jaula.storage.cp.extract_archive`), with links followed inside the destination only and, without ``-a``,
without set-user-ID bits and file capabilities.
"""

from __future__ import annotations

import os
import stat

from jaula.cli.client.client import Client, checked, quote, target
from jaula.cli.errors import CliError, EngineError, Unreachable
from jaula.spec import fast_json as documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from jaula.cli.client.http import Connection, Response
    from jaula.storage.tar.entry import TarEntry
    from jaula.storage.tar.reader import TarReader

_DIRECTORY = 1 << 31  # Go's fs.ModeDir
_LINK = 1 << 27


class CopyEndpoint:
    """One end of a copy: its path, and what is there."""

    def __init__(self, path: str, *, exists: bool, directory: bool) -> None:
        self.path = path
        self.exists = exists
        self.directory = directory

    @property
    def contents(self) -> bool:
        """Whether the path asks for what is in a directory instead of the directory."""
        return self.path == "." or self.path.endswith("/.")

    @property
    def wants_directory(self) -> bool:
        return self.contents or self.path.endswith("/")


def decide(source: CopyEndpoint, destination: CopyEndpoint) -> tuple[str, str]:
    """The directory to unpack in, and the new name of what is unpacked (empty: as it is).

    Raises Failure where the two do not fit.
    """
    path = destination.path
    if destination.exists:
        if destination.directory:
            return path, ""
        if source.directory:
            raise CliError(f"cannot copy a directory to {path}, which is a file")
        if destination.wants_directory:
            raise CliError(f"{path} is not a directory")
    elif destination.wants_directory and not source.directory:
        raise CliError(f"destination directory {path} must exist")
    bare = path.rstrip("/")
    if bare.endswith("/."):
        bare = bare[:-2].rstrip("/")
    directory, _, name = bare.rpartition("/")
    if "/" in bare:
        return directory or "/", name
    return ".", name


def split(text: str) -> tuple[str, str]:
    """``CONTAINER:PATH``; the container is empty for a path of this machine."""
    if text.startswith("/"):
        return "", text
    container, colon, path = text.partition(":")
    if not colon or container.startswith("."):
        return "", text
    return container, path


# -- the container's end ---------------------------------------------------------------------------


def look(client: Client, container: str, path: str) -> dict[str, Any] | None:
    """What the engine says of a path; None where nothing is there."""
    connection = client.connection()
    place = f"/containers/{quote(container)}/archive"
    connection.send("HEAD", target(place, (("path", path),)))
    response = connection.response()
    connection.close()  # whether an answer to HEAD has a body is not for its head to say
    if response.status < 400:
        return described(response)
    try:  # the reason is in the body of the same question, asked with GET
        client.request("GET", place, (("path", path),))
    except EngineError as error:
        if not error.reason.startswith("Could not find the file"):
            raise
    return None


def described(response: Response) -> dict[str, Any]:
    """The document that comes beside an archive."""
    from binascii import a2b_base64

    text = response.headers.get("x-docker-container-path-stat", "")
    found: dict[str, Any] = documents.decode(a2b_base64(text))
    return found


def followed(client: Client, container: str, path: str) -> tuple[str, dict[str, Any] | None]:
    """The path after its last link, and what is there."""
    found = look(client, container, path)
    if found is not None and found["mode"] & _LINK:
        path = os.path.join(os.path.dirname(path), found["linkTarget"])
        found = look(client, container, path)
    return path, found


def is_directory(found: dict[str, Any]) -> bool:
    """Whether the engine has told of a directory."""
    return bool(found["mode"] & _DIRECTORY)


# -- to a container --------------------------------------------------------------------------------


class Upload:
    """A PUT whose body is written as it is made. An early answer ends the writing."""

    def __init__(self, client: Client, container: str, path: str, *, archive: bool) -> None:
        query = (
            ("path", path),
            ("noOverwriteDirNonDir", "true"),
            ("copyUIDGID", "true" if archive else ""),
        )
        self._connection: Connection = client.connection()
        self.size = 0
        where = target(f"/containers/{quote(container)}/archive", query)
        headers = (("Content-Type", "application/x-tar"), ("Transfer-Encoding", "chunked"))
        self._connection.send("PUT", where, None, headers)

    def write(self, data: bytes) -> None:
        self.size += len(data)
        self._connection.send_raw(b"%x\r\n%s\r\n" % (len(data), data))

    def end(self) -> None:
        """Wait for the engine's verdict."""
        try:
            self._connection.send_raw(b"0\r\n\r\n")
        except Unreachable:
            self._connection.reusable = False  # a refusal may be waiting to be read
        self.verdict()

    def verdict(self) -> None:
        checked(self._connection.response()).read()
        self._connection.close()


def upload(
    client: Client, container: str, source: str, path: str, *, archive: bool, follow: bool
) -> int:
    """Copy a path of this machine; the number of bytes sent."""
    from jaula.storage.cp.create_archive import ArchiveWriter

    whole = source.rstrip("/") or "/"
    flags = os.O_PATH | os.O_CLOEXEC
    if not follow and source == whole:
        flags |= os.O_NOFOLLOW
    try:
        place = os.open(whole, flags)
    except OSError as error:
        raise CliError(f"{source}: {(error.strerror or '').lower()}") from None
    try:
        here = CopyEndpoint(source, exists=True, directory=stat.S_ISDIR(os.fstat(place).st_mode))
        if here.wants_directory and not here.directory:
            raise CliError(f"{source} is not a directory")
        path, found = followed(client, container, path)
        there = CopyEndpoint(
            path, exists=found is not None, directory=bool(found and is_directory(found))
        )
        directory, renamed = decide(here, there)
        name = renamed or ("." if here.contents else os.path.basename(os.path.abspath(whole)))
        sending = Upload(client, container, directory, archive=archive)
        pieces = _Pieces(sending)
        try:
            ArchiveWriter(pieces.add).write(place, name)
            pieces.flush()
        except Unreachable:
            sending.verdict()
            raise
        sending.end()
        return sending.size
    finally:
        os.close(place)


def send_archive(client: Client, container: str, path: str, *, archive: bool) -> int:
    """Unpack an archive from standard input."""
    path, found = followed(client, container, path)
    if found is None or not is_directory(found):
        raise CliError(f'destination "{container}:{path}" must be a directory')
    sending = Upload(client, container, path, archive=archive)
    try:
        while piece := os.read(0, 1 << 18):
            sending.write(piece)
    except Unreachable:
        sending.verdict()
        raise
    sending.end()
    return sending.size


class _Pieces:
    """Few large chunks instead of one for each header."""

    def __init__(self, sending: Upload) -> None:
        self._sending = sending
        self._held = bytearray()

    def add(self, data: bytes | memoryview) -> None:
        self._held += data
        if len(self._held) >= 1 << 18:
            self.flush()

    def flush(self) -> None:
        if self._held:
            self._sending.write(bytes(self._held))
            self._held = bytearray()


# -- from a container ------------------------------------------------------------------------------


def fetch(client: Client, container: str, path: str, *, follow: bool) -> Response:
    """The archive of a path, and what is there."""
    if follow:
        path, _ = followed(client, container, path)
    return client.open("GET", f"/containers/{quote(container)}/archive", (("path", path),))


def download(
    client: Client, container: str, path: str, destination: str, *, archive: bool, follow: bool
) -> int:
    """Copy to a path of this machine; the number of bytes received."""
    from jaula.storage.cp.extract_archive import ArchiveExtractor
    from jaula.storage.tar.reader import TarReader

    response = fetch(client, container, path, follow=follow)
    found = described(response)
    source = CopyEndpoint(path, exists=True, directory=is_directory(found))
    there = CopyEndpoint(
        destination, exists=os.path.lexists(destination), directory=os.path.isdir(destination)
    )
    directory, renamed = decide(source, there)
    try:
        root = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise CliError(f"{directory}: {(error.strerror or '').lower()}") from None
    body = TarBody(response.chunks())
    owns = archive and os.geteuid() == 0
    try:
        ArchiveExtractor(
            root,
            "/",
            owner=(lambda uid, gid: (uid, gid)) if owns else None,
            keep_kinds=True,
            privileges=owns,
        ).run(RenamedMembers(TarReader(body), found["name"], renamed))
    finally:
        os.close(root)
    return body.size


class RenamedMembers:
    """An archive whose topmost name is another."""

    def __init__(self, reader: TarReader, old: str, new: str) -> None:
        self._reader = reader
        self._old = os.fsencode(old)
        self._new = os.fsencode(new)

    def __iter__(self) -> Iterator[TarEntry]:
        for entry in self._reader:
            if self._new:
                entry.name = self._other(entry.name)
                if entry.type == ord("1"):
                    entry.link = self._other(entry.link)
            yield entry

    def data(self) -> Iterator[memoryview]:
        return self._reader.data()

    def _other(self, name: bytes) -> bytes:
        if name == self._old or name.startswith(self._old.rstrip(b"/") + b"/"):
            rest = name[len(self._old.rstrip(b"/")) :]
            return self._new + rest
        return self._new + b"/" + name


class TarBody:
    """The pieces of an answer as a file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._held = b""
        self.size = 0

    def readinto(self, buffer: memoryview, /) -> int:
        if not self._held:
            self._held = next(self._pieces, b"")
            self.size += len(self._held)
        piece, self._held = self._held[: len(buffer)], self._held[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)
