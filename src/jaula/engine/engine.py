"""The engine: every use case, over the parts that it is given."""

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
from jaula.engine.system.service import System
from jaula.engine.volumes.service import Volumes
from jaula.errors import JaulaError, NotFound
from jaula.runtime.external import cgroup_cleanup

if TYPE_CHECKING:
    from jaula.config import EngineConfig
    from jaula.engine.model.services import Services

log = logging.getLogger("jaula.engine")


class Engine:
    """What the API serves."""

    def __init__(self, parts: Services) -> None:
        self.parts = parts
        users = UserLookup(parts)
        self.containers = Containers(parts, users)
        self.execs = Execs(parts, self.containers, users)
        self.containers.health = HealthMonitor(self.containers, self.execs)
        self.images = Images(parts)
        self.distribution = RegistryService(parts)
        self.builds = Builds(parts, self.containers, self.distribution)
        self.trust = TrustService(parts, self.distribution)
        self.volumes = Volumes(parts)
        self.secrets = Secrets(parts, SecretKind.SECRET)
        self.configs = Secrets(parts, SecretKind.CONFIG)
        self.networks = Networks(parts)
        self.system = System(parts, self)
        self.fsck = Fsck(parts)

    def reconfigure(self, config: EngineConfig) -> None:
        """Work with other settings from now on; what runs is left as it is."""
        parts = self.parts
        old, parts.config = parts.config, config
        if (old.nofile, old.pids_limit) != (config.nofile, config.pids_limit):
            parts.host = oci_spec_host.with_limits(parts.host, config.nofile, config.pids_limit)
        parts.runtimes.change(config)
        if old.registry != config.registry:
            self.distribution.renew()

    async def open(self) -> None:
        """Take over what a former engine left, sweep what it left half-made."""
        await self._load_profile()
        self.parts.runtimes.open()
        self.builds.sweep()
        await restore.restore(self.parts, self.containers)
        self._watch_firewall()
        self.parts.sandboxes.refill()

    async def _load_profile(self) -> None:
        """The AppArmor profile of containers, on a host that has AppArmor; it may be refused."""
        host = self.parts.host
        if not host.apparmor:
            return
        from jaula.engine.system import apparmor

        failure = await asyncio.to_thread(apparmor.load, self.parts.config.paths.run)
        if failure:
            log.warning("%s", failure)
            self.parts.host = msgspec.structs.replace(host, warnings=(*host.warnings, failure))

    def _watch_firewall(self) -> None:
        """Put our rules back at once when another program flushes the host's firewall."""
        network = self.parts.network

        def repair() -> None:
            try:
                if network.repair():
                    log.warning("the firewall was flushed by another program; rules put back")
            except JaulaError as error:
                log.warning("the firewall was flushed and cannot be put back: %s", error)

        asyncio.get_running_loop().add_reader(network.watch().fileno(), repair)

    def _remove_cgroup_parent(self) -> None:
        """Remove the directory above all containers' cgroups where nothing is left in it."""
        try:
            with self.parts.cgroups.open(
                f"/{self.parts.config.cgroup_parent.strip('/')}"
            ) as parent:
                places = set(parent.locations().values())
        except NotFound:
            places = set()
        if self.parts.config.runtimes:
            places |= set(cgroup_cleanup.places(self.parts.config.cgroup_parent))
        for place in places:
            try:
                os.rmdir(place)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EBUSY, errno.ENOENT):
                    log.warning("cgroup %s: %s", place, error)

    async def close(self) -> None:
        """Stop, and leave every container running."""
        await self.builds.close()
        for container in self.parts.registry:
            if container.restart is not None:
                container.restart.cancel()
            container.close_pending()
            if container.shim is not None:
                container.shim.on_gone = None
                container.shim.close()
        await self.containers.ending.close()
        await self.parts.runtimes.close()
        await self.parts.sandboxes.close()
        self.parts.resolvers.close()
        # With nobody on it the bridge and its firewall go too.
        asyncio.get_running_loop().remove_reader(self.parts.network.watch().fileno())
        self.parts.network.teardown()
        self.parts.network.close()
        self._remove_cgroup_parent()
        self.distribution.close()
        self.parts.database.close()
        self.parts.runtime.close()
