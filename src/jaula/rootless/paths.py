"""Where an ordinary user's engine keeps its things, by the XDG base directory specification.

Imported by every command, so nothing heavy is. The engine itself is user 0 of its user namespace;
which user it belongs to is in ``JAULA_ROOTLESS`` there.
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

ROOTLESS_ENV = "JAULA_ROOTLESS"
"""The environment variable that names the user of an engine in its namespaces."""

SYSTEM_CONFIG = "/etc/jaula/daemon.json"
SYSTEM_ROOT = "/var/lib/jaula"
SYSTEM_RUN = "/run/jaula"
SOCKET = "jaula.sock"


def rootless_uid() -> int | None:
    """The id of the ordinary user whose engine is meant or runs here; None: the system's."""
    inside = os.environ.get(ROOTLESS_ENV, "")
    if inside.isascii() and inside.isdigit():
        return int(inside)
    own = os.geteuid()
    return own if own != 0 else None


def root_directory(uid: int | None, environment: Mapping[str, str], home: str) -> str:
    """What survives a boot. ``home`` is the user's, for where ``HOME`` is not set. Pure."""
    if uid is None:
        return SYSTEM_ROOT
    return os.path.join(_base("XDG_DATA_HOME", ".local/share", environment, home), "jaula")


def _base(name: str, usual: str, environment: Mapping[str, str], home: str) -> str:
    """A base directory; the specification says to pass over a relative one."""
    given = environment.get(name, "")
    return given if given.startswith("/") else os.path.join(environment.get("HOME") or home, usual)


def run_directory(uid: int | None, environment: Mapping[str, str], usual: bool) -> str:
    """What does not. ``usual`` says whether /run/user/UID is there. Pure.

    Without either, a directory below /tmp serves, which is checked to be the user's own before
    it is used.
    """
    if uid is None:
        return SYSTEM_RUN
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/"):
        return os.path.join(runtime, "jaula")
    return f"/run/user/{uid}/jaula" if usual else f"/tmp/jaula-{uid}"


def root() -> str:
    """This user's directory for images, layers, volumes and containers."""
    uid = rootless_uid()
    home = "/" if uid is None or os.environ.get("HOME") else _home(uid)
    return root_directory(uid, os.environ, home)


def config_file() -> str:
    """Settings of this user's engine where no file is named: it need not be there."""
    uid = rootless_uid()
    if uid is None:
        return SYSTEM_CONFIG
    home = "" if os.environ.get("HOME") else _home(uid)
    return os.path.join(_base("XDG_CONFIG_HOME", ".config", os.environ, home), "jaula/daemon.json")


def run() -> str:
    """This user's directory for the socket and what runs."""
    uid = rootless_uid()
    return run_directory(uid, os.environ, uid is not None and _is_own(f"/run/user/{uid}"))


def socket() -> str:
    """The socket that a client talks to where none is named.

    For an ordinary user the own engine's if it is there, else the system's where the user may
    write to it (``--group``), else the own one again, which a client then starts.
    """
    system = os.path.join(SYSTEM_RUN, SOCKET)
    if rootless_uid() is None:
        return system
    own = os.path.join(run(), SOCKET)
    if not os.path.exists(own) and os.access(system, os.W_OK):
        return system
    return own


def is_trusted(path: str) -> bool:
    """Whether a directory is not there yet, or is the user's and nobody else writes to it.

    What is below /tmp could have been made by anyone.
    """
    try:
        facts = os.lstat(path)
    except FileNotFoundError:
        return True
    return (
        stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.geteuid() and not (facts.st_mode & 0o022)
    )


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
