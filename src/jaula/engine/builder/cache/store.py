"""What former builds made, by the digest of what it was made of.

Records are in the database, layers and blobs in their stores; :meth:`BuildCache.references` keeps
those from being taken for garbage. A record whose layer is gone all the same (removed by hand) is
none.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import msgspec

from jaula.state.records import BuildStep

if TYPE_CHECKING:
    from jaula.images.store.store import ImageStore
    from jaula.state.database import Database

_TABLE = "build_steps"


class BuildCache:
    """The steps that one engine remembers."""

    def __init__(self, database: Database, images: ImageStore) -> None:
        self._database = database
        self._images = images
        self._steps: dict[str, BuildStep] = dict(database.all(_TABLE, BuildStep))
        self._lock = threading.Lock()  # the store's garbage is collected in threads
        images.hold(self.references)

    def references(self) -> frozenset[str]:
        """Diff ids of layers and digests of blobs that steps need; from any thread."""
        with self._lock:
            steps = tuple(self._steps.values())
        return frozenset(digest for step in steps for digest in (step.layer, step.blob) if digest)

    def find(self, key: str) -> BuildStep | None:
        """A step that can be taken as it is; it counts as used."""
        step = self._steps.get(key)
        if step is None:
            return None
        if step.layer and not (
            self._images.layers.has(step.layer)
            and self._images.blobs.size(step.blob) == step.blob_size
        ):
            self.forget(key)
            return None
        step = msgspec.structs.replace(step, used_at=time.time_ns(), uses=step.uses + 1)
        self._write(key, step)
        return step

    def keep(self, key: str, step: BuildStep) -> None:
        """Remember a step; its layer is pinned by the caller until this returns."""
        now = time.time_ns()
        self._write(key, msgspec.structs.replace(step, made_at=now, used_at=now))

    def _write(self, key: str, step: BuildStep) -> None:
        with self._lock:
            self._steps[key] = step
        self._database.put(_TABLE, key, step)

    def forget(self, key: str) -> bool:
        """Drop a step, whose layer and blob may be garbage then; whether it was there."""
        step = self._steps.get(key)
        if step is None:
            return False
        quick = [k for k, other in self._steps.items() if other.quick and other.key == step.key]
        for name in (key, *quick):
            self._database.delete(_TABLE, name)
            with self._lock:
                self._steps.pop(name, None)
        return True

    def all(self) -> list[tuple[str, BuildStep]]:
        """Every step with its key, each once; from any thread."""
        with self._lock:
            return [(key, step) for key, step in self._steps.items() if not step.quick]
