"""Select the manifest for a platform."""

from __future__ import annotations

import pytest

from jaula.errors import NotFound
from jaula.images.platform import select
from jaula.spec.image import (
    MANIFEST,
    Descriptor,
    Platform,
)

DIGEST = "sha256:" + "0f" * 32


def descriptor(architecture: str) -> Descriptor:
    return Descriptor(MANIFEST, DIGEST, 1, platform=Platform(architecture, "linux"))


def test_the_manifest_of_the_platform_is_chosen() -> None:
    there = [descriptor("s390x"), descriptor("arm64"), descriptor("amd64")]
    assert select(there, Platform("arm64", "linux")) is there[1]
    assert select([there[0], Descriptor(MANIFEST, DIGEST, 1)], Platform("arm64", "linux")).digest
    with pytest.raises(NotFound, match="linux/s390x"):
        select(there[:1], Platform("arm64", "linux"))
