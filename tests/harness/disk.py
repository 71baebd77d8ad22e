"""The disk of this machine that tests limit; loop devices come and go with other tests."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

_IN_MEMORY = ("loop", "ram", "zram")


class Disk(NamedTuple):
    """A whole disk: its name in /dev and its numbers."""

    name: str
    major: int
    minor: int


def disk() -> Disk:
    """Return the first disk; skip the test if there is none."""
    for device in sorted(Path("/sys/block").iterdir()):
        if not device.name.startswith(_IN_MEMORY) and (device / "size").read_text() != "0\n":
            major, minor = (device / "dev").read_text().strip().split(":")
            return Disk(device.name, int(major), int(minor))
    pytest.skip("this machine has no disk")
