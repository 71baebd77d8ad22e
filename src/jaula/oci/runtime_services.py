"""Implementations of the runtime's interfaces, as the flags of ``jaula-runtime`` choose them."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from jaula.errors import NotFound
from jaula.oci.runtime_settings import Settings, default_root
from jaula.runtime.interfaces import CgroupDriver, Interfaces

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from socket import socket

    from jaula.oci.runtime_container import Record
    from jaula.runtime.interfaces import Cgroup, LogWriter
    from jaula.spec.runtime_spec import Seccomp


def load(settings: Settings, annotations: Mapping[str, str] | None = None) -> Interfaces:
    """Return the implementations; ``annotations`` are the spec's, for a new container.

    :raises Unsupported: when the host has no usable cgroups.
    """
    from jaula import cgroups

    return Interfaces(
        cgroup_driver(settings, annotations),
        cast("Callable[[str], Cgroup]", cgroups.absent),
        _no_log,
        seccomp_program,
        _no_followers,
    )


def cgroup_driver(settings: Settings, annotations: Mapping[str, str] | None = None) -> CgroupDriver:
    """Return the cgroup driver for the flags and the ``annotations`` of a spec."""
    from jaula.cgroups import select

    driver = select(
        systemd=settings.systemd_cgroup, rootless=settings.rootless, annotations=annotations
    )
    return cast(CgroupDriver, driver)


def seccomp_cache(settings: Settings) -> str:
    """Return the directory of compiled filters: beside the default root, shared by all roots."""
    import os

    return f"{default_root(os.environ, settings.rootless)}.cache/seccomp"


def seccomp_program(seccomp: Seccomp, cache: str | None) -> tuple[bytes, int]:
    """Return a compiled filter; the compiler is imported on first use."""
    from jaula.security.seccomp.seccomp_filter import program

    return program(seccomp, cache)


def _no_log(driver: str, options: dict[str, str], path: str) -> LogWriter:
    raise AssertionError("the caller of an OCI runtime keeps the log")


def _no_followers(engine: socket) -> None:
    raise AssertionError("the caller of an OCI runtime keeps the log")


def cgroup_of(record: Record) -> Cgroup:
    """Open the cgroup of an existing container.

    :raises NotFound: when it has none.
    """
    if not record.cgroup:
        raise NotFound(f"container {record.id} has no cgroup yet")
    settings = Settings(systemd_cgroup=record.systemd, rootless=record.rootless)
    return cgroup_driver(settings).open(record.cgroup)
