"""``--output``: export the result of a build.

Follows docker's reference page ``docker buildx build --output``. ``local`` writes the root file
system into a directory, ``tar`` into a tar. ``oci`` and ``docker`` write the image into an archive,
which is an OCI layout and a Docker archive at once. Without an output, and with ``image``, the
image stays in the engine under its names.

The files of an image are untrusted. They are unpacked as in ``cp``: no path leads out of the
directory, and all files belong to the user, without set-user-ID bits. Device nodes are left out.
"""

from __future__ import annotations

import os
import sys

from jaula.cli.cli_errors import CliError, EngineError, UsageError
from jaula.cli.client.api_client import quote
from jaula.cli.images import image_archive
from jaula.features.build.cli.build_secrets import parse_fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from jaula.cli.client.api_client import Client
    from jaula.storage.tar.tar_entry import TarEntry
    from jaula.storage.tar.tar_reader import TarReader

_KINDS = ("local", "tar", "oci", "docker", "image")
_KEYS = ("type", "dest", "name", "tar", "push", "compression", "force-compression")


class Output:
    """One output. ``destination`` is a path, ``-`` for standard output, or empty."""

    def __init__(self, kind: str, destination: str = "", names: Sequence[str] = ()) -> None:
        self.kind = kind
        self.destination = destination
        self.names = tuple(names)

    @property
    def keeps_image(self) -> bool:
        """Return whether the image itself stays in the engine."""
        return self.kind == "image" or (self.kind == "docker" and not self.destination)

    def check(self) -> None:
        """Check the destination before the build.

        :raises CliError: when it cannot be written.
        """
        path = self.destination
        if self.kind == "local" and os.path.exists(path) and not os.path.isdir(path):
            raise CliError(f"destination {path} is not a directory")
        if self.kind in ("tar", "oci", "docker"):
            if path == "-" and sys.stdout.isatty():
                raise CliError("cowardly refusing to write an archive to a terminal: use dest=FILE")
            if os.path.isdir(path):
                raise CliError(
                    f"destination {path} is a directory, and type={self.kind} writes a file"
                )


def parse(word: str) -> Output:
    """Parse one ``--output``.

    :raises UsageError: when it is invalid.
    """
    if "=" not in word:
        return Output("tar", "-") if word == "-" else Output("local", word)
    values = parse_fields(word, "output", _KEYS)
    kind, destination = values.get("type", ""), values.get("dest", "")
    if kind not in _KINDS:
        raise UsageError(
            f'invalid argument "{word}" for "--output" flag: '
            f"type must be one of {', '.join(_KINDS)}"
        )
    if values.get("push", "false") not in ("false", "0"):
        raise UsageError("push=true is not supported: push the image with 'jaula push NAME'")
    compression = values.get("compression", "uncompressed")
    if compression != "uncompressed":
        raise UsageError(
            f"compression={compression} is not supported: push the image with "
            f"'jaula push --compression {compression} NAME', or build with docker buildx"
        )
    if kind == "local" and destination in ("", "-"):
        raise UsageError(
            f'invalid argument "{word}" for "--output" flag: dest=DIRECTORY is required'
        )
    if kind in ("tar", "oci") and not destination:
        destination = "-"
    names = [name for name in values.get("name", "").split(",") if name]
    return Output(kind, destination, names)


def write(client: Client, output: Output, image: str, names: Sequence[str]) -> None:
    """Write the image to an output.

    :raises CliError: when the file or directory cannot be written.
    """
    if output.keeps_image:
        return
    if output.kind in ("oci", "docker"):
        query = [("names", name) for name in names or (image,)]
        chunks = client.open("GET", "/images/get", query).chunks()
        image_archive.write(chunks, output.destination, "write the image")
        return
    container = _container(client, image)
    try:
        chunks = client.open("GET", f"/containers/{container}/export").chunks()
        if output.kind == "tar":
            image_archive.write(chunks, output.destination, "write the tar")
        else:
            _unpack(chunks, output.destination)
    finally:
        client.request("DELETE", f"/containers/{container}", (("force", True),))


def _container(client: Client, image: str) -> str:
    """Create a container that is never started; its file system is the image's. Return its id."""
    body = {"Image": image, "Cmd": ["none"], "NetworkDisabled": True}
    created: dict[str, Any] = client.document("POST", "/containers/create", (), body)
    return str(created["Id"])


def _unpack(chunks: Iterator[bytes], directory: str) -> None:
    from jaula.cli.containers.copy_target import TarBody
    from jaula.errors import JaulaError
    from jaula.storage.cp.extract_archive import ArchiveExtractor
    from jaula.storage.tar.tar_reader import TarReader

    try:
        os.makedirs(directory, exist_ok=True)
        root = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise CliError(f"{directory}: {(error.strerror or '').lower()}") from None
    try:
        ArchiveExtractor(root, "/", privileges=False).run(
            _WithoutDevices(TarReader(TarBody(chunks)))
        )
    except JaulaError as error:
        raise CliError(str(error)) from None
    finally:
        os.close(root)


class _WithoutDevices:
    """An archive without its device nodes."""

    def __init__(self, reader: TarReader) -> None:
        self._reader = reader

    def __iter__(self) -> Iterator[TarEntry]:
        for entry in self._reader:
            if entry.type not in b"34":
                yield entry

    def data(self) -> Iterator[memoryview]:
        return self._reader.data()


def remove_unnamed(client: Client, image: str, since: float) -> None:
    """Remove an untagged image that a build created only for its output.

    ``since`` is the start of the build in Unix seconds: an older image is not removed.
    """
    from jaula.spec.units import unix_time

    try:
        document = client.get(f"/images/{quote(image)}/json")
        if not document.get("RepoTags") and unix_time(document.get("Created", "")) >= int(since):
            # Another client may give it a name meanwhile.
            client.request("DELETE", f"/images/{quote(image)}", (("unnamed", True),))
    except EngineError as error:
        if error.code not in (404, 409):
            raise
