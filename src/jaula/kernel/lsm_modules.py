"""Active security modules: lsm_list_modules(2), Linux 6.8.

Source of the ids: include/uapi/linux/lsm.h. The call works without a mounted securityfs.
"""

from __future__ import annotations

import ctypes

from jaula.kernel.libc import syscall

NR_lsm_list_modules = 461

IDS: dict[int, str] = {
    100: "capability",
    101: "selinux",
    102: "smack",
    103: "tomoyo",
    104: "apparmor",
    105: "yama",
    106: "loadpin",
    107: "safesetid",
    108: "lockdown",
    109: "bpf",
    110: "landlock",
    111: "ima",
    112: "evm",
    113: "ipe",
}

_lsm_list_modules = syscall(
    "lsm_list_modules", NR_lsm_list_modules, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32
)


def list_modules() -> tuple[str, ...]:
    """Return the names of the active modules in order; an unknown id is returned as a number."""
    size = ctypes.c_uint32(8 * 64)
    ids = (ctypes.c_uint64 * 64)()
    count = _lsm_list_modules(ctypes.addressof(ids), ctypes.addressof(size), 0)
    return tuple(IDS.get(ids[n], str(ids[n])) for n in range(count))
