"""How much the images of one owner take, and the check of what the owner may have.

An image belongs to the caller who brought it first. An owner's images take what ``system df``
counts: layers as received and unpacked, configurations and manifests. What several of them have in
common counts once, and what the images of another owner have too counts for both. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from jaula.images.store.image_names import NameRights
from jaula.spec.image_documents import Manifest

Sizes = tuple[tuple[str, int], ...]
"""Pairs of digest and bytes."""


class Usage(NamedTuple):
    """The images of one owner: their number, and their bytes.

    ``documents`` are the bytes of configurations, manifests and indexes, which are kept in memory.
    """

    images: int
    size: int
    documents: int = 0


class Quota(NamedTuple):
    """The owner of an image that arrives, and the check of what this owner would have then.

    ``check`` raises an error if it is too much. It is called in any thread, and calls its argument
    only if the owner has a limit: that reads the sizes of all images of the owner.

    ``names`` is what the owner may do with names of images, its own ones only if it is None.
    ``check_names`` raises an error if the owner may not have a number of names. It is called in any
    thread.
    """

    owner: str
    check: Callable[[Callable[[], Usage]], None]
    names: NameRights | None = None
    check_names: Callable[[int], None] = lambda number: None

    @property
    def name_rights(self) -> NameRights:
        """What the owner may do with names of images."""
        return self.names or NameRights(self.owner)


class Footprint(NamedTuple):
    """Space of an image on the disk. ``layers`` are unpacked, by diff id.

    ``manifest`` is its digest, empty if it is not known yet. ``documents`` are those of the blobs
    that are no layers.
    """

    image: str
    blobs: Sizes
    layers: Sizes = ()
    manifest: str = ""
    documents: Sizes = ()


def footprint(manifest: Manifest, digest: str, size: int, layers: Sizes = ()) -> Footprint:
    """Return the footprint of an image by its manifest, of ``size`` bytes."""
    documents = ((digest, size), (manifest.config.digest, manifest.config.size))
    blobs = (*documents, *((part.digest, part.size) for part in manifest.layers))
    return Footprint(manifest.config.digest, blobs, layers, digest, documents)


def usage(footprints: Sequence[Footprint]) -> Usage:
    """Return what images take together. An image may have several manifests."""
    return Usage(
        images=len({image.image for image in footprints}),
        size=_total(image.blobs for image in footprints)
        + _total(image.layers for image in footprints),
        documents=_total(image.documents for image in footprints),
    )


def _total(sizes: Iterable[Sizes]) -> int:
    return sum({digest: size for pairs in sizes for digest, size in pairs}.values())
