"""The servers that an image may be pulled from, in the order of trial.

Each server is contacted at its turn, and once: the failure to reach it is remembered. A tag is
resolved only by a server with this capability. The content of a digest may come from any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from jaula.errors import InvalidRequest, JaulaError
from jaula.images.registry.auth.token import Credentials
from jaula.images.registry.cancellation import Cancellation, Cancelled
from jaula.images.registry.hosts_file import PULL, RESOLVE
from jaula.images.registry.http.registry_transport import Transport
from jaula.images.registry.registry_hosts import Endpoint
from jaula.images.registry.registry_session import Session
from jaula.images.registry.repository import Repository

_Result = TypeVar("_Result")


class Sources:
    """The servers for one operation in one thread."""

    def __init__(
        self,
        transport: Transport,
        endpoints: tuple[Endpoint, ...],
        path: str,
        credentials: Credentials,
        cancel: Cancellation,
    ) -> None:
        self._transport = transport
        self._endpoints = tuple(e for e in endpoints if PULL in e.capabilities)
        self._registry = endpoints[-1]
        self._path = path
        self._credentials = credentials
        self._cancel = cancel
        self._opened: dict[Endpoint, Repository] = {}
        self._failures: dict[Endpoint, JaulaError] = {}

    def first(self, work: Callable[[Repository], _Result], *, resolve: bool) -> _Result:
        """Return the result of the first server that has one.

        With ``resolve``, only servers that may resolve tags are asked.

        :raises JaulaError: that of the last server; :meth:`explain` adds those of the others.
        """
        endpoints = [e for e in self._endpoints if not resolve or RESOLVE in e.capabilities]
        if not endpoints:
            raise InvalidRequest(
                f"no server of {self._registry.namespace or self._registry.name} may"
                f" {'resolve a tag' if resolve else 'be pulled from'}",
                hint=f"see the capabilities in {self._registry.source}",
            )
        for endpoint in endpoints:
            try:
                return work(self._open(endpoint))
            except Cancelled:
                raise
            except JaulaError as error:
                self._failures[endpoint] = error
        raise self._failures[endpoints[-1]]

    def content(self) -> Iterator[Repository]:
        """Yield the servers for content with a known digest, except those that have failed."""
        for endpoint in self._endpoints:
            if endpoint not in self._failures:
                try:
                    yield self._open(endpoint)
                except Cancelled:
                    raise
                except JaulaError as error:
                    self._failures[endpoint] = error

    def explain(self, error: JaulaError) -> JaulaError:
        """Add the failures of the other servers to the error of the last one; return it."""
        others = list(self._failures.items())[:-1]
        if others:
            tried = "; ".join(f"{endpoint.name}: {each.message}" for endpoint, each in others)
            error.message += f" (tried before: {tried})"
            error.args = (error.message,)
        return error

    def _open(self, endpoint: Endpoint) -> Repository:
        repository = self._opened.get(endpoint)
        if repository is None:
            session = Session(self._transport, endpoint, self._credentials, self._cancel)
            repository = self._opened[endpoint] = Repository(
                session, self._path, alternatives=endpoint is not self._endpoints[-1]
            )
        return repository
