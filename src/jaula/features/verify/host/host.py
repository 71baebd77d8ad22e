"""The audited host: the engine's directories and the running kernel.

Every check reads through this class, so a test can substitute another host.
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
    """A host; ``release`` and ``version`` are those of uname(2), ``proc`` is the path of /proc."""

    root: Path
    run: Path
    socket: Path
    release: str = msgspec.field(default_factory=lambda: os.uname().release)
    version: str = msgspec.field(default_factory=lambda: os.uname().version)
    proc: Path = Path("/proc")
    image_policy: Mapping[str, Any] | None = None  # the engine's answer; None: no engine runs

    @property
    def name(self) -> str:
        """The host name."""
        return os.uname().nodename

    def setting(self, name: str) -> str | None:
        """Return a sysctl by its path below /proc/sys, or None if the kernel does not have it."""
        try:
            return (self.proc / "sys" / name).read_text(encoding="ascii").strip()
        except (FileNotFoundError, NotADirectoryError):
            return None

    @cached_property
    def mounts(self) -> tuple[MountInfo, ...]:
        """The mount table of process 1, or of this process if not readable."""
        for process in ("1", "self"):
            try:
                return read(str(self.proc / process / "mountinfo"), errors="replace")
            except PermissionError:
                continue
        raise PermissionError(13, f"{self.proc}/self/mountinfo is not readable")
