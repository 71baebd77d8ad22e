"""Select the manifest for a platform."""

from __future__ import annotations

import pytest

from jaula.errors import InvalidRequest, NotFound
from jaula.images import image_platform
from jaula.images.image_platform import format_platform, normalize, parse_platform, select
from jaula.spec.image_documents import (
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


def test_the_best_image_for_this_machine_is_preferred_to_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(image_platform, "host", lambda: Platform("amd64", "linux"))
    there = [descriptor("s390x"), descriptor("386"), descriptor("amd64")]
    assert image_platform.prefer(there) is there[2]
    assert image_platform.prefer(there[:2]) is there[1]
    assert image_platform.prefer(there[:1]) is there[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ('{"os":"linux"}', None),
        ('{"architecture":"aarch64"}', Platform("arm64", "linux")),
        ('{"os":"linux","architecture":"ARM","variant":"v7"}', Platform("arm", "linux", "v7")),
    ],
)
def test_a_platform_in_json_is_decoded(text: str, expected: Platform | None) -> None:
    assert image_platform.decode_platform(text) == expected


@pytest.mark.parametrize(
    "text", ["linux/amd64", "[]", '{"os":1}', '{"architecture":"a/b/c"}', "[" * 100_000, "\ud800"]
)
def test_a_malformed_platform_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        image_platform.decode_platform(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/v9", "linux/arm64/v9"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/6", "linux/arm/v6"),
        ("linux/s390x", "linux/s390x"),
    ],
)
def test_a_default_variant_is_left_out_except_for_arm(text: str, expected: str) -> None:
    platform = parse_platform(text)
    assert platform is not None
    assert format_platform(normalize(platform)) == expected
