"""NUMA memory policies: set_mempolicy(2).

Source: include/uapi/linux/mempolicy.h. Modes and flags have the names of the OCI runtime
specification. A policy is inherited by children and kept by execve.
"""

from __future__ import annotations

import ctypes
from collections.abc import Collection

from jaula.kernel.libc import MACHINE, syscall

NR_set_mempolicy = {"x86_64": 238}.get(MACHINE, 237)

MODES: dict[str, int] = {
    "MPOL_DEFAULT": 0,
    "MPOL_PREFERRED": 1,
    "MPOL_BIND": 2,
    "MPOL_INTERLEAVE": 3,
    "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}
FLAGS: dict[str, int] = {
    "MPOL_F_NUMA_BALANCING": 1 << 13,
    "MPOL_F_RELATIVE_NODES": 1 << 14,
    "MPOL_F_STATIC_NODES": 1 << 15,
}

_set_mempolicy = syscall(
    "set_mempolicy", NR_set_mempolicy, ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong
)
_WORD = 8 * ctypes.sizeof(ctypes.c_ulong)  # bits


def set_mempolicy(mode: int, nodes: Collection[int]) -> None:
    """Set the memory policy of the calling thread; ``mode`` is one of MODES with FLAGS.

    :raises OSError: EINVAL for a node that is not online or allowed, or a mode that the kernel
        does not have.
    """
    if not nodes:
        _set_mempolicy(mode, None, 0)
        return
    words = max(nodes) // _WORD + 1
    mask = (ctypes.c_ulong * words)()
    for node in nodes:
        mask[node // _WORD] |= 1 << node % _WORD
    _set_mempolicy(mode, ctypes.addressof(mask), words * _WORD + 1)
