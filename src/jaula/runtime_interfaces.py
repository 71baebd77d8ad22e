"""The runtime's dependencies: cgroup driver, log writers and the seccomp compiler.

Imported in the zygote, so imports at the top must stay few.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import cast

from jaula.runtime.interfaces import Cgroup, CgroupDriver, Interfaces


def runtime_interfaces(no_cgroup: str = "", *, systemd_cgroups: bool = False) -> Interfaces:
    """Return the runtime's dependencies on this host.

    Imports here what a shim must not import later. ``no_cgroup`` is the reason why a rootless
    engine has no cgroup, or ''. With ``systemd_cgroups`` containers are scopes of systemd.
    """
    from jaula import cgroups
    from jaula.logs import open_writer
    from jaula.rootless import xdg_paths
    from jaula.security.seccomp.seccomp_filter import program

    if xdg_paths.rootless_uid() is None:
        driver = cgroups.detect(systemd=systemd_cgroups)
    else:
        driver = cgroups.delegated(no_cgroup)
    return Interfaces(
        cast(CgroupDriver, driver),
        cast(Callable[[str], Cgroup], cgroups.absent),
        open_writer,
        program,
        _follow_logs,
    )


def _follow_logs(engine: socket.socket) -> None:
    from jaula import stdlib_import

    stdlib_import.import_asyncio()
    from jaula.logs import follower  # it imports asyncio, which a shim does without

    follower.main(engine)
