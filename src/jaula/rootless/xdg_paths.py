"""Directories of a system's or an ordinary user's engine (XDG base directory specification).

Every command imports this module, so its imports must be cheap. A rootless engine itself is user 0
of its user namespace; ``JAULA_ROOTLESS`` is the uid of its user there.
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

ROOTLESS_ENV = "JAULA_ROOTLESS"
"""The environment variable with the uid of a rootless engine's user."""

SYSTEM_CONFIG = "/etc/jaula/daemon.json"
SYSTEM_ROOT = "/var/lib/jaula"
SYSTEM_RUN = "/run/jaula"
SOCKET = "jaula.sock"


def rootless_uid() -> int | None:
    """Return the uid of the user whose rootless engine this is about; None: the system's."""
    rootless_id = os.environ.get(ROOTLESS_ENV, "")
    if rootless_id.isascii() and rootless_id.isdigit():
        return int(rootless_id)
    own_uid = os.geteuid()
    return own_uid if own_uid != 0 else None


def root_directory(uid: int | None, environment: Mapping[str, str], home: str) -> str:
    """Return the persistent directory. ``home`` is used if ``HOME`` is not set. Pure."""
    if uid is None:
        return SYSTEM_ROOT
    return os.path.join(_base("XDG_DATA_HOME", ".local/share", environment, home), "jaula")


def _base(name: str, default: str, environment: Mapping[str, str], home: str) -> str:
    """Return a base directory; the specification says to ignore a relative path."""
    value = environment.get(name, "")
    return (
        value if value.startswith("/") else os.path.join(environment.get("HOME") or home, default)
    )


def run_directory(uid: int | None, environment: Mapping[str, str], default: bool) -> str:
    """Return the volatile directory. ``default`` says whether /run/user/UID exists. Pure.

    The fallback is a directory below /tmp, which is checked to be the user's before it is used.
    """
    if uid is None:
        return SYSTEM_RUN
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/"):
        return os.path.join(runtime, "jaula")
    return f"/run/user/{uid}/jaula" if default else f"/tmp/jaula-{uid}"


def root() -> str:
    """Return the directory of this user's images, layers, volumes and containers."""
    uid = rootless_uid()
    home = "/" if uid is None or os.environ.get("HOME") else _home(uid)
    return root_directory(uid, os.environ, home)


def config_file() -> str:
    """Return the path of this user's ``daemon.json``, which need not exist."""
    uid = rootless_uid()
    if uid is None:
        return SYSTEM_CONFIG
    home = "" if os.environ.get("HOME") else _home(uid)
    return os.path.join(_base("XDG_CONFIG_HOME", ".config", os.environ, home), "jaula/daemon.json")


def run() -> str:
    """Return the directory of this user's socket and volatile state."""
    uid = rootless_uid()
    return run_directory(uid, os.environ, uid is not None and _is_own(f"/run/user/{uid}"))


def socket() -> str:
    """Return the socket that a client connects to by default.

    For an ordinary user that is the own engine's socket if it exists. Otherwise it is the system's
    if the user may write to it (``--group``), and else the own one again, whose engine the client
    starts.
    """
    system = os.path.join(SYSTEM_RUN, SOCKET)
    if rootless_uid() is None:
        return system
    own_uid = os.path.join(run(), SOCKET)
    if not os.path.exists(own_uid) and os.access(system, os.W_OK):
        return system
    return own_uid


def is_trusted(path: str) -> bool:
    """Return whether a directory is absent, or only its owner, this user, can write to it.

    Another user can create directories below /tmp.
    """
    try:
        st = os.lstat(path)
    except FileNotFoundError:
        return True
    return stat.S_ISDIR(st.st_mode) and st.st_uid == os.geteuid() and not (st.st_mode & 0o022)


def _is_own(path: str) -> bool:
    try:
        return os.stat(path).st_uid == os.geteuid()
    except OSError:
        return False


def _home(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_dir
    except KeyError:
        return "/"
