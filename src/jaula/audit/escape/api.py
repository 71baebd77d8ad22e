"""What probing asks of the engine: the Docker Engine API, in the client's form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

Query = Sequence[tuple[str, object]]


class Api(Protocol):
    """A connection to the engine."""

    def request(self, method: str, path: str, query: Query = (), body: object = None) -> bytes:
        """The body of the answer; raises where the engine refuses."""
        ...

    def document(self, method: str, path: str, query: Query = (), body: object = None) -> Any:
        """The answer's JSON document."""
        ...
