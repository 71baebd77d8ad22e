"""Streams of ended processes, kept until their clients have read everything, or long enough."""

from __future__ import annotations

import time

from jaula.runtime.shim.stdio_relay import StdioRelay

LINGER = 10.0  # seconds that attached clients have to read the last output


class Drain:
    """Those that are still being read."""

    def __init__(self) -> None:
        self._leaving: list[tuple[float, StdioRelay]] = []

    def __bool__(self) -> bool:
        return bool(self._leaving)

    def add(self, streams: StdioRelay) -> None:
        """Close now, or when the last client has caught up or its time is over."""
        if streams.finish():
            streams.close()
        else:
            self._leaving.append((time.monotonic() + LINGER, streams))

    def pause(self) -> float | None:
        """Seconds until the next one's time is over."""
        if not self._leaving:
            return None
        return max(0.0, min(due for due, _ in self._leaving) - time.monotonic())

    def close_due(self) -> None:
        """Close what nobody reads any more."""
        now = time.monotonic()
        for entry in list(self._leaving):
            if not entry[1].clients or entry[0] <= now:
                self._leaving.remove(entry)
                entry[1].close()
