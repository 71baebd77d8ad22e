"""A writer that sends, and keeps lines in files, so that ``logs`` can read them.

Source: docker docs "Use docker logs with remote logging drivers to read container logs".
"""

from __future__ import annotations

from jaula.logs.log_driver import LogWriter


class CachedWriter:
    """A :class:`jaula.logs.log_driver.LogWriter` of two writers.

    ``dropped`` and ``error`` are those of the remote one: the cache is a convenience.
    """

    def __init__(self, remote: LogWriter, cache: LogWriter) -> None:
        self._remote = remote
        self._cache = cache
        self.dropped = 0
        self.error = ""

    def _update_status(self) -> None:
        self.dropped = self._remote.dropped
        self.error = self._remote.error or self._cache.error

    def write(self, stream: str, data: bytes) -> None:
        self._remote.write(stream, data)
        self._cache.write(stream, data)
        self._update_status()

    def flush(self) -> None:
        self._remote.flush()
        self._cache.flush()
        self._update_status()

    def poll(self) -> float | None:
        pauses = [pause for w in (self._remote, self._cache) if (pause := w.poll()) is not None]
        return min(pauses, default=None)

    def reopen(self) -> None:
        pass  # the cache rotates its own files

    def close(self) -> None:
        self._remote.close()
        self._cache.close()
        self._update_status()
