"""Import a file system in a tar as a new image of one layer (``docker import``).

``changes`` are Dockerfile instructions that need no build, as ``--change`` accepts them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime

from jaula.errors import InvalidRequest
from jaula.images.dockerfile.apply_instructions import apply
from jaula.images.image_platform import host
from jaula.images.reference import parse
from jaula.images.store.image_quota import Quota
from jaula.images.store.image_store import Image, ImageStore
from jaula.spec.image_documents import (
    LAYER_TAR,
    Descriptor,
    History,
    ImageConfig,
    ImageDocument,
    Platform,
    RootFS,
    encode,
)
from jaula.storage.compression import Source
from jaula.storage.decompressor import Decompressor

_CHUNK = 1 << 20  # bytes


def import_tar(
    store: ImageStore,
    stream: Source,
    ref: str | None = None,
    changes: Sequence[str] = (),
    *,
    message: str = "",
    platform: Platform | None = None,
    quota: Quota | None = None,
) -> Image:
    """Create an image from the content of an archive. Without ``ref`` it has no name.

    It is for ``platform``, or for this machine. ``quota`` is checked before the image is named.

    On an error no part of the image stays in the store.

    :raises InvalidRequest: if the archive is damaged or hostile, or a change is not valid.
    """
    names = [str(parse(ref))] if ref else []
    target = platform or host()
    if target.os != "linux":
        raise InvalidRequest("operating system is not supported", hint="only linux is")
    config = apply(ImageConfig(), changes)
    lease = store.lease()
    try:
        with (
            store.blobs.writer() as blob,
            store.early_writeback(),
            Decompressor("the archive") as decompressor,
        ):
            source, _ = decompressor.stream(stream)
            buffer = memoryview(bytearray(_CHUNK))
            while count := source.readinto(buffer) or 0:
                blob.write(buffer[:count])
            diff_id = blob.digest
            size = blob.size
            lease.pin(diff_id)
            store.layers.extract_plain(blob.file, diff_id)
            blob.commit()
        document = _describe(diff_id, config, message, target)
        layers = [Descriptor(LAYER_TAR, diff_id, size)]
        return store.add(encode(document), layers, names, quota)
    finally:
        lease.close()
        store.collect()


def _describe(diff_id: str, config: ImageConfig, message: str, platform: Platform) -> ImageDocument:
    seconds = time.time()
    created = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")
    created = created.replace("+00:00", "Z")
    return ImageDocument(
        architecture=platform.architecture,
        os=platform.os,
        variant=platform.variant,
        created=created,
        comment=message,
        config=config,
        rootfs=RootFS(diff_ids=(diff_id,)),
        history=(History(created=created, comment=message),),
    )
