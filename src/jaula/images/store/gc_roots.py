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
"""Return the digests of blobs and layers that something other than an image needs."""


class GcRoots:
    """Digests of blobs and diff ids of layers that no image names, or does not name yet.

    The blobs and layers of an image that is being loaded are pinned. Holders that keep some for
    longer, such as the build cache, are asked each time. Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pins: Counter[str] = Counter()
        self._holders: list[Holder] = []

    def hold(self, holder: Holder) -> None:
        """Ask ``holder`` from now on, from any thread, for more roots."""
        self._holders.append(holder)

    @contextmanager
    def pinned(self, digests: Iterable[str]) -> Iterator[None]:
        """Keep ``digests`` for the duration of a ``with`` statement. Pins may overlap."""
        pins = tuple(digests)
        with self._lock:
            self._pins.update(pins)
        try:
            yield
        finally:
            with self._lock:
                self._pins.subtract(pins)
                self._pins = +self._pins

    @property
    def busy(self) -> bool:
        """Return whether anything is pinned, that is, an image is being made."""
        return bool(self._pins)

    def all(self) -> set[str]:
        """Return the pins and the roots of all holders."""
        with self._lock:
            pins = set(self._pins)
        return pins.union(*(holder() for holder in self._holders))
