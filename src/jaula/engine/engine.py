"""The engine: every use case, over the services below it."""

from __future__ import annotations

import asyncio
import errno
import functools
import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

import msgspec

from jaula import feature
from jaula.cgroups.cgroup_path import parent_path
from jaula.cgroups.own_memory import OwnMemory
from jaula.engine.containers import live_restore
from jaula.engine.containers.cgroup_cleanup import remove_strays
from jaula.engine.containers.container_cgroup import new_cgroup_path
from jaula.engine.containers.container_exec import Execs
from jaula.engine.containers.containers import Containers
from jaula.engine.containers.health_monitor import HealthMonitor
from jaula.engine.containers.user_lookup import UserLookup
from jaula.engine.oci_spec import host_facts, spare_init_shape
from jaula.engine.system.host_objects import HostObjects
from jaula.engine.system.system import System
from jaula.errors import Conflict, JaulaError, NotFound
from jaula.runtime.external import foreign_cgroups
from jaula.sandbox.fork_server import SERVER

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaula.config import EngineConfig
    from jaula.engine.fsck.fsck import Fsck
    from jaula.engine.images.images import Images
    from jaula.engine.images.registry_images import RegistryService
    from jaula.engine.model.services import Services
    from jaula.engine.networks.networks import Networks
    from jaula.engine.system.disk_usage import DiskUsage
    from jaula.engine.userns.id_ranges import IdRange
    from jaula.engine.volumes.volumes import Volumes
    from jaula.spec.runtime_spec import Spec

_FIREWALL_RETRY = 5.0  # seconds
log = logging.getLogger("jaula.engine")
Service = TypeVar("Service")


class Engine:
    """The use cases that the API serves."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.of_features = feature.ServiceCache()
        users = UserLookup(services)
        self.containers = Containers(services, users)
        self.execs = Execs(services, users)
        self.containers.on_exec = self.execs.ended
        self.containers.exit_handler.end_execs = self.execs.container_exited
        self.containers.health = HealthMonitor(
            services,
            self.containers.exit_handler,
            self.execs,
            self.containers.end_unhealthy,
        )
        self.host_objects = HostObjects(services)
        self.system = System(services, lambda: self.disk_usage, self.host_objects)

    def service(self, make: Callable[[Engine], Service]) -> Service:
        """Return a service of a feature, by the function that makes it."""
        return self.of_features.service(self, make)

    def existing(self, make: Callable[[Engine], Service]) -> Service | None:
        """Return a service of a feature if it has been made."""
        return self.of_features.existing(make)

    # Services that are loaded with their first request.

    @functools.cached_property
    def images(self) -> Images:
        """The images of the store."""
        from jaula.engine.images.images import Images

        return Images(self.services)

    @functools.cached_property
    def distribution(self) -> RegistryService:
        """Pull and push."""
        from jaula.engine.images.registry_images import RegistryService

        return RegistryService(self.services)

    @functools.cached_property
    def volumes(self) -> Volumes:
        """The volumes."""
        from jaula.engine.volumes.volumes import Volumes

        return Volumes(self.services)

    @functools.cached_property
    def networks(self) -> Networks:
        """The networks."""
        from jaula.engine.networks.networks import Networks

        return Networks(self.services)

    @functools.cached_property
    def disk_usage(self) -> DiskUsage:
        """The disk usage."""
        from jaula.engine.system.disk_usage import DiskUsage

        caches = self.services.hooks.build_cache(self)
        return DiskUsage(self.services, self.containers, self.images, self.volumes, caches)

    @functools.cached_property
    def fsck(self) -> Fsck:
        """The checks and repairs. They are loaded with the first one."""
        from jaula.engine.fsck.fsck import Fsck

        return Fsck(self.services)

    def reconfigure(self, config: EngineConfig) -> None:
        """Use other settings from now on; running containers keep theirs."""
        services = self.services
        old, services.config = services.config, config
        if (old.nofile, old.pids_limit) != (config.nofile, config.pids_limit):
            services.host = host_facts.with_limits(services.host, config.nofile, config.pids_limit)
        services.runtime_table.change(config)
        if old.registry != config.registry and "distribution" in self.__dict__:
            self.distribution.renew()

    async def open(self) -> None:
        """Take over what a previous engine left running, and sweep what it left incomplete."""
        SERVER.check_memory = functools.partial(
            OwnMemory().check, "a sandboxed process cannot start"
        )
        self.host_objects.open()
        await self._load_profile()
        self._watch_lazy_layers()
        self.services.runtime_table.open()
        await self.services.hooks.restoring(self)
        await live_restore.restore(self.services, self.containers)
        await self.services.hooks.restored(self)
        if self.services.claims is not None:
            self.services.claims.sweep_ids()
        self._watch_firewall()
        await self.services.hooks.network_opened(self)
        if not self.services.config.systemd_cgroups:
            await asyncio.to_thread(remove_strays, self.services)
        self._prepare_spare_inits()
        self.services.sandbox_pool.refill()

    def _prepare_spare_inits(self) -> None:
        """Let the pool of sandboxes create spare inits, where starts can use them.

        The label of mounts on a host with SELinux, the scope of systemd's cgroups, and the
        unprivileged way of a rootless engine differ for each container.
        """
        services = self.services
        if services.host.selinux or services.host.rootless or services.config.systemd_cgroups:
            return

        def spec_of(container_id: str, ids: IdRange) -> Spec:
            return spare_init_shape.shape(
                container_id,
                new_cgroup_path(services.config, "", container_id),
                host_facts.refresh(services.host),
                services.id_ranges.mappings(ids),
            )

        def remove_cgroup(container_id: str) -> bool:
            path = new_cgroup_path(services.config, "", container_id)
            try:
                with services.cgroups.open(path) as cgroup:
                    cgroup.destroy(timeout=0)
            except NotFound:
                return True
            except Conflict:
                return False
            except JaulaError as error:
                log.warning("the cgroup of spare init %s stays: %s", container_id, error)
            return True

        services.sandbox_pool.spec_of = spec_of
        services.sandbox_pool.remove_cgroup = remove_cgroup

    async def _load_profile(self) -> None:
        """Load the AppArmor profile of containers, on a host with AppArmor; warn if that fails."""
        host = self.services.host
        if not host.apparmor:
            return
        from jaula.engine.system import apparmor_load

        failure = await asyncio.to_thread(apparmor_load.load, host.apparmor_default)
        if failure:
            log.warning("%s", failure)
            self.services.host = msgspec.structs.replace(host, warnings=(*host.warnings, failure))

    def _watch_lazy_layers(self) -> None:
        """Send the events of layers that are fetched in the background."""
        lazy, events = self.services.lazy_layers, self.services.events
        if lazy is None:
            return
        loop = asyncio.get_running_loop()

        def emit(action: str, image: str, attributes: dict[str, str]) -> None:
            with suppress(RuntimeError):  # the engine has ended
                loop.call_soon_threadsafe(events.emit, "image", action, image, attributes)

        lazy.on_event = emit

    def _watch_firewall(self) -> None:
        """Restore our rules at once when another program flushes the host's firewall."""
        network, loop = self.services.network_manager, asyncio.get_running_loop()
        retry: asyncio.TimerHandle | None = None

        def repair() -> None:
            nonlocal retry
            if retry is not None:
                retry.cancel()
                retry = None
            try:
                network.repair()
            except JaulaError as error:
                log.warning(
                    "another program flushed the firewall, and the rules cannot be restored: %s",
                    error,
                )
                retry = loop.call_later(_FIREWALL_RETRY, repair)

        loop.add_reader(network.watch().fileno(), repair)

    def _remove_cgroup_parent(self) -> None:
        """Remove the parent directory of all containers' cgroups if it is empty.

        systemd removes a slice itself.
        """
        config = self.services.config
        if config.systemd_cgroups:
            return
        try:
            with self.services.cgroups.open(
                parent_path(config.cgroup_parent, systemd=False)
            ) as parent:
                directories = set(parent.locations().values())
        except NotFound:
            directories = set()
        if config.runtimes:
            directories |= set(foreign_cgroups.cgroup_directories(config.cgroup_parent))
        for directory in directories:
            try:
                os.rmdir(directory)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EBUSY, errno.ENOENT):
                    log.warning("cgroup %s: %s", directory, error)

    async def close(self) -> None:
        """Stop the engine and leave every container running."""
        self.host_objects.close()
        await self.services.hooks.engine_stopping(self)
        for container in self.services.container_store:
            if container.restart is not None:
                container.restart.cancel()
            container.close_pending()
            if container.shim is not None:
                container.shim.on_gone = None
                container.shim.close()
        await self.containers.exit_handler.close()
        self.services.engine_sockets.close_all()
        await self.services.runtime_table.close()
        await self.services.sandbox_pool.close()
        self.services.dns_servers.close()
        # Without containers the bridge and its firewall rules are removed too.
        asyncio.get_running_loop().remove_reader(self.services.network_manager.watch().fileno())
        self.services.network_manager.teardown()
        self.services.network_manager.close()
        self._remove_cgroup_parent()
        if "distribution" in self.__dict__:
            self.distribution.close()
        if self.services.lazy_layers is not None:
            self.services.lazy_layers.close()
        self.services.database.close()
        self.services.runtime.close()
        if self.services.claims is not None:
            self.services.claims.release()
