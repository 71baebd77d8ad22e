"""Push images: missing layers, the configuration, then the manifest unchanged.

The messages are dockerd's, measured at version 26. A pulled image is pushed bit for bit. An image
with plain layers is compressed first (:mod:`jaula.images.registry.compress`). With a requested
compression another manifest is pushed, and the store keeps nothing of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import msgspec

from jaula.errors import JaulaError, NotFound
from jaula.images.reference import Reference, parse
from jaula.images.registry.auth.token import Credentials
from jaula.images.registry.cancellation import Cancellation, Cancelled
from jaula.images.registry.compress import compress_layers, convert_image, is_converted, is_plain
from jaula.images.registry.progress_messages import Message, ProgressBoard, amount, status
from jaula.images.registry.registry_client import RegistryClient
from jaula.images.registry.repository import Repository
from jaula.images.registry.upload import Upload, UploadResult
from jaula.images.registry.worker_pool import WorkerPool
from jaula.images.store.image_catalog import digest_of
from jaula.images.store.image_quota import Quota
from jaula.images.store.image_store import Image, ImageStore, Lease, short
from jaula.spec.image_documents import (
    INDEX,
    MANIFEST,
    Descriptor,
    Index,
    Manifest,
    Platform,
    decode,
    encode,
)
from jaula.spec.layer_compression import LayerCompression

Emit = Callable[[Message], None]
_WAKE = 0.5  # seconds between two checks for new messages


@dataclass(frozen=True, slots=True)
class PushRequest:
    """The name that a client pushes to, and the means. ``emit`` gets the messages.

    ``quota`` is for an image that another client removes meanwhile, since the push names it again.
    With ``unchanged``, plain layers are not compressed. ``compression`` is that of all layers, None
    for the default. Without ``named``, the image does not get the name with the digest.
    """

    client: RegistryClient
    reference: Reference
    credentials: Credentials
    emit: Emit
    cancel: Cancellation
    quota: Quota | None = None
    unchanged: bool = False
    compression: LayerCompression | None = None
    named: bool = True

    def repository(self) -> Repository:
        """Return the repository at the registry."""
        name = self.reference
        return self.client.repository(
            name.domain, name.path, self.credentials, self.cancel, push=True
        )


def push(request: PushRequest, platform: Platform | None = None) -> list[UploadResult]:
    """Push the image of a tag, or of every tag of a repository if the reference has none.

    An index is pushed with all that it lists. If the store lacks a part of it, the image for this
    machine is pushed alone; with ``platform``, the image for that one.

    :raises NotFound: if a tag does not exist.
    """
    store = request.client.store
    try:
        with store.lease() as lease:
            return _push_tags(request, lease, platform)
    finally:
        store.collect()  # plain layers that were compressed, or an image removed meanwhile


def _push_tags(request: PushRequest, lease: Lease, platform: Platform | None) -> list[UploadResult]:
    store, reference, emit = request.client.store, request.reference, request.emit
    repository = f"{reference.domain}/{reference.path}"
    emit(status(f"The push refers to repository [{repository}]"))
    tags = [reference.tag] if reference.tag else _tags(store, reference)
    if not tags:
        raise NotFound(f"An image does not exist locally with the tag: {reference.repository}")
    images: list[tuple[str, Image]] = []
    for tag in tags:
        named = Reference(reference.domain, reference.path, tag)
        try:
            store.resolve(str(named))
        except NotFound:
            raise NotFound(f"tag does not exist: {named}") from None
        images.append((tag, _pinned(request, lease, str(named), platform)))
    target = request.repository()
    results = []
    for tag, image in images:
        index = store.index(image.target)
        whole = index is not None and index.is_complete and platform is None
        if request.compression is not None:
            convert = _push_converted_index if whole else _push_converted
            pushed = convert(request, target, tag, image)
        elif whole:
            pushed = _push_index(request, target, tag, image)
        else:
            pushed = _push(request, target, tag, image)
            if index is not None and platform is None:
                emit(_pushed_instead(store, image))
        results.append(pushed)
    return results


def _pushed_instead(store: ImageStore, image: Image) -> Message:
    """Return Docker's message that one image was pushed instead of its whole index."""
    selected = Descriptor(
        store.media_type(image), image.manifest, store.blobs.size(image.manifest) or 0
    )
    return {
        "progressDetail": {},
        "aux": {
            "manifestPushedInsteadOfIndex": True,
            "originalIndex": msgspec.to_builtins(store.descriptor(image)),
            "selectedManifest": msgspec.to_builtins(selected),
        },
    }


def push_image(request: PushRequest, image: Image) -> UploadResult:
    """Push an image of the store under a name that it neither has nor gets."""
    store = request.client.store
    with store.lease() as lease:
        image = _pinned(request, lease, image.id, None)
        return _push(request, request.repository(), request.reference.tag or "latest", image)


def _pinned(request: PushRequest, lease: Lease, ref: str, platform: Platform | None) -> Image:
    """Return an image for ``ref``, pinned and whole."""
    store, cancel = request.client.store, request.cancel
    image = store.pin(lease, ref, platform)
    store.wait_whole(image, lambda: cancel.done)
    store.check_blobs(image)
    cancel.check()
    return image


def _tags(store: ImageStore, reference: Reference) -> list[str]:
    names = (parse(name) for image in store.list() for name in image.names)
    return sorted(n.tag for n in names if n.repository == reference.repository and n.tag)


def _push(request: PushRequest, target: Repository, tag: str, image: Image) -> UploadResult:
    store, cancel = request.client.store, request.cancel
    for layer in dict.fromkeys(reversed(image.layers)):
        request.emit(status("Preparing", short(layer)))
    manifest = store.manifest(image)
    compress = not request.unchanged and not image.digests and store.index(image.target) is None
    if compress and is_plain(manifest):
        image = compress_layers(store, image, cancel, request.quota)
        manifest = store.manifest(image)
    names = [f"{request.reference.repository}@{image.manifest}"] if request.named else []
    store.check_more_names(request.quota, names)
    with store.lease((image.manifest, *(layer.digest for layer in manifest.layers))):
        upload = Upload(target, store.blobs, cancel)
        _send_blobs(request, upload, image)
        data, media_type = store.blobs.document(image.manifest), store.media_type(image)
        upload.manifest(tag, data, media_type)
        pushed = UploadResult(tag, image.manifest, len(data))
        if request.named:
            store.adopt(data, media_type, names, request.quota)
    _report(pushed, request.emit)
    return pushed


def _push_index(request: PushRequest, target: Repository, tag: str, image: Image) -> UploadResult:
    """Push an index: each manifest before what lists it, since registries demand this order."""
    store = request.client.store
    index, images = store.index(image.target), store.images(image)
    if index is None:
        raise NotFound(f"No such image: {image.target}")  # removed meanwhile
    names = [f"{request.reference.repository}@{image.target}"]
    store.check_more_names(request.quota, names)
    for layer in dict.fromkeys(layer for each in images for layer in reversed(each.layers)):
        request.emit(status("Preparing", short(layer)))
    upload = Upload(target, store.blobs, request.cancel)
    for each in images:
        _send_blobs(request, upload, each)
        upload.manifest(each.manifest, store.blobs.document(each.manifest), store.media_type(each))
    for digest in index.artifacts:
        manifest = store.document(digest)
        for blob in (manifest.config, *manifest.layers):
            if not upload.has(blob.digest):
                upload.send(blob, lambda sent: None)
        upload.manifest(digest, store.blobs.document(digest), manifest.media_type)
    for nested in reversed(index.tree.nested):
        upload.manifest(nested.digest, store.blobs.document(nested.digest), nested.media_type)
    data, descriptor = store.blobs.document(image.target), store.descriptor(image)
    upload.manifest(tag, data, descriptor.media_type)
    pushed = UploadResult(tag, image.target, len(data))
    held = (*index.images, *index.artifacts)
    store.adopt_index(data, descriptor.media_type, held, names, request.quota)
    _report(pushed, request.emit)
    return pushed


def _push_converted(
    request: PushRequest, target: Repository, tag: str, image: Image
) -> UploadResult:
    """Push an image with its layers in the requested compression."""
    upload = Upload(target, request.client.store.blobs, request.cancel)
    data = _send_converted(request, upload, image)
    upload.manifest(tag, data, MANIFEST)
    pushed = UploadResult(tag, digest_of(data), len(data))
    _report(pushed, request.emit)
    return pushed


def _push_converted_index(
    request: PushRequest, target: Repository, tag: str, image: Image
) -> UploadResult:
    """Push an index whose images have their layers in the requested compression.

    Its attestations are about the manifests of the store, so they are left out.
    """
    store = request.client.store
    index = store.index(image.target)
    if index is None:
        raise NotFound(f"No such image: {image.target}")  # removed meanwhile
    images = {each.manifest: each for each in store.images(image)}
    upload = Upload(target, store.blobs, request.cancel)
    listed = []
    for entry in index.tree.entries:
        if (each := images.get(entry.descriptor.digest)) is None:
            continue  # an attestation
        data = _send_converted(request, upload, each)
        digest, described = digest_of(data), entry.descriptor
        upload.manifest(digest, data, MANIFEST)
        listed.append(
            Descriptor(MANIFEST, digest, len(data), described.annotations, described.platform)
        )
    if index.artifacts:
        request.emit(
            status("The attestations of the index are about other manifests and are not pushed")
        )
    original = decode(store.blobs.document(image.target), Index, "the index")
    data = encode(Index(manifests=tuple(listed), annotations=original.annotations))
    upload.manifest(tag, data, INDEX)
    pushed = UploadResult(tag, digest_of(data), len(data))
    _report(pushed, request.emit)
    return pushed


def _send_converted(request: PushRequest, upload: Upload, image: Image) -> bytes:
    """Convert the layers of an image, and upload what the registry lacks. Return the manifest.

    The caller has pinned the image. The converted blobs are pinned until their upload.
    """
    store, compression = request.client.store, request.compression
    if compression is None:
        raise ValueError("the push has no compression")
    blobs = store.manifest(image).layers
    for layer, blob in dict(zip(reversed(image.layers), reversed(blobs), strict=True)).items():
        word = "Compressing" if is_converted(blob, compression) else "Preparing"
        request.emit(status(word, short(layer)))
    layers = _Layers(request, upload)

    def ready(diff_id: str, blob: Descriptor) -> None:
        layers.add(blob, diff_id)

    # A layer is uploaded while the next one is converted.
    with store.lease() as converted, ThreadPoolExecutor(1, "registry-convert") as thread:
        work = thread.submit(
            convert_image,
            *(store, converted, image, compression, layers.check, layers.note, ready),
        )
        work.add_done_callback(lambda _: layers.complete())
        layers.wait()
        manifest = work.result()
        _send_config(upload, manifest)
    return encode(manifest)


def _send_blobs(request: PushRequest, upload: Upload, image: Image) -> None:
    """Upload the layers of an image that the registry lacks, then its configuration."""
    _send_layers(request, upload, request.client.store.manifest(image), image.layers)


def _send_layers(
    request: PushRequest, upload: Upload, manifest: Manifest, ids: Sequence[str]
) -> None:
    """Upload layers, then the configuration. ``ids`` name the layers in the messages."""
    layers = _Layers(request, upload)
    for layer, diff_id in zip(manifest.layers, ids, strict=True):
        layers.add(layer, diff_id)
    layers.complete()
    layers.wait()
    _send_config(upload, manifest)


def _send_config(upload: Upload, manifest: Manifest) -> None:
    if not upload.has(manifest.config.digest):
        upload.send(manifest.config, lambda sent: None)


def _report(pushed: UploadResult, emit: Emit) -> None:
    digest, size = pushed.digest, pushed.size
    emit(status(f"{pushed.tag}: digest: {digest} size: {size}"))
    emit({"progressDetail": {}, "aux": {"Tag": pushed.tag, "Digest": digest, "Size": size}})


class _Layers:
    """The layers of one image that is being pushed. Any thread adds them."""

    def __init__(self, request: PushRequest, upload: Upload) -> None:
        self._upload = upload
        self._added: set[str] = set()
        self._is_complete = False
        self._emit = request.emit
        self._cancel = request.cancel
        self._board = ProgressBoard()
        self._pool = WorkerPool(request.client.config.uploads, "registry-upload")
        self._lock = threading.Lock()
        self._left = 0
        self._error: BaseException | None = None
        self._mounts = _repositories(request.client.store, request.reference)

    def add(self, layer: Descriptor, diff_id: str) -> None:
        """Upload a layer, if it is missing. A layer that was added before is left out."""
        with self._lock:
            if layer.digest in self._added:
                return
            self._added.add(layer.digest)
            self._left += 1
        if self._pool.busy:
            self._board.post(status("Waiting", short(diff_id)))
        self._pool.submit(partial(self._work, layer, diff_id))

    def complete(self) -> None:
        """End the list of layers."""
        self._is_complete = True
        self._board.wake()

    def note(self, id: str, text: str) -> None:
        """Add a message about a layer."""
        self._board.post(status(text, id))

    def check(self) -> None:
        """Return if the push goes on.

        :raises Cancelled: if it does not: the client left, or an upload failed.
        """
        self._cancel.check()
        if self._error is not None:
            raise Cancelled

    def wait(self) -> None:
        """Wait for the uploads of a complete list. Raise the first failure."""
        while self._left or not self._is_complete:
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
