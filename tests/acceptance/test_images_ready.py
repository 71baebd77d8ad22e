"""The images from which other tests start containers."""

from __future__ import annotations

from pathlib import Path


def test_the_images_are_built_from_the_package_mirror(
    busybox_archive: Path, debian_archive: Path
) -> None:
    assert busybox_archive.stat().st_size > 1_000_000
    assert debian_archive.stat().st_size > 50_000_000
