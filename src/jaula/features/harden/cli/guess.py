"""A profile guessed from the files of an image, for ``jaula harden --image``."""

from __future__ import annotations

import re

from jaula.cli.client.api_client import Client
from jaula.cli.main import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from jaula.spec.confinement_profile import Profile


def guess_profile(reference: str, name: str = "") -> Profile:
    """Return the profile that the files of an image suggest.

    ``name`` is that of the profile, if '' the last part of the image's. The engine sends the image
    as for ``docker save``. Nothing is executed.

    :raises JaulaError: when the image cannot be read, or the disassembler is not installed.
    """
    from jaula.features.harden.image_scan import guess
    from jaula.features.harden.image_scan_tree import read_archive

    response = Client(Settings.host).open("GET", "/images/get", [("names", reference)])
    image = read_archive(_Chunks(response.chunks()))
    try:
        return guess(image.tree, image.document, name or _name_of(reference), image=reference)
    finally:
        image.tree.close()


def _name_of(reference: str) -> str:
    last = reference.partition("@")[0].rpartition("/")[2].partition(":")[0]
    return re.sub(r"[^A-Za-z0-9_.-]", "-", last).lstrip("_.-")[:128] or "image"


class _Chunks:
    """Chunks of a response as a readable stream."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, none at the end."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._rest = memoryview(chunk)
        data, self._rest = self._rest[:size], self._rest[size:]
        return bytes(data)
