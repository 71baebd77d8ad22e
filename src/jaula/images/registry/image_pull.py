"""Pull one image: manifest, configuration, layers, name.

1. Resolve the reference to a manifest for this platform, at the first server that has it; an index
   is followed
   (:func:`jaula.images.registry.manifest_download`). The image policy admits it by name and
   signature. Its owner must be allowed to have it, by the sizes that the manifest states.
2. Fetch the configuration, which lists the diff ids of the layers.
3. Fetch the layers that the store lacks, some at a time. A layer is downloaded by one thread into a
   file that another thread unpacks while it grows; both check digests
   (:mod:`jaula.images.registry.transfers`). Pulls from the same server that need the same layer
   share its transfer. A layer that is mounted before it is whole counts only if its bytes come from
   the repository of this pull.
4. Store the manifest unchanged and give it its names, in one step. If the names refer to an index,
   the index is stored unchanged too and gets them. Its other images are not fetched. An index that
   has been stored before keeps the images of other platforms.

Blobs and layers that arrive are pinned until the image has its name. The messages are dockerd's,
measured at version 26.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import msgspec

from jaula.errors import (
    CorruptState,
    InvalidRequest,
    JaulaError,
    NotAuthorized,
    NotFound,
    Unsupported,
)
from jaula.images.image_platform import check_platform
from jaula.images.reference import Reference
from jaula.images.registry import manifest_download, registry_errors
from jaula.images.registry.auth.token import Credentials
from jaula.images.registry.cancellation import Cancellation
from jaula.images.registry.manifest_download import Document
from jaula.images.registry.progress_messages import Message, ProgressBoard, status
from jaula.images.registry.pull_sources import Sources
from jaula.images.registry.registry_client import RegistryClient
from jaula.images.registry.registry_errors import (
    ConnectionLost,
    NoCredentials,
    RegistryError,
    Unreachable,
)
from jaula.images.registry.repository import Repository
from jaula.images.registry.transfers import Transfer, as_jaula_error
from jaula.images.store.image_quota import Quota, footprint
from jaula.images.store.image_store import Image, ImageStore, Lease, check_document, short
from jaula.images.store.index import walk
from jaula.spec.image_documents import Descriptor, Manifest, Platform, decode, layer_name

Emit = Callable[[Message], None]

_SOURCE_ERRORS = (RegistryError, Unreachable, NoCredentials, ConnectionLost, InvalidRequest)
"""Errors after which the content may come from the next server."""

_WAKE = 0.5  # seconds between two checks for cancellation
_ATTESTATIONS_LIMIT = 4  # of one image
_STATEMENTS_LIMIT = 16  # of one attestation
_log = logging.getLogger("jaula.images")


class _RemoteImage(msgspec.Struct, frozen=True):
    """The document that a name resolves to, and the image's manifest, from ``source``."""

    source: Repository
    named: Document
    manifest: Document


def pull(
    client: RegistryClient,
    reference: Reference,
    platform: Platform | None,
    credentials: Credentials,
    emit: Emit,
    cancel: Cancellation,
    quota: Quota | None = None,
    *,
    whole: bool = False,
    keep_names: bool = False,
) -> Image:
    """Fetch an image and name it. After a failure only complete layers of other images remain.

    With ``whole``, the image is complete at the end, also if layers of it are mounted. With
    ``keep_names``, a name that another owner has set to another image stays there, and the image
    has a name with its digest.

    Errors about the name and about ``quota`` are raised before the first message. The quota is
    checked again with the unpacked layers, before the image is named.

    :raises NotAuthorized: if the name of another owner would refer to another image.
    :raises NotFound: if the image does not exist.
    :raises Unreachable: if no source is reachable.
    :raises RegistryError: if the registry refuses a request.
    """
    if client.admission is not None:
        client.admission.check_name(reference)
    sources = client.sources(reference, credentials, cancel)
    remote = _resolve(sources, reference, platform, cancel)
    if remote.named.is_index:  # one that exceeds the limits is refused before a layer is fetched
        walk(remote.named.data, remote.named.digest, lambda descriptor: None)
    name = str(reference)
    if reference.digest is not None:
        name = f"{reference.repository}@{reference.digest}"
    manifest = remote.manifest.manifest()
    size = len(remote.manifest.data)
    client.store.check_quota(quota, (footprint(manifest, remote.manifest.digest, size),))
    by_digest = f"{reference.repository}@{remote.named.digest}"
    names = {by_digest, name}
    try:
        client.store.check_names(
            quota,
            (name,),
            remote.named.digest,
            manifest.config.digest,
            f"pull {by_digest}, and give it a name of your own with jaula tag; that owner may",
        )
    except NotAuthorized:
        if not keep_names:
            raise
        names = {by_digest}
    client.store.check_more_names(quota, names)
    on_stored: Callable[[], None] | None = None
    if client.admission is not None:
        on_stored = client.admission.check_pull(
            _from(remote.source, sources), reference, remote.named, remote.manifest, cancel
        )
    content = _Content(sources)
    config = _config(client.store, content, manifest.config, cancel)
    document = check_document(config, manifest.config.digest)
    actual = Platform(document.architecture, document.os or "linux", document.variant)
    check_platform(platform, actual, name)
    diff_ids = document.rootfs.diff_ids
    if len(diff_ids) != len(manifest.layers):
        raise InvalidRequest(
            f"image {short(manifest.config.digest)} lists {len(diff_ids)} layers, "
            f"its manifest {len(manifest.layers)}"
        )
    label = reference.digest or reference.tag
    emit({"status": f"Pulling from {reference.path}", "id": label})
    before = _stored(client.store, name)
    pairs = list(zip(manifest.layers, diff_ids, strict=True))

    if client.admission is not None and client.admission.requires_signature(reference):
        whole = True  # a signature is believed for content with the digests of the manifest

    def mount() -> frozenset[str]:
        return frozenset() if whole else _mount(client, reference, credentials, pairs, emit, cancel)

    image = _fetch(client, remote, content, config, pairs, names, emit, cancel, quota, mount)
    if on_stored is not None:
        on_stored()
    emit(status(f"Digest: {remote.named.digest}"))
    current = (remote.named.digest, image.id) in before or (
        remote.manifest.digest,
        image.id,
    ) in before
    outcome = "Image is up to date for" if current else "Downloaded newer image for"
    emit(status(f"Status: {outcome} {name}"))
    return image


def pull_all(
    client: RegistryClient,
    reference: Reference,
    platform: Platform | None,
    credentials: Credentials,
    emit: Emit,
    cancel: Cancellation,
    quota: Quota | None = None,
    *,
    whole: bool = False,
) -> list[Image]:
    """Fetch every tag of a repository. The tag of ``reference`` is ignored."""
    if client.admission is not None:
        client.admission.check_name(reference)
    source = client.repository(reference.domain, reference.path, credentials, cancel)
    try:
        tags = list(source.tags(cancel))
    except RegistryError as error:
        raise registry_errors.pull_error(
            error, reference.repository, reference.repository
        ) from None
    if not tags:
        raise NotFound(f"repository {reference.repository} has no tags")
    return [
        pull(
            client,
            Reference(reference.domain, reference.path, tag),
            platform,
            credentials,
            emit,
            cancel,
            quota,
            whole=whole,
        )
        for tag in tags
    ]


def _resolve(
    sources: Sources, reference: Reference, platform: Platform | None, cancel: Cancellation
) -> _RemoteImage:
    def fetch(source: Repository) -> _RemoteImage:
        named = source.manifest(reference.digest or reference.tag or "", cancel)
        manifest = named
        if named.is_index:
            entry = manifest_download.select_manifest(named, platform)
            manifest = source.manifest(entry.digest, cancel)
            if len(manifest.data) != entry.size or manifest.media_type != entry.media_type:
                raise InvalidRequest(
                    f"manifest {entry.digest} does not match its entry in the index"
                )
        return _RemoteImage(source, named, manifest)

    try:
        return sources.first(fetch, resolve=reference.digest is None)
    except JaulaError as error:
        if isinstance(error, RegistryError):
            error = registry_errors.pull_error(error, reference.repository, str(reference))
        raise sources.explain(error) from None


def _stored(store: ImageStore, name: str) -> set[tuple[str, str]]:
    """Return the target of a name with the id of each of its images, empty if there is none."""
    try:
        return {(image.target, image.id) for image in store.images(store.resolve(name))}
    except (CorruptState, NotFound):
        return set()


class _Content:
    """The servers for content with a known digest; each is contacted when it is needed."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._following = sources.content()
        self._known: list[Repository] = []

    def source(self, number: int) -> Repository | None:
        """Return a server by its number in the order of trial; None after the last."""
        while len(self._known) <= number:
            following = next(self._following, None)
            if following is None:
                return None
            self._known.append(following)
        return self._known[number]


def _from(source: Repository, sources: Sources) -> Iterator[Repository]:
    """Yield ``source``, then the others."""
    yield source
    yield from (other for other in sources.content() if other is not source)


def _config(
    store: ImageStore, content: _Content, config: Descriptor, cancel: Cancellation
) -> bytes:
    # A damaged configuration is fetched again, and one that is removed meanwhile.
    with suppress(CorruptState, NotFound):
        return store.blobs.document(config.digest, config.size)
    number = 0
    while True:
        source = content.source(number)
        assert source is not None, "there is a server: it has sent the manifest"
        number += 1
        try:
            return source.config(config, cancel)
        except _SOURCE_ERRORS:
            if content.source(number) is None:
                raise


def _fetch(
    client: RegistryClient,
    remote: _RemoteImage,
    content: _Content,
    config: bytes,
    pairs: list[tuple[Descriptor, str]],
    names: set[str],
    emit: Emit,
    cancel: Cancellation,
    quota: Quota | None,
    mount: Callable[[], frozenset[str]],
) -> Image:
    store = client.store
    named, manifest = remote.named, remote.manifest
    pins = {named.digest, manifest.digest, manifest_download.sha256(config)}
    pins.update(*((layer.digest, diff_id, layer_name(layer, diff_id)) for layer, diff_id in pairs))
    try:
        with store.lease(pins):
            lazy = mount()
            with store.early_writeback():
                _Layers(client, content, pairs, emit, cancel, lazy).fetch()
            if client.lazy is not None:
                client.lazy.end_stored(pairs)
            store.blobs.put(config)
            if not named.is_index:
                return store.adopt(manifest.data, manifest.media_type, names, quota)
            store.blobs.put(manifest.data)
            with store.lease() as lease:
                attestations = _attestations(store, remote, content, lease, cancel)
                held = (manifest.digest, *attestations)
                store.adopt_index(named.data, named.media_type, held, names, quota)
            return store.resolve(manifest.digest)
    finally:
        store.collect()


def _mount(
    client: RegistryClient,
    reference: Reference,
    credentials: Credentials,
    pairs: list[tuple[Descriptor, str]],
    emit: Emit,
    cancel: Cancellation,
) -> frozenset[str]:
    """Mount the layers that can be used before they are whole.

    Return their names, and those of layers that other pulls from this repository have mounted.
    """
    if client.lazy is None:
        return frozenset()
    layers, place = client.store.layers, reference.full_repository
    distinct = {layer_name(layer, diff_id): (layer, diff_id) for layer, diff_id in pairs}
    missing = [pair for name, pair in distinct.items() if not layers.is_intact(name)]
    mounted: set[str] = set()
    if missing:
        mounted = client.lazy.begin(
            str(reference), reference, client.config, credentials, missing, cancel
        )
    mounted |= {name for name in distinct if layers.shares_lazy(name, place)}
    for name, (layer, _) in distinct.items():
        if name in mounted:
            emit(status("Mounted, download continues", short(layer.digest)))
    return frozenset(mounted)


def _attestations(
    store: ImageStore,
    remote: _RemoteImage,
    content: _Content,
    lease: Lease,
    cancel: Cancellation,
) -> list[str]:
    """Fetch the attestations of an image that its index lists, and return their digests.

    One that the registry does not have or that exceeds a limit is left out: the image runs without.
    """
    tree = walk(remote.named.data, remote.named.digest, lambda descriptor: None)
    listed = [e.descriptor for e in tree.entries if e.subject == remote.manifest.digest]
    fetched = []
    for descriptor in listed[:_ATTESTATIONS_LIMIT]:
        try:
            document = remote.source.manifest(descriptor.digest, cancel)
            manifest = decode(document.data, Manifest, f"attestation {descriptor.digest}")
            parts = (manifest.config, *manifest.layers[:_STATEMENTS_LIMIT])
            lease.pin(descriptor.digest, *(part.digest for part in parts))
            for part in parts:
                store.blobs.put(_config(store, content, part, cancel))
            if len(parts) == 1 + len(manifest.layers):
                fetched.append(store.blobs.put(document.data))
        except (RegistryError, InvalidRequest, Unsupported) as error:
            _log.warning("the attestation %s is not fetched: %s", descriptor.digest, error)
    return fetched


class _Layers:
    """The layers of one image that is being pulled."""

    def __init__(
        self,
        client: RegistryClient,
        content: _Content,
        pairs: list[tuple[Descriptor, str]],
        emit: Emit,
        cancel: Cancellation,
        lazy: frozenset[str] = frozenset(),
    ) -> None:
        self._lazy = lazy
        self._client = client
        self._content = content
        self._emit = emit
        self._cancel = cancel
        self._board = ProgressBoard()
        self._running: list[tuple[Transfer, bool, int]] = []
        self._complete = _has_image_with(client.store, pairs)
        self._pairs = pairs

    def fetch(self) -> None:
        """Fetch and unpack every missing layer. Raise the first failure."""
        with ExitStack() as stack:
            stack.callback(self._leave)
            store = self._client.store
            missing = []
            distinct = {(layer.digest, diff_id): layer for layer, diff_id in self._pairs}
            for (_, diff_id), layer in distinct.items():
                if layer_name(layer, diff_id) in self._lazy:
                    continue
                if _exists(store, layer, diff_id):
                    if not self._complete:
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
                self._reap()
            for message in self._board.take(0):
                self._emit(message)

    def _begin(self, layer: Descriptor, diff_id: str, number: int = 0) -> None:
        """Begin or join the transfer of a layer from server ``number``."""
        source = self._content.source(number)
        assert source is not None, "a server exists: it was asked for before"
        joined = self._client.transfers.join(source, layer, diff_id, self._board)
        self._running.append((*joined, number))

    def _reap(self) -> None:
        """Handle the transfers that have ended.

        Retry a failed transfer that another pull started: the failure may be due to its registry.
        Retry one that a server failed with the next server.
        """
        for transfer, own, number in [item for item in self._running if item[0].done]:
            self._running.remove((transfer, own, number))
            self._client.transfers.leave(transfer, self._board)
            if transfer.error is None:
                continue
            if own:
                number += 1
                failed = isinstance(transfer.error, _SOURCE_ERRORS)
                if not failed or self._content.source(number) is None:
                    raise as_jaula_error(transfer.error)
            self._begin(transfer.layer, transfer.diff_id, number)

    def _leave(self) -> None:
        for transfer, *_ in self._running:
            self._client.transfers.leave(transfer, self._board)
        for transfer, *_ in self._running:
            transfer.wait_if_cancelled()
        self._running.clear()


def _exists(store: ImageStore, layer: Descriptor, diff_id: str) -> bool:
    """Return whether nothing of a layer has to be fetched, by what is known of both its digests."""
    return (
        store.layers.is_intact(diff_id)
        and store.blobs.is_intact(layer.digest, layer.size)
        and store.layers.has_blob(diff_id, layer.digest)
    )


def _has_image_with(store: ImageStore, pairs: list[tuple[Descriptor, str]]) -> bool:
    """Return whether an image with exactly these layers exists: Docker omits them then."""
    layers = tuple(diff_id for _, diff_id in pairs)
    return any(image.layers == layers for image in store.list())
