"""The engine's own mount namespace, in which its interpreter is read-only.

A process that opens ``/proc/<pid>/exe`` of engine, zygote or shim cannot write to it (statement
I2). Mounts of the host propagate into it; the engine's mounts do not propagate out. A descriptor
of the mount namespace in which the engine was started is kept: a bind mount that is shared with the
host is made there.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NoReturn

from jaula.errors import Unavailable
from jaula.kernel import mounts, namespaces
from jaula.kernel.mounts import MS
from jaula.kernel.namespaces import CLONE
from jaula.rootless import holder_state, xdg_paths

if TYPE_CHECKING:
    from jaula.config import EngineConfig

_MARKER = "JAULA_ENGINE_NAMESPACE"  # set in the namespace: the descriptor of the former one


def enter(config: EngineConfig) -> int:
    """Enter a private mount namespace and execute the interpreter from a read-only bind mount.

    If that is done already, return a descriptor of the former mount namespace. An engine without
    root may not enter that one, which belongs to the host: -1.

    :raises Unavailable: when the namespace cannot be created.
    """
    former = os.environ.pop(_MARKER, None)
    if former is None:
        _execute_inside(config)
    if xdg_paths.rootless_uid() is not None:
        os.close(int(former))
        return -1
    os.set_inheritable(int(former), False)
    return int(former)


def _execute_inside(config: EngineConfig) -> NoReturn:
    program = os.path.realpath(sys.executable)
    try:
        host_mounts = namespaces.open_namespace(os.getpid(), "mnt")
        os.set_inheritable(host_mounts, True)
        namespaces.unshare(CLONE.NEWNS)
        mounts.mount(None, "/", None, MS.REC | MS.SLAVE)
        mounts.mount(program, program, None, MS.BIND)
        bound = mounts.open_tree(program, clone=False)
        mounts.mount_setattr(bound, set=mounts.MOUNT_ATTR.RDONLY)
        os.close(bound)
        if xdg_paths.rootless_uid() is not None:
            holder_state.bind_resolv_conf(str(config.paths.run))
    except OSError as error:
        raise Unavailable(f"cannot create a mount namespace for the engine: {error}") from error
    os.environ[_MARKER] = str(host_mounts)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
