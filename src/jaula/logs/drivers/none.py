"""The log driver ``none``: nothing is kept."""

from __future__ import annotations


class NoneWriter:
    """See :class:`jaula.logs.protocol.LogWriter`. What it is given is not counted as lost."""

    dropped = 0
    error = ""

    def write(self, stream: str, data: bytes) -> None:
        pass

    def flush(self) -> None:
        pass

    def poll(self) -> float | None:
        return None

    def close(self) -> None:
        pass
