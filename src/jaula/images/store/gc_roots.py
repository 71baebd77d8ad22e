"""What must stay in the store although no image names it, or does not name it yet.

An image that is being loaded has its blobs and layers pinned; others who keep some for longer (the
build's cache) are asked each time.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

Holder = Callable[[], Iterable[str]]
"""Names the blobs and layers, by digest, that something else than an image needs."""


class GcRoots:
    """Digests of blobs and diff ids of layers, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pins: Counter[str] = Counter()
        self._holders: list[Holder] = []

    def hold(self, holder: Holder) -> None:
        """From now on ask ``holder``, from any thread, what must stay as well."""
        self._holders.append(holder)

    @contextmanager
    def pinned(self, digests: Iterable[str]) -> Iterator[None]:
        """Keep something for a while; the same may be pinned several times."""
        wanted = tuple(digests)
        with self._lock:
            self._pins.update(wanted)
        try:
            yield
        finally:
            with self._lock:
                self._pins.subtract(wanted)
                self._pins = +self._pins

    @property
    def busy(self) -> bool:
        """Whether anything is pinned, so that something is being made."""
        return bool(self._pins)

    def all(self) -> set[str]:
        """What is pinned, and what holders name."""
        with self._lock:
            found = set(self._pins)
        return found.union(*(holder() for holder in self._holders))
