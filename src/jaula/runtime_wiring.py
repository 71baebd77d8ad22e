"""What the runtime is given by the other parts: cgroups, logs, seccomp programs.

Imported in the zygote, so it must stay light.
"""

from __future__ import annotations

from typing import cast

from jaula.runtime.interfaces import CgroupDriver, Interfaces


def runtime_interfaces(no_cgroup: str = "") -> Interfaces:
    """The parts for this host; loads what a shim must not import later.

    ``no_cgroup`` says why an ordinary user's engine has none to give, where that is so.
    """
    from jaula import cgroups
    from jaula.logs import open_writer
    from jaula.rootless import paths
    from jaula.security.seccomp.seccomp import program

    driver = cgroups.detect() if paths.rootless_uid() is None else cgroups.delegated(no_cgroup)
    return Interfaces(cast(CgroupDriver, driver), open_writer, program)
