"""The parts that the runtime is given here: as the engine's, chosen by the global flags."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from jaula.errors import NotFound
from jaula.oci.settings import Settings, default_root
from jaula.runtime.interfaces import CgroupDriver, Interfaces

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaula.oci.container import Record
    from jaula.runtime.interfaces import Cgroup, LogWriter
    from jaula.spec.runtime import Seccomp


def load(settings: Settings, annotations: Mapping[str, str] | None = None) -> Interfaces:
    """``annotations`` are the spec's, where one is made. Raises ``Unsupported`` without cgroups."""
    return Interfaces(cgroup_driver(settings, annotations), _no_log, seccomp_program)


def cgroup_driver(settings: Settings, annotations: Mapping[str, str] | None = None) -> CgroupDriver:
    """The host's cgroups, as the flags and a spec's ``annotations`` ask for them."""
    from jaula.cgroups import select

    chosen = select(
        systemd=settings.systemd_cgroup, rootless=settings.rootless, annotations=annotations
    )
    return cast(CgroupDriver, chosen)


def seccomp_cache(settings: Settings) -> str:
    """Where finished filters are kept: beside the default root, for every root."""
    import os

    return f"{default_root(os.environ, settings.rootless)}.cache/seccomp"


def seccomp_program(seccomp: Seccomp, cache: str | None) -> tuple[bytes, int]:
    """A filter's program; the compiler is loaded by the first who needs it."""
    from jaula.security.seccomp.seccomp import program

    return program(seccomp, cache)


def _no_log(driver: str, options: dict[str, str], path: str) -> LogWriter:
    raise AssertionError("the caller of an OCI runtime keeps the log")


def cgroup_of(record: Record) -> Cgroup:
    """The cgroup of a container that exists. Raises ``NotFound``."""
    if not record.cgroup:
        raise NotFound(f"container {record.id} has no cgroup yet")
    settings = Settings(systemd_cgroup=record.systemd, rootless=record.rootless)
    return cgroup_driver(settings).open(record.cgroup)
