"""The objects of a source engine, as values. All texts in them are untrusted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from jaula.spec.api_documents import ContainerCreate
from jaula.spec.api_networks import EndpointSettings, NetworkCreate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

Labels = dict[str, str]


IMAGE, NETWORK, VOLUME, SECRET, CONTAINER, POD = (
    "image", "network", "volume", "secret", "container", "pod",
)  # fmt: skip
KINDS = (IMAGE, VOLUME, NETWORK, SECRET, CONTAINER)


class SourceImage(msgspec.Struct, frozen=True):
    """An image. ``layers`` are diff ids, base first. ``size`` is that of its files, in bytes.

    ``id`` is the digest of its configuration; ``source_id`` is the id that the source shows, which
    differs with the image store of containerd. ``sizes`` are the bytes of each layer, or empty.
    """

    id: str
    source_id: str
    tags: tuple[str, ...]
    digests: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    size: int = 0
    sizes: tuple[int, ...] = ()
    labels: Labels = {}

    @property
    def title(self) -> str:
        """Its first name, or its short id."""
        return self.tags[0] if self.tags else self.source_id.removeprefix("sha256:")[:12]


class SourceVolume(msgspec.Struct, frozen=True):
    """A volume. ``size`` is bytes on the disk, ``entries`` the number of its files.

    ``unreadable`` is the reason for which its files cannot be read, '' for none.
    """

    name: str
    driver: str
    created: str = ""  # RFC 3339
    labels: Labels = {}
    options: dict[str, str] = {}
    size: int = 0
    entries: int = 0
    unreadable: str = ""

    @property
    def is_tree(self) -> bool:
        """Whether the volume is a plain directory, not a mount by its options."""
        return not self.options


class SourceNetwork(msgspec.Struct, frozen=True):
    """A network: its id, the link of its bridge ('' for none), and the request that makes it."""

    id: str
    request: NetworkCreate
    bridge: str = ""

    @property
    def name(self) -> str:
        return self.request.name


class SourceMount(msgspec.Struct, frozen=True):
    """A volume that a container has. ``is_explicit`` says whether its request names it."""

    name: str
    target: str
    read_only: bool = False


class SourceSecret(msgspec.Struct, frozen=True):
    """A secret. ``is_readable`` says whether the source gives its content away."""

    id: str
    name: str
    labels: Labels = {}
    is_readable: bool = False


class SourceContainer(msgspec.Struct, frozen=True):
    """A container.

    ``request`` is its configuration as the source shows it, with the image's merged into it.
    ``image`` is the source's id of its image. ``changed`` is the size of its own files in bytes,
    and ``no_changes`` the reason for which they cannot be read, '' for none.
    """

    id: str
    name: str
    image: str
    request: ContainerCreate
    endpoints: dict[str, EndpointSettings] = {}
    created: str = ""  # seconds since 1970, with decimals
    status: str = ""  # running, exited, created, paused, ...
    volumes: tuple[SourceMount, ...] = ()
    changed: int = 0
    no_changes: str = ""
    notes: tuple[str, ...] = ()
    refusal: str = ""  # the reason for which it cannot be taken over, '' for none

    @property
    def is_running(self) -> bool:
        return self.status in ("running", "paused", "restarting", "removing", "stopping")


class Left(msgspec.Struct, frozen=True):
    """An object of the source that has no counterpart here."""

    kind: str
    name: str
    reason: str


class Inventory(msgspec.Struct, frozen=True):
    """Everything of a source. ``identity`` distinguishes it from other engines."""

    engine: str  # docker or podman
    identity: str
    version: str
    root: str
    images: tuple[SourceImage, ...] = ()
    volumes: tuple[SourceVolume, ...] = ()
    networks: tuple[SourceNetwork, ...] = ()
    secrets: tuple[SourceSecret, ...] = ()
    containers: tuple[SourceContainer, ...] = ()
    left: tuple[Left, ...] = ()

    def origin(self, kind: str, identity: str) -> str:
        """Return the label value of an object that was taken over from here. Pure."""
        return f"{self.engine}:{self.identity}/{kind}/{identity}"


class Source(Protocol):
    """Reads one source engine. Each method may be called again after a failure."""

    def inventory(self) -> Inventory:
        """Return all objects.

        :raises JaulaError: when the source does not answer, or its answer is not valid.
        """

    def archive(self, images: Sequence[SourceImage], *, tags: bool) -> Iterator[bytes | memoryview]:
        """Yield an archive of images that ``docker load`` accepts, each layer once.

        Without ``tags`` it has no names.
        """

    def volume(self, volume: SourceVolume) -> Iterator[bytes | memoryview]:
        """Yield the tar of a volume's files, with an entry for its directory first."""

    def volume_directory(self, volume: SourceVolume) -> AbstractContextManager[int]:
        """Return a descriptor of the directory of a volume, for reading."""

    def changes(self, container: SourceContainer) -> Iterator[bytes | memoryview]:
        """Yield a container's own files as the tar of a layer."""

    def secret(self, secret: SourceSecret) -> bytes:
        """Return the content of a readable secret."""

    def close(self) -> None:
        """Release the source."""
