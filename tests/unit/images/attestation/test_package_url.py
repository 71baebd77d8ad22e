"""Package URLs of images."""

from __future__ import annotations

import pytest

from jaula.features.build.attestation.package_url import package_url
from jaula.spec.image_documents import Platform

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("busybox", "pkg:docker/busybox@latest"),
        ("docker.io/library/busybox:1.36", "pkg:docker/busybox@1.36"),
        ("me/app:1", "pkg:docker/me/app@1"),
        ("127.0.0.1:5000/a/b", "pkg:docker/127.0.0.1%3A5000/a/b@latest"),
        (f"app@{DIGEST}", f"pkg:docker/app?digest=sha256%3A{'a' * 64}"),
    ],
)
def test_a_reference_becomes_a_package_url(reference: str, expected: str) -> None:
    assert package_url(reference) == expected


def test_the_platform_is_a_qualifier() -> None:
    url = package_url("app:1", Platform("arm", "linux"))
    assert url == "pkg:docker/app@1?platform=linux%2Farm%2Fv7"
