"""The registry client of an engine: one object for all operations."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from jaula.config import RegistryConfig
from jaula.images.reference import Reference
from jaula.images.registry.auth.token import Credentials
from jaula.images.registry.cancellation import Cancellation
from jaula.images.registry.http import proxy_choice
from jaula.images.registry.http.registry_transport import Transport
from jaula.images.registry.pull_sources import Sources
from jaula.images.registry.registry_hosts import Hosts
from jaula.images.registry.registry_session import Session
from jaula.images.registry.repository import Repository
from jaula.images.registry.timeouts import Timeouts
from jaula.images.registry.transfers import Transfers
from jaula.images.store.image_store import ImageStore

if TYPE_CHECKING:
    from jaula.images.lazy_layers import LazyLayers
    from jaula.images.registry.admission import Admission


class RegistryClient:
    """Connections, transfers and settings. Methods may be called from any thread."""

    def __init__(
        self,
        store: ImageStore,
        config: RegistryConfig,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 - frozen
        admission: Admission | None = None,
        lazy: LazyLayers | None = None,
    ) -> None:
        """``lazy`` mounts layers before they are whole; without it every layer is fetched."""
        self.store = store
        self.admission = admission
        self.lazy = lazy
        self.config = config
        proxies = proxy_choice.configured_proxies(
            config.http_proxy, config.https_proxy, config.no_proxy, os.environ
        )
        self.transport = Transport(Hosts(config), proxies, timeouts)
        self.transfers = Transfers(store, config.downloads)

    @property
    def hosts(self) -> Hosts:
        return self.transport.hosts

    def repository(
        self,
        domain: str,
        path: str,
        credentials: Credentials,
        cancel: Cancellation,
        *,
        push: bool = False,
    ) -> Repository:
        """Return a repository at the registry itself, with ``push`` where images are pushed to.

        :raises Unreachable: if the server is not reachable.
        """
        endpoint = self.hosts.push_endpoint(domain) if push else self.hosts.endpoint(domain)
        return Repository(Session(self.transport, endpoint, credentials, cancel), path)

    def sources(
        self, reference: Reference, credentials: Credentials, cancel: Cancellation
    ) -> Sources:
        """Return the servers to pull an image from: mirrors, then the registry."""
        endpoints = self.hosts.endpoints(reference.domain)
        return Sources(self.transport, endpoints, reference.path, credentials, cancel)

    def close(self) -> None:
        """Close idle connections."""
        self.transport.close()
