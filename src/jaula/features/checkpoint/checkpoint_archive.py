"""Checkpoints as tar archives: write one from the store, and read one that is hostile input.

The members, in this order. The names are podman's (``podman container checkpoint --export``) as far
as it has them; Kubernetes uses the same::

    manifest.json        the facts about the checkpoint, and the digest of every file
    manifest.mac         the MAC of the engine that wrote it
    manifest.sig         a signature over the bytes of manifest.json in base64 (optional)
    config.dump          the container, in podman's words; for other programs
    network.status       its addresses; for other programs
    stats-dump           the times and sizes of the dump; for other programs (optional)
    container.log        its log; for other programs (optional)
    spec.dump            the OCI spec of the container
    checkpoint/          the files of CRIU
    rootfs-diff.tar      the changes of the root as the tar of a layer (optional)
    devshm-checkpoint.tar  the files of a shared /dev/shm (optional)
    volumes/NAME.tar     the files of a volume (optional)

A reader gets the first three (:meth:`ArchiveReader.head`) and decides whether it trusts the
manifest. No other byte is used before. :meth:`ArchiveReader.extract` then accepts exactly the
members that the manifest names, with their sizes and digests.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import msgspec

from jaula.errors import InvalidRequest, JaulaError, resource_error
from jaula.features.checkpoint.checkpoint_store import (
    FILES,
    IMAGES,
    MAC,
    MANIFEST,
    MAX_MANIFEST,
    ROOT_TAR,
    SHM_TAR,
    SPEC,
    CheckpointFile,
    Manifest,
)
from jaula.kernel.openat2 import RESOLVE, openat2
from jaula.storage import free_space
from jaula.storage.tar.sandboxed import TarParser
from jaula.storage.tar.tar_entry import DIRECTORY, REGULAR, quote_name
from jaula.storage.tar.tar_reader import Limits
from jaula.storage.tar.tar_writer import TarWriter, new_entry
from jaula.storage.trees import write_sparse

if TYPE_CHECKING:
    from jaula.storage.tar.tar_entry import TarEntry
    from jaula.storage.tar.tar_reader import Stream
    from jaula.storage.tar.tar_writer import Sink

SIGNATURE = "manifest.sig"
_CONFIG = "config.dump"
_NETWORK = "network.status"
STATISTICS = "stats-dump"
_LOG = "container.log"
_CHECKPOINT = "checkpoint"
_VOLUMES = "volumes"
_MAX_SIGNATURE = 4096  # bytes
MAX_LOG = 16 << 20  # bytes
_INFORMATION = {_CONFIG: 1 << 20, _NETWORK: 1 << 20, STATISTICS: 1 << 20, _LOG: MAX_LOG}
"""Members that are read by other programs only, with their limits in bytes."""
_MAX_ENTRIES = 100_000
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_BENEATH = RESOLVE.BENEATH | RESOLVE.NO_SYMLINKS
_CHUNK = 1 << 20  # bytes


class ArchiveHead(NamedTuple):
    """The first members of an archive. ``signature`` is decoded, empty if there is none."""

    manifest: bytes
    mac: bytes
    signature: bytes


# -- write ---------------------------------------------------------------------------------------


def write(
    checkpoint: Path,
    manifest: Manifest,
    sink: Sink,
    *,
    signature: bytes = b"",
    log: bytes = b"",
) -> None:
    """Write the archive of a checkpoint whose files were verified.

    ``checkpoint`` is its directory in the store. ``signature`` is one over ``manifest.json``.
    ``log`` is the log of the container.

    :raises JaulaError: when a file cannot be read.
    :raises Unavailable: when the disk of the sink is full.
    """
    writer = TarWriter(sink)
    created = manifest.created // 1_000_000_000
    try:
        _add(writer, MANIFEST, (checkpoint / MANIFEST).read_bytes(), created)
        _add(writer, MAC, (checkpoint / MAC).read_bytes(), created)
        if signature:
            _add(writer, SIGNATURE, base64.b64encode(signature), created)
        _add(writer, _CONFIG, _config_dump(manifest), created)
        _add(writer, _NETWORK, _network_status(manifest), created)
        with contextlib.suppress(FileNotFoundError):
            _add(writer, STATISTICS, (checkpoint / STATISTICS).read_bytes(), created)
        if log:
            _add(writer, _LOG, log, created)
        writer.add(new_entry(_CHECKPOINT, DIRECTORY, mode=0o711, mtime=created))
        for name, (path, file) in _members(manifest).items():
            entry = new_entry(name, mode=0o600, size=file.size, mtime=created)
            writer.add(entry, _read(checkpoint / path))
        writer.finish()
    except (OSError, ValueError) as error:
        what = f"checkpoint {manifest.name} cannot be exported"
        failure = resource_error(error, what) if isinstance(error, OSError) else None
        raise failure or JaulaError(f"{what}: {error}") from error


def _add(writer: TarWriter, name: str, data: bytes, created: int) -> None:
    writer.add(new_entry(name, mode=0o600, size=len(data), mtime=created), [data])


def _members(manifest: Manifest) -> dict[str, tuple[str, CheckpointFile]]:
    """Return path in the store and facts of the files of an archive, by the name in it. Pure."""
    members = {SPEC: (SPEC, manifest.spec)} if manifest.spec is not None else {}
    for file in manifest.files:
        members[f"{_CHECKPOINT}/{file.name}"] = (f"{IMAGES}/{file.name}", file)
    if manifest.held is not None:
        names = {volume.file: f"{_VOLUMES}/{volume.name}.tar" for volume in manifest.held.volumes}
        for file in manifest.held.files:
            name = file.name if file.name in (ROOT_TAR, SHM_TAR) else names[file.name]
            members[name] = (f"{FILES}/{file.name}", file)
    return members


def _read(path: Path) -> Iterator[bytes]:
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        yield from _chunks(file)


def _config_dump(manifest: Manifest) -> bytes:
    """Return the members of podman's ``config.dump`` that programs such as checkpointctl read."""
    description = manifest.description
    image = description.image_id if description is not None else manifest.image
    document = {
        "id": manifest.container,
        "name": description.name if description is not None else "",
        "rootfsImageID": image.removeprefix("sha256:"),
        "rootfsImageName": description.body.image if description is not None else "",
        "rootfsImageRef": image,
        "runtime": "jaula-runtime",
        "createdTime": _rfc3339(manifest.created),
        "checkpointedTime": _rfc3339(manifest.created),
        "terminal": manifest.terminal,
    }
    return msgspec.json.format(msgspec.json.encode(document))


def _network_status(manifest: Manifest) -> bytes:
    """Return podman's ``network.status``: addresses and MAC of each network."""
    document = {
        each.network: {
            "interfaces": {
                f"eth{number}": {
                    "subnets": [
                        {"ipnet": address} for address in (each.ipv4, each.ipv6) if address
                    ],
                    "mac_address": each.mac,
                }
            }
        }
        for number, each in enumerate(manifest.addresses)
    }
    return msgspec.json.format(msgspec.json.encode(document))


def _rfc3339(nanoseconds: int) -> str:
    moment = datetime.fromtimestamp(nanoseconds // 1_000_000_000, UTC)
    return moment.isoformat().replace("+00:00", "Z")


# -- read ----------------------------------------------------------------------------------------


class ArchiveReader:
    """Reads one archive from a stream: :meth:`head` first, then :meth:`extract`."""

    def __init__(self, stream: Stream) -> None:
        self._parser = TarParser()
        try:
            limits = Limits(entries=_MAX_ENTRIES, path=512)
            self._reader = self._parser.stream(stream, limits=limits)
        except BaseException:
            self._parser.close()
            raise
        self._next: TarEntry | None = None

    def close(self) -> None:
        """End the process that parses it."""
        self._parser.close()

    def head(self) -> ArchiveHead:
        """Return manifest, MAC and signature. Nothing of them is verified.

        :raises InvalidRequest: when the archive does not begin with them.
        """
        data = self._read_member(MANIFEST, MAX_MANIFEST)
        mac = self._read_member(MAC, _MAX_SIGNATURE)
        signature = b""
        self._next = self._reader.next()
        if self._next is not None and self._next.name == SIGNATURE.encode():
            signature = _decode_signature(self._content(self._next, _MAX_SIGNATURE))
            self._next = self._reader.next()
        return ArchiveHead(data, mac, signature)

    def _read_member(self, name: str, limit: int) -> bytes:
        entry = self._reader.next()
        if entry is None or entry.name != name.encode():
            found = quote_name(entry.name) if entry is not None else "nothing"
            raise InvalidRequest(
                f"this is not the archive of a checkpoint: it has {found} in the place of {name}",
                hint="jaula checkpoint export writes such archives",
            )
        return self._content(entry, limit)

    def _content(self, entry: TarEntry, limit: int) -> bytes:
        _check_plain(entry)
        return self._reader.read(limit, entry.name.decode(errors="replace"))

    def extract(self, manifest: Manifest, checkpoint: Path) -> None:
        """Write the members that a trusted manifest names below a new directory of the store.

        :raises InvalidRequest: when a member is missing, added, twice there, or changed.
        :raises Unavailable: when the disk is full.
        """
        expected = _members(manifest)
        seen: set[str] = set()
        with _disk_errors():
            for directory in {path.rpartition("/")[0] for path, _ in expected.values()}:
                (checkpoint / directory).mkdir(mode=0o700, exist_ok=True)
        entry = self._next
        while entry is not None:
            name = os.fsdecode(entry.name).rstrip("/")
            if entry.type == DIRECTORY and name in (_CHECKPOINT, _VOLUMES):
                entry = self._reader.next()
                continue
            _check_plain(entry)
            if name in seen:
                raise InvalidRequest(f"the archive has {quote_name(entry.name)} twice")
            seen.add(name)
            if name in _INFORMATION:
                self._content(entry, _INFORMATION[name])
            elif name in expected:
                path, file = expected[name]
                _copy(name, entry.size, self._reader.data, checkpoint / path, file)
            else:
                raise InvalidRequest(
                    f"the archive has {quote_name(entry.name)}, which its manifest does not name"
                )
            entry = self._reader.next()
        if missing := sorted(expected.keys() - seen):
            raise InvalidRequest(f"the archive lacks {missing[0]}", hint="it may be truncated")


class TreeReader:
    """Reads an archive that was extracted: the layer of an image that carries a checkpoint."""

    def __init__(self, directory: int) -> None:
        """``directory`` is a descriptor of its root, which the caller closes."""
        self._directory = directory

    def close(self) -> None:
        """Do nothing: each file is closed when it was read."""

    def head(self) -> ArchiveHead:
        """Return manifest, MAC and signature. Nothing of them is verified.

        :raises InvalidRequest: when the directory has not all of them.
        """
        data, mac = self._read(MANIFEST, MAX_MANIFEST), self._read(MAC, _MAX_SIGNATURE)
        if data is None or mac is None:
            missing = MANIFEST if data is None else MAC
            raise InvalidRequest(
                f"the image carries no checkpoint of this engine: it has no {missing}",
                hint="build it from an archive of CheckpointContainer or checkpoint export",
            )
        signature = self._read(SIGNATURE, _MAX_SIGNATURE)
        return ArchiveHead(data, mac, _decode_signature(signature) if signature else b"")

    def _open(self, name: str) -> BinaryIO | None:
        """Open a plain file; return None if it is absent.

        :raises InvalidRequest: when it is another kind of file.
        """
        try:
            fd = openat2(self._directory, name, _OPEN, resolve=_BENEATH)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InvalidRequest(f"{name!r} of the image: {error.strerror}") from None
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise InvalidRequest(f"{name!r} of the image is not a plain file")
        return open(fd, "rb")

    def _read(self, name: str, limit: int) -> bytes | None:
        file = self._open(name)
        if file is None:
            return None
        with file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise InvalidRequest(f"{name!r} of the image has more than {limit} bytes")
        return data

    def extract(self, manifest: Manifest, checkpoint: Path) -> None:
        """Copy the files that a trusted manifest names below a new directory of the store.

        :raises InvalidRequest: when a file is missing or was changed.
        :raises Unavailable: when the disk is full.
        """
        for name, (path, member) in _members(manifest).items():
            with _disk_errors():
                (checkpoint / path).parent.mkdir(mode=0o700, exist_ok=True)
            file = self._open(name)
            if file is None:
                raise InvalidRequest(f"the image lacks {name!r}")
            with file:
                size = os.fstat(file.fileno()).st_size
                _copy(name, size, lambda file=file: _chunks(file), checkpoint / path, member)  # type: ignore[misc]


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk


def _copy(
    name: str,
    size: int,
    chunks: Callable[[], Iterable[bytes | memoryview]],
    path: Path,
    member: CheckpointFile,
) -> None:
    """Write a file of a manifest that has ``size`` bytes.

    :raises InvalidRequest: when it was changed.
    :raises Unavailable: when the disk is full.
    """
    if size != member.size:
        raise InvalidRequest(f"{name!r} has {size} bytes; the manifest says {member.size}")
    digest = hashlib.sha256()
    with _disk_errors(), path.open("xb") as target:
        fd = target.fileno()
        free_space.check(fd, size)
        for chunk in chunks():
            digest.update(chunk)
            write_sparse(fd, memoryview(chunk))
        os.ftruncate(fd, size)
        os.fsync(fd)
    if digest.hexdigest() != member.sha256:
        raise InvalidRequest(f"{name!r} was changed: its digest is another one")


def _decode_signature(text: bytes) -> bytes:
    try:
        return base64.b64decode(text.strip(), validate=True)
    except binascii.Error as error:
        raise InvalidRequest(f"{SIGNATURE} is not base64: {error}") from None


def _check_plain(entry: TarEntry) -> None:
    if entry.type != REGULAR:
        raise InvalidRequest(f"{quote_name(entry.name)} is not a plain file")


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = "cannot write the checkpoint"
        raise resource_error(error, what) or JaulaError(f"{what}: {error}") from error
