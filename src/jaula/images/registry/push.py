"""Push images: missing layers, the configuration, then the manifest unchanged.

The messages are dockerd's, measured at version 26. A pulled image is pushed bit for bit. An image
with plain layers is compressed first (:mod:`jaula.images.registry.compress`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

from jaula.errors import JaulaError, NotFound
from jaula.images.reference import Reference, parse
from jaula.images.registry.auth.token import Credentials
from jaula.images.registry.cancellation import Cancellation
from jaula.images.registry.client import RegistryClient
from jaula.images.registry.compress import compress_layers, is_plain
from jaula.images.registry.progress import Message, ProgressBoard, amount, status
from jaula.images.registry.repository import Repository
from jaula.images.registry.upload import Upload, UploadResult
from jaula.images.registry.worker_pool import WorkerPool
from jaula.images.store.quota import Quota
from jaula.images.store.store import Image, ImageStore, Lease, short
from jaula.spec.image import Descriptor

Emit = Callable[[Message], None]
_WAKE = 0.5  # seconds between two checks for new messages


def push(
    client: RegistryClient,
    reference: Reference,
    credentials: Credentials,
    emit: Emit,
    cancel: Cancellation,
    quota: Quota | None = None,
) -> list[UploadResult]:
    """Push the image of a tag, or of every tag of a repository if ``reference`` has none.

    ``quota`` is for an image that another client removes meanwhile, since the push names it again.

    :raises NotFound: if a tag does not exist.
    """
    try:
        with client.store.lease() as lease:
            return _push_tags(client, reference, credentials, emit, cancel, lease, quota)
    finally:
        client.store.collect()  # plain layers that were compressed, or an image removed meanwhile


def _push_tags(
    client: RegistryClient,
    reference: Reference,
    credentials: Credentials,
    emit: Emit,
    cancel: Cancellation,
    lease: Lease,
    quota: Quota | None,
) -> list[UploadResult]:
    repository = f"{reference.domain}/{reference.path}"
    emit(status(f"The push refers to repository [{repository}]"))
    tags = [reference.tag] if reference.tag else _tags(client.store, reference)
    if not tags:
        raise NotFound(f"An image does not exist locally with the tag: {reference.repository}")
    images: list[tuple[str, Image]] = []
    for tag in tags:
        named = Reference(reference.domain, reference.path, tag)
        try:
            images.append((tag, client.store.pin(lease, str(named))))
        except NotFound:
            raise NotFound(f"tag does not exist: {named}") from None
    target = client.repository(reference.domain, reference.path, credentials, cancel)
    return [
        _push(client, target, reference, tag, image, emit, cancel, quota) for tag, image in images
    ]


def push_image(
    client: RegistryClient,
    reference: Reference,
    image: Image,
    credentials: Credentials,
    emit: Emit,
    cancel: Cancellation,
    quota: Quota | None = None,
) -> UploadResult:
    """Push an image of the store under a name that it need not have."""
    with client.store.lease() as lease:
        image = client.store.pin(lease, image.id)
        target = client.repository(reference.domain, reference.path, credentials, cancel)
        tag = reference.tag or "latest"
        return _push(client, target, reference, tag, image, emit, cancel, quota)


def _tags(store: ImageStore, reference: Reference) -> list[str]:
    names = (parse(name) for image in store.list() for name in image.names)
    return sorted(n.tag for n in names if n.repository == reference.repository and n.tag)


def _push(
    client: RegistryClient,
    target: Repository,
    reference: Reference,
    tag: str,
    image: Image,
    emit: Emit,
    cancel: Cancellation,
    quota: Quota | None,
) -> UploadResult:
    store = client.store
    for layer in dict.fromkeys(reversed(image.layers)):
        emit(status("Preparing", short(layer)))
    manifest = store.manifest(image)
    if is_plain(manifest) and not image.digests:
        image = compress_layers(store, image, cancel, quota)
        manifest = store.manifest(image)
    with store.lease((image.manifest, *(layer.digest for layer in manifest.layers))):
        upload = Upload(target, store.blobs, cancel)
        distinct = {
            layer.digest: (layer, diff_id)
            for layer, diff_id in zip(manifest.layers, image.layers, strict=True)
        }
        pairs = list(distinct.values())
        _Layers(client, upload, reference, pairs, emit, cancel).send()
        if not upload.has(manifest.config.digest):
            upload.send(manifest.config, lambda sent: None)
        data, media_type = store.blobs.document(image.manifest), store.media_type(image)
        upload.manifest(tag, data, media_type)
        pushed = UploadResult(tag, image.manifest, len(data))
        store.adopt(data, media_type, [f"{reference.repository}@{pushed.digest}"], quota)
    emit(status(f"{tag}: digest: {pushed.digest} size: {pushed.size}"))
    emit({"progressDetail": {}, "aux": {"Tag": tag, "Digest": pushed.digest, "Size": pushed.size}})
    return pushed


class _Layers:
    """The layers of one image that is being pushed."""

    def __init__(
        self,
        client: RegistryClient,
        upload: Upload,
        reference: Reference,
        layers: list[tuple[Descriptor, str]],
        emit: Emit,
        cancel: Cancellation,
    ) -> None:
        self._upload = upload
        self._layers = layers
        self._emit = emit
        self._cancel = cancel
        self._board = ProgressBoard()
        self._pool = WorkerPool(client.config.uploads, "registry-upload")
        self._lock = threading.Lock()
        self._left = len(layers)
        self._error: BaseException | None = None
        self._mounts = _repositories(client.store, reference)

    def send(self) -> None:
        """Upload every missing layer. Raise the first failure."""
        for layer, diff_id in self._layers:
            if self._pool.busy:
                self._emit(status("Waiting", short(diff_id)))
            self._pool.submit(partial(self._work, layer, diff_id))
        while self._left:
            for message in self._board.take(_WAKE):
                self._emit(message)
        for message in self._board.take(0):
            self._emit(message)
        if isinstance(self._error, JaulaError):
            raise self._error
        if self._error is not None:
            raise JaulaError(f"a layer cannot be sent: {self._error}") from self._error

    def _work(self, layer: Descriptor, diff_id: str) -> None:
        try:
            if self._error is None:
                self._cancel.check()
                self._send(layer, short(diff_id))
        except BaseException as error:  # noqa: BLE001 - handed to the waiting thread
            with self._lock:
                self._error = self._error or error
        finally:
            with self._lock:
                self._left -= 1
            self._board.wake()

    def _send(self, layer: Descriptor, id: str) -> None:
        if self._upload.has(layer.digest):
            self._board.post(status("Layer already exists", id))
            return

        def on_progress(sent: int) -> None:
            self._board.update(amount("Pushing", id, sent, layer.size), last=sent == layer.size)

        mounts = self._mounts.get(layer.digest, ())
        source = self._upload.send(layer, on_progress, mounts)
        self._board.post(status(f"Mounted from {source}" if source else "Pushed", id))


def _repositories(store: ImageStore, reference: Reference) -> dict[str, tuple[str, ...]]:
    """Return for each blob up to three repositories of the same registry that should have it.

    The image's RepoDigests name them. The blob can be mounted from such a repository.
    """
    paths_of: dict[str, dict[str, None]] = {}
    for image in store.list():
        for name in image.digests:
            origin = parse(name)
            if origin.domain != reference.domain or origin.path == reference.path:
                continue
            for blob in store.blobs_of(name):
                paths_of.setdefault(blob, {})[origin.path] = None
    return {blob: tuple(paths)[:3] for blob, paths in paths_of.items()}
