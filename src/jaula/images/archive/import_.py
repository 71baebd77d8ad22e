"""A plain file system in a tar as a new image of one layer (``docker import``).

``changes`` are lines of a Dockerfile's language that need no build, as ``--change`` takes them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime

from jaula.images.build.dockerfile.apply import apply
from jaula.images.platform import host
from jaula.images.reference import parse
from jaula.images.store.store import Image, ImageStore
from jaula.spec.image import (
    LAYER_TAR,
    Descriptor,
    History,
    ImageConfig,
    ImageDocument,
    RootFS,
    encode,
)
from jaula.storage.compression import Source, decompress_stream

_PIECE = 1 << 20


def import_tar(
    store: ImageStore,
    stream: Source,
    ref: str | None = None,
    changes: Sequence[str] = (),
    *,
    message: str = "",
    platform: str = "",
) -> Image:
    """Make an image of the archive's content; without ``ref`` it has no name.

    Raises :class:`InvalidRequest` for a damaged or hostile archive or a change that is not valid;
    nothing is left behind then.
    """
    names = [str(parse(ref))] if ref else []
    config = apply(ImageConfig(), changes)
    pinned = None
    try:
        with store.blobs.writer() as blob:
            source, _ = decompress_stream(stream)
            buffer = memoryview(bytearray(_PIECE))
            while count := source.readinto(buffer) or 0:
                blob.write(buffer[:count])
            diff_id = blob.digest
            size = blob.size
            pinned = store.pinned((diff_id,))
            pinned.__enter__()
            store.layers.extract_plain(blob.file, diff_id)
            blob.commit()
        document = _describe(diff_id, config, message, platform)
        return store.add(encode(document), [Descriptor(LAYER_TAR, diff_id, size)], names)
    finally:
        if pinned is not None:
            pinned.__exit__(None, None, None)
            store.collect()


def _describe(diff_id: str, config: ImageConfig, message: str, platform: str) -> ImageDocument:
    seconds = time.time()
    created = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")
    created = created.replace("+00:00", "Z")
    here = host()
    os_name, _, rest = platform.partition("/")
    architecture, _, variant = rest.partition("/")
    return ImageDocument(
        architecture=architecture or here.architecture,
        os=os_name or here.os,
        variant=variant if architecture else here.variant,
        created=created,
        comment=message,
        config=config,
        rootfs=RootFS(diff_ids=(diff_id,)),
        history=(History(created=created, comment=message),),
    )
