"""The engine: every use case, over the services below it."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from typing import TYPE_CHECKING

import msgspec

from jaula.engine.builder.service import Builds
from jaula.engine.containers import restore
from jaula.engine.containers.exec import Execs
from jaula.engine.containers.health_monitor import HealthMonitor
from jaula.engine.containers.service import Containers
from jaula.engine.containers.user_lookup import UserLookup
from jaula.engine.fsck.service import Fsck
from jaula.engine.images.registry import RegistryService
from jaula.engine.images.service import Images
from jaula.engine.images.trust import TrustService
from jaula.engine.networks.service import Networks
from jaula.engine.oci_spec import host as oci_spec_host
from jaula.engine.secrets.service import Secrets
from jaula.engine.secrets.store import SecretKind
from jaula.engine.system.disk_usage import DiskUsage
from jaula.engine.system.service import System
from jaula.engine.volumes.service import Volumes
from jaula.errors import JaulaError, NotFound
from jaula.runtime.external import cgroup_cleanup

if TYPE_CHECKING:
    from jaula.config import EngineConfig
    from jaula.engine.model.services import Services

log = logging.getLogger("jaula.engine")


class Engine:
    """The use cases that the API serves."""

    def __init__(self, parts: Services) -> None:
        self.parts = parts
        users = UserLookup(parts)
        self.containers = Containers(parts, users)
        self.execs = Execs(parts, users)
        self.containers.on_exec = self.execs.ended
        self.containers.health = HealthMonitor(
            parts,
            self.containers.exit_handler,
            self.execs,
            self.containers.restart_unhealthy,
        )
        self.images = Images(parts)
        self.distribution = RegistryService(parts)
        self.builds = Builds(parts, self.containers, self.distribution)
        self.trust = TrustService(parts, self.distribution)
        self.volumes = Volumes(parts)
        self.secrets = Secrets(parts, SecretKind.SECRET)
        self.configs = Secrets(parts, SecretKind.CONFIG)
        self.networks = Networks(parts)
        disk_usage = DiskUsage(parts, self.containers, self.images, self.volumes, self.builds)
        self.system = System(parts, disk_usage)
        self.fsck = Fsck(parts)

    def reconfigure(self, config: EngineConfig) -> None:
        """Use other settings from now on; running containers keep theirs."""
        parts = self.parts
        old, parts.config = parts.config, config
        if (old.nofile, old.pids_limit) != (config.nofile, config.pids_limit):
            parts.host = oci_spec_host.with_limits(parts.host, config.nofile, config.pids_limit)
        parts.runtimes.change(config)
        if old.registry != config.registry:
            self.distribution.renew()

    async def open(self) -> None:
        """Take over what a previous engine left running, and sweep what it left incomplete."""
        await self._load_profile()
        self.parts.runtimes.open()
        self.builds.sweep()
        await restore.restore(self.parts, self.containers)
        self._watch_firewall()
        self.parts.sandboxes.refill()

    async def _load_profile(self) -> None:
        """Load the AppArmor profile of containers, on a host with AppArmor; warn if that fails."""
        host = self.parts.host
        if not host.apparmor:
            return
        from jaula.engine.system import apparmor

        failure = await asyncio.to_thread(apparmor.load, self.parts.config.paths.run)
        if failure:
            log.warning("%s", failure)
            self.parts.host = msgspec.structs.replace(host, warnings=(*host.warnings, failure))

    def _watch_firewall(self) -> None:
        """Restore our rules at once when another program flushes the host's firewall."""
        network = self.parts.network

        def repair() -> None:
            try:
                if network.repair():
                    log.warning("another program flushed the firewall; rules restored")
            except JaulaError as error:
                log.warning(
                    "another program flushed the firewall, and the rules cannot be restored: %s",
                    error,
                )

        asyncio.get_running_loop().add_reader(network.watch().fileno(), repair)

    def _remove_cgroup_parent(self) -> None:
        """Remove the parent directory of all containers' cgroups if it is empty."""
        try:
            with self.parts.cgroups.open(
                f"/{self.parts.config.cgroup_parent.strip('/')}"
            ) as parent:
                directories = set(parent.locations().values())
        except NotFound:
            directories = set()
        if self.parts.config.runtimes:
            directories |= set(cgroup_cleanup.cgroup_directories(self.parts.config.cgroup_parent))
        for directory in directories:
            try:
                os.rmdir(directory)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EBUSY, errno.ENOENT):
                    log.warning("cgroup %s: %s", directory, error)

    async def close(self) -> None:
        """Stop the engine and leave every container running."""
        await self.builds.close()
        for container in self.parts.registry:
            if container.restart is not None:
                container.restart.cancel()
            container.close_pending()
            if container.shim is not None:
                container.shim.on_gone = None
                container.shim.close()
        await self.containers.exit_handler.close()
        await self.parts.runtimes.close()
        await self.parts.sandboxes.close()
        self.parts.resolvers.close()
        # Without containers the bridge and its firewall rules are removed too.
        asyncio.get_running_loop().remove_reader(self.parts.network.watch().fileno())
        self.parts.network.teardown()
        self.parts.network.close()
        self._remove_cgroup_parent()
        self.distribution.close()
        self.parts.database.close()
        self.parts.runtime.close()
