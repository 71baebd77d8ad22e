"""The client of registries that an engine has: one, for all operations."""

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

_MIRROR_FAILS = (Unreachable, RegistryError, NoCredentials)


class RegistryClient:
    """Connections, transfers and settings. Methods may be called from any thread."""

    def __init__(
        self,
        store: ImageStore,
        config: RegistryConfig,
        patience: Timeouts = Timeouts(),  # noqa: B008 - frozen
        admission: Admission | None = None,
    ) -> None:
        self.store = store
        self.admission = admission
        self.config = config
        found = proxy.configured(config.http_proxy, config.https_proxy, config.no_proxy, os.environ)
        self.transport = Transport(Hosts(config), found, patience)
        self.transfers = Transfers(store, config.downloads)

    @property
    def hosts(self) -> Hosts:
        return self.transport.hosts

    def repository(
        self, domain: str, path: str, held: Credentials, cancel: Cancellation
    ) -> Repository:
        """A repository at the registry itself."""
        session = Session(self.transport, self.hosts.endpoint(domain), held, cancel)
        return Repository(session, path)

    def sources(
        self, reference: Reference, held: Credentials, cancel: Cancellation
    ) -> list[Repository]:
        """Where an image may be pulled from, mirrors that answer first.

        Raises :class:`Unreachable` for the registry itself only where no mirror answered.
        """
        found: list[Repository] = []
        *mirrors, registry = self.hosts.endpoints(reference.domain)
        for endpoint in mirrors:
            try:
                session = Session(self.transport, endpoint, Credentials(), cancel)
            except _MIRROR_FAILS:
                continue  # the registry itself has everything
            found.append(Repository(session, reference.path))
        try:
            session = Session(self.transport, registry, held, cancel)
        except Unreachable:
            if not found:
                raise
        else:
            found.append(Repository(session, reference.path))
        return found

    def close(self) -> None:
        """Let go of idle connections."""
        self.transport.close()
