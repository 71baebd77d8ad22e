"""The network configuration in use, and whether pods can be attached: the condition NetworkReady.

Source: CRI (``NetworkReady`` in ``RuntimeStatus``); containerd's syncer of network configurations.

inotify(7) on the directory reports changes. Polling finds what inotify does not report: a directory
that appears, the target of a link, a plugin that is installed after its configuration. The state
changes only if a stat of the files has changed, or while the network is not ready.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable

import msgspec

from jaula.errors import InvalidRequest, JaulaError
from jaula.features.kubernetes.cni import cni_config
from jaula.features.kubernetes.cni.cni_config import NetworkConfig
from jaula.kernel import inotify

_log = logging.getLogger(__name__)

REASON = "NetworkPluginNotReady"
"""The reason of the condition NetworkReady in CRI."""

_POLL = 5.0  # seconds between polls if the network is not ready, or no watch is possible
_WATCHED_POLL = 30.0  # seconds between polls otherwise
_QUIET = 0.1  # seconds after an event: a file is written in several steps
_EVENTS = (
    inotify.IN_CLOSE_WRITE
    | inotify.IN_MOVED_TO
    | inotify.IN_MOVED_FROM
    | inotify.IN_CREATE
    | inotify.IN_DELETE
    | inotify.IN_ATTRIB
    | inotify.IN_DELETE_SELF
    | inotify.IN_MOVE_SELF
)


class NetworkState(msgspec.Struct, frozen=True, kw_only=True):
    """The condition NetworkReady. ``config`` is None and ``message`` not '' if it is false."""

    config: NetworkConfig | None = None
    message: str = ""

    @property
    def ready(self) -> bool:
        """Return whether pods can be attached."""
        return self.config is not None

    @property
    def reason(self) -> str:
        """Return the reason of the condition; '' if the network is ready."""
        return "" if self.ready else REASON


class ConfMonitor:
    """Keeps the state of the network of a configuration directory.

    ``negotiate`` returns the configuration to use, or raises an error that the state then has.
    """

    def __init__(
        self,
        negotiate: Callable[[NetworkConfig], Awaitable[NetworkConfig]],
        directory: str = cni_config.DIRECTORY,
    ) -> None:
        self._negotiate = negotiate
        self._directory = directory
        self._state = NetworkState(message="the network configuration has not been read")
        self._files: object = None
        self._inotify = -1
        self._watched: tuple[int, int] | None = None  # device and inode of the directory
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def state(self) -> NetworkState:
        """Return the state as of the last change."""
        return self._state

    async def start(self) -> None:
        """Read the configuration once, and follow its changes until :meth:`close`."""
        await self.reload()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Stop following changes."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None
        self._unwatch()

    async def reload(self) -> NetworkState:
        """Read the configuration if a file has changed or the network is not ready."""
        self._watch()
        files = await asyncio.to_thread(_fingerprint, self._directory)
        if self._state.ready and files == self._files:
            return self._state
        state, skipped = await self._load()
        if state != self._state:
            for error in skipped:
                _log.warning("%s", error)
            if state.config is not None:
                _log.info("network %s of %s is ready", state.config.name, state.config.source)
            else:
                _log.warning("no pod network: %s", state.message)
        self._files, self._state = files, state
        return state

    async def _load(self) -> tuple[NetworkState, tuple[InvalidRequest, ...]]:
        skipped: tuple[InvalidRequest, ...] = ()
        try:
            network, skipped = await asyncio.to_thread(cni_config.load_directory, self._directory)
            return NetworkState(config=await self._negotiate(network)), skipped
        except JaulaError as error:
            return NetworkState(message=str(error)), skipped
        except OSError as error:  # of the disk
            return NetworkState(message=f"cannot read {self._directory}: {error}"), skipped

    async def _run(self) -> None:
        while True:
            poll = _WATCHED_POLL if self._state.ready and self._watched is not None else _POLL
            try:
                async with asyncio.timeout(poll):
                    await self._changed.wait()
                    await asyncio.sleep(_QUIET)
            except TimeoutError:
                pass  # a poll
            self._changed.clear()
            await self.reload()

    def _watch(self) -> None:
        """Watch the directory, and another one that has replaced it."""
        try:
            st = os.stat(self._directory)
        except OSError:
            self._unwatch()
            return
        if self._watched == (st.st_dev, st.st_ino):
            return
        self._unwatch()
        try:
            fd = inotify.create()
        except OSError as error:  # the limit of instances
            _log.info("cannot watch %s: %s", self._directory, error)
            return
        try:
            inotify.add_watch(fd, self._directory, _EVENTS)
        except OSError as error:
            os.close(fd)
            _log.info("cannot watch %s: %s", self._directory, error)
            return
        self._inotify, self._watched = fd, (st.st_dev, st.st_ino)
        asyncio.get_running_loop().add_reader(fd, self._on_event)

    def _on_event(self) -> None:
        inotify.changed(self._inotify)
        self._changed.set()

    def _unwatch(self) -> None:
        if self._inotify >= 0:
            asyncio.get_running_loop().remove_reader(self._inotify)
            os.close(self._inotify)
        self._inotify, self._watched = -1, None


def _fingerprint(directory: str) -> object:
    """Return a value that differs when a configuration file has changed."""
    return [_stats(directory), *(_stats(path) for path in _directories(directory))]


def _directories(directory: str) -> list[str]:
    try:
        with os.scandir(directory) as entries:
            return sorted(entry.path for entry in entries if entry.is_dir())
    except OSError:
        return []  # absent: no file has changed


def _stats(directory: str) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                try:
                    st = entry.stat()
                except OSError as error:
                    rows.append((entry.name, error.errno))
                    continue
                rows.append(
                    (entry.name, st.st_ino, st.st_size, st.st_mtime_ns, st.st_mode, st.st_uid)
                )
    except OSError as error:
        return [(error.errno,)]
    return sorted(rows, key=str)
