"""The checkpoints of an engine's containers: ``checkpoints/CONTAINER/NAME`` in the state directory.

Each has ``images``, the files of CRIU, and ``manifest.json``: facts about the container and the
digest of every file. ``manifest.mac`` is a MAC over the bytes of the manifest with a key of the
engine. An image directory is code and orders for a process with root's rights. So only a checkpoint
that this engine has made or accepted, and that no other program has changed, is used.

``spec.dump`` is the OCI spec of the container. ``files`` is optional. It has the changes of the
container's root as the tar of a layer (``rootfs-diff.tar``), and the files of its volumes as one
tar each (``volume-0.tar``, ...). Owners are ids inside the container. The files of a ``/dev/shm``
that it shares are in ``devshm-checkpoint.tar``: CRIU saves those of its own mounts only.

The parent is accessible by root only. The image directory itself can be entered by all users, and
its files can be read by them: the tasks that CRIU restores open them with the ids of the container.

A checkpoint is made below a name that begins with a dot and renamed at last. What an engine that
was killed has left there is removed at the next start.

The images that a migration sends are in a tmpfs if there is memory for them. Otherwise the
processes would stand still for as long as a busy disk throttles the programs that write to it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from jaula import trusted_file
from jaula.errors import InvalidRequest, JaulaError, resource_error, system_error_text
from jaula.kernel import mounts
from jaula.kernel.syncfs import fsync_paths
from jaula.spec.api_documents import ContainerCreate
from jaula.spec.api_networks import EndpointSettings
from jaula.storage.trees import copy_data

if TYPE_CHECKING:
    from jaula.engine.model.services import Services

MANIFEST = "manifest.json"
MAC = "manifest.mac"
IMAGES = "images"
CONTINUED = "continued"  # written by the runtime
FILES = "files"
SPEC = "spec.dump"
ROOT_TAR = "rootfs-diff.tar"
SHM_TAR = "devshm-checkpoint.tar"
FORMAT = 2
_KEY = ".key"
_KEY_SIZE = 32  # bytes
MAX_MANIFEST = 16 << 20  # bytes
_DIGEST_BUFFER = 1 << 18  # bytes
_ZEROS = bytes(_DIGEST_BUFFER)
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", re.ASCII)
_UNFINISHED = ".new-"
_INCOMING = ".incoming-"
_COPIES = "copies"
_RESTORE = re.compile(r"restore-[0-9a-f]{16}")  # links that a killed restore has left
_WRITER_TIME = 5.0  # seconds for CRIU of a killed engine to end


_log = logging.getLogger("jaula.checkpoints")


class DigestCancelled(JaulaError):
    """No request waits for the digests of a checkpoint any more."""


class CheckpointFile(msgspec.Struct, frozen=True):
    """One file of a checkpoint; ``sha256`` is hexadecimal, ``size`` is in bytes."""

    name: str
    size: int
    sha256: str


class CheckpointAddress(msgspec.Struct, frozen=True):
    """The addresses of a container on one network; '' for none.

    ``names`` are addresses of DNS names that its egress list allows, with the seconds left, by set
    of the firewall.
    """

    network: str
    ipv4: str = ""
    ipv6: str = ""
    mac: str = ""
    names: dict[str, dict[str, int]] = {}


class ContainerDescription(msgspec.Struct, frozen=True):
    """The data from which the container can be created again.

    ``body`` is its create request, completed with the configuration of the image, whose digest is
    ``image_id``. ``layers`` are the diff ids of the image, base first. ``sandbox`` is the id of the
    sandbox if the container was in a pod.
    """

    name: str
    body: ContainerCreate
    image_id: str
    layers: tuple[str, ...] = ()
    hostname: str = ""
    networks: dict[str, EndpointSettings] | None = None
    sandbox: str = ""


class CheckpointVolume(msgspec.Struct, frozen=True):
    """The files of one volume; ``file`` is the name of their tar.

    ``destinations`` are the paths at which it is mounted. ``anonymous`` marks one that was created
    for the container, without a name in its request.
    """

    name: str
    file: str
    destinations: tuple[str, ...] = ()
    anonymous: bool = False
    labels: dict[str, str] = {}


class CheckpointFiles(msgspec.Struct, frozen=True):
    """The container's files in a checkpoint: the changes of its root, and its volumes.

    ``changed`` says whether the root differs from the image. The files of the mounts ``excluded``
    are not in the checkpoint: binds, and volumes that mount another file system.
    """

    changed: bool = False
    volumes: tuple[CheckpointVolume, ...] = ()
    excluded: tuple[str, ...] = ()
    files: tuple[CheckpointFile, ...] = ()

    @property
    def size(self) -> int:
        """Return the bytes of all archives."""
        return sum(file.size for file in self.files)


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True):
    """The facts about a checkpoint. ``created`` is nanoseconds of Unix time.

    ``stdio`` are the inodes of the pipes that were stdin, stdout and stderr; 0: none. ``held`` is
    None for a checkpoint without the container's files. ``rounds`` are the bytes of each round of
    the pre-copy, and ``rounds_failure`` is the error that ended it. ``stopped`` is the nanoseconds
    from the stop of the processes to their images. ``transaction`` is a random word of the request
    that made it: an undo removes only the checkpoint that has it.
    """

    container: str
    name: str
    created: int
    criu: str
    kernel: str
    architecture: str
    image: str
    spec: CheckpointFile | None = None
    stdio: tuple[int, int, int] = (0, 0, 0)
    terminal: bool = False
    left_running: bool = False
    tcp_established: bool = False
    tcp_close: bool = False
    addresses: tuple[CheckpointAddress, ...] = ()
    files: tuple[CheckpointFile, ...] = ()
    description: ContainerDescription | None = None
    held: CheckpointFiles | None = None
    directory: str = ""  # that of ``--checkpoint-dir``, set when it is read; never in the file
    rounds: tuple[int, ...] = ()
    rounds_failure: str = ""
    stopped: int = 0
    transaction: str = ""
    format: int = FORMAT

    @property
    def size(self) -> int:
        """Return the bytes of all files."""
        return sum(file.size for file in self.files) + (self.held.size if self.held else 0)


_decode = msgspec.json.Decoder(Manifest).decode
_NONE: Mapping[str, CheckpointFile] = {}


def decode(data: bytes) -> Manifest:
    """Return the manifest in trusted bytes of ``manifest.json``.

    :raises InvalidRequest: when it is not valid, or of another format.
    """
    try:
        manifest = _decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the manifest of the checkpoint is not valid: {error}") from None
    if manifest.format != FORMAT:
        raise InvalidRequest(
            f"the checkpoint has format {manifest.format}, and this engine reads {FORMAT}"
        )
    return msgspec.structs.replace(manifest, directory="")


def _create_key(path: Path) -> None:
    """Create the key, complete. Another thread or engine may do so at the same time."""
    temporary = path.with_name(f"{_KEY}-{os.urandom(8).hex()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(os.urandom(_KEY_SIZE))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        os.unlink(temporary)


class Part(Enum):
    """The files of a checkpoint that are about to be used: CRIU's, the container's, or both."""

    IMAGES = "images"
    FILES = "files"
    ALL = "all"


def checkpoint_store(services: Services) -> CheckpointStore:
    """Return the store of an engine's checkpoints."""
    return CheckpointStore(services.config.paths.checkpoints)


class CheckpointStore:
    """All checkpoints of an engine. Methods block: they read and write whole memory images."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._location = ""  # of manifests; see `at`
        self._key = b""
        self._removal = threading.Lock()  # a name is looked up and taken away in one step

    def _read_key(self) -> bytes:
        """Return the key, which the first use creates."""
        if not self._key:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self._directory / _KEY
            if not path.exists():
                _create_key(path)
            key = path.read_bytes()
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
        self._check_new(container, name)
        return self._make(container, _hidden_name(), f"checkpoint {name}")

    def digest(self, path: Path) -> CheckpointFile:
        """Return size and digest of a file that is complete, for :meth:`commit`; it is synced.

        :raises Unavailable: when the disk is full.
        """
        try:
            return _digest(path, path.name, sync=True)
        except OSError as error:
            failure = resource_error(error, f"checkpoint file {path.name}")
            raise failure or JaulaError(f"checkpoint file {path.name}: {error}") from error

    def commit(
        self,
        images: Path,
        manifest: Manifest,
        known: Mapping[str, CheckpointFile] = _NONE,
        *,
        hidden: bool = False,
    ) -> Manifest:
        """Complete the checkpoint of :meth:`begin`: write its manifest and give it its name.

        The digests are those of the files in the image directory, and of ``spec.dump`` if it exists
        beside it. ``known`` are those of :meth:`digest`, by name. A hidden one gets no name: it is
        complete where it is, until :meth:`discard`.

        :raises Unavailable: when the disk is full.
        """
        try:
            entries = sorted(os.listdir(images))
            files = [known.get(entry) or self.digest(images / entry) for entry in entries]
            spec = None
            if (images.parent / SPEC).exists():
                spec = _digest(images.parent / SPEC, SPEC, sync=True)
        except OSError as error:
            failure = resource_error(error, f"checkpoint {manifest.name}")
            raise failure or JaulaError(f"checkpoint {manifest.name}: {error}") from error
        manifest = msgspec.structs.replace(manifest, files=tuple(files), spec=spec)
        return self.accept(images, manifest, hidden=hidden)

    def begin_sent(self, container: str, memory: int) -> Path:
        """Make an image directory that is sent and removed with :meth:`discard`, without a name.

        It has at most ``memory`` bytes of memory; 0: it is on the disk.

        :raises Unavailable: when the disk is full or read-only.
        """
        return self._make(container, _hidden_name(), "checkpoint", memory)

    def begin_received(self, container: str, name: str) -> Path:
        """Make the image directory of a checkpoint that another engine sends.

        It has its name at once, and is refused until :meth:`seal`. It is on the disk: the next
        engine needs it if this one is killed after the commit, and has a mount namespace of its
        own.

        :raises InvalidRequest: when the name is not valid or exists.
        :raises Unavailable: when the disk is full or read-only.
        """
        self._check_new(container, name)
        return self._make(container, name, "checkpoint")

    def _check_new(self, container: str, name: str) -> None:
        check_name(name)
        if name in self.names(container):
            raise _exists(name)

    def _make(self, container: str, entry: str, what: str, memory: int = 0) -> Path:
        """Make an image directory. ``what`` names it in errors."""
        images = self._of(container) / entry / IMAGES
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._of(container).mkdir(mode=0o700, exist_ok=True)
            images.parent.mkdir(mode=0o700)
            if memory:
                _mount_memory(images.parent, memory)
            images.mkdir()
            images.chmod(0o711)
        except OSError as error:
            raise resource_error(error, what) or JaulaError(f"{what}: {error}") from error
        return images

    def seal(
        self, manifest: Manifest, is_cancelled: Callable[[], bool] = lambda: False
    ) -> Manifest:
        """Complete a checkpoint of :meth:`begin_received`: digest its files, write its manifest.

        It ends without a manifest soon after ``is_cancelled`` returns True.

        :raises DigestCancelled: then.
        :raises Unavailable: when the disk or the memory for it is full.
        """
        images = self.images(manifest)
        try:
            names = sorted(os.listdir(images))
            files = tuple(_digest(images / n, n, is_cancelled=is_cancelled) for n in names)
            manifest = msgspec.structs.replace(manifest, files=files)
            self._write_manifest(images, manifest, sync=False)
        except OSError as error:
            failure = resource_error(error, f"checkpoint {manifest.name}")
            raise failure or JaulaError(f"checkpoint {manifest.name}: {error}") from error
        return manifest

    def _write_manifest(self, images: Path, manifest: Manifest, *, sync: bool) -> None:
        data = msgspec.json.format(msgspec.json.encode(manifest))
        _write(images.parent / MANIFEST, data, sync=sync)
        _write(images.parent / MAC, self._mac(data).encode(), sync=sync)

    def incoming(self) -> Path:
        """Make a directory for an archive that is being read; the caller removes it.

        :raises Unavailable: when the disk is full or read-only.
        """
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self._directory / f"{_INCOMING}{os.urandom(8).hex()}"
            path.mkdir(mode=0o700)
        except OSError as error:
            raise resource_error(error, "checkpoint") or JaulaError(
                system_error_text("the directory of an archive cannot be made", error)
            ) from error
        return path

    def link(
        self,
        manifest: Manifest,
        source: Path,
        *,
        sync: bool = True,
        copy: bool = False,
        transaction: str = "",
    ) -> Manifest:
        """Give a container hard links to the files of a verified checkpoint, with a manifest.

        ``source`` is the directory of the checkpoint. The engine never changes files in its own
        directory. With ``copy`` they are copied, by reflinks if possible. Without ``sync`` the
        caller writes the file system to the disk (syncfs(2)).

        The copy has the word ``transaction``, '' for a new one: an undo of what made the source
        does not remove it.

        :raises InvalidRequest: when the container has one of that name.
        :raises Unavailable: when the disk is full.
        """
        word = transaction or os.urandom(16).hex()
        manifest = msgspec.structs.replace(manifest, transaction=word)
        images = self.begin(manifest.container, manifest.name)
        checkpoint = images.parent
        held = manifest.held.files if manifest.held is not None else ()
        names = [f"{IMAGES}/{file.name}" for file in manifest.files]
        names += [f"{FILES}/{file.name}" for file in held]
        names += [SPEC] if manifest.spec is not None else []
        try:
            if held:
                (checkpoint / FILES).mkdir(mode=0o700)
            for name in names:
                if copy:
                    _copy(source / name, checkpoint / name)
                else:
                    os.link(source / name, checkpoint / name, follow_symlinks=False)
            return self.accept(images, manifest, durable=sync)
        except OSError as error:
            self.discard(images)
            what = f"checkpoint {manifest.name} cannot be copied"
            raise resource_error(error, what) or JaulaError(f"{what}: {error}") from error
        except BaseException:
            self.discard(images)
            raise

    def accept(
        self, images: Path, manifest: Manifest, *, hidden: bool = False, durable: bool = True
    ) -> Manifest:
        """Complete a checkpoint of :meth:`begin` whose files were verified with this manifest.

        A hidden one gets no name. One that is not ``durable`` means nothing after a power failure.

        :raises InvalidRequest: when another one has got the name meanwhile.
        :raises Unavailable: when the disk is full.
        """
        try:
            for file in manifest.files:
                (images / file.name).chmod(0o644)
            self._write_manifest(images, manifest, sync=durable)
            if durable:
                fsync_paths(images, images.parent)
            if not hidden:
                os.rename(images.parent, images.parent.parent / manifest.name)
                if durable:
                    fsync_paths(images.parent.parent)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise _exists(manifest.name) from None
            failure = resource_error(error, f"checkpoint {manifest.name}")
            raise failure or JaulaError(f"checkpoint {manifest.name}: {error}") from error
        return manifest

    def discard(self, images: Path) -> None:
        """Remove an unfinished checkpoint."""
        _unmount(images.parent)
        shutil.rmtree(images.parent, ignore_errors=True)

    def read(self, container: str, name: str) -> Manifest:
        """Return the manifest of a checkpoint whose MAC is right.

        :raises InvalidRequest: when there is none of that name, or it was not made by this engine.
        """
        path = self._of(container) / name
        if name not in self.names(container):
            raise InvalidRequest(f"checkpoint {name} does not exist")
        try:
            data = _read(path / MANIFEST)
            mac = _read(path / MAC)
        except OSError as error:
            raise _untrusted(name, f"{MANIFEST}: {error}") from None
        if not self.is_mac(data, mac):
            raise _untrusted(name, "its manifest is not signed by this engine")
        try:
            manifest = _decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise _untrusted(name, f"{MANIFEST}: {error}") from None
        if (manifest.container, manifest.name) != (container, name):
            raise _untrusted(name, "it belongs to another container")
        if manifest.format != FORMAT:
            raise _untrusted(name, f"format {manifest.format} is not known")
        return msgspec.structs.replace(manifest, directory=self._location)

    def verify(
        self,
        manifest: Manifest,
        part: Part = Part.ALL,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> Path:
        """Check the files of a checkpoint against its manifest; return the image directory.

        :raises InvalidRequest: when a file is missing, was added or was changed.
        :raises DigestCancelled: soon after ``is_cancelled`` returns True.
        """
        images = self.images(manifest)
        held = manifest.held.files if manifest.held is not None else ()
        try:
            if part is not Part.FILES:
                _check_directory(manifest.name, images, manifest.files, is_cancelled)
                if manifest.spec is not None:
                    _check_file(manifest.name, images.parent, manifest.spec, is_cancelled)
            if part is not Part.IMAGES and (held or (images.parent / FILES).exists()):
                _check_directory(manifest.name, images.parent / FILES, held, is_cancelled)
        except OSError as error:
            raise _untrusted(manifest.name, str(error)) from None
        return images

    def files(self, manifest: Manifest) -> Path:
        """Return the directory of the container's files in a checkpoint."""
        return self.images(manifest).parent / FILES

    def images(self, manifest: Manifest) -> Path:
        """Return the image directory of a checkpoint."""
        if manifest.directory:
            return Path(manifest.directory) / manifest.name / IMAGES
        return self._of(manifest.container) / manifest.name / IMAGES

    def at(self, directory: str) -> CheckpointStore:
        """Return the store of the checkpoints below a directory of the host, with the same key.

        '' is this one. The paths of the others are ``DIRECTORY/NAME``, as Docker's.

        :raises InvalidRequest: when another user could change where the path leads.
        """
        if not directory:
            return self
        trusted_file.check_path(directory, "the checkpoint directory")
        return _DirectoryStore(self, directory)

    def is_continued(self, container: str, name: str) -> bool:
        """Return whether processes of a migration's checkpoint may have run after their restore."""
        return (self._of(container) / name / CONTINUED).exists()

    def remove(self, container: str, name: str) -> None:
        """Remove a checkpoint, valid or not.

        :raises InvalidRequest: when there is none of that name; in a directory of the host, also
            when this engine has not made it, or it is another container's.
        """
        with self._removal:
            if name not in self.names(container):
                raise InvalidRequest(f"checkpoint {name} does not exist")
            if self._location:
                self.read(container, name)
            hidden = self._hide(container, name)
        shutil.rmtree(hidden)

    def undo(self, container: str, name: str, transaction: str) -> None:
        """Remove a checkpoint of a transaction.

        One that another request has given the name meanwhile stays, and so does one whose manifest
        was changed.
        """
        with self._removal:
            try:
                manifest = self.read(container, name)
            except InvalidRequest as error:
                _log.info("checkpoint %s of %s is not undone: %s", name, container, error.message)
                return
            if manifest.transaction != transaction:
                return
            hidden = self._hide(container, name)
        shutil.rmtree(hidden)

    def _hide(self, container: str, name: str) -> Path:
        """Take the name away from a checkpoint; return its directory."""
        directory = self._of(container)
        _unmount(directory / name)
        hidden = directory / _hidden_name()
        os.rename(directory / name, hidden)
        return hidden

    def remove_all(self, container: str) -> None:
        """Remove every checkpoint of a container. One that is being written fails."""
        hidden = self._directory / _hidden_name()
        try:
            os.rename(self._of(container), hidden)  # so no file can be added meanwhile
        except FileNotFoundError:
            return
        _unmount_below(hidden)
        shutil.rmtree(hidden)

    def sweep(self, containers: set[str]) -> None:
        """Remove unfinished checkpoints, and those of containers that do not exist."""
        if not self._directory.is_dir():
            return
        for directory in self._directory.iterdir():
            if directory.name == _KEY:
                continue
            if directory.name.startswith(f"{_KEY}-"):  # of an engine that was killed
                directory.unlink()
                continue
            if directory.name not in containers:
                _unmount_below(directory)
                _remove_written(directory)
                continue
            for entry in directory.iterdir():
                if entry.name.startswith(_UNFINISHED):
                    _unmount(entry)
                    _remove_written(entry)
                elif entry.is_dir():
                    self._sweep_links(entry)

    def _sweep_links(self, checkpoint: Path) -> None:
        for entry in checkpoint.iterdir():
            if _RESTORE.fullmatch(entry.name):
                shutil.rmtree(entry)

    def is_mac(self, data: bytes, mac: bytes) -> bool:
        """Return whether ``mac`` is the MAC of these bytes with the key of this engine."""
        import hmac

        return hmac.compare_digest(self._mac(data).encode(), mac)

    def _mac(self, data: bytes) -> str:
        import hashlib
        import hmac

        return hmac.new(self._read_key(), data, hashlib.sha256).hexdigest()


class _DirectoryStore(CheckpointStore):
    """The checkpoints below a directory of the host: ``DIRECTORY/NAME``, of any container."""

    def __init__(self, engine: CheckpointStore, directory: str) -> None:
        super().__init__(Path(directory))
        self._location = directory
        self._key = engine._read_key()
        self._removal = engine._removal

    def _of(self, container: str) -> Path:
        return self._directory


def _hidden_name() -> str:
    """Return a new name of what is not finished, or not removed yet."""
    return f"{_UNFINISHED}{os.urandom(8).hex()}"


def _mount_memory(directory: Path, size: int) -> None:
    """Mount a tmpfs of at most ``size`` bytes, with huge pages if the kernel has them."""
    attributes = mounts.MOUNT_ATTR.NOSUID | mounts.MOUNT_ATTR.NODEV | mounts.MOUNT_ATTR.NOEXEC
    options = (("size", str(size)), ("mode", "0700"))
    try:
        tree = mounts.new_filesystem("tmpfs", (*options, ("huge", "within_size")), attributes)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        tree = mounts.new_filesystem("tmpfs", options, attributes)
    try:
        mounts.move_mount(tree, str(directory))
    finally:
        os.close(tree)


def _unmount_below(directory: Path) -> None:
    """Unmount every tmpfs of the checkpoints of a container."""
    for entry in directory.iterdir():
        _unmount(entry)


def _unmount(directory: Path) -> None:
    """Unmount the tmpfs of a migration, if there is one."""
    if directory.is_mount():
        mounts.umount2(str(directory), mounts.MNT.DETACH)


def add_file(images: Path, name: str) -> BinaryIO:
    """Open a new file of the container beside the image directory of :meth:`CheckpointStore.begin`.

    The caller closes it, and describes it with :func:`describe_file`.
    """
    directory = images.parent / FILES
    directory.mkdir(mode=0o700, exist_ok=True)
    return (directory / name).open("xb")


def copies(images: Path) -> Path:
    """Return the directory of copies of volumes, which no finished checkpoint has."""
    return images.parent / _COPIES


def describe_file(images: Path, name: str) -> CheckpointFile:
    """Return size and digest of a file of :func:`add_file`, which is written to the disk."""
    return _digest(images.parent / FILES / name, name, sync=True)


def check_name(name: str) -> None:
    """Check the name of a checkpoint, with Docker's words.

    :raises InvalidRequest: when it is not valid.
    """
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"Invalid checkpoint ID ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
            hint="a name has two characters or more" if len(name) == 1 else None,
        )


def _exists(name: str) -> InvalidRequest:
    return InvalidRequest(f"checkpoint with name {name} already exists")


def _untrusted(name: str, problem: str) -> InvalidRequest:
    return InvalidRequest(
        f"checkpoint {name} is refused: {problem}",
        hint="only a checkpoint that this engine has made, and that was not changed, is started",
    )


def _digest(
    path: Path,
    name: str,
    *,
    sync: bool = False,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> CheckpointFile:
    """Return size and digest of a plain file; ``sync`` writes it to the disk.

    :raises DigestCancelled: when ``is_cancelled`` returns True.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(fd, "rb"):
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(f"{name} is not a plain file")
        import hashlib

        digest, size = hashlib.sha256(), 0
        for part in _content(fd):
            if is_cancelled():
                raise DigestCancelled(f"the digest of {name} was cancelled")
            digest.update(part)
            size += len(part)
        if sync:
            os.fsync(fd)
        return CheckpointFile(name, size, digest.hexdigest())


def _content(fd: int) -> Iterator[memoryview]:
    """Yield the content of a file in parts. Holes are zeros that are not read (lseek(2))."""
    size, at = os.fstat(fd).st_size, 0
    with memoryview(bytearray(_DIGEST_BUFFER)) as buffer, memoryview(_ZEROS) as zeros:
        while at < size:
            try:
                data = os.lseek(fd, at, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                data = size  # a hole up to the end
            while at < min(data, size):
                part = zeros[: min(data, size) - at]
                yield part
                at += len(part)
            end = os.lseek(fd, at, os.SEEK_HOLE) if at < size else at
            while at < end:
                count = os.preadv(fd, [buffer[: end - at]], at)
                if not count:
                    return  # it was truncated
                yield buffer[:count]
                at += count


def _check_directory(
    name: str,
    directory: Path,
    files: tuple[CheckpointFile, ...],
    is_cancelled: Callable[[], bool],
) -> None:
    """Check that a directory has these files and no other.

    :raises InvalidRequest: when it has not.
    :raises OSError: when a file cannot be read.
    """
    if sorted(os.listdir(directory)) != sorted(file.name for file in files):
        raise _untrusted(name, "files are missing or were added")
    for file in files:
        _check_file(name, directory, file, is_cancelled)


def _check_file(
    name: str, directory: Path, file: CheckpointFile, is_cancelled: Callable[[], bool]
) -> None:
    path = directory / file.name
    status = os.lstat(path)
    # A size that is not signed costs no digest.
    resized = stat.S_ISREG(status.st_mode) and status.st_size != file.size
    if resized or _digest(path, file.name, is_cancelled=is_cancelled) != file:
        raise _untrusted(name, f"{file.name} was changed")


def _copy(source: Path, target: Path) -> None:
    fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(fd, "rb") as file, target.open("xb") as copy:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(f"{source.name} is not a plain file")
        copy_data(file.fileno(), copy.fileno())


def _read(path: Path) -> bytes:
    """Return the content of a manifest or its MAC, empty if it is too large."""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        data = file.read(MAX_MANIFEST + 1)
    return data if len(data) <= MAX_MANIFEST else b""


def _write(path: Path, data: bytes, *, sync: bool = True) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        if sync:
            os.fsync(file.fileno())


def _remove_written(directory: Path) -> None:
    """Remove a directory into which CRIU of a killed engine may still write.

    What is left after some seconds is for the next sweep: it does not keep an engine from starting.
    """
    end = time.monotonic() + _WRITER_TIME
    while True:
        try:
            shutil.rmtree(directory)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.ENOENT):
                raise
            if not directory.exists():
                return
            if time.monotonic() > end:
                _log.warning("%s is still written, and stays until the next start", directory)
                return
            time.sleep(0.05)
        else:
            return
