"""What ``RUN --mount`` can be, once it is known where everything is. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Callable

import msgspec


class BindMount(msgspec.Struct, frozen=True, kw_only=True):
    """Part of a tree; ``lowers`` are directories, the topmost first.

    ``writable``: what is written is lost at the end of the step. ``about`` is for errors.
    """

    target: str
    lowers: tuple[str, ...]
    source: str = "/"
    writable: bool = False
    about: str = ""


class CacheMount(msgspec.Struct, frozen=True, kw_only=True):
    """A directory of the engine's that steps share (``type=cache``), or one file in it."""

    target: str
    path: str
    writable: bool = True


class TmpfsMount(msgspec.Struct, frozen=True, kw_only=True):
    """A file system in memory; ``size`` is bytes, 0 for no limit."""

    target: str
    size: int = 0


class SecretMount(msgspec.Struct, frozen=True, kw_only=True):
    """A file in memory that only this step sees; ``variable`` instead of a target."""

    target: str = ""
    content: bytes = b""
    mode: int = 0o400
    uid: int = 0
    gid: int = 0
    variable: str = ""

    def __repr__(self) -> str:
        return f"Hidden(target={self.target!r})"


class SshMount(msgspec.Struct, frozen=True, kw_only=True):
    """A socket; ``listen`` begins to serve at the path that it is given, until the step's end."""

    target: str
    listen: Callable[[str], None]
    mode: int = 0o600
    uid: int = 0
    gid: int = 0


StepMount = BindMount | CacheMount | TmpfsMount | SecretMount | SshMount


def target_of(text: str, working_dir: str) -> str:
    """A mount's target, which may be relative to the working directory. Pure."""
    return posixpath.normpath(posixpath.join("/", working_dir, text))
