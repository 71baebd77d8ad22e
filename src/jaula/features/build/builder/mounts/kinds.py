"""The kinds of resolved ``RUN --mount``. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Callable

import msgspec


class BindMount(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a tree (``type=bind``); ``lowers`` are directories, topmost first.

    With ``writable``, changes are lost at the end of the step. ``title`` names the tree in errors.
    """

    target: str
    lowers: tuple[str, ...]
    source: str = "/"
    writable: bool = False
    title: str = ""


class CacheMount(msgspec.Struct, frozen=True, kw_only=True):
    """A directory of the engine that steps share (``type=cache``)."""

    target: str
    path: str
    writable: bool = True


class TmpfsMount(msgspec.Struct, frozen=True, kw_only=True):
    """A file system in memory (``type=tmpfs``); ``size`` is in bytes, 0 means no limit."""

    target: str
    size: int = 0


class SecretMount(msgspec.Struct, frozen=True, kw_only=True):
    """A file in memory that only this step sees, or with ``variable`` an environment variable."""

    target: str = ""
    content: bytes = b""
    mode: int = 0o400
    uid: int = 0
    gid: int = 0
    variable: str = ""

    def __repr__(self) -> str:
        return f"SecretMount(target={self.target!r})"


class SshMount(msgspec.Struct, frozen=True, kw_only=True):
    """A socket to the client's ssh agent; ``listen`` starts to serve it at a path."""

    target: str
    listen: Callable[[str], None]
    mode: int = 0o600
    uid: int = 0
    gid: int = 0


StepMount = BindMount | CacheMount | TmpfsMount | SecretMount | SshMount


def absolute_target(text: str, working_dir: str) -> str:
    """Return the absolute target of a mount; ``text`` may be relative to the working directory."""
    return posixpath.normpath(posixpath.join("/", working_dir, text))
