"""How the running kernel was configured: /proc/config.gz, else /boot/config-<release>."""

from __future__ import annotations

import gzip
import os
from collections.abc import Mapping

MAX_BYTES = 8 << 20


def parse(text: str) -> dict[str, str]:
    """``CONFIG_X`` to ``y``, ``m`` or a value; options that are not set are absent."""
    found = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and name.startswith("CONFIG_"):
            found[name] = value.strip()
    return found


def read(release: str | None = None) -> tuple[Mapping[str, str], str] | None:
    """(options, file that says so), or None where the host does not tell."""
    release = release or os.uname().release
    for path in (
        "/proc/config.gz",
        f"/boot/config-{release}",
        f"/usr/lib/modules/{release}/config",
        f"/lib/modules/{release}/build/.config",
    ):
        try:
            with open(path, "rb") as file:
                data = file.read(MAX_BYTES)
        except OSError:
            continue
        if path.endswith(".gz"):
            data = gzip.decompress(data)
        return parse(data.decode("utf-8", "replace")), path
    return None
