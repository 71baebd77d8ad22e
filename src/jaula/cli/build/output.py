"""``--output``: what is made of the image that was built.

Follows docker's reference page ``docker buildx build --output``: ``local`` writes the root file
system into a directory, ``tar`` into a tar, ``oci`` and ``docker`` the image into an archive (which
is an OCI layout and Docker's at once); without any, and with ``image``, it stays with the engine
under its names.

What comes from an image is hostile. It is unpacked as in ``cp``: nothing leads out of the directory
and everything is the caller's, without set-user-ID bits; device nodes are left out.
"""

from __future__ import annotations

import os
import sys

from jaula.cli.build.secrets import fields
from jaula.cli.client.client import quote
from jaula.cli.errors import CliError, EngineError, UsageError
from jaula.cli.images import save

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from jaula.cli.client.client import Client
    from jaula.storage.tar.entry import TarEntry
    from jaula.storage.tar.reader import TarReader

_KINDS = ("local", "tar", "oci", "docker", "image")
_KEYS = ("type", "dest", "name", "tar", "push", "compression", "force-compression")


class Output:
    """``destination`` is a path, ``-`` for standard output, '' for none."""

    def __init__(self, kind: str, destination: str = "", names: Sequence[str] = ()) -> None:
        self.kind = kind
        self.destination = destination
        self.names = tuple(names)

    @property
    def keeps_image(self) -> bool:
        """Whether the image itself stays with the engine."""
        return self.kind == "image" or (self.kind == "docker" and not self.destination)

    def check(self) -> None:
        """Raise Failure where it cannot be written, before anything is built."""
        place = self.destination
        if self.kind == "local" and os.path.exists(place) and not os.path.isdir(place):
            raise CliError(f"destination {place} is not a directory")
        if self.kind in ("tar", "oci", "docker"):
            if place == "-" and sys.stdout.isatty():
                raise CliError("cowardly refusing to write an archive to a terminal: dest=FILE")
            if os.path.isdir(place):
                raise CliError(f"destination {place} is a directory, and {self.kind} is a file")


def parse(word: str) -> Output:
    """Read one ``--output``. Raises UsageError."""
    if "=" not in word:
        return Output("tar", "-") if word == "-" else Output("local", word)
    given = fields(word, "output", _KEYS)
    kind, destination = given.get("type", ""), given.get("dest", "")
    if kind not in _KINDS:
        raise UsageError(
            f'invalid argument "{word}" for "--output" flag: type is one of {", ".join(_KINDS)}'
        )
    if given.get("push", "false") not in ("false", "0"):
        raise UsageError("an image is pushed with: jaula push NAME")
    if kind == "local" and destination in ("", "-"):
        raise UsageError(f'invalid argument "{word}" for "--output" flag: dest=DIRECTORY is wanted')
    if kind in ("tar", "oci") and not destination:
        destination = "-"
    names = [name for name in given.get("name", "").split(",") if name]
    return Output(kind, destination, names)


def write(client: Client, output: Output, image: str, names: Sequence[str]) -> None:
    """Write the image. Raises Failure."""
    if output.keeps_image:
        return
    if output.kind in ("oci", "docker"):
        query = [("names", name) for name in names or (image,)]
        pieces = client.open("GET", "/images/get", query).chunks()
        save.write(pieces, output.destination, "write the image")
        return
    container = _container(client, image)
    try:
        pieces = client.open("GET", f"/containers/{container}/export").chunks()
        if output.kind == "tar":
            save.write(pieces, output.destination, "write the tar")
        else:
            _unpack(pieces, output.destination)
    finally:
        client.request("DELETE", f"/containers/{container}", (("force", True),))


def _container(client: Client, image: str) -> str:
    """A container that is never started: its files are the image's."""
    body = {"Image": image, "Cmd": ["none"], "NetworkDisabled": True}
    made: dict[str, Any] = client.document("POST", "/containers/create", (), body)
    return str(made["Id"])


def _unpack(pieces: Iterator[bytes], directory: str) -> None:
    from jaula.cli.containers.cp import TarBody
    from jaula.errors import JaulaError
    from jaula.storage.cp.extract_archive import ArchiveExtractor
    from jaula.storage.tar.reader import TarReader

    try:
        os.makedirs(directory, exist_ok=True)
        root = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise CliError(f"{directory}: {(error.strerror or '').lower()}") from None
    try:
        ArchiveExtractor(root, "/", privileges=False).run(_Files(TarReader(TarBody(pieces))))
    except JaulaError as error:
        raise CliError(str(error)) from None
    finally:
        os.close(root)


class _Files:
    """An archive without its device nodes."""

    def __init__(self, reader: TarReader) -> None:
        self._reader = reader

    def __iter__(self) -> Iterator[TarEntry]:
        for entry in self._reader:
            if entry.type not in b"34":
                yield entry

    def data(self) -> Iterator[memoryview]:
        return self._reader.data()


def forget(client: Client, image: str, since: float) -> None:
    """Remove an image without a name that a build has made only for its output."""
    from jaula.spec.units import unix_time

    try:
        found = client.get(f"/images/{quote(image)}/json")
        if not found.get("RepoTags") and unix_time(found.get("Created", "")) >= int(since):
            client.request("DELETE", f"/images/{quote(image)}")
    except EngineError as error:
        if error.code not in (404, 409):
            raise
