"""System call filters: seccomp(2), and the system call numbers of each architecture.

Source: seccomp(2), include/uapi/linux/seccomp.h and, for the numbers, libseccomp's
``seccomp_syscall_resolve_name_arch(3)``. :mod:`jaula.security.seccomp` decides what a filter
allows; this module passes a finished classic BPF program to the kernel.

Facts about loading: without no_new_privs the caller needs CAP_SYS_ADMIN in its user namespace. A
filter is in effect when the call returns. It must allow every later call, at least execve.

Facts about numbers: system calls from 424 on have the same number on every architecture, so they do
not need a recent libseccomp; :data:`UNIFORM` lists them. i386 has direct socket and IPC calls since
Linux 4.3 and 5.1. For some of these libseccomp returns a pseudo number, because the name also means
socketcall(2) or ipc(2); here a name always means the direct call.
"""

from __future__ import annotations

import ctypes
import errno

from jaula.kernel.libc import MACHINE, IntFlag, syscall

NR_seccomp = {"x86_64": 317, "aarch64": 277, "riscv64": 277}.get(MACHINE, 277)

SECCOMP_SET_MODE_STRICT = 0
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_GET_ACTION_AVAIL = 2
SECCOMP_GET_NOTIF_SIZES = 3

BPF_MAXINSNS = 4096


class SECCOMP_FILTER_FLAG(IntFlag):
    """Flags of SECCOMP_SET_MODE_FILTER."""

    TSYNC = 1
    LOG = 2
    SPEC_ALLOW = 4
    NEW_LISTENER = 8
    TSYNC_ESRCH = 16
    WAIT_KILLABLE_RECV = 32


SECCOMP_RET_KILL_PROCESS = 0x80000000
SECCOMP_RET_KILL_THREAD = 0x00000000
SECCOMP_RET_TRAP = 0x00030000
SECCOMP_RET_ERRNO = 0x00050000
SECCOMP_RET_USER_NOTIF = 0x7FC00000
SECCOMP_RET_TRACE = 0x7FF00000
SECCOMP_RET_LOG = 0x7FFC0000
SECCOMP_RET_ALLOW = 0x7FFF0000

X32_SYSCALL_BIT = 0x40000000

ARCHITECTURES: dict[str, int] = {
    "SCMP_ARCH_X86": 0x40000003,
    "SCMP_ARCH_X86_64": 0xC000003E,
    "SCMP_ARCH_X32": 0x4000003E,
    "SCMP_ARCH_ARM": 0x40000028,
    "SCMP_ARCH_AARCH64": 0xC00000B7,
    "SCMP_ARCH_LOONGARCH64": 0xC0000102,
    "SCMP_ARCH_MIPS": 0x00000008,
    "SCMP_ARCH_MIPS64": 0x80000008,
    "SCMP_ARCH_MIPS64N32": 0xA0000008,
    "SCMP_ARCH_MIPSEL": 0x40000008,
    "SCMP_ARCH_MIPSEL64": 0xC0000008,
    "SCMP_ARCH_MIPSEL64N32": 0xE0000008,
    "SCMP_ARCH_PARISC": 0x0000000F,
    "SCMP_ARCH_PARISC64": 0x8000000F,
    "SCMP_ARCH_PPC": 0x00000014,
    "SCMP_ARCH_PPC64": 0x80000015,
    "SCMP_ARCH_PPC64LE": 0xC0000015,
    "SCMP_ARCH_RISCV64": 0xC00000F3,
    "SCMP_ARCH_S390": 0x00000016,
    "SCMP_ARCH_S390X": 0x80000016,
}
"""libseccomp's architecture names and tokens. All but X32 are AUDIT_ARCH_* of linux/audit.h."""

NATIVE: str = {
    "x86_64": "SCMP_ARCH_X86_64",
    "aarch64": "SCMP_ARCH_AARCH64",
    "riscv64": "SCMP_ARCH_RISCV64",
    "ppc64le": "SCMP_ARCH_PPC64LE",
    "s390x": "SCMP_ARCH_S390X",
    "loongarch64": "SCMP_ARCH_LOONGARCH64",
}.get(MACHINE, "SCMP_ARCH_X86_64")

_UNIFORM = """
pidfd_send_signal io_uring_setup io_uring_enter io_uring_register open_tree move_mount fsopen
fsconfig fsmount fspick pidfd_open clone3 close_range openat2 pidfd_getfd faccessat2
process_madvise epoll_pwait2 mount_setattr quotactl_fd landlock_create_ruleset landlock_add_rule
landlock_restrict_self memfd_secret process_mrelease futex_waitv set_mempolicy_home_node cachestat
fchmodat2 map_shadow_stack futex_wake futex_wait futex_requeue statmount listmount
lsm_get_self_attr lsm_set_self_attr lsm_list_modules mseal setxattrat getxattrat listxattrat
removexattrat open_tree_attr file_getattr file_setattr
"""
UNIFORM: dict[str, int] = {name: number for number, name in enumerate(_UNIFORM.split(), 424)}
"""System calls with the same number on every architecture (include/uapi/asm-generic/unistd.h)."""

_I386_SOCKET = """
socket socketpair bind connect listen accept4 getsockopt setsockopt getsockname getpeername sendto
sendmsg recvfrom recvmsg shutdown
"""
_I386_IPC = "semget semctl shmget shmctl shmat shmdt msgget msgsnd msgrcv msgctl"
I386_DIRECT: dict[str, int] = {
    **{name: number for number, name in enumerate(_I386_SOCKET.split(), 359)},
    **{name: number for number, name in enumerate(_I386_IPC.split(), 393)},
}
"""Calls that i386 also has by socketcall and ipc (arch/x86/entry/syscalls/syscall_32.tbl)."""


class sock_fprog(ctypes.Structure):
    """struct sock_fprog (linux/filter.h)."""

    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


_seccomp = syscall("seccomp", NR_seccomp, ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p)


class FilterProgram:
    """A BPF program in the kernel's memory layout, so that loading it takes one system call."""

    __slots__ = ("_buffer", "address", "fprog")

    def __init__(self, program: bytes) -> None:
        if not program or len(program) % 8 or len(program) // 8 > BPF_MAXINSNS:
            raise ValueError(f"{len(program)} bytes are not a valid BPF program")
        self._buffer = ctypes.create_string_buffer(program, len(program))
        self.fprog = sock_fprog(len(program) // 8, ctypes.addressof(self._buffer))
        self.address = ctypes.addressof(self.fprog)


def install(program: bytes | FilterProgram, flags: int = 0, listener: bool = False) -> int | None:
    """Apply a filter to the calling thread.

    ``flags`` are SECCOMP_FILTER_FLAG bits. Return the descriptor of the user notification listener
    (close-on-exec) with ``listener``, otherwise None.

    :raises OSError: EACCES without no_new_privs and CAP_SYS_ADMIN, EINVAL for an invalid program.
    """
    prepared = program if isinstance(program, FilterProgram) else FilterProgram(program)
    if listener:
        flags |= SECCOMP_FILTER_FLAG.NEW_LISTENER
    result = _seccomp(SECCOMP_SET_MODE_FILTER, int(flags), prepared.address)
    if listener:
        return result
    if result > 0:  # TSYNC: id of a thread that could not be synchronised
        raise OSError(1, f"seccomp: thread {result} cannot be synchronised")
    return None


def action_available(action: int) -> bool:
    """Return whether the kernel supports a SECCOMP_RET_* action; its data bits must be zero."""
    value = ctypes.c_uint32(action)
    try:
        _seccomp(SECCOMP_GET_ACTION_AVAIL, 0, ctypes.addressof(value))
    except OSError:
        return False
    return True


def filter_flag_available(flag: int) -> bool:
    """Return whether the kernel supports a SECCOMP_FILTER_FLAG.

    It checks the flags before it reads the program, which is missing here.
    """
    if flag & SECCOMP_FILTER_FLAG.WAIT_KILLABLE_RECV:  # valid with a listener only
        flag |= SECCOMP_FILTER_FLAG.NEW_LISTENER
    try:
        _seccomp(SECCOMP_SET_MODE_FILTER, int(flag), None)
    except OSError as error:
        return error.errno == errno.EFAULT
    return False


_library: ctypes.CDLL | None = None
_free = ctypes.CDLL(None).free
_free.argtypes, _free.restype = (ctypes.c_void_p,), None


def library() -> ctypes.CDLL:
    """Return libseccomp, loaded at the first call.

    :raises OSError: when libseccomp is not installed.
    """
    global _library
    if _library is None:
        library_handle = ctypes.CDLL("libseccomp.so.2", use_errno=True)
        library_handle.seccomp_syscall_resolve_name_arch.argtypes = (
            ctypes.c_uint32,
            ctypes.c_char_p,
        )
        library_handle.seccomp_syscall_resolve_name_arch.restype = ctypes.c_int
        library_handle.seccomp_syscall_resolve_num_arch.argtypes = (ctypes.c_uint32, ctypes.c_int)
        library_handle.seccomp_syscall_resolve_num_arch.restype = ctypes.c_void_p
        _library = library_handle
    return _library


def resolve(name: str, architecture: str) -> int | None:
    """Return the number of a system call, or None if the architecture does not have it.

    ``architecture`` is a key of :data:`ARCHITECTURES`; x32 numbers include ``X32_SYSCALL_BIT``.
    """
    bit = X32_SYSCALL_BIT if architecture == "SCMP_ARCH_X32" else 0
    if (uniform := UNIFORM.get(name)) is not None and not architecture.startswith("SCMP_ARCH_MIPS"):
        return uniform | bit
    if architecture == "SCMP_ARCH_X86" and name in I386_DIRECT:
        return I386_DIRECT[name]
    token = ARCHITECTURES[architecture]
    number: int = library().seccomp_syscall_resolve_name_arch(token, name.encode("ascii"))
    return number if number >= 0 else None


def name_of(number: int, architecture: str) -> str | None:
    """Return the name of a system call, or None if libseccomp does not know it.

    ``architecture`` is a key of :data:`ARCHITECTURES`.

    :raises OSError: when libseccomp is not installed.
    """
    text = library().seccomp_syscall_resolve_num_arch(ARCHITECTURES[architecture], number)
    if not text:
        return None
    name = ctypes.string_at(text).decode("ascii")
    _free(text)  # the caller owns it: seccomp_syscall_resolve_num_arch(3)
    return name
