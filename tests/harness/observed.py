"""The stream of the observer (``GET /jaula/observe``), read in a thread."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any, Self

from harness.engine import PrivateEngine, UnixConnection


class ObservedStream:
    """The documents that a viewer has received. A context manager."""

    def __init__(self, engine: PrivateEngine, connection: UnixConnection | None = None) -> None:
        self._connection = connection or UnixConnection(str(engine.socket), 60.0)
        self._connection.request("GET", "/jaula/observe")
        self._answer = self._connection.getresponse()
        self.documents: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection.sock is not None:
            self._connection.sock.close()

    def _read(self) -> None:
        try:
            while line := self._answer.readline():
                self.documents.append(json.loads(line))
        except (OSError, ValueError):
            return  # the test has closed the connection

    def isolation(self, container_id: str) -> dict[str, Any] | None:
        """Return the newest document of a container."""
        for document in reversed(self.documents):
            if document["Type"] == "isolation" and document["Id"] == container_id:
                return document
        return None

    def wait(self, condition: Callable[[], object], what: str, seconds: float = 40.0) -> None:
        """Wait until a condition holds."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"{what}: {self.documents[-3:]}"
            time.sleep(0.05)
