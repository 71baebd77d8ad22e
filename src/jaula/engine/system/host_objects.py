"""What the engine has on the host, and other programs may remove: made again, and reported.

Each kind is repaired by its owner, at its next use at the latest:

* bridges and parent interfaces, by the network drivers;
* firewall tables, by the network manager, at once (:mod:`jaula.network.firewall.nft_command`);
* the run directory with its sockets, the cgroup parent and the claims, here, at once. The shims of
  running containers, lazy servers, and a rootless engine's namespace holder, make what is theirs in
  it.

A report is a line of the log, a warning of ``info``, and an event: type ``daemon``, action
``repair``, with the kind and the name of the object.

Facts about inotify(7): a watch of a removed directory is gone, and so a repair watches again.
cgroupfs reports a removed cgroup to the watch of the directory above only.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from jaula.cgroups.cgroup_path import parent_path
from jaula.engine.threads import in_own_thread
from jaula.errors import JaulaError
from jaula.kernel import inotify
from jaula.tasks import BackgroundTasks

if TYPE_CHECKING:
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.images.lazy_layers import LazyLayers

log = logging.getLogger("jaula.engine")
_REMOVED = inotify.IN_DELETE | inotify.IN_MOVED_FROM | inotify.IN_DELETE_SELF | inotify.IN_MOVE_SELF
_PAUSE = 0.1  # seconds from the first removal: ``rm -r`` makes many
_RETRY = 5.0  # seconds
_MAX_WARNINGS = 16
_PROBE = "probe"  # a cgroup that exists for a moment
_TEXTS = {"firewall": "another program flushed the firewall; rules restored"}
_SETTLE = 1.0  # seconds from the start until the cgroup parent is watched


class HolderFiles(Protocol):
    """Files of the namespace holder in the run directory."""

    def are_complete(self) -> bool:
        """Return whether all are there."""

    def restore(self) -> None:
        """Make them again. Blocks.

        :raises OSError: when one cannot be made.
        :raises Unavailable: when the holder does not respond.
        """


class HostObjects:
    """Watches and repairs what this engine has on the host.

    ``listen`` serves the API on a path whose socket was removed; the daemon sets it.
    ``holder_files`` are those of the namespace holder; the daemon sets it for a rootless engine.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._loop: asyncio.AbstractEventLoop | None = None
        self._inotify = -1
        self._pending: asyncio.TimerHandle | None = None
        self._settled: asyncio.TimerHandle | None = None
        self._cgroups: set[str] = set()
        self._sockets: dict[str, tuple[int, int]] = {}
        self._tasks = BackgroundTasks(log, "restore of the run directory")
        self._restores_lazy = False
        self.listen: Callable[[str], None] | None = None
        self.holder_files: HolderFiles | None = None
        self.warnings: list[str] = []

    def open(self) -> None:
        """Report repairs from now on, and watch the directories."""
        self._loop = asyncio.get_running_loop()
        self._services.network_manager.on_repair = self.report
        self._inotify = inotify.create()
        self._watch()
        self._loop.add_reader(self._inotify, self._changed)
        self._settled = self._loop.call_later(_SETTLE, self._settle)

    def _settle(self) -> None:
        """Watch the cgroup parent, which the first start has made."""
        try:
            if self._cgroup_parent and not self._cgroup_directories():
                self._make_cgroup_parent()
        except (OSError, JaulaError) as error:
            log.warning("the cgroup parent cannot be created: %s", error)
        self._watch()

    def serve(self, paths: tuple[str, ...], listen: Callable[[str], None]) -> None:
        """Watch sockets too; ``listen`` opens one again."""
        self.listen = listen
        self._sockets = {path: key for path in paths if (key := _key(path)) is not None}
        self._watch()

    def close(self) -> None:
        """Stop watching."""
        for timer in (self._pending, self._settled):
            if timer is not None:
                timer.cancel()
        self._tasks.cancel()
        if self._loop is not None:
            self._loop.remove_reader(self._inotify)
            os.close(self._inotify)
            self._loop = None

    def report(self, kind: str, name: str, more: str = "") -> None:
        """Report an object that another program removed, and that is there again. Any thread."""
        text = _TEXTS.get(
            kind, f"another program removed the {kind} {name}; it is set up again{more}"
        )
        log.warning("%s", text)
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the engine has ended
                loop.call_soon_threadsafe(self._record, kind, name, text)

    def _record(self, kind: str, name: str, text: str) -> None:
        services = self._services
        attributes = {"name": services.host.hostname, "kind": kind, "object": name}
        services.events.emit("daemon", "repair", services.identity, attributes)
        if text not in self.warnings:
            self.warnings = [*self.warnings, text][-_MAX_WARNINGS:]

    # -- directories -----------------------------------------------------------------------------

    def _watch(self) -> None:
        self._cgroups |= set(self._cgroup_directories())
        watched = dict.fromkeys(self._directories(), _REMOVED)
        watched |= dict.fromkeys(self._claim(), _REMOVED | inotify.IN_CLOSE_WRITE)
        watched |= {os.path.dirname(path): inotify.IN_DELETE for path in self._cgroups}
        for path, mask in watched.items():
            with contextlib.suppress(FileNotFoundError):
                inotify.add_watch(self._inotify, path, mask)

    def _directories(self) -> list[str]:
        paths = self._services.config.paths
        parents = (os.path.dirname(path) for path in self._sockets)
        return list(dict.fromkeys((str(paths.run), str(paths.lazy_run), *parents)))

    @property
    def _cgroup_parent(self) -> str:
        """The cgroup parent, '' if it is not the engine's: systemd removes an empty slice."""
        config = self._services.config
        if config.systemd_cgroups or self._services.host.rootless:
            return ""
        return parent_path(config.cgroup_parent, systemd=False)

    def _cgroup_directories(self) -> list[str]:
        try:
            if not self._cgroup_parent:
                return []
            with self._services.cgroups.open(self._cgroup_parent) as cgroup:
                return list(cgroup.locations().values())
        except JaulaError:
            return []

    def _make_cgroup_parent(self) -> None:
        """Create the cgroup parent in all hierarchies, as the start of a container does."""
        with self._services.cgroups.create(f"{self._cgroup_parent}/{_PROBE}") as probe:
            probe.destroy()

    def _claim(self) -> list[str]:
        claims = self._services.claims
        return [] if claims is None else [str(claims.directory), str(claims.place)]

    def _changed(self) -> None:
        inotify.changed(self._inotify)
        if self._pending is None and self._loop is not None:
            self._pending = self._loop.call_later(_PAUSE, self._repair)

    def _repair(self) -> None:
        self._pending = None
        failed = False
        for repair in (self._repair_run, self._repair_cgroups, self._renew, self._repair_sockets):
            try:
                repair()
            except (OSError, JaulaError) as error:
                log.warning("what another program removed cannot be set up again: %s", error)
                failed = True
        self._watch()
        if failed and self._loop is not None:
            self._pending = self._loop.call_later(_RETRY, self._repair)

    def _repair_run(self) -> None:
        paths = self._services.config.paths
        complete = all(path.is_dir() for path, _ in paths.run_directories)
        for directory, mode in paths.run_directories:
            directory.mkdir(mode=mode, parents=True, exist_ok=True)
        holder, lazy = self.holder_files, self._services.lazy_layers
        if (
            complete
            and (holder is None or holder.are_complete())
            and (lazy is None or self._restores_lazy or lazy.is_complete())
        ):
            return
        if not complete:
            self._services.sandbox_pool.end_inits()  # their mount point was there
        removed = []
        for container in self._services.container_store:
            directory = paths.container_run(container.id)
            if container.live and not directory.exists():
                directory.mkdir(mode=0o700, exist_ok=True)
                removed.append(container)
        self._tasks.spawn(self._restore_others(removed))
        if lazy is not None and not self._restores_lazy:
            self._tasks.spawn(self._restore_lazy(lazy))

    async def _restore_others(self, removed: list[Container]) -> None:
        """Let holder and shims make what the next engine needs, and report the run directory."""
        more = ""
        if self.holder_files is not None:
            try:
                await asyncio.to_thread(self.holder_files.restore)
            except (OSError, JaulaError) as error:
                more = (
                    f". The files of the namespace holder are lost ({error}): stop all containers"
                    " before the engine is started again, or it cannot reach them"
                )
        listening = await asyncio.gather(*map(self._listens_again, removed))
        lost = [each.name for each, done in zip(removed, listening, strict=True) if not done]
        if lost:
            more += (
                f". Restart {', '.join(sorted(lost))}: without the files that were there the next"
                " engine cannot take over what runs"
            )
        self.report("run directory", str(self._services.config.paths.run), more)

    async def _restore_lazy(self, lazy: LazyLayers) -> None:
        """Restore the files of lazy servers. That may wait for a registry."""
        self._restores_lazy = True
        try:
            await in_own_thread(lazy.restore)
        finally:
            self._restores_lazy = False
        if self._pending is None and self._loop is not None and not lazy.is_complete():
            self._pending = self._loop.call_later(_RETRY, self._repair)

    @staticmethod
    async def _listens_again(container: Container) -> bool:
        """Return whether the run directory of a running container has what an engine needs."""
        if container.shim is None or container.record.external_runtime:
            return False  # another runtime's files cannot be made again
        try:
            await container.shim.listen()
        except JaulaError as error:
            log.warning("the shim of container %s: %s", container.name, error)
            return False
        return True

    def _repair_sockets(self) -> None:
        for path, key in list(self._sockets.items()):
            if self.listen is None or _key(path) == key or os.path.lexists(path):
                continue
            os.makedirs(os.path.dirname(path), mode=0o711, exist_ok=True)
            self.listen(path)
            if (made := _key(path)) is not None:
                self._sockets[path] = made
            self.report("socket", path)

    def _repair_cgroups(self) -> None:
        if not all(os.path.isdir(path) for path in self._cgroups):
            self._make_cgroup_parent()
            self.report("cgroup parent", self._cgroup_parent)

    def _renew(self) -> None:
        claims = self._services.claims
        if claims is not None and claims.renew():
            self.report("claim", str(claims.place))


def _key(path: str) -> tuple[int, int] | None:
    """Return device and inode of a file, or None."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
