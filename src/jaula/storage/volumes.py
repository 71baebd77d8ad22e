"""Volumes: directories with a name that outlive containers.

``<volumes>/<name>/_data`` is what a container sees, ``volume.json`` beside it what was asked for.
Names follow Docker's grammar (moby ``daemon/names``): ``[a-zA-Z0-9][a-zA-Z0-9_.-]+``, at most 255
bytes.

The directory of volumes is closed to other users of the host: files in a volume may be set-user-ID,
and belong to the host's ids.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import threading
from datetime import UTC, datetime

import msgspec

from jaula.config import Paths
from jaula.errors import Conflict, CorruptState, InvalidRequest, NotFound, Unavailable
from jaula.kernel import paths as kernel_paths
from jaula.kernel.mounts import mount_points
from jaula.storage.trees import (
    copy_tree,
    list_with_prefix,
    open_directory,
    remove_tree,
    remove_with_prefix,
    size_on_disk,
    write_new,
)

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,254}", re.ASCII)
_HALF_MADE = ".new-"
_GOING = ".gone-"


class Volume(msgspec.Struct, frozen=True):
    """A volume; ``created_at`` is RFC 3339."""

    name: str
    path: str
    created_at: str
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    driver: str = "local"
    scope: str = "local"


class _Document(msgspec.Struct, frozen=True):
    created_at: str
    labels: dict[str, str] = {}
    options: dict[str, str] = {}


Volumes = list[Volume]
Names = list[str]


class VolumeStore:
    """The volumes of one engine. Whether a container uses one is the caller's to know."""

    def __init__(self, paths: Paths) -> None:
        self._directory = paths.volumes
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._filling = threading.Lock()  # containers that share an empty volume come at once

    def create(
        self,
        name: str = "",
        labels: dict[str, str] | None = None,
        options: dict[str, str] | None = None,
    ) -> Volume:
        """Make a volume; one of that name that is there already is given back, as Docker does.

        An empty name asks for a random one. What ``options`` mean is the caller's to know; they are
        kept. Raises :class:`InvalidRequest`.
        """
        name = check_name(name or secrets.token_hex(32))
        created = datetime.now(UTC).isoformat(timespec="seconds")
        document = _Document(created, labels or {}, options or {})
        half = f"{_HALF_MADE}{secrets.token_hex(8)}"
        try:
            with open_directory(self._directory) as parent:
                os.mkdir(half, 0o700, dir_fd=parent)
                try:
                    self._fill(parent, half, document)
                    os.rename(half, name, src_dir_fd=parent, dst_dir_fd=parent)
                finally:
                    remove_tree(parent, half.encode())
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return self.get(name)
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                raise Unavailable(f"cannot make volume {name!r}: {error.strerror}") from error
            raise
        return self._volume(name, document)

    def _fill(self, parent: int, half: str, document: _Document) -> None:
        with open_directory(half, dir_fd=parent) as top:
            os.mkdir("_data", 0o755, dir_fd=top)
            os.chmod("_data", 0o755, dir_fd=top)
            write_new(top, "volume.json", msgspec.json.encode(document))

    def get(self, name: str) -> Volume:
        """Raises :class:`NotFound`."""
        if not _NAME.fullmatch(name):
            raise NotFound(f"get {name[:80]}: no such volume")
        path = self._directory / name / "volume.json"
        try:
            document = msgspec.json.decode(path.read_bytes(), type=_Document)
        except FileNotFoundError:
            raise NotFound(f"get {name}: no such volume") from None
        except msgspec.DecodeError as error:
            raise CorruptState(f"the volume's document {path} is damaged: {error}") from error
        return self._volume(name, document)

    def _volume(self, name: str, document: _Document) -> Volume:
        return Volume(name, self.path(name), document.created_at, document.labels, document.options)

    def exists(self, name: str) -> bool:
        return bool(_NAME.fullmatch(name)) and (self._directory / name / "volume.json").exists()

    def path(self, name: str) -> str:
        """Where the volume's files are on the host."""
        return f"{self._directory}/{check_name(name)}/_data"

    def list(self) -> Volumes:
        """All volumes, in order of name."""
        found = []
        for name in sorted(filter(self.exists, os.listdir(self._directory))):
            try:
                found.append(self.get(name))
            except CorruptState:
                continue  # one damaged description hides no other volume; a check tells of it
        return found

    def usage(self, name: str) -> int:
        """Bytes of the volume's files; -1 for one that is a mount of something else."""
        if self.get(name).options:
            return -1
        with open_directory(self.get(name).path) as descriptor:
            return size_on_disk(descriptor)

    def remove(self, name: str) -> None:
        """Remove a volume with all it holds; raises :class:`NotFound`.

        Raises :class:`Conflict` where something is mounted in it, of which nothing is removed.
        """
        data = os.path.realpath(self.get(name).path)
        if any(f"{place}/".startswith(f"{data}/") for place in mount_points()):
            raise Conflict(
                f"remove {name}: volume is in use - something is mounted in it", hint="unmount it"
            )
        gone = f"{_GOING}{secrets.token_hex(8)}"
        with open_directory(self._directory) as parent:
            try:
                os.rename(name, gone, src_dir_fd=parent, dst_dir_fd=parent)
            except FileNotFoundError:
                raise NotFound(f"get {name}: no such volume") from None
            remove_tree(parent, gone.encode())

    # -- what is not as it should be ------------------------------------------------------------

    def is_on_disk(self, name: str) -> bool:
        """Whether the volume has a directory for its files."""
        return bool(_NAME.fullmatch(name)) and (self._directory / name / "_data").is_dir()

    def without_metadata(self) -> Names:
        """Volumes with files whose description cannot be read."""
        found = []
        for name in sorted(os.listdir(self._directory)):
            if self.is_on_disk(name):
                try:
                    self.get(name)
                except (NotFound, CorruptState):
                    found.append(name)
        return found

    def describe(self, name: str) -> None:
        """Give one of :meth:`undescribed` a new description, without labels."""
        document = _Document(datetime.now(UTC).isoformat(timespec="seconds"))
        half = f".volume-{secrets.token_hex(8)}"
        with open_directory(self._directory / name) as top:
            write_new(top, half, msgspec.json.encode(document))
            os.rename(half, "volume.json", src_dir_fd=top, dst_dir_fd=top)

    def empty(self) -> Names:
        """Volumes without a directory for their files."""
        return [volume.name for volume in self.list() if not self.is_on_disk(volume.name)]

    def strays(self) -> Names:
        """What is no volume: neither files nor a description are there."""
        return [
            name
            for name in sorted(os.listdir(self._directory))
            if not name.startswith((_HALF_MADE, _GOING))
            and not self.is_on_disk(name)
            and not self.exists(name)
        ]

    def remove_stray(self, name: str) -> None:
        """Remove an empty directory. Raises ``OSError`` for what holds anything."""
        (self._directory / name).rmdir()

    def leftovers(self, before: int) -> Names:
        """What was not finished by ``before``, in nanoseconds since the epoch."""
        return list_with_prefix(self._directory, _HALF_MADE, _GOING, before=before)

    def remove_leftover(self, name: str) -> None:
        """Remove one of :meth:`leftovers`."""
        with open_directory(self._directory) as parent:
            remove_tree(parent, name.encode())

    def sweep(self) -> Names:
        """Remove what a crash left half-made or half-removed."""
        return remove_with_prefix(self._directory, _HALF_MADE, _GOING)

    def is_empty(self, name: str) -> bool:
        """Whether nothing has been put into a volume yet."""
        with open_directory(self.get(name).path) as directory:
            return not os.listdir(directory)

    def populate(self, name: str, root_fd: int, path: str) -> bool:
        """Copy what an image has at ``path`` into an empty volume; whether anything was done.

        ``root_fd`` is a descriptor of the image's root (see
        :func:`jaula.storage.drivers.driver.open_root`). The volume's directory gets the owner and mode
        of the image's. A volume that holds something, or a path that the image has not, or not as
        a directory, leaves the volume as it is.
        """
        try:
            source = kernel_paths.open_in_root(root_fd, path, os.O_RDONLY | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            return False
        try:
            with self._filling, open_directory(self.get(name).path) as target:
                if os.listdir(target):
                    return False
                copy_tree(source, target)
                return True
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise Unavailable(f"cannot fill volume {name!r}: {error.strerror}") from error
            raise
        finally:
            os.close(source)


def check_name(name: str) -> str:
    """The name, if it is one; raises :class:`InvalidRequest` in Docker's words."""
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"create {name[:80]}: {name[:80]!r} includes invalid characters "
            "for a local volume name, only '[a-zA-Z0-9][a-zA-Z0-9_.-]' are allowed",
            hint="if you intended to pass a host directory, use an absolute path",
        )
    return name


def is_name(text: str) -> bool:
    """Whether the source of a ``-v`` is a volume's name rather than a path."""
    return bool(text) and not text.startswith(("/", ".", "~")) and bool(_NAME.fullmatch(text))
