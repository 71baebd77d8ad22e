"""The sessions of a web view in a file, so that its restart does not log its users out.

The file is in the directory of the engine's socket, or in that of ``XDG_RUNTIME_DIR``, and belongs
to the user of the view. Both are file systems in memory on most hosts. The file has the SHA-256 of
the identifiers, as the memory of the view has, so it does not log a reader in.

Facts about Landlock and files: rights are checked when a file is opened. So the file is opened
before the view confines itself, and is written in place: a confined process creates no file and
renames none. A checksum tells a file that was written in part.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from jaula.spec.api_params import WebUser

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaula.features.web.web_config import WebConfig

MAX_SIZE = 16 << 20  # bytes
_FORMAT = "page"  # identifiers that a cookie carried are in files without it, and are not accepted
_LOCK_SECONDS = 4.0  # until an earlier view on the same address has ended
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_OTHERS = stat.S_IRWXG | stat.S_IRWXO

_log = logging.getLogger("jaula.features.web")


class StoredSession(msgspec.Struct, frozen=True, omit_defaults=True):
    """A session. Times are seconds of ``CLOCK_BOOTTIME``; ``digest`` is hexadecimal."""

    digest: str
    user: WebUser
    method: str
    created: float
    used: float


class _Document(msgspec.Struct, frozen=True):
    format: str
    boot: str
    settings: str
    sessions: list[StoredSession]


class SessionFile:
    """An open and locked file. ``settings`` is a digest: sessions of other settings are dropped."""

    def __init__(self, fd: int, settings: str) -> None:
        self._fd = fd
        self._settings = settings
        self._boot = _BOOT_ID.read_text().strip()

    def load(self) -> list[StoredSession]:
        """Return the sessions; none if the file is not valid, or of another boot or settings."""
        data = os.pread(self._fd, MAX_SIZE, 0)
        checksum, _, content = data.partition(b"\n")
        if checksum != hashlib.sha256(content).hexdigest().encode():
            return []
        try:
            document = msgspec.json.decode(content, type=_Document)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            _log.warning("the stored sessions are not valid: %s", error)
            return []
        expected = (_FORMAT, self._boot, self._settings)
        if (document.format, document.boot, document.settings) != expected:
            return []
        return document.sessions

    def save(self, sessions: Sequence[StoredSession]) -> None:
        """Replace the sessions. A file that cannot be written is emptied.

        A session that has ended must not come back, so no earlier state may remain.
        """
        document = _Document(_FORMAT, self._boot, self._settings, list(sessions))
        content = msgspec.json.encode(document)
        data = hashlib.sha256(content).hexdigest().encode() + b"\n" + content
        try:
            written = os.pwrite(self._fd, data, 0)
            os.ftruncate(self._fd, written)
        except OSError as error:
            _log.warning("the sessions cannot be stored: %s", error.strerror)
            os.ftruncate(self._fd, 0)

    def close(self) -> None:
        """Close the file; its lock ends."""
        os.close(self._fd)


def settings_digest(config: WebConfig, engine_socket: str, url: str) -> str:
    """Return a digest of what decides who may log in: settings, authority, engine and address."""
    authority = b""
    if config.tls is not None and config.tls.client_ca:
        with contextlib.suppress(OSError):  # the TLS context names the error
            authority = Path(config.tls.client_ca).read_bytes()
    parts = (msgspec.json.encode(config), engine_socket.encode(), url.encode(), authority)
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def open_sessions(directories: Sequence[str], port: int, settings: str) -> SessionFile | None:
    """Return the file of the view on a port, in the first directory that may have it.

    None if another user could write to each directory, or another view has the file open.
    """
    directory = next((path for path in directories if path and _is_private(path)), None)
    if directory is None:
        _log.info("sessions end with this process: no directory of this user is private")
        return None
    path = os.path.join(directory, f"jaula-web-{port}.sessions")
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        fd = os.open(path, flags, 0o600)
    except OSError as error:
        _log.warning("sessions end with this process: %s: %s", path, error.strerror)
        return None
    st = os.fstat(fd)
    if not stat.S_ISREG(st.st_mode) or st.st_uid != os.geteuid() or st.st_mode & _OTHERS:
        _log.warning("sessions end with this process: %s is not a file of this user only", path)
    elif not _locked(fd):
        _log.warning("sessions end with this process: another web view has %s", path)
    else:
        return SessionFile(fd, settings)
    os.close(fd)
    return None


def _is_private(path: str) -> bool:
    """Return whether a directory belongs to this user, and no other one can write to it."""
    try:
        st = os.stat(path)
    except OSError:
        return False
    writable = st.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISDIR(st.st_mode) and st.st_uid == os.geteuid() and not writable


def _locked(fd: int) -> bool:
    """Lock a file. A view that ends holds the lock until its last request is answered."""
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        else:
            return True
