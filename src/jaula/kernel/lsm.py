"""Which security modules are in force: lsm_list_modules(2), Linux 6.8, and securityfs.

Follows include/uapi/linux/lsm.h for the ids. The call works where securityfs is not mounted.
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
    """Names of the modules in their order; a number stands for an id that has no name here."""
    size = ctypes.c_uint32(8 * 64)
    ids = (ctypes.c_uint64 * 64)()
    count = _lsm_list_modules(ctypes.addressof(ids), ctypes.addressof(size), 0)
    return tuple(IDS.get(ids[n], str(ids[n])) for n in range(count))
