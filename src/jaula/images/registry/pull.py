"""Pulling one image: manifest, configuration, layers, name.

The messages are dockerd's, measured at version 26.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress

import msgspec

from jaula.errors import CorruptState, InvalidRequest, NotFound
from jaula.images.reference import Reference
from jaula.images.registry import errors
from jaula.images.registry import manifest as registry_manifest
from jaula.images.registry.auth.token import Credentials
from jaula.images.registry.cancellation import Cancellation
from jaula.images.registry.client import RegistryClient
from jaula.images.registry.errors import (
    ConnectionLost,
    NoCredentials,
    RegistryError,
    Unreachable,
)
from jaula.images.registry.manifest import Document
from jaula.images.registry.progress import Message, ProgressBoard, status
from jaula.images.registry.repository import Repository
from jaula.images.registry.transfers import Transfer, raised
from jaula.images.store.store import Image, ImageStore, check_document, short
from jaula.spec.image import Descriptor, Platform

Emit = Callable[[Message], None]

_WAKE = 0.5  # seconds after which a pull looks whether it was cancelled


class _RemoteImage(msgspec.Struct, frozen=True):
    """What a name leads to: the document that has the name, and the image's manifest.

    ``later`` are the sources that would have been asked next.
    """

    source: Repository
    later: tuple[Repository, ...]
    named: Document
    manifest: Document


def pull(
    client: RegistryClient,
    reference: Reference,
    platform: Platform | None,
    held: Credentials,
    emit: Emit,
    cancel: Cancellation,
) -> Image:
    """Fetch an image and name it. What fails leaves nothing behind but whole layers of others.

    Raises :class:`NotFound`, :class:`Unreachable` and what else a registry answers, before the
    first message where it is about the name.
    """
    if client.admission is not None:
        client.admission.asked(reference)
    found = _find(client, reference, platform, held, cancel)
    shown = str(reference)
    if reference.digest is not None:
        shown = f"{reference.repository}@{reference.digest}"
    manifest = found.manifest.manifest()
    stored: Callable[[], None] | None = None
    if client.admission is not None:
        stored = client.admission.arriving(
            (found.source, *found.later), reference, found.named, found.manifest, cancel
        )
    config = _config(client.store, found.source, manifest.config, cancel)
    document = check_document(config, manifest.config.digest)
    actual = Platform(document.architecture, document.os or "linux", document.variant)
    registry_manifest.check_platform(platform, actual, shown)
    diff_ids = document.rootfs.diff_ids
    if len(diff_ids) != len(manifest.layers):
        raise InvalidRequest(
            f"image {short(manifest.config.digest)} lists {len(diff_ids)} layers, "
            f"its manifest {len(manifest.layers)}"
        )
    tag = reference.digest or reference.tag
    emit({"status": f"Pulling from {reference.path}", "id": tag})
    names = {f"{reference.repository}@{found.named.digest}", shown}
    before = _known(client.store, shown)
    pairs = list(zip(manifest.layers, diff_ids, strict=True))
    image = _fetch(client, found, config, pairs, names, emit, cancel)
    if stored is not None:
        stored()
    emit(status(f"Digest: {found.named.digest}"))
    word = "Image is up to date for" if before == image.id else "Downloaded newer image for"
    emit(status(f"Status: {word} {shown}"))
    return image


def pull_all(
    client: RegistryClient,
    reference: Reference,
    platform: Platform | None,
    held: Credentials,
    emit: Emit,
    cancel: Cancellation,
) -> list[Image]:
    """Fetch every tag of a repository; ``reference``'s own tag means nothing."""
    if client.admission is not None:
        client.admission.asked(reference)
    source = client.sources(reference, held, cancel)[-1]
    try:
        tags = list(source.tags(cancel))
    except RegistryError as error:
        raise errors.pull_error(error, reference.repository, reference.repository) from None
    if not tags:
        raise NotFound(f"repository {reference.repository} has no tags")
    return [
        pull(
            client,
            Reference(reference.domain, reference.path, tag),
            platform,
            held,
            emit,
            cancel,
        )
        for tag in tags
    ]


def _find(
    client: RegistryClient,
    reference: Reference,
    platform: Platform | None,
    held: Credentials,
    cancel: Cancellation,
) -> _RemoteImage:
    sources = client.sources(reference, held, cancel)
    for number, source in enumerate(sources, 1):
        try:
            named = source.manifest(reference.digest or reference.tag or "", cancel)
            manifest = named
            if named.is_index:
                chosen = registry_manifest.choose(named, platform)
                manifest = source.manifest(chosen.digest, cancel)
                if len(manifest.data) != chosen.size or manifest.media_type != chosen.media_type:
                    raise InvalidRequest(
                        f"manifest {chosen.digest} is not as the index describes it"
                    )
        except (RegistryError, Unreachable, NoCredentials, ConnectionLost) as error:
            if source.session.endpoint.mirror and source is not sources[-1]:
                continue
            if isinstance(error, RegistryError):
                shown = str(reference)
                raise errors.pull_error(error, reference.repository, shown) from None
            raise
        return _RemoteImage(source, tuple(sources[number:]), named, manifest)
    raise AssertionError("the last source answers or raises")


def _known(store: ImageStore, shown: str) -> str | None:
    try:
        return store.resolve(shown).id
    except NotFound:
        return None


def _config(
    store: ImageStore, source: Repository, config: Descriptor, cancel: Cancellation
) -> bytes:
    if store.blobs.size(config.digest) == config.size:
        with suppress(CorruptState):  # what is damaged is fetched anew
            return store.blobs.document(config.digest, config.size)
    return source.config(config, cancel)


def _fetch(
    client: RegistryClient,
    found: _RemoteImage,
    config: bytes,
    pairs: list[tuple[Descriptor, str]],
    names: set[str],
    emit: Emit,
    cancel: Cancellation,
) -> Image:
    store = client.store
    needed = {found.manifest.digest, registry_manifest.sha256(config)}
    needed.update(*((layer.digest, diff_id) for layer, diff_id in pairs))
    try:
        with store.pinned(needed):
            _Layers(client, found.source, pairs, emit, cancel).fetch()
            store.blobs.put(config)
            return store.adopt(found.manifest.data, found.manifest.media_type, names)
    finally:
        store.collect()


class _Layers:
    """The layers of one image, until all are there."""

    def __init__(
        self,
        client: RegistryClient,
        source: Repository,
        pairs: list[tuple[Descriptor, str]],
        emit: Emit,
        cancel: Cancellation,
    ) -> None:
        self._client = client
        self._source = source
        self._emit = emit
        self._cancel = cancel
        self._board = ProgressBoard()
        self._running: list[tuple[Transfer, bool]] = []
        self._known = _is_known(client.store, pairs)
        self._wanted = pairs

    def fetch(self) -> None:
        """Have every layer stored and unpacked. Raises the first failure."""
        with ExitStack() as stack:
            stack.callback(self._leave)
            store = self._client.store
            missing = []
            distinct = {(layer.digest, diff_id): layer for layer, diff_id in self._wanted}
            for (_, diff_id), layer in distinct.items():
                there = store.layers.has(diff_id)
                if there and store.blobs.size(layer.digest) == layer.size:
                    if not self._known:
                        self._emit(status("Already exists", short(layer.digest)))
                else:
                    self._emit(status("Pulling fs layer", short(layer.digest)))
                    missing.append((layer, diff_id))
            for layer, diff_id in missing:
                self._begin(layer, diff_id)
            while self._running:
                for message in self._board.take(_WAKE):
                    self._emit(message)
                self._cancel.check()
                self._look()
            for message in self._board.take(0):
                self._emit(message)

    def _begin(self, layer: Descriptor, diff_id: str) -> None:
        begun = self._client.transfers.join(self._source, layer, diff_id, self._board)
        self._running.append(begun)

    def _look(self) -> None:
        """Take note of transfers that are over."""
        for transfer, own in [pair for pair in self._running if pair[0].done]:
            self._running.remove((transfer, own))
            self._client.transfers.leave(transfer, self._board)
            if transfer.error is None:
                continue
            if own:
                raise raised(transfer.error)
            self._begin(transfer.layer, transfer.diff_id)

    def _leave(self) -> None:
        for transfer, _ in self._running:
            self._client.transfers.leave(transfer, self._board)
        for transfer, _ in self._running:
            transfer.wait_if_cancelled()
        self._running.clear()


def _is_known(store: ImageStore, pairs: list[tuple[Descriptor, str]]) -> bool:
    """Whether an image with exactly these layers is there: Docker says nothing of them then."""
    layers = tuple(diff_id for _, diff_id in pairs)
    return any(image.layers == layers for image in store.list())
