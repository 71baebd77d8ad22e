"""The Docker Engine API, as far as the escape tests use it, in the client's form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

Query = Sequence[tuple[str, object]]


class Api(Protocol):
    """A connection to the engine."""

    def request(self, method: str, path: str, query: Query = (), body: object = None) -> bytes:
        """Send a request and return the body; raise if the engine refuses."""
        ...

    def document(self, method: str, path: str, query: Query = (), body: object = None) -> Any:
        """Send a request and return the JSON document."""
        ...
