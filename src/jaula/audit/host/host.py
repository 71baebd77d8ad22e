"""The host under proof: where the engine keeps its things, and which kernel runs.

Everything that a check reads goes through here, so that a test can show it another host.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from jaula.kernel.mountinfo import MountInfo, read


class Host(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """``release`` and ``version`` are those of uname(2); ``proc`` and ``sys`` where these are."""

    root: Path
    run: Path
    socket: Path
    release: str = msgspec.field(default_factory=lambda: os.uname().release)
    version: str = msgspec.field(default_factory=lambda: os.uname().version)
    proc: Path = Path("/proc")
    image_policy: Mapping[str, Any] | None = None  # what the engine tells; None: none runs

    @property
    def name(self) -> str:
        """What the host calls itself."""
        return os.uname().nodename

    def setting(self, name: str) -> str | None:
        """A sysctl by its path below /proc/sys; None where this kernel has none of that name."""
        try:
            return (self.proc / "sys" / name).read_text(encoding="ascii").strip()
        except (FileNotFoundError, NotADirectoryError):
            return None

    @cached_property
    def mounts(self) -> tuple[MountInfo, ...]:
        """The mount table of the host's first process, or of the reader."""
        for process in ("1", "self"):
            try:
                return read(str(self.proc / process / "mountinfo"), errors="replace")
            except PermissionError:
                continue
        raise PermissionError(13, f"{self.proc}/self/mountinfo may not be read")
