"""Give the first task of a restore its SELinux label, before it forks all others.

CRIU sets labels only if it is built with libselinux, and Debian's is not. A process with several
threads cannot take another label. So the first task takes the container's in CRIU's notification
``post-setup-namespaces``, where it is alone
(:mod:`jaula.features.checkpoint.runtime.criu_landlock`), and all others inherit it. CRIU restores
the rest under that label, so it has to be one that the policy does not confine.

Source: lsm_set_self_attr(2) of Linux 6.8, ``linux/lsm.h``. It needs no file of /proc.
"""

from __future__ import annotations

import errno
import struct

from jaula.errors import RuntimeFailure
from jaula.kernel.ptrace import RemoteCalls

NR_lsm_set_self_attr = 460
LSM_ATTR_CURRENT = 100
LSM_ID_SELINUX = 101
_HEADER = struct.Struct("=QQQQ")  # struct lsm_ctx: id, flags, len, ctx_len
_HINTS = {
    errno.ENOSYS: "a restore with an SELinux label needs Linux 6.8",
    errno.EACCES: "the policy does not permit the transition (dyntransition); load jaula.cil",
}


def enter(pid: int, label: str) -> None:
    """Make process ``pid`` take a label.

    :raises RuntimeFailure: when the kernel or the policy refuses.
    """
    context = label.encode()
    size = _HEADER.size + len(context)
    request = _HEADER.pack(LSM_ID_SELINUX, 0, size, len(context)) + context
    try:
        with RemoteCalls(pid) as task:
            address = task.write(0, request)
            task.call("lsm_set_self_attr", NR_lsm_set_self_attr, LSM_ATTR_CURRENT, address, size, 0)
    except OSError as error:
        raise RuntimeFailure(
            f"SELinux label {label!r}: {error}", hint=_HINTS.get(error.errno or 0)
        ) from error
