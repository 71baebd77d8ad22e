"""The store of images: an OCI image layout, and the layers unpacked from it.

Source: opencontainers/image-spec 1.1. An image's id is the digest of its configuration, as Docker
has it. ``index.json`` says which images there are (:mod:`jaula.images.index`); manifests,
configurations and layers as they came are blobs (:mod:`jaula.images.blobs`); layers are unpacked
into the :class:`~jaula.storage.layers.LayerStore` when an image arrives.

An image may have several manifests: one that was loaded and, with layers compressed otherwise, one
that was pulled. Its names are those of all of them; each name leads to its own manifest.

Whether a container uses an image is not known here: the caller says so.

Methods may be called from several threads: what changes the index is done under one lock, and what
is being loaded is pinned, so that a removal meanwhile does not take it for rubbish.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import msgspec

from jaula.config import Paths
from jaula.errors import Conflict, InvalidRequest, JaulaError, NotFound
from jaula.images.blobs import BlobStore
from jaula.images.index import NameIndex
from jaula.images.reference import Reference, could_be_id, parse
from jaula.spec.image import (
    CONFIG,
    DOCUMENT_LIMIT,
    LAYERS_LIMIT,
    Descriptor,
    ImageConfig,
    ImageDocument,
    Manifest,
    Platform,
    decode,
    encode,
)
from jaula.storage.layers import LayerStore


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """An image that is ready to run. ``layers`` are diff ids, base first; ``size`` is in bytes."""

    id: str  # sha256:...
    names: tuple[str, ...]  # familiar, with tag: Docker's RepoTags
    digests: tuple[str, ...] = ()  # Docker's RepoDigests
    manifest: str  # digest of the manifest
    layers: tuple[str, ...]
    size: int
    document: ImageDocument

    @property
    def config(self) -> ImageConfig:
        """What a container of the image runs with."""
        return self.document.config

    @property
    def platform(self) -> Platform:
        """What it is for."""
        document = self.document
        return Platform(document.architecture, document.os or "linux", document.variant)

    @property
    def created(self) -> str:
        """RFC 3339; empty where the image does not say."""
        return self.document.created


class HistoryItem(msgspec.Struct, frozen=True):
    """One step of an image's making, newest first, as ``docker history`` shows it."""

    id: str  # the image's id for the newest, '<missing>' for the others
    created: str
    created_by: str
    size: int
    comment: str = ""
    tags: tuple[str, ...] = ()


History = list[HistoryItem]
Removed = list[dict[str, str]]
Names = list[str]
Holder = Callable[[], Iterable[str]]
"""Names the blobs and layers, by digest, that something else than an image needs."""


class ImageStore:
    """The images of one engine."""

    def __init__(self, paths: Paths, layers: LayerStore) -> None:
        paths.images.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.layers = layers
        self.blobs = BlobStore(paths.images)
        self._index = NameIndex(paths.images)
        self._lock = threading.RLock()
        self._facts: dict[str, tuple[str, ImageDocument, int]] = {}
        self._ids: dict[str, tuple[str, ...]] = {}  # image id: digests of its manifests
        self._pins: Counter[str] = Counter()
        self._damaged: dict[str, str] = {}
        self._holders: list[Holder] = []
        for manifest in self._index.manifests():
            try:
                self._read(manifest)
            except JaulaError as error:
                self._damaged[manifest] = error.message

    # -- looking up -----------------------------------------------------------------------------

    def resolve(self, ref: str) -> Image:
        """The image of that name, id or unique beginning of an id; raises :class:`NotFound`."""
        for id in (ref, "sha256:" + ref):
            if id in self._ids:
                return self._image(self._ids[id][-1])
        manifest, shown = None, ref
        try:
            reference = parse(ref)
        except InvalidRequest:
            if not could_be_id(ref):
                raise
        else:
            shown = str(reference)
            manifest = self._index.names.get(shown)
            if manifest is None and reference.digest is not None:
                known = f"{reference.repository}@{reference.digest}"
                manifest = self._index.names.get(known) or self._by_digest(reference)
        if manifest is None and could_be_id(ref):
            manifest = self._by_beginning(ref)
        if manifest is None:
            raise NotFound(f"No such image: {shown}")
        return self._image(manifest)

    def _by_beginning(self, text: str) -> str | None:
        """The manifest of the one image whose id begins with ``text``."""
        beginning = "sha256:" + text.removeprefix("sha256:")
        found = [id for id in self._ids if id.startswith(beginning)]
        if len(found) > 1:
            raise InvalidRequest(
                f"image id {text!r} is ambiguous: {len(found)} images begin with it"
            )
        return self._ids[found[0]][-1] if found else None

    def _by_digest(self, reference: Reference) -> str | None:
        for manifest in self._index.manifests():
            repositories = {parse(name).repository for name in self._index.names_of(manifest)}
            if manifest == reference.digest and reference.repository in repositories:
                return manifest
        return None

    def list(self) -> list[Image]:
        """All images, the newest first."""
        images = [self._image(manifests[-1]) for manifests in self._ids.values()]
        return sorted(images, key=lambda image: (image.created, image.id), reverse=True)

    def damaged(self) -> dict[str, str]:
        """Manifests that the index names but that cannot be read, and why."""
        return dict(self._damaged)

    def _image(self, manifest: str) -> Image:
        id, document, size = self._facts[manifest]
        names = sorted({n for m in self._ids[id] for n in self._index.names_of(m)})
        return Image(
            id=id,
            names=tuple(name for name in names if "@" not in name),
            digests=tuple(name for name in names if "@" in name),
            manifest=manifest,
            layers=document.rootfs.diff_ids,
            size=size,
            document=document,
        )

    def manifest(self, image: Image) -> Manifest:
        """The image's manifest, verified."""
        return self._manifest(image.manifest)

    def _manifest(self, digest: str) -> Manifest:
        manifest = decode(self.blobs.document(digest), Manifest, f"manifest {digest}")
        if manifest.schema_version != 2:
            raise InvalidRequest(
                f"manifest {digest} has the version {manifest.schema_version}, not 2"
            )
        return manifest

    def blobs_of(self, name: str) -> tuple[str, ...]:
        """The layers' blobs of the manifest that has exactly this name; none where nothing has."""
        manifest = self._index.names.get(name)
        if manifest is None or manifest not in self._facts:
            return ()
        return tuple(layer.digest for layer in self._manifest(manifest).layers)

    def config_bytes(self, image: Image) -> bytes:
        """The configuration as it came, verified."""
        return self.blobs.document(image.id)

    def _read(self, digest: str) -> None:
        manifest = self._manifest(digest)
        config = manifest.config
        document = check_document(self.blobs.document(config.digest, config.size), config.digest)
        if len(document.rootfs.diff_ids) != len(manifest.layers):
            raise InvalidRequest(
                f"image {config.digest} lists {len(document.rootfs.diff_ids)} layers, "
                f"its manifest {len(manifest.layers)}"
            )
        size = sum(self.layers.info(layer).size for layer in document.rootfs.diff_ids)
        self._facts[digest] = (config.digest, document, size)
        others = [d for d in self._ids.get(config.digest, ()) if d != digest]
        self._ids[config.digest] = (*others, digest)

    def history(self, ref: str) -> History:
        """How the image was made, the newest step first."""
        image = self.resolve(ref)
        sizes = [self.layers.info(layer).size for layer in image.layers]
        steps = list(image.document.history)
        described = sum(not step.empty_layer for step in steps)
        items: History = []
        layer = 0
        for step in steps:
            size = 0
            if not step.empty_layer and layer < len(sizes):
                size = sizes[layer]
                layer += 1
            items.append(
                HistoryItem("<missing>", step.created, step.created_by, size, step.comment)
            )
        for size in sizes[described:]:  # layers that the history does not tell of
            items.append(HistoryItem("<missing>", image.created, "", size))
        items.reverse()
        if items:
            items[0] = msgspec.structs.replace(items[0], id=image.id, tags=image.names)
        return items

    # -- adding ---------------------------------------------------------------------------------

    @contextmanager
    def pinned(self, digests: Iterable[str]) -> Iterator[None]:
        """Blobs and layers that must stay although no image names them yet."""
        wanted = tuple(digests)
        with self._lock:
            self._pins.update(wanted)
        try:
            yield
        finally:
            with self._lock:
                self._pins.subtract(wanted)
                self._pins = +self._pins

    def hold(self, holder: Holder) -> None:
        """From now on :meth:`collect` asks ``holder``, from any thread, what must stay as well."""
        self._holders.append(holder)

    def held(self) -> set[str]:
        """Blobs and layers that stay although no image names them: pinned, or a holder's."""
        return {*self._pins, *(digest for holder in self._holders for digest in holder())}

    def add(self, config: bytes, layers: Sequence[Descriptor], names: Iterable[str]) -> Image:
        """Make an image of a configuration and of layer blobs that are stored and unpacked.

        Raises :class:`InvalidRequest` where they do not fit together.
        """
        id = self.blobs.put(config)
        document = check_document(config, id)
        if len(document.rootfs.diff_ids) != len(layers):
            raise InvalidRequest(
                f"image {id} lists {len(document.rootfs.diff_ids)} layers, "
                f"{len(layers)} came with it"
            )
        for diff_id, layer in zip(document.rootfs.diff_ids, layers, strict=True):
            if not self.layers.has(diff_id) or self.blobs.size(layer.digest) != layer.size:
                raise InvalidRequest(f"layer {diff_id} of image {id} did not come with it")
        manifest = Manifest(config=Descriptor(CONFIG, id, len(config)), layers=tuple(layers))
        known = self._ids.get(id, ())
        with self._lock:
            digest = known[-1] if known else self.blobs.put(encode(manifest))
            size = self.blobs.size(digest) or 0
            self._index.set(digest, size, names)
            self._read(digest)
        return self._image(digest)

    def adopt(self, manifest: bytes, media_type: str, names: Iterable[str]) -> Image:
        """Keep a manifest as it is, its configuration and layers being stored and unpacked.

        Names with a digest are Docker's RepoDigests. A manifest of the same image that has no
        name of its own goes. Raises :class:`InvalidRequest` where something is missing.
        """
        document = decode(manifest, Manifest, "the manifest")
        for layer in document.layers:
            if self.blobs.size(layer.digest) != layer.size:
                raise InvalidRequest(f"layer {layer.digest} of the manifest is not stored")
        with self._lock:
            digest = self.blobs.put(manifest)
            self._read(digest)  # before it is named: what is not whole gets no name
            self._index.set(digest, len(manifest), names, media_type)
            self._drop_nameless(self._facts[digest][0])
        return self._image(digest)

    def _drop_nameless(self, id: str) -> None:
        """Take away manifests of an image without a name, where another one has names."""
        named = [m for m in self._ids[id] if self._index.names_of(m)]
        if named:
            for digest in set(self._ids[id]) - set(named):
                self._index.drop(digest)
                self._facts.pop(digest, None)
            self._ids[id] = tuple(named)

    def media_type(self, image: Image) -> str:
        """What the image's manifest is."""
        return self._index.media_type(image.manifest)

    def tag(self, source: str, target: str) -> Image:
        """Give an image one more name; an image that had it loses it."""
        reference = parse(target)
        if reference.digest is not None:
            raise InvalidRequest(f"{target!r} names a digest; a tag cannot be set on one")
        with self._lock:
            image = self.resolve(source)
            self._index.set(image.manifest, self.blobs.size(image.manifest) or 0, [str(reference)])
        return self.resolve(image.id)

    # -- removing -------------------------------------------------------------------------------

    def remove(self, ref: str, *, force: bool = False, in_use: str | None = None) -> Removed:
        """Take a name or an image away, and what nothing needs any more.

        ``in_use`` tells of a container that uses the image (``container abc is using it``); such
        an image loses its names only by ``force``, and stays. The answer is Docker's: a list of
        ``{"Untagged": name}`` and ``{"Deleted": digest}``. Raises :class:`NotFound`,
        :class:`Conflict`.
        """
        with self._lock:
            image = self.resolve(ref)
            known = image.names + image.digests
            names = tuple(name for name in known if name == _name(ref))
            by_id = not names
            names = _with_digests(image, names) or known
            others = tuple(name for name in known if name not in names)
            if by_id and len(image.names) > 1 and not force:
                raise Conflict(
                    f"unable to delete {short(image.id)} (must be forced) - image is referenced in "
                    f"multiple repositories: {', '.join(image.names)}"
                )
            if in_use is not None and not others and not force:
                raise Conflict(
                    f"unable to remove repository reference {ref!r} (must force) - {in_use}"
                    if not by_id
                    else f"unable to delete {short(image.id)} (must be forced) - {in_use}"
                )
            done = [{"Untagged": name} for name in names]
            for name in names:
                self._index.unset(name)
            self._drop_nameless(image.id)
            if not others and in_use is None:
                for manifest in self._ids.pop(image.id, ()):
                    self._index.drop(manifest)
                    self._facts.pop(manifest, None)
                done.append({"Deleted": image.id})
                done.extend({"Deleted": layer} for layer in self.collect())
            return done

    def collect(self) -> Names:
        """Remove blobs and layers that no image needs; the diff ids of the layers."""
        with self._lock:
            layers = self.held()
            blobs = set(layers)
            for digest, (id, document, _) in self._facts.items():
                layers.update(document.rootfs.diff_ids)
                blobs.update((digest, id))
                blobs.update(layer.digest for layer in self._manifest(digest).layers)
            blobs.update(self._damaged)
            if self._damaged:
                return []  # what a damaged manifest needs is not known, so nothing is thrown away
            gone = [info.diff_id for info in self.layers.list() if info.diff_id not in layers]
            for diff_id in gone:
                self.layers.remove(diff_id)
            self.blobs.keep_only(blobs)
            return gone

    def sweep(self) -> Names:
        """Remove what a crash left half-made; call it before anything is loaded."""
        return self.layers.sweep() + self.blobs.sweep() + self.collect()


def check_document(data: bytes, digest: str) -> ImageDocument:
    """Parse an image configuration and check what the engine relies on."""
    if len(data) > DOCUMENT_LIMIT:
        raise InvalidRequest(f"image configuration {digest} is larger than {DOCUMENT_LIMIT} bytes")
    document = decode(data, ImageDocument, f"image configuration {digest}")
    if document.rootfs.type not in ("layers", ""):
        raise InvalidRequest(
            f"image {digest} has a root file system of type {document.rootfs.type!r}"
        )
    if len(document.rootfs.diff_ids) > LAYERS_LIMIT:
        raise InvalidRequest(
            f"image {digest} has {len(document.rootfs.diff_ids)} layers, "
            f"at most {LAYERS_LIMIT} work"
        )
    if document.os not in ("linux", ""):
        raise InvalidRequest(
            f"image {digest} is for {document.os!r}, this engine runs linux images"
        )
    return document


def short(id: str) -> str:
    """The twelve digits that people see."""
    return id.removeprefix("sha256:")[:12]


def _with_digests(image: Image, names: tuple[str, ...]) -> tuple[str, ...]:
    """``names``, and an image's digests in a repository where it loses its last tag by that."""
    left = {name.rpartition(":")[0] for name in image.names if name not in names}
    gone = {name.rpartition(":")[0] for name in names if "@" not in name} - left
    return names + tuple(
        name for name in image.digests if name.partition("@")[0] in gone and name not in names
    )


def _name(ref: str) -> str | None:
    """The name in the index that ``ref`` means: a tag beside a digest says nothing more."""
    try:
        reference = parse(ref)
    except InvalidRequest:
        return None
    if reference.digest is None:
        return str(reference)
    return f"{reference.repository}@{reference.digest}"


def familiar(ref: str) -> str | None:
    """The name that ``ref`` would be, None where it can be none."""
    try:
        return str(parse(ref))
    except InvalidRequest:
        return None
