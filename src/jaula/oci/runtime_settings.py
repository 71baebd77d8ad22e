"""The global flags of ``jaula-runtime`` and their defaults."""

from __future__ import annotations

import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_ROOT = "/run/jaula-runtime"
_INITIAL_USERNS_MAP = b"0 0 4294967295"  # user_namespaces(7): the map of the first user namespace


class Settings:
    """The global flags. ``rootless`` is detected for ``auto`` or an absent flag."""

    __slots__ = ("debug", "log", "log_format", "root", "rootless", "systemd_cgroup")

    def __init__(
        self,
        *,
        root: str = "",
        log: str = "",
        log_format: str = "text",
        debug: bool = False,
        systemd_cgroup: bool = False,
        rootless: bool | None = None,
    ) -> None:
        self.rootless = is_rootless() if rootless is None else rootless
        self.root = root or (_rootless_root() if self.rootless else DEFAULT_ROOT)
        self.log = log
        self.log_format = log_format
        self.debug = debug
        self.systemd_cgroup = systemd_cgroup


def is_rootless() -> bool:
    """Return whether the caller lacks the host's privileges.

    That is a user other than root, or root of a user namespace.
    """
    if posix.geteuid() != 0:
        return True
    try:
        with open("/proc/self/uid_map", "rb") as file:
            return b" ".join(file.read().split()) != _INITIAL_USERNS_MAP
    except OSError:
        return False


def _rootless_root() -> str:
    import os

    return default_root(os.environ, rootless=True)


def default_root(environment: Mapping[str, str], rootless: bool) -> str:
    """Return the directory of containers. Callers that set XDG_RUNTIME_DIR empty mean root's."""
    runtime_dir = environment.get("XDG_RUNTIME_DIR", "")
    if rootless and runtime_dir:
        return f"{runtime_dir}/jaula-runtime"
    return DEFAULT_ROOT
