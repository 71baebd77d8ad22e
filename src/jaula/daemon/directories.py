"""The engine's directories, and the lock that one engine has on them."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING

from jaula.errors import Conflict, Unavailable

if TYPE_CHECKING:
    from jaula.config import EngineConfig


def create(config: EngineConfig) -> None:
    """Make what is missing.

    :raises Unavailable: it cannot be made.
    """
    paths = config.paths
    try:
        for directory, mode in (
            (paths.root, 0o711),
            (paths.run, 0o711),
            (paths.root / "containers", 0o700),
            (paths.run / "containers", 0o700),
            (config.socket.parent, 0o711),
        ):
            directory.mkdir(mode=mode, parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(
            f"cannot make the engine's directories: {error.strerror}: {error.filename}",
            hint="name others with --root and --run",
        ) from error


def lock(config: EngineConfig) -> int:
    """One engine a root directory, for as long as its process lives."""
    path = config.paths.root / "engine.lock"
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise Conflict(
                f"another engine uses {config.paths.root}",
                hint="stop it, or give this one another directory with --root",
            ) from None
        raise Unavailable(f"cannot lock {path}: {error.strerror}") from error
    return lock
