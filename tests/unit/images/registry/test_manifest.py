"""Platforms of manifests."""

from __future__ import annotations

import pytest

from jaula.errors import InvalidRequest, NotFound
from jaula.images.image_platform import check_platform, parse_platform, select
from jaula.spec.image_documents import MANIFEST, Descriptor, Platform

ID = "sha256:" + "a" * 64


def _listed(*platforms: tuple[str, str, str]) -> list[Descriptor]:
    return [
        Descriptor(MANIFEST, ID, number, platform=Platform(architecture, system, variant))
        for number, (system, architecture, variant) in enumerate(platforms)
    ]


@pytest.mark.parametrize(
    ("requested", "number"),
    [
        ("linux/amd64", 0),
        ("linux/arm/v6", 2),
        ("linux/arm/v7", 3),
        ("linux/arm", 3),
        ("linux/arm/v8", 3),
        ("linux/arm64", 4),
        ("linux/arm64/v8", 4),
        ("arm64", 4),
        ("amd64", 0),
    ],
)
def test_the_requested_platform_is_selected(requested: str, number: int) -> None:
    manifests = _listed(
        ("linux", "amd64", ""),
        ("unknown", "unknown", ""),
        ("linux", "arm", "v6"),
        ("linux", "arm", "v7"),
        ("linux", "arm64", "v8"),
        ("windows", "amd64", ""),
    )
    assert select(manifests, parse_platform(requested)).size == number


@pytest.mark.parametrize("requested", ["linux/s390x", "linux/386", "linux/arm/v5", "freebsd/amd64"])
def test_a_missing_platform_is_reported_in_dockers_words(requested: str) -> None:
    manifests = _listed(("linux", "amd64", ""), ("linux", "arm", "v6"))
    with pytest.raises(
        NotFound, match=f"no matching manifest for {requested} in the manifest list"
    ):
        select(manifests, parse_platform(requested))


@pytest.mark.parametrize("text", ["a/b/c/d", "linux/", "/amd64", "linux/am d", "é/x"])
def test_an_invalid_platform_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"is an invalid (platform|component)"):
        parse_platform(text)


def test_an_image_of_another_platform_is_refused() -> None:
    result = Platform("amd64", "linux")
    check_platform(None, result, "x")
    check_platform(parse_platform("linux/amd64"), result, "x")
    with pytest.raises(NotFound, match="wanted linux/arm64, actual: linux/amd64"):
        check_platform(parse_platform("linux/arm64"), result, "x")
