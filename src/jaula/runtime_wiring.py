"""The runtime's implementations of cgroups, logs and seccomp programs.

This module is imported in the zygote, so its imports must stay light.
"""

from __future__ import annotations

from typing import cast

from jaula.runtime.interfaces import CgroupDriver, Interfaces


def runtime_interfaces(no_cgroup: str = "") -> Interfaces:
    """Return the implementations for this host; import what a shim must not import later.

    ``no_cgroup`` is the reason why a rootless engine has no cgroups to delegate, if it has none.
    """
    from jaula import cgroups
    from jaula.logs import open_writer
    from jaula.rootless import paths
    from jaula.security.seccomp.seccomp import program

    driver = cgroups.detect() if paths.user() is None else cgroups.delegated(no_cgroup)
    return Interfaces(cast(CgroupDriver, driver), open_writer, program)
