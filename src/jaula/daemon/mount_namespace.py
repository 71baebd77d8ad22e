"""The engine's own mount namespace, in which its interpreter is read-only.

A process that opens ``/proc/<pid>/exe`` of engine, zygote or shim cannot write to it (statement
I2). Mounts of the host propagate into it; the engine's mounts do not propagate out.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from jaula.errors import Unavailable
from jaula.kernel import mounts, namespaces
from jaula.kernel.mounts import MS
from jaula.kernel.namespaces import CLONE
from jaula.rootless import paths, state

if TYPE_CHECKING:
    from jaula.config import EngineConfig

_MARKER = "JAULA_ENGINE_NAMESPACE"  # environment variable that is set in the namespace


def enter(config: EngineConfig) -> None:
    """Enter a private mount namespace and execute the interpreter from a read-only bind mount.

    Return if that is done already.

    :raises Unavailable: when the namespace cannot be created.
    """
    if os.environ.pop(_MARKER, None) is not None:
        return
    program = os.path.realpath(sys.executable)
    try:
        namespaces.unshare(CLONE.NEWNS)
        mounts.mount(None, "/", None, MS.REC | MS.SLAVE)
        mounts.mount(program, program, None, MS.BIND)
        bound = mounts.open_tree(program, clone=False)
        mounts.mount_setattr(bound, set=mounts.MOUNT_ATTR.RDONLY)
        os.close(bound)
        if paths.rootless_uid() is not None:
            state.bind_resolv_conf(str(config.paths.run))
    except OSError as error:
        raise Unavailable(f"cannot create a mount namespace for the engine: {error}") from error
    os.environ[_MARKER] = "1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
