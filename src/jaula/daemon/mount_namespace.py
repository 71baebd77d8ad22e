"""The engine's own mount namespace, in which its interpreter is read-only.

Whoever gets hold of ``/proc/<pid>/exe`` of engine, zygote or shim cannot write to it (statement
I2). Mounts of the host still arrive, ours do not leave.
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

_INSIDE = "JAULA_ENGINE_NAMESPACE"


def enter(config: EngineConfig) -> None:
    """Steps into a private mount namespace and execs the interpreter from a read-only bind."""
    if os.environ.pop(_INSIDE, None) is not None:
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
        raise Unavailable(f"cannot make a mount namespace for the engine: {error}") from error
    os.environ[_INSIDE] = "1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
