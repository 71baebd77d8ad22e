"""Written files of a honeypot: kept by digest, listed with path, owner and times.

The kernel reports each file that was open for writing and is closed, with a descriptor
(:mod:`jaula.kernel.fanotify`). So a file is kept although the program deletes it at once. A copy is
never executed and no path is followed: the descriptor is the file. Its name in the record is its
digest, its mode 0400.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time

import msgspec

from jaula.features.honeypot.run_directory import FILE_LIST, FILES, File, Sample
from jaula.kernel import fanotify, mountinfo

MAX_FILE = 64 << 20  # bytes that are kept of one file
MAX_TOTAL = 1 << 30  # bytes of all kept files
MAX_WRITES = 20_000  # lines of the list
MAX_PATHS = 16  # paths of one content in the index
MAX_WALKED = 100_000  # entries of the writable layer that are read at the end
RECEIVE, DRAIN = 0.5, 20.0  # seconds for waiting events, while the container runs and after it
_CHUNK = 1 << 20  # bytes
_MARKED = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_DELETED = " (deleted)"
_SKIPPED = ("proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue", "bpf", "tracefs", "devtmpfs")
_encode = msgspec.json.Encoder().encode


def watched_mounts(table: tuple[mountinfo.MountInfo, ...], root: str) -> list[mountinfo.MountInfo]:
    """Return the mounts of a container to watch.

    ``root`` is the mount point of the container's root. Pure.
    """
    return [
        mount
        for mount in table
        if (mount.target == root or mount.target.startswith(root + "/"))
        and mount.fstype not in _SKIPPED
    ]


class FileKeeper:
    """Keeps written files below the directory ``directory_fd`` of a run."""

    def __init__(self, directory_fd: int) -> None:
        self.group = fanotify.create(unlimited=True)
        os.mkdir(FILES, 0o700, dir_fd=directory_fd)
        self._files = os.open(
            FILES, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory_fd
        )
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._list = os.open(FILE_LIST, flags, 0o600, dir_fd=directory_fd)
        self._samples: dict[str, Sample] = {}
        self._targets: dict[int, str] = {}  # mount points in the container, by mount id
        self._maps: tuple[list[tuple[int, ...]], list[tuple[int, ...]]] = ([], [])
        self._total = 0
        self._writes = 0
        self.dropped: dict[str, int] = {}

    def watch(self, pid: int, mount_point: str) -> list[str]:
        """Watch the mounts of a container whose init has this pid; return their mount points.

        :raises OSError: when the root cannot be watched.
        """
        root = os.path.realpath(mount_point)
        watched = []
        self._maps = _id_map(pid, "uid_map"), _id_map(pid, "gid_map")
        for mount in watched_mounts(mountinfo.read(f"/proc/{pid}/mountinfo"), root):
            path, inside = mount.target, mount.target.removeprefix(root)
            try:
                # The overlay is the container's own. Other file systems may be the host's.
                whole = mount.fstype == "overlay" and path == root
                fd = os.open(f"/proc/{pid}/root{path}", _MARKED)
                try:
                    fanotify.mark(self.group, fd, fanotify.FAN_CLOSE_WRITE, filesystem=whole)
                finally:
                    os.close(fd)
            except OSError:
                if path == root:
                    raise
                self._drop("mounts without events")
            else:
                self._targets[mount.mount_id] = inside
                watched.append(inside or "/")
        if not watched:
            raise OSError(f"no mount of the container at {root}")
        return watched

    def samples(self) -> tuple[Sample, ...]:
        """Return the kept contents, in the order of their first write."""
        return tuple(self._samples.values())

    def receive(self, seconds: float = RECEIVE) -> None:
        """Keep the files that were closed since the last call, for a bounded time.

        A container can close files faster than they are read, and other work must go on.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and (events := fanotify.read(self.group)):
            for event in events:
                try:
                    if event.fd < 0:
                        self._drop("events lost by the kernel")
                    elif self._writes >= MAX_WRITES:
                        self._drop("writes of files")
                    else:
                        self._keep(event.fd, self._path(event.fd), event.pid)
                finally:
                    event.close()

    def walk(self, upper: str) -> None:
        """Keep the files of the writable layer that no event has reported, at the end of the run.

        The container has no process any more, but the engine may remove files meanwhile.
        """
        entries = 0
        try:
            for directory, _, names, fd in os.fwalk(upper, follow_symlinks=False):
                for name in names:
                    entries += 1
                    if entries > MAX_WALKED:
                        self._drop("files of the layer")
                        return
                    self._keep_in_layer(fd, name, f"{directory.removeprefix(upper)}/{name}")
        except FileNotFoundError:
            return  # the engine has removed the layer
        except (OSError, RecursionError):  # too deep
            self._drop("directories of the layer")

    def _keep_in_layer(self, directory_fd: int, name: str, path: str) -> None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        try:
            file = os.open(name, flags, dir_fd=directory_fd)
        except OSError:  # a link, a socket, a whiteout, or removed
            return
        try:
            self._keep(file, path, 0, known=True)
        finally:
            os.close(file)

    def close(self) -> None:
        """Close the descriptors; events that still wait are counted."""
        for event in fanotify.read(self.group):
            self.dropped["events that were not read"] = 1  # or more
            event.close()
        for fd in (self.group, self._files, self._list):
            os.close(fd)

    def _path(self, fd: int) -> str:
        """Return the path of an open file in the container.

        When the container has exited, its mounts are detached, and the kernel's path begins at the
        mount.
        """
        path = os.readlink(f"/proc/self/fd/{fd}")
        target = self._targets.get(_mount_id(fd), "")
        return path if path == target or path.startswith(f"{target}/") else target + path

    def _drop(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1

    def _keep(self, fd: int, path: str, pid: int, *, known: bool = False) -> None:
        """Keep one file. With ``known`` a content that was kept for this path is not listed."""
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or (known and not status.st_size):
            return
        if self._writes >= MAX_WRITES:
            self._drop("writes of files")
            return
        digest, truncated, reason = "", False, ""
        try:
            digest, truncated = self._copy(fd, status.st_size)
        except _Full as error:
            reason = str(error)
            self._drop(reason)
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            self._drop("contents that cannot be read or written")
        deleted = path.endswith(_DELETED) and status.st_nlink == 0
        path = path.removesuffix(_DELETED) if deleted else path
        sample = self._samples.get(digest)
        if known and sample is not None and path in sample.paths:
            return
        file = File(
            time=round(time.time(), 6),
            path=_printable(path),
            size=status.st_size,
            mode=f"{stat.S_IMODE(status.st_mode):04o}",
            uid=inside_id(status.st_uid, self._maps[0]),
            gid=inside_id(status.st_gid, self._maps[1]),
            mtime=round(status.st_mtime, 6),
            sha256=digest,
            pid=pid,
            program=_program(pid),
            deleted=deleted,
            truncated=truncated,
            reason=reason,
        )
        self._writes += 1
        try:
            os.write(self._list, _encode(file) + b"\n")
        except OSError:
            self._drop("lines of the list")
        if digest:
            self._samples[digest] = _merge(sample, file)

    def _copy(self, source: int, size: int) -> tuple[str, bool]:
        """Copy a content to its digest; return the digest and whether it was cut.

        :raises _Full: when all contents have their full size.
        """
        if self._total + min(size, MAX_FILE) > MAX_TOTAL:
            raise _Full("contents beyond the limit of all files")
        flags = os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC
        target = os.open(f"/proc/self/fd/{self._files}", flags, 0o400)
        try:
            hasher, offset = hashlib.sha256(), 0
            while offset < MAX_FILE:
                data = os.pread(source, min(_CHUNK, MAX_FILE - offset), offset)
                if not data:
                    break
                hasher.update(data)
                offset += len(data)
                while data:
                    data = data[os.write(target, data) :]
            truncated = offset == MAX_FILE and bool(os.pread(source, 1, offset))
            digest = hasher.hexdigest()
            if digest not in self._samples:
                os.fchmod(target, 0o400)
                with contextlib.suppress(FileExistsError):
                    os.link(
                        f"/proc/self/fd/{target}", digest, dst_dir_fd=self._files,
                        follow_symlinks=True,
                    )  # fmt: skip
                self._total += offset
        finally:
            os.close(target)
        return digest, truncated


class _Full(Exception):
    """The kept files have their full size."""


def _merge(sample: Sample | None, file: File) -> Sample:
    """Return the entry of the index for a content that was written again. Pure."""
    paths = sample.paths if sample else ()
    if file.path not in paths and len(paths) < MAX_PATHS:
        paths = (*paths, file.path)
    return Sample(
        sha256=file.sha256,
        size=file.size,
        mode=file.mode,
        paths=paths,
        writes=(sample.writes if sample else 0) + 1,
    )


def inside_id(number: int, rows: list[tuple[int, ...]]) -> int:
    """Return the id in a user namespace for an id of the host; the same id if none maps. Pure."""
    for inside, outside, count in rows:
        if outside <= number < outside + count:
            return number - outside + inside
    return number


def _id_map(pid: int, name: str) -> list[tuple[int, ...]]:
    with open(f"/proc/{pid}/{name}", encoding="ascii") as file:
        return [tuple(map(int, line.split())) for line in file]


def _mount_id(fd: int) -> int:
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
        for line in file:
            if line.startswith("mnt_id:"):
                return int(line.split()[1])
    return -1


def _printable(path: str) -> str:
    """Return a path as valid UTF-8; other bytes are written as escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")[:4096]


def _program(pid: int) -> str:
    """Return the name that a process has given itself, '' if it has exited."""
    if pid <= 0:
        return ""
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return file.read(64).strip().decode("utf-8", "backslashreplace")
    except OSError:
        return ""
