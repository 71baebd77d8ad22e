"""The names of the host that each engine claims: what two engines must not share.

Bridges, firewall tables, cgroups, run directories and host ids are global. An engine writes what it
uses into a directory of its own below ``/run/jaula-engines``, and holds a lock there as long as it
runs. The rootless engines of a user have such a directory beside their default run directory:

* ``ENGINE-ID/engine.lock``: locked by the engine with flock(2); the kernel releases it at a crash.
* ``ENGINE-ID/claim.json``: its directories, its bridge, its cgroup parent.
* ``ENGINE-ID/ids/START``: a file for each range of host ids that one of its containers has.

A claim counts while its engine runs, or a shim of one of its containers does. So a crash releases
what no container uses, and the same root takes everything again. An engine that asks for a name of
another one is refused at its start, before it has changed anything. It is refused too while an
engine runs whose claim cannot be read. That engine writes its claim again at once.

Only its user can read the directory: a process that can open a lock file can lock it.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from jaula.errors import Conflict, Unavailable

log = logging.getLogger("jaula.state")
DIRECTORY = Path("/run/jaula-engines")
IDS = 65536  # ids of one range
_LOCK_TIMEOUT = 10.0  # seconds
_OWN_TIMEOUT = 1.0  # seconds; another engine tests the lock for microseconds
_UNREADABLE_TIMEOUT = 5.0  # seconds in which a running engine writes its claim again
_UNREADABLE_WAKE = 0.1  # seconds
_MAX_CLAIM = 65536  # bytes


class Claim(msgspec.Struct, frozen=True):
    """What one engine uses. ``netns`` is the inode number of the namespace of ``bridge``.

    ``cgroup_parent`` is '' for an engine without cgroups.
    """

    id: str
    root: str
    run: str
    netns: int
    bridge: str
    cgroup_parent: str  # path below the root of a hierarchy


def conflicts(own: Claim, other: Claim) -> list[tuple[str, str]]:
    """Return what two engines would share, and the flag that separates them. Pure."""
    found = []
    if own.run == other.run:
        found.append((f"the run directory {own.run}", "--run DIRECTORY"))
    if own.bridge == other.bridge and own.netns == other.netns:
        found.append((f"the bridge {own.bridge}", "--bridge NAME"))
    if own.cgroup_parent and own.cgroup_parent == other.cgroup_parent:
        found.append((f"the cgroup parent {own.cgroup_parent}", "--cgroup-parent NAME"))
    return found


class Claims:
    """The claim of this engine, and a view of those of the others.

    Not thread safe, except for :meth:`is_active` and :meth:`foreign_containers`.
    """

    def __init__(self, own: Claim, directory: Path = DIRECTORY) -> None:
        self._own = own
        self._document = msgspec.json.encode(own)
        self.directory = directory
        self._lock = -1
        self._ids: set[int] = set()

    @property
    def id(self) -> str:
        """The id of this engine."""
        return self._own.id

    @property
    def place(self) -> Path:
        """The directory of this engine's claim."""
        return self.directory / self._own.id

    def take(self) -> None:
        """Claim the names of this engine, for the life of this process.

        :raises Conflict: when an engine that runs, or has running containers, claims one of them.
        :raises Unavailable: when the directory cannot be written, or the claim of an engine that
            runs cannot be read.
        """
        deadline = time.monotonic() + _UNREADABLE_TIMEOUT
        while unreadable := self._take_locked():
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"{unreadable} is not the claim of the engine that runs with it",
                    hint=f"restart that engine: fuser {unreadable.parent}/engine.lock",
                )
            time.sleep(_UNREADABLE_WAKE)  # without the mutex, which that engine needs

    def _take_locked(self) -> Path | None:
        """Claim the names. Return the claim of a running engine that cannot be read instead."""
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                mutex = _lock(self.directory / "lock", _LOCK_TIMEOUT)
            except BlockingIOError:
                raise Unavailable(
                    f"another engine has held {self.directory}/lock for"
                    f" {_LOCK_TIMEOUT:.0f} seconds",
                    hint=f"find its process with: fuser {self.directory}/lock",
                ) from None
            try:
                unreadable = self._unreadable()
                if unreadable is None:
                    self._take()
                return unreadable
            finally:
                os.close(mutex)
        except OSError as error:
            raise self._not_writable(error) from error

    def _not_writable(self, error: OSError) -> Unavailable:
        return Unavailable(
            f"cannot claim the names of this engine in {self.directory}: {error.strerror}",
            hint=f"make {self.directory.parent} writable",
        )

    def _unreadable(self) -> Path | None:
        for engine_id in self._names():
            place = self.directory / engine_id
            if not any(self._read(engine_id)) and _is_locked(place / "engine.lock"):
                return place / "claim.json"
        return None

    def _take(self) -> None:
        for other in self._others():
            if not self._is_active(other.id, other.run):
                shutil.rmtree(self.directory / other.id, ignore_errors=True)
                continue
            if shared := conflicts(self._own, other):
                names = " and ".join(name for name, _ in shared)
                verb = "belongs" if len(shared) == 1 else "belong"
                flags = " and ".join(flag for _, flag in shared)
                raise Conflict(
                    f"{names} {verb} to another engine, that of {other.root}",
                    hint=f"give this engine its own with {flags}",
                )
        copied = [claim for claim in self._read(self._own.id) if claim.root != self._own.root]
        if copied and _has_shim(copied[0].run):
            raise self._copy(copied[0].root)
        (self.place / "ids").mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._holds_lock():
            try:
                lock = _lock(self.place / "engine.lock", _OWN_TIMEOUT)
            except BlockingIOError:
                raise self._copy(copied[0].root if copied else "another root directory") from None
            if self._lock >= 0:
                os.close(self._lock)
            self._lock = lock
        temporary = self.place / "claim.new"
        temporary.write_bytes(self._document)
        temporary.rename(self.place / "claim.json")
        for start in self._ids:
            (self.place / "ids" / str(start)).touch(mode=0o600)

    def _holds_lock(self) -> bool:
        """Return whether this process has locked the file that is there now."""
        try:
            there = os.stat(self.place / "engine.lock")
        except (FileNotFoundError, NotADirectoryError):
            return False
        return self._lock >= 0 and os.path.samestat(there, os.fstat(self._lock))

    def _copy(self, root: str) -> Conflict:
        return Conflict(
            f"the engine of {root} has the id of this one: {self._own.root} is a copy of its root",
            hint="stop that engine and its containers, or start with an empty root directory",
        )

    def renew(self) -> bool:
        """Claim again what another program removed or changed. Return whether that was necessary.

        :raises Unavailable: when the directory cannot be written.
        :raises Conflict: when another engine has claimed a name meanwhile.
        """
        try:
            there = (
                self._holds_lock() and (self.place / "claim.json").read_bytes() == self._document
            )
        except (FileNotFoundError, NotADirectoryError):
            there = False
        except OSError as error:
            raise self._not_writable(error) from error
        if not there:
            self.take()
        return not there

    def release(self) -> None:
        """Release the lock, and the claim unless a container runs."""
        if self._lock < 0:
            return
        if not _has_shim(self._own.run):
            shutil.rmtree(self.place, ignore_errors=True)
        os.close(self._lock)
        self._lock = -1

    # -- ranges of host ids ----------------------------------------------------------------------

    def take_ids(self, start: int) -> bool:
        """Claim a range of host ids. Return False if another engine has a part of it.

        The own file is written before those of the others are read. Of two engines that do so at
        the same time, at least one sees the other.
        """
        self.hold_ids(start)
        if any(abs(other - start) < IDS for other in self.foreign_ids()):
            self.release_ids(start)
            return False
        return True

    def hold_ids(self, start: int) -> None:
        """Claim a range that a container of this engine has already."""
        self._ids.add(start)
        path = self.place / "ids" / str(start)
        try:
            path.touch(mode=0o600)
        except FileNotFoundError:
            self.renew()
            path.touch(mode=0o600)
        except OSError as error:
            self._ids.discard(start)
            raise self._not_writable(error) from error

    def release_ids(self, start: int) -> None:
        """Release a range of host ids.

        If the directory cannot be written, the file stays: other engines do not take the range
        until a later process of this one sweeps it.
        """
        self._ids.discard(start)
        try:
            (self.place / "ids" / str(start)).unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s", self._not_writable(error).message)

    def sweep_ids(self) -> None:
        """Release the ranges of a former process of this engine that no container has."""
        for name in _entries(self.place / "ids"):
            if not name.isdigit() or int(name) not in self._ids:
                (self.place / "ids" / name).unlink(missing_ok=True)

    def foreign_ids(self) -> set[int]:
        """Return where the ranges of the other engines begin."""
        found: set[int] = set()
        for engine_id in self._names():
            names = _entries(self.directory / engine_id / "ids")
            if names and self.is_active(engine_id):
                found.update(int(name) for name in names if name.isdigit())
        return found

    # -- other engines ---------------------------------------------------------------------------

    def is_active(self, engine_id: str) -> bool:
        """Return whether another engine runs, or has a container that does."""
        if _is_locked(self.directory / engine_id / "engine.lock"):
            return True
        return any(_has_shim(claim.run) for claim in self._read(engine_id))

    def foreign_containers(self) -> set[str]:
        """Return the ids of the containers of all other engines."""
        found: set[str] = set()
        for claim in self._others():
            for parent in (claim.root, claim.run):
                found.update(_entries(Path(parent, "containers")))
        return found

    def _is_active(self, engine_id: str, run: str) -> bool:
        return _is_locked(self.directory / engine_id / "engine.lock") or _has_shim(run)

    def _others(self) -> Iterator[Claim]:
        for engine_id in self._names():
            yield from self._read(engine_id)

    def _names(self) -> list[str]:
        """Return the ids of the other engines."""
        return [name for name in _entries(self.directory) if name not in ("lock", self._own.id)]

    def _read(self, engine_id: str) -> Iterator[Claim]:
        """Yield the claim of an engine; nothing if the file is absent or not a claim."""
        try:
            with open(self.directory / engine_id / "claim.json", "rb") as file:
                yield msgspec.json.decode(file.read(_MAX_CLAIM), type=Claim)
        except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError, UnicodeDecodeError):
            return


def _is_locked(path: Path) -> bool:
    """Return whether a process holds the lock of a file.

    The attempt takes a shared lock for a moment, so the owner tries more than once.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _lock(path: Path, timeout: float) -> int:
    """Lock a file and return its descriptor.

    :raises BlockingIOError: when another process has held the lock for ``timeout`` seconds.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(fd)
                raise
        time.sleep(0.01)


def _has_shim(run: str) -> bool:
    """Return whether a shim listens below a run directory.

    A connection without a request is closed by the shim (``runtime/shim/engine_connections.py``).
    """
    names = _entries(Path(run, "containers"))
    return any(_listens(f"{run}/containers/{name}") for name in names)


def _entries(directory: Path) -> list[str]:
    """Return the names in a directory, which may be absent."""
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _listens(directory: str) -> bool:
    """Return whether a shim listens in a container's run directory.

    The directory is named by a descriptor: an address has only 108 bytes, and the path of a user's
    run directory with a container's id may be longer.
    """
    try:
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as probe:
            probe.connect(f"/proc/self/fd/{fd}/shim.sock")
    except OSError as error:
        return error.errno == errno.EAGAIN  # its queue is full
    finally:
        os.close(fd)
    return True
