"""Live restore of networks and DNS servers: set up again what the records contain."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from jaula.engine.networks.endpoints import gateways, needs_resolver, settings_of
from jaula.engine.userns import join
from jaula.errors import JaulaError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services

log = logging.getLogger("jaula.network")


def restore_networks(services: Services) -> None:
    """Set up every network with a record; remove those whose creation was interrupted."""
    for network in services.network_store:
        if network.config_only:
            continue
        try:
            if not network.pools and (network.ipv4 or network.ipv6):
                services.network_manager.clear(network)
                services.network_store.forget(network)
                log.info("the creation of network %s was interrupted and is undone", network.name)
            else:
                services.network_manager.define(network)
        except JaulaError as error:
            log.warning("network %s does not work: %s", network.name, error)
            services.network_manager.expect(network)


async def restore_resolvers(services: Services, containers: Iterable[Container]) -> None:
    """Serve DNS again for containers that a previous engine started, and complete their routes.

    That engine may have been killed while it moved the default routes between two networks.
    """
    for container in containers:
        record = container.record
        if not needs_resolver(record.endpoints):
            continue
        try:
            fds = join.open_namespaces(container, ("network",))
            try:
                servers = record.body.host_config.dns
                await services.dns_servers.open(record.id, fds["network"], servers)
                services.network_manager.set_default_routes(
                    gateways(record.endpoints, settings_of(record)),
                    fds["network"],
                    replace=len(record.endpoints) > 1,
                )
            finally:
                os.close(fds["network"])
        except JaulaError as error:
            log.warning("container %s has no DNS server: %s", container.name, error)
