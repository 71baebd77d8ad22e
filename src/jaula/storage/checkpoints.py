"""The checkpoints of an engine's containers: ``checkpoints/CONTAINER/NAME`` in the state directory.

Each has ``images``, the files of CRIU, and ``manifest.json``: facts about the container, the digest
of every file, and a MAC over all of that with a key of the engine. An image directory is code and
orders for a process with root's rights. So only a checkpoint that this engine has made, and that
no other program has changed, is used.

The parent is accessible by root only. The image directory itself can be entered by all users, and
its files can be read by them: the tasks that CRIU restores open them with the ids of the container.

A checkpoint is made below a name that begins with a dot and renamed at last. What an engine that
was killed has left there is removed at the next start.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import shutil
import stat
from pathlib import Path
from typing import Any

import msgspec

from jaula.errors import InvalidRequest, JaulaError, resource_error

MANIFEST = "manifest.json"
IMAGES = "images"
FORMAT = 1
_KEY = ".key"
_KEY_SIZE = 32  # bytes
_MAX_MANIFEST = 16 << 20  # bytes
_CHUNK = 1 << 20  # bytes
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", re.ASCII)
_UNFINISHED = ".new-"
_RESTORE = re.compile(r"restore-[0-9a-f]{16}")  # links that a killed restore has left


class CheckpointFile(msgspec.Struct, frozen=True):
    """One file of CRIU; ``sha256`` is hexadecimal, ``size`` is in bytes."""

    name: str
    size: int
    sha256: str


class CheckpointAddress(msgspec.Struct, frozen=True):
    """The addresses of a container on one network; '' for none."""

    network: str
    ipv4: str = ""
    ipv6: str = ""
    mac: str = ""


class Manifest(msgspec.Struct, frozen=True):
    """The facts about a checkpoint. ``created`` is nanoseconds of Unix time.

    ``stdio`` are the inodes of the pipes that were stdin, stdout and stderr; 0: none.
    """

    container: str
    name: str
    created: int
    criu: str
    kernel: str
    architecture: str
    image: str
    spec: str  # SHA-256 of the OCI spec, hexadecimal
    stdio: tuple[int, int, int] = (0, 0, 0)
    terminal: bool = False
    left_running: bool = False
    tcp_established: bool = False
    tcp_close: bool = False
    addresses: tuple[CheckpointAddress, ...] = ()
    files: tuple[CheckpointFile, ...] = ()
    format: int = FORMAT
    mac: str = ""

    @property
    def size(self) -> int:
        """Return the bytes of all files."""
        return sum(file.size for file in self.files)


_decode = msgspec.json.Decoder(Manifest).decode


class CheckpointStore:
    """All checkpoints of an engine. Methods block: they read and write whole memory images."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key = b""

    def _read_key(self) -> bytes:
        """Return the key, which the first use creates."""
        if not self._key:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self._directory / _KEY
            try:
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            except FileExistsError:
                key = path.read_bytes()
            else:
                key = secrets.token_bytes(_KEY_SIZE)
                with open(fd, "wb") as file:
                    file.write(key)
                    file.flush()
                    os.fsync(file.fileno())
            if len(key) != _KEY_SIZE:
                raise JaulaError(
                    f"the key of checkpoints {path} is damaged",
                    hint="remove it; the checkpoints that exist cannot be used any more",
                )
            self._key = key
        return self._key

    def _of(self, container: str) -> Path:
        return self._directory / container

    def names(self, container: str) -> list[str]:
        """Return the names of a container's checkpoints, sorted."""
        try:
            entries = os.listdir(self._of(container))
        except FileNotFoundError:
            return []
        return sorted(name for name in entries if not name.startswith("."))

    def begin(self, container: str, name: str) -> Path:
        """Make an image directory for a new checkpoint; :meth:`commit` or :meth:`discard` follows.

        :raises InvalidRequest: when the name is not valid or exists.
        :raises Unavailable: when the disk is full or read-only.
        """
        check_name(name)
        if name in self.names(container):
            raise InvalidRequest(f"checkpoint with name {name} already exists")
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._of(container).mkdir(mode=0o700, exist_ok=True)
            images = self._of(container) / f"{_UNFINISHED}{secrets.token_hex(8)}" / IMAGES
            images.parent.mkdir(mode=0o711)
            images.mkdir()
            images.chmod(0o711)
        except OSError as error:
            failure = resource_error(error, f"checkpoint {name}")
            raise failure or JaulaError(f"checkpoint {name}: {error}") from error
        return images

    def commit(self, images: Path, manifest: Manifest) -> Manifest:
        """Complete the checkpoint of :meth:`begin`: write its manifest and give it its name.

        :raises Unavailable: when the disk is full.
        """
        try:
            files = []
            for entry in sorted(os.listdir(images)):
                path = images / entry
                path.chmod(0o644)
                files.append(_digest(path, entry, sync=True))
            manifest = msgspec.structs.replace(manifest, files=tuple(files), mac="")
            manifest = msgspec.structs.replace(manifest, mac=self._mac(manifest))
            path = images.parent / MANIFEST
            with path.open("xb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(manifest)))
                file.flush()
                os.fsync(file.fileno())
            os.rename(images.parent, images.parent.parent / manifest.name)
            _sync(images.parent.parent)
        except OSError as error:
            failure = resource_error(error, f"checkpoint {manifest.name}")
            raise failure or JaulaError(f"checkpoint {manifest.name}: {error}") from error
        return manifest

    def discard(self, images: Path) -> None:
        """Remove an unfinished checkpoint."""
        shutil.rmtree(images.parent, ignore_errors=True)

    def read(self, container: str, name: str) -> Manifest:
        """Return the manifest of a checkpoint whose MAC is right.

        :raises InvalidRequest: when there is none of that name, or it was not made by this engine.
        """
        path = self._of(container) / name / MANIFEST
        if name not in self.names(container):
            raise InvalidRequest(f"checkpoint {name} does not exist")
        try:
            with path.open("rb") as file:
                data = file.read(_MAX_MANIFEST + 1)
            manifest = _decode(data if len(data) <= _MAX_MANIFEST else b"")
        except (OSError, msgspec.MsgspecError) as error:
            raise _untrusted(name, f"{MANIFEST}: {error}") from None
        plain = msgspec.structs.replace(manifest, mac="")
        if not hmac.compare_digest(self._mac(plain), manifest.mac):
            raise _untrusted(name, "its manifest is not signed by this engine")
        if (manifest.container, manifest.name) != (container, name):
            raise _untrusted(name, "it belongs to another container")
        if manifest.format != FORMAT:
            raise _untrusted(name, f"format {manifest.format} is not known")
        return manifest

    def verify(self, manifest: Manifest) -> Path:
        """Check every file of a checkpoint against its manifest; return the image directory.

        :raises InvalidRequest: when a file is missing, was added or was changed.
        """
        images = self.images(manifest)
        try:
            found = sorted(os.listdir(images))
            if found != [file.name for file in manifest.files]:
                raise _untrusted(manifest.name, "files are missing or were added")
            for file in manifest.files:
                if _digest(images / file.name, file.name) != file:
                    raise _untrusted(manifest.name, f"{file.name} was changed")
        except OSError as error:
            raise _untrusted(manifest.name, str(error)) from None
        return images

    def images(self, manifest: Manifest) -> Path:
        """Return the image directory of a checkpoint."""
        return self._of(manifest.container) / manifest.name / IMAGES

    def remove(self, container: str, name: str) -> None:
        """Remove a checkpoint, valid or not.

        :raises InvalidRequest: when there is none of that name.
        """
        if name not in self.names(container):
            raise InvalidRequest(f"checkpoint {name} does not exist")
        directory = self._of(container)
        hidden = directory / f"{_UNFINISHED}{secrets.token_hex(8)}"
        os.rename(directory / name, hidden)
        shutil.rmtree(hidden)

    def remove_all(self, container: str) -> None:
        """Remove every checkpoint of a container."""
        shutil.rmtree(self._of(container), ignore_errors=not self._of(container).exists())

    def sweep(self, containers: set[str]) -> None:
        """Remove unfinished checkpoints, and those of containers that do not exist."""
        if not self._directory.is_dir():
            return
        for directory in self._directory.iterdir():
            if directory.name == _KEY:
                continue
            if directory.name not in containers:
                shutil.rmtree(directory)
                continue
            for entry in directory.iterdir():
                if entry.name.startswith(_UNFINISHED):
                    shutil.rmtree(entry)
                elif entry.is_dir():
                    self._sweep_links(entry)

    def _sweep_links(self, checkpoint: Path) -> None:
        for entry in checkpoint.iterdir():
            if _RESTORE.fullmatch(entry.name):
                shutil.rmtree(entry)

    def _mac(self, manifest: Manifest) -> str:
        members: Any = msgspec.to_builtins(manifest)
        text = msgspec.json.encode(members, order="deterministic")
        return hmac.new(self._read_key(), text, hashlib.sha256).hexdigest()


def check_name(name: str) -> None:
    """Check the name of a checkpoint, with Docker's words.

    :raises InvalidRequest: when it is not valid.
    """
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"Invalid checkpoint ID ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )


def _untrusted(name: str, problem: str) -> InvalidRequest:
    return InvalidRequest(
        f"checkpoint {name} is refused: {problem}",
        hint="only a checkpoint that this engine has made, and that was not changed, is started",
    )


def _digest(path: Path, name: str, *, sync: bool = False) -> CheckpointFile:
    """Return size and digest of a plain file; ``sync`` writes it to the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(f"{name} is not a plain file")
        digest, size = hashlib.sha256(), 0
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
        if sync:
            os.fsync(fd)
    return CheckpointFile(name, size, digest.hexdigest())


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
