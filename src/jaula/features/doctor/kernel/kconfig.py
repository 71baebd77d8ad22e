"""Configuration of the running kernel: /proc/config.gz, else /boot/config-<release>."""

from __future__ import annotations

import gzip
import os
from collections.abc import Mapping

MAX_BYTES = 8 << 20


def parse(text: str) -> dict[str, str]:
    """Return ``CONFIG_X`` with ``y``, ``m`` or a value; options that are not set are absent."""
    options = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and name.startswith("CONFIG_"):
            options[name] = value.strip()
    return options


def read(release: str | None = None) -> tuple[Mapping[str, str], str] | None:
    """Return (options, path of the configuration), or None if the host has none."""
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
