"""The image's content in an empty directory of a volume (``volume-subpath``)."""

from __future__ import annotations

import pytest

from harness import containers
from harness.engine import PrivateEngine
from harness.images import busybox_entries, directory, file, import_image


@pytest.mark.parametrize(
    ("more", "content"), [("", "of the image\n"), (",volume-nocopy", "")], ids=["copy", "nocopy"]
)
def test_an_empty_directory_gets_the_images_content(
    engine: PrivateEngine, busybox: str, more: str, content: str
) -> None:
    image, volume = containers.unique("subpath"), containers.unique("volume")
    entries = [*busybox_entries(), directory("data"), file("data/f", b"of the image\n")]
    import_image(engine, image, entries)
    whole = f"type=volume,source={volume},target=/v"
    part = f"type=volume,source={volume},target=/data,volume-subpath=a/b{more}"
    try:
        made = engine.cli(
            "jaula", "run", "--rm", "--mount", whole, busybox, "mkdir", "-p", "/v/a/b"
        )
        assert made.returncode == 0, made.stderr
        words = ("run", "--rm", "--mount", part, image, "sh", "-c")
        shown = engine.cli("jaula", *words, "cat /data/* 2>/dev/null; echo mine > /data/f")
        assert shown.stdout == content
        again = engine.cli("jaula", *words, "cat /data/f; ls /data")
        assert again.stdout == "mine\nf\n"  # it is filled once
        words = ("run", "--rm", "--mount", whole, busybox, "ls", "/v")
        assert engine.cli("jaula", *words).stdout == "a\n"
    finally:
        engine.cli("jaula", "volume", "rm", volume)
        engine.cli("jaula", "rmi", image)
