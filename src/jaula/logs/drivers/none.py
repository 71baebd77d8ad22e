"""The log driver ``none``: output is discarded."""

from __future__ import annotations


class NoneWriter:
    """A :class:`jaula.logs.log_driver.LogWriter`. Discarded output does not count as dropped."""

    dropped = 0
    error = ""

    def write(self, stream: str, data: bytes) -> None:
        pass

    def flush(self) -> None:
        pass

    def poll(self) -> float | None:
        return None

    def reopen(self) -> None:
        pass

    def close(self) -> None:
        pass
