"""Images with tools that need a loader and libraries of their own, for ``jaula debug``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import images
from harness.containers import unique
from harness.engine import PrivateEngine

_SCRIPT = b"#!/bin/sh -e\necho script $1; linked /etc/hostname\n"
_LIBRARY = "/lib/x86_64-linux-gnu/libc.so.6"


@contextmanager
def dynamic(engine: PrivateEngine) -> Iterator[str]:
    """Yield an image with ``cat`` of this host, a script, and programs that cannot run.

    ``linked`` is an absolute link to ``cat``.
    """
    name = unique("dynamic")
    entries = [*images.busybox_entries(), images.directory("lib64"), images.directory("usr")]
    entries += [images.directory("usr/bin"), images.directory("lib")]
    for path in ("/lib64/ld-linux-x86-64.so.2", _LIBRARY, "/usr/bin/cat"):
        target = "lib/libc.so.6" if path == _LIBRARY else path.lstrip("/")
        entries.append(images.file(target, Path(path).read_bytes(), 0o755))
    entries += [
        images.link("usr/bin/linked", "/usr/bin/cat"),
        images.file("usr/bin/script", _SCRIPT, 0o755),
        images.file("usr/bin/broken", b"#!/no/such/interpreter\n", 0o755),
        images.file("usr/bin/garbage", b"\x7fELF\x02\x01" + b"\xff" * 200, 0o755),
    ]
    images.import_image(engine, name, entries)
    try:
        yield name
    finally:
        engine.request("DELETE", f"/images/{name}?force=1")
