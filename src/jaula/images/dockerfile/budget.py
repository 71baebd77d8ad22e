"""The bounds of the text of one build: of all its stages and platforms together.

A limit of one instruction does not bound a build: a Dockerfile of 4 kB has a hundred instructions,
each of which may be expensive. So every instruction spends from one budget. The processor time is
the last bound, for what the others do not count.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from jaula.images.dockerfile.dockerfile_error import DockerfileError

MAX_STEPS = 20_000
"""Instructions that are executed, of all stages and platforms."""

MAX_RESULT = 32 << 20
"""Characters of all expanded instructions."""

MAX_PATTERNS = 1 << 22
"""Characters that patterns scan; a pattern of more than 64 characters counts several times."""

MAX_PORTS = 3 * 65535
"""Ports of all EXPOSE: all that exist."""

MAX_ENTRIES = 10_000_000
"""Variables, labels, ports, volumes and steps in the image's configuration, summed over the steps:
each step writes the configuration."""

MAX_SECONDS = 30.0
"""Seconds of processor time."""

_HINT = "that is the limit for one build: split the Dockerfile, or make it simpler"


class BuildBudget:
    """What is left of the bounds of one build. Methods may be called from any thread.

    Each raises :class:`~.errors.DockerfileError`, without a location, beyond its bound.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._steps = MAX_STEPS
        self._result = MAX_RESULT
        self._patterns = MAX_PATTERNS
        self._ports = MAX_PORTS
        self._entries = MAX_ENTRIES
        self._seconds = MAX_SECONDS

    def steps(self, count: int) -> None:
        """Spend steps of a plan."""
        with self._lock:
            self._steps -= count
        self._check(self._steps, f"the build has more than {MAX_STEPS} steps")

    def result(self, characters: int) -> None:
        """Spend characters of an expanded word."""
        with self._lock:
            self._result -= characters
        self._check(
            self._result,
            f"the expanded instructions of the build are longer than {MAX_RESULT} characters",
        )

    def pattern(self, characters: int, length: int) -> None:
        """Spend a scan of a value by a pattern of a length."""
        with self._lock:
            self._patterns -= (64 + characters) * (1 + length // 64)
        self._check(self._patterns, "the build has too many patterns for values of this length")

    def ports(self, count: int) -> None:
        """Spend ports of an EXPOSE."""
        with self._lock:
            self._ports -= count
        self._check(
            self._ports, f"the EXPOSE instructions of the build have more than {MAX_PORTS} ports"
        )

    def entries(self, count: int) -> None:
        """Spend the entries of the configuration that a step writes."""
        with self._lock:
            self._entries -= count
        self._check(self._entries, "the build has too many steps for a configuration of this size")

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Spend the processor time of this thread during the ``with`` statement."""
        message = (
            f"the instructions of the build take more than {MAX_SECONDS:g} seconds of processor"
            " time"
        )
        self._check(self._seconds, message)
        began = time.thread_time()
        try:
            yield
        finally:
            with self._lock:
                self._seconds -= time.thread_time() - began
        self._check(self._seconds, message)

    @staticmethod
    def _check(left: float, message: str) -> None:
        if left < 0:
            raise DockerfileError(message, hint=_HINT)
