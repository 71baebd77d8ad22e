"""A registry client with a private store and short timeouts, and its leftovers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaula.config import Paths, RegistryConfig
from jaula.images.reference import parse
from jaula.images.registry.auth.token import Credentials
from jaula.images.registry.cancellation import Cancellation
from jaula.images.registry.image_pull import pull
from jaula.images.registry.registry_client import RegistryClient
from jaula.images.registry.timeouts import Timeouts
from jaula.images.store.image_store import Image, ImageStore
from jaula.spec.image_documents import Platform
from jaula.storage.layers.layer_store import LayerStore

SHORT = Timeouts(
    connect=2,
    stall=1,
    document=2,
    commit=3,
    window=1,
    least=1000,
    attempts=3,
    progress=1 << 16,
    pause=0.01,
    longest_pause=0.02,
)
HELD = Credentials("maria", "s3cret")


@dataclass
class Puller:
    """A client; ``messages`` are those of the last pull."""

    directory: Path
    settings: dict[str, Any] = field(default_factory=dict)
    timeouts: Timeouts = SHORT
    messages: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        paths = Paths(self.directory / "root", self.directory / "run")
        self.store = ImageStore(paths, LayerStore(paths))
        self._paths = paths
        config = RegistryConfig(**({"certificates": ()} | self.settings))
        self.client = RegistryClient(self.store, config, self.timeouts)

    def pull(
        self,
        name: str,
        held: Credentials = HELD,
        platform: Platform | None = None,
        cancel: Cancellation | None = None,
    ) -> Image:
        self.messages.clear()
        return pull(
            self.client,
            parse(name),
            platform,
            held,
            self.messages.append,
            cancel or Cancellation(),
        )

    def left(self) -> list[str]:
        """Return the files of images and layers in the store."""
        blobs = self._paths.images / "blobs" / "sha256"
        return sorted(path.name for top in (blobs, self._paths.layers) for path in top.iterdir())
