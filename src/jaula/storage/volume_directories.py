"""Volumes: named directories that outlive containers.

``<volumes>/<name>/_data`` is mounted into containers, ``<volumes>/<name>/volume.json`` stores the
labels and options. ``<volumes>/<name>/_image`` is the copy of an image's directory while it moves
into ``_data``, or into the directory of it that ``_image.path`` names. ``_image.new`` is an
incomplete copy. ``<volumes>/<name>/_staged`` has files that will replace those in ``_data``, which
is ``_former`` then, until they are not needed any more. Names follow Docker's grammar (moby
``daemon/names``): ``[a-zA-Z0-9][a-zA-Z0-9_.-]+``, at most 255 bytes.

Other users of the host cannot enter the directory of volumes: files in a volume may be set-user-ID
and belong to the host's ids.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple
from weakref import WeakValueDictionary

import msgspec

from jaula.caller_quota import OwnedSizes
from jaula.config import Paths
from jaula.errors import (
    Conflict,
    CorruptState,
    InvalidRequest,
    NotFound,
    resource_error,
)
from jaula.kernel import mountinfo, openat2
from jaula.kernel.openat2 import RESOLVE
from jaula.kernel.syncfs import fsync_paths, sync_file_systems, syncfs
from jaula.storage.trees import (
    DIRECTORY_FLAGS,
    copy_metadata,
    copy_tree,
    list_with_prefix,
    open_directory,
    remove_tree,
    remove_with_prefix,
    tree_usage,
    write_new,
)

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,254}", re.ASCII)
_ROOT = "0"  # the uid, as an owner
_INCOMPLETE = ".new-"
_REMOVED = ".gone-"
_DATA = "_data"
_IMAGE = "_image"
_IMAGE_INCOMPLETE = "_image.new"
_IMAGE_PATH = "_image.path"
_STAGED = "_staged"
_FORMER = "_former"
_COPY_NAMES = (_IMAGE, _IMAGE_INCOMPLETE, _IMAGE_PATH)
_BENEATH = RESOLVE.BENEATH | RESOLVE.NO_SYMLINKS
_MAX_PATH = 4096  # bytes


class Volume(msgspec.Struct, frozen=True):
    """A volume. ``created_at`` is RFC 3339."""

    name: str
    path: str
    created_at: str
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    driver: str = "local"
    scope: str = "local"
    owner: str = ""  # the client that created it
    transaction: str = ""  # the transaction that created it, which may remove it until its end
    id: str = ""  # random: a later volume of the same name has another one


class CreatedVolume(NamedTuple):
    """A volume, and whether this call created it."""

    volume: Volume
    is_new: bool


class _Document(msgspec.Struct, frozen=True):
    created_at: str
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    owner: str = ""
    transaction: str = ""
    id: str = ""


class _Lock:
    """A lock that ends with its last user."""

    __slots__ = ("__weakref__", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _document(volume: Volume) -> _Document:
    return _Document(
        volume.created_at,
        volume.labels,
        volume.options,
        volume.owner,
        volume.transaction,
        volume.id,
    )


Volumes = list[Volume]
Names = list[str]


class VolumeStore:
    """The volumes of one engine. The caller knows which containers use a volume."""

    def __init__(self, paths: Paths, *, durable: bool = True) -> None:
        """Open the store. With ``durable``, each method returns after its change is on the disk."""
        self._directory = paths.volumes
        self._durable = durable
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._populate_locks: WeakValueDictionary[str, _Lock] = WeakValueDictionary()  # by name
        self._sizes: OwnedSizes | None = None  # of the documents by name, read at the first use
        self._owners_lock = threading.Lock()

    def create(
        self,
        name: str = "",
        labels: dict[str, str] | None = None,
        options: dict[str, str] | None = None,
        owner: str = "",
        transaction: str = "",
    ) -> CreatedVolume:
        """Create a volume, or return the existing one with that name, as Docker does.

        An empty name stands for a random one. ``options`` are stored; the caller interprets them.
        ``transaction`` is a random word: an undo removes only the volume that has it.

        :raises InvalidRequest: when the name is not valid.
        :raises Unavailable: when the disk is full or read-only.
        """
        name = check_name(name or os.urandom(32).hex())
        created = datetime.now(UTC).isoformat(timespec="seconds")
        document = _Document(created, labels or {}, options or {}, owner, transaction, _new_id())
        temporary = f"{_INCOMPLETE}{os.urandom(8).hex()}"
        try:
            with open_directory(self._directory) as parent:
                os.mkdir(temporary, 0o700, dir_fd=parent)
                try:
                    self._fill(parent, temporary, document)
                    with self._owners_lock:
                        os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
                        self._set_owner(name, document)
                    self._fsync(".", dir_fd=parent)
                finally:
                    remove_tree(parent, temporary.encode())
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                self._fsync(self._directory)  # another thread may have just created it
                return CreatedVolume(self.get(name), False)
            raise resource_error(error, f"cannot create volume {name!r}") or error from error
        return CreatedVolume(self._volume(name, document), True)

    def import_(
        self,
        name: str,
        labels: dict[str, str],
        archive: BufferedReader,
        *,
        check: Callable[[], None],
        created_at: str = "",
        owner: str = "",
    ) -> Volume:
        """Create a volume with the files of a tar of :func:`checkpoint_files.write_volume`.

        ``check`` raises if the archive is not complete. ``created_at`` is RFC 3339, '' for now. The
        volume gets its name when its files are complete and on the disk. An interrupted call
        leaves what :meth:`sweep` removes.

        :raises Conflict: when the name is in use.
        :raises InvalidRequest: when the name or the tar is not valid.
        :raises Unavailable: when the disk is full or read-only.
        """
        name = check_name(name)
        created = created_at or datetime.now(UTC).isoformat(timespec="seconds")
        document = _Document(created, labels, {}, owner, id=_new_id())
        temporary = f"{_INCOMPLETE}{os.urandom(8).hex()}"
        try:
            with open_directory(self._directory) as parent:
                os.mkdir(temporary, 0o700, dir_fd=parent)
                try:
                    self._fill(parent, temporary, document)
                    with (
                        open_directory(temporary, dir_fd=parent) as top,
                        open_directory(_DATA, dir_fd=top) as data,
                    ):
                        from jaula.storage import checkpoint_files

                        checkpoint_files.extract(archive, data, layer=False)
                        check()
                        if self._durable:
                            syncfs(data)
                    with self._owners_lock:
                        os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
                        self._set_owner(name, document)
                    self._fsync(".", dir_fd=parent)
                finally:
                    remove_tree(parent, temporary.encode())
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise Conflict(f"volume {name} exists") from None
            raise resource_error(error, f"cannot create volume {name!r}") or error from error
        return self._volume(name, document)

    def _fsync(self, *paths: str | Path, dir_fd: int | None = None) -> None:
        if self._durable:
            fsync_paths(*paths, dir_fd=dir_fd)

    def _fill(self, parent: int, temporary: str, document: _Document) -> None:
        with open_directory(temporary, dir_fd=parent) as top:
            os.mkdir(_DATA, 0o755, dir_fd=top)
            os.chmod(_DATA, 0o755, dir_fd=top)
            write_new(top, "volume.json", msgspec.json.encode(document))
            self._fsync("volume.json", _DATA, ".", dir_fd=top)

    def get(self, name: str) -> Volume:
        """Return the volume ``name``.

        :raises NotFound: when it does not exist.
        :raises CorruptState: when its ``volume.json`` is damaged.
        """
        if not _NAME.fullmatch(name):
            raise NotFound(f"get {name[:80]}: no such volume")
        path = self._directory / name / "volume.json"
        try:
            document = msgspec.json.decode(path.read_bytes(), type=_Document)
        except FileNotFoundError:
            raise NotFound(f"get {name}: no such volume") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise CorruptState(f"the volume file {path} is damaged: {error}") from error
        return self._volume(name, document)

    def _volume(self, name: str, document: _Document) -> Volume:
        return Volume(
            name=name,
            path=self.path(name),
            created_at=document.created_at,
            labels=document.labels,
            options=document.options,
            owner=document.owner,
            transaction=document.transaction,
            id=document.id or document.created_at,  # one that an older engine created has none
        )

    def exists(self, name: str) -> bool:
        return bool(_NAME.fullmatch(name)) and (self._directory / name / "volume.json").exists()

    def path(self, name: str) -> str:
        """Return the host path of the volume's files."""
        return f"{self._directory}/{check_name(name)}/_data"

    def list(self) -> Volumes:
        """Return all volumes, sorted by name. Volumes with a damaged document are left out."""
        return list(self.read_all())

    def read_all(self, check: Callable[[], None] = lambda: None) -> Iterator[Volume]:
        """Yield the volumes of :meth:`list`. ``check`` is called for each, and raises to end it."""
        for name in sorted(filter(_NAME.fullmatch, os.listdir(self._directory))):
            check()
            try:
                yield self.get(name)
            except (CorruptState, NotFound):
                continue  # `system check` reports it, or it was removed meanwhile

    def owned(self, owner: str) -> int:
        """Return how many volumes a client has created that were not removed."""
        with self._owners_lock:
            return self._read_sizes().count(owner)

    def document_bytes(self, owner: str) -> int:
        """Return the bytes of the labels, options and other metadata of these volumes."""
        with self._owners_lock:
            return self._read_sizes().size(owner)

    def _read_sizes(self) -> OwnedSizes:
        """Return the sizes of all documents. The caller has the lock."""
        if self._sizes is None:
            self._sizes = OwnedSizes()
            for volume in self.list():
                self._set_owner(volume.name, _document(volume))
        return self._sizes

    def _set_owner(self, name: str, document: _Document | None) -> None:
        """Count a volume for its owner, or no more if it is None. The caller has the lock."""
        if self._sizes is None:
            return
        if document is None:
            self._sizes.drop(name)
        else:
            self._sizes.set(name, document.owner, len(msgspec.json.encode(document)))

    def usage(self, name: str, check: Callable[[], None] = lambda: None) -> int:
        """Return the bytes of the volume's files, -1 if the volume mounts another file system.

        ``check`` is called for each directory, and raises to end it.
        """
        if self.get(name).options:
            return -1
        with open_directory(self.path(name)) as descriptor:
            return tree_usage(descriptor, check)[0]

    def adopt(self, name: str) -> None:
        """Let no transaction remove a volume any more: another client uses it.

        :raises NotFound: when it does not exist.
        """
        with self._owners_lock:
            volume = self.get(name)
            if not volume.transaction:
                return
            document = msgspec.structs.replace(_document(volume), transaction="")
            temporary = f".volume-{os.urandom(8).hex()}"
            with open_directory(self._directory / name) as top:
                write_new(top, temporary, msgspec.json.encode(document))
                self._fsync(temporary, dir_fd=top)
                os.rename(temporary, "volume.json", src_dir_fd=top, dst_dir_fd=top)
                self._set_owner(name, document)
                self._fsync(".", dir_fd=top)

    def remove(self, name: str, *, transaction: str | None = None, id: str | None = None) -> None:
        """Remove a volume with its files.

        Another client may have removed it meanwhile, and created another one with its name. So
        with ``transaction`` remove it only if that created it, and with ``id`` only that volume.

        :raises NotFound: when it does not exist, or is not that one.
        :raises Conflict: when something is mounted in it; then no file is removed.
        """
        data = os.path.realpath(self.get(name).path)
        mounts = mountinfo.read("/proc/thread-self/mountinfo")
        if any(f"{mount.target}/".startswith(f"{data}/") for mount in mounts):
            raise Conflict(
                f"remove {name}: volume is in use - something is mounted in it", hint="unmount it"
            )
        removed = f"{_REMOVED}{os.urandom(8).hex()}"
        with open_directory(self._directory) as parent:
            with self._owners_lock:
                volume = self.get(name)
                if transaction is not None and volume.transaction != transaction:
                    raise NotFound(f"volume {name} is not the one that was created")
                if id is not None and volume.id != id:
                    raise NotFound(f"volume {name} was removed, and another client has its name")
                try:
                    os.rename(name, removed, src_dir_fd=parent, dst_dir_fd=parent)
                except FileNotFoundError:
                    raise NotFound(f"get {name}: no such volume") from None
                self._set_owner(name, None)
            self._fsync(".", dir_fd=parent)  # before a file is gone: a volume is whole or absent
            remove_tree(parent, removed.encode())

    # -- replacement of all files ---------------------------------------------------------------

    def stage(self, name: str, archive: BufferedReader) -> None:
        """Prepare other files for a volume, from a tar of :func:`checkpoint_files.write_volume`.

        The volume is not changed. The caller writes them to the disk (syncfs(2)) before it calls
        :meth:`replace`.

        :raises InvalidRequest: when the tar is not valid, or the volume mounts something else.
        """
        if self.get(name).options:
            raise InvalidRequest(f"volume {name} mounts another file system")
        with open_directory(self._directory / name) as top:
            if not stat.S_ISDIR(os.stat(_DATA, dir_fd=top, follow_symlinks=False).st_mode):
                raise InvalidRequest(f"the directory of volume {name} is a symbolic link")
            remove_tree(top, os.fsencode(_FORMER))
            remove_tree(top, os.fsencode(_STAGED))
            os.mkdir(_STAGED, 0o700, dir_fd=top)
            try:
                with open_directory(_STAGED, dir_fd=top) as staged:
                    from jaula.storage import checkpoint_files

                    checkpoint_files.extract(archive, staged, layer=False)
            except BaseException:
                remove_tree(top, os.fsencode(_STAGED))
                raise

    def replace(self, name: str, *, keep: bool = False) -> None:
        """Put the staged files in the place of the volume's. Without staged files do nothing.

        With ``keep`` the former files stay beside them until :meth:`discard`. No container that has
        the volume may run. An interrupted call is completed by another one.
        """
        with open_directory(self._directory / name) as top:
            if _STAGED in os.listdir(top):
                if _DATA in os.listdir(top):
                    remove_tree(top, os.fsencode(_FORMER))
                    os.rename(_DATA, _FORMER, src_dir_fd=top, dst_dir_fd=top)
                os.rename(_STAGED, _DATA, src_dir_fd=top, dst_dir_fd=top)
                fsync_paths(".", dir_fd=top)
            if not keep:
                remove_tree(top, os.fsencode(_FORMER))

    def put_back(self, name: str) -> None:
        """Put the files that :meth:`replace` has kept in place again; the others are staged then.

        Without kept files do nothing. No container that has the volume may run. An interrupted call
        is completed by another one.
        """
        with open_directory(self._directory / name) as top:
            if _FORMER in os.listdir(top):
                if _DATA in os.listdir(top):
                    os.rename(_DATA, _STAGED, src_dir_fd=top, dst_dir_fd=top)
                os.rename(_FORMER, _DATA, src_dir_fd=top, dst_dir_fd=top)
                fsync_paths(".", dir_fd=top)

    def discard(self, name: str) -> None:
        """Remove staged and kept files of a volume, if there are any."""
        if self.exists(name):
            with open_directory(self._directory / name) as top:
                remove_tree(top, os.fsencode(_STAGED))
                remove_tree(top, os.fsencode(_FORMER))

    # -- check and repair -----------------------------------------------------------------------

    def is_on_disk(self, name: str) -> bool:
        """Return whether the volume's ``_data`` directory exists."""
        return bool(_NAME.fullmatch(name)) and (self._directory / name / _DATA).is_dir()

    def without_metadata(self) -> Names:
        """Return the volumes with a ``_data`` directory whose ``volume.json`` cannot be read."""
        names = []
        for name in sorted(os.listdir(self._directory)):
            if self.is_on_disk(name):
                try:
                    self.get(name)
                except (NotFound, CorruptState):
                    names.append(name)
        return names

    def describe(self, name: str) -> None:
        """Write a new ``volume.json`` without labels for one of :meth:`without_metadata`.

        Its owner is root: the one who created it is not known.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        document = _Document(now, owner=_ROOT, id=_new_id())
        temporary = f".volume-{os.urandom(8).hex()}"
        with open_directory(self._directory / name) as top:
            write_new(top, temporary, msgspec.json.encode(document))
            self._fsync(temporary, dir_fd=top)
            os.rename(temporary, "volume.json", src_dir_fd=top, dst_dir_fd=top)
            self._fsync(".", dir_fd=top)

    def empty(self) -> Names:
        """Return the volumes without a ``_data`` directory."""
        return [volume.name for volume in self.list() if not self.is_on_disk(volume.name)]

    def strays(self) -> Names:
        """Return the directories that have neither ``_data`` nor ``volume.json``."""
        return [
            name
            for name in sorted(os.listdir(self._directory))
            if not name.startswith((_INCOMPLETE, _REMOVED))
            and not self.is_on_disk(name)
            and not self.exists(name)
        ]

    def remove_stray(self, name: str) -> None:
        """Remove one of :meth:`strays`.

        :raises OSError: when it is not empty.
        """
        (self._directory / name).rmdir()

    def leftovers(self, before: int) -> Names:
        """Return what was incomplete or half-removed at ``before``, in nanoseconds since 1970."""
        return list_with_prefix(self._directory, _INCOMPLETE, _REMOVED, before=before)

    def remove_leftover(self, name: str) -> None:
        """Remove one of :meth:`leftovers`."""
        with open_directory(self._directory) as parent:
            remove_tree(parent, name.encode())

    def sweep(self, kept: Collection[str] = ()) -> Names:
        """Remove what a crash left incomplete or half-removed, and finish copies of images.

        The staged and former files of the volumes ``kept`` are still needed.
        """
        removed = remove_with_prefix(self._directory, _INCOMPLETE, _REMOVED)
        directory = str(self._directory)
        for name in os.listdir(directory):
            top = f"{directory}/{name}"  # a Path for each entry takes as long as its lstat
            if name not in kept and any(os.path.lexists(f"{top}/{e}") for e in (_STAGED, _FORMER)):
                self.discard(name)
            if any(os.path.lexists(f"{top}/{entry}") for entry in _COPY_NAMES):
                with open_directory(top) as descriptor:
                    self._finish_copy(descriptor)
        return removed

    def accepts_copy(self, name: str, subpath: str = "") -> bool:
        """Return whether :meth:`populate` would change a volume: it has no files, or not all.

        ``subpath`` is a directory of the volume that takes its place.
        """
        if os.path.lexists(self._directory / name / _IMAGE):
            return True
        try:
            with open_directory(self.get(name).path) as data, _opened(data, subpath) as directory:
                return not os.listdir(directory)
        except OSError as error:
            if error.errno in _UNREACHABLE:
                return False
            raise

    def populate(
        self,
        name: str,
        root_fd: int,
        path: str,
        subpath: str = "",
        check: Callable[[], None] = lambda: None,
    ) -> bool:
        """Copy the image's directory ``path`` into an empty volume. Return whether it was copied.

        ``root_fd`` is the image's root (see
        :func:`jaula.storage.drivers.storage_driver.open_root`). The volume's directory gets the
        owner and mode of the image's directory. With ``subpath`` it is that directory of the
        volume, which must exist. A directory that is not empty is not changed, nor is one for a
        path that the image does not have. After a crash it is still empty, or :meth:`sweep` puts
        the rest of the files into it. ``check`` is called for each file, and raises to end the
        copy.

        :raises InvalidRequest: when the path is a file of the image.
        :raises Unavailable: when the disk is full.
        """
        try:
            source = openat2.open_in_root(root_fd, path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return False
        except NotADirectoryError:
            raise InvalidRequest(
                f"cannot mount volume over existing file, file exists {path}",
                hint="an image or a request names a file as the place of a volume",
            ) from None
        try:
            data = self.get(name).path
            with self._populate_lock(name), open_directory(self._directory / name) as top:
                check()
                self._finish_copy(top)
                with open_directory(data) as root, _opened(root, subpath) as target:
                    if os.listdir(target):
                        return False
                    if os.fstat(target).st_dev != os.fstat(top).st_dev:  # _data is a link
                        copy_tree(source, target, check=check)
                        return True
                os.mkdir(_IMAGE_INCOMPLETE, 0o700, dir_fd=top)
                with open_directory(_IMAGE_INCOMPLETE, dir_fd=top) as copy:
                    copy_tree(source, copy, check=check)
                if subpath:
                    write_new(top, _IMAGE_PATH, os.fsencode(subpath))
                if self._durable:
                    sync_file_systems(self._directory)
                os.rename(_IMAGE_INCOMPLETE, _IMAGE, src_dir_fd=top, dst_dir_fd=top)
                self._finish_copy(top)
                return True
        except OSError as error:
            raise resource_error(error, f"cannot populate volume {name!r}") or error from error
        finally:
            os.close(source)

    def _populate_lock(self, name: str) -> _Lock:
        """Return the lock of one volume: containers that share an empty one may start at once."""
        with self._owners_lock:
            lock = self._populate_locks.get(name)
            if lock is None:
                lock = self._populate_locks[name] = _Lock()
            return lock

    def _finish_copy(self, top: int) -> None:
        """Move the rest of a complete copy into its directory, or remove an incomplete one.

        A file that a container has made meanwhile stays.
        """
        remove_tree(top, os.fsencode(_IMAGE_INCOMPLETE))
        try:
            image = os.open(_IMAGE, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
        except FileNotFoundError:
            _unlink(top, _IMAGE_PATH)  # its copy was not complete
            return
        try:
            with (
                open_directory(_DATA, dir_fd=top) as data,
                _opened(data, _copy_path(top)) as target,
            ):
                existing = set(os.listdir(target))
                for entry in set(os.listdir(image)) - existing:
                    os.rename(entry, entry, src_dir_fd=image, dst_dir_fd=target)
                copy_metadata(image, target)
                if self._durable:
                    os.fsync(target)
        except OSError as error:
            if error.errno not in _UNREACHABLE:
                raise  # otherwise the directory was removed meanwhile
        finally:
            os.close(image)
        self._fsync(_DATA, ".", dir_fd=top)
        remove_tree(top, os.fsencode(_IMAGE))
        _unlink(top, _IMAGE_PATH)
        self._fsync(".", dir_fd=top)


_UNREACHABLE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV)


@contextmanager
def _opened(data: int, subpath: str) -> Iterator[int]:
    """Yield a descriptor of a directory of a volume. No link in its path is followed."""
    descriptor = openat2.openat2(data, subpath or ".", DIRECTORY_FLAGS, resolve=_BENEATH)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _copy_path(top: int) -> str:
    """Return the directory of a volume that a complete copy belongs to, '' for the volume."""
    try:
        descriptor = os.open(_IMAGE_PATH, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
    except FileNotFoundError:
        return ""
    with open(descriptor, "rb") as file:
        return os.fsdecode(file.read(_MAX_PATH))


def _unlink(top: int, name: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=top)


def _new_id() -> str:
    return os.urandom(16).hex()


def check_name(name: str) -> str:
    """Return ``name`` if it is a valid volume name.

    :raises InvalidRequest: when it is not, in Docker's words.
    """
    if not _NAME.fullmatch(name):
        if len(name) == 1:
            raise InvalidRequest(
                f"create {name}: volume name is too short, names should be at least two"
                " alphanumeric characters"
            )
        raise InvalidRequest(
            f'create {name[:80]}: "{name[:80]}" includes invalid characters for a local volume'
            ' name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host'
            " directory, use absolute path"
        )
    return name


def is_name(text: str) -> bool:
    """Return whether the source of a ``-v`` is a volume name rather than a path."""
    return bool(text) and not text.startswith(("/", ".", "~")) and bool(_NAME.fullmatch(text))
