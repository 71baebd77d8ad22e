"""The registry client of an engine: one object for all operations."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from jaula.config import RegistryConfig
from jaula.images.reference import Reference
from jaula.images.registry.auth.token import Credentials
from jaula.images.registry.cancellation import Cancellation
from jaula.images.registry.errors import NoCredentials, RegistryError, Unreachable
from jaula.images.registry.hosts import Hosts
from jaula.images.registry.http import proxy
from jaula.images.registry.http.transport import Transport
from jaula.images.registry.repository import Repository
from jaula.images.registry.session import Session
from jaula.images.registry.timeouts import Timeouts
from jaula.images.registry.transfers import Transfers
from jaula.images.store.store import ImageStore

if TYPE_CHECKING:
    from jaula.images.registry.admission import Admission

_MIRROR_ERRORS = (Unreachable, RegistryError, NoCredentials)


class RegistryClient:
    """Connections, transfers and settings. Methods may be called from any thread."""

    def __init__(
        self,
        store: ImageStore,
        config: RegistryConfig,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 - frozen
        admission: Admission | None = None,
    ) -> None:
        self.store = store
        self.admission = admission
        self.config = config
        proxies = proxy.configured_proxies(
            config.http_proxy, config.https_proxy, config.no_proxy, os.environ
        )
        self.transport = Transport(Hosts(config), proxies, timeouts)
        self.transfers = Transfers(store, config.downloads)

    @property
    def hosts(self) -> Hosts:
        return self.transport.hosts

    def repository(
        self, domain: str, path: str, credentials: Credentials, cancel: Cancellation
    ) -> Repository:
        """Return a repository at the registry itself."""
        session = Session(self.transport, self.hosts.endpoint(domain), credentials, cancel)
        return Repository(session, path)

    def sources(
        self, reference: Reference, credentials: Credentials, cancel: Cancellation
    ) -> list[Repository]:
        """Return the repositories to pull an image from: reachable mirrors, then the registry.

        :raises Unreachable: if neither a mirror nor the registry is reachable.
        """
        sources: list[Repository] = []
        *mirrors, registry = self.hosts.endpoints(reference.domain)
        for endpoint in mirrors:
            try:
                session = Session(self.transport, endpoint, Credentials(), cancel)
            except _MIRROR_ERRORS:
                continue  # the registry itself has all images
            sources.append(Repository(session, reference.path))
        try:
            session = Session(self.transport, registry, credentials, cancel)
        except Unreachable:
            if not sources:
                raise
        else:
            sources.append(Repository(session, reference.path))
        return sources

    def close(self) -> None:
        """Close idle connections."""
        self.transport.close()
