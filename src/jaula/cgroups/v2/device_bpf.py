"""The BPF instructions and commands that a cgroup device program needs.

Source: bpf(2); kernel ``bpf/standardization/instruction-set.rst``; ``linux/bpf.h`` for the
attributes of each command. The assembler has eight instructions and needs no compiler or library.
"""

from __future__ import annotations

import ctypes
import struct

from jaula.kernel.bpf_syscall import command as _call

BPF_PROG_LOAD = 5
BPF_PROG_ATTACH = 8
BPF_PROG_DETACH = 9
BPF_PROG_GET_FD_BY_ID = 13
BPF_OBJ_GET_INFO_BY_FD = 15
BPF_PROG_QUERY = 16

BPF_PROG_TYPE_CGROUP_DEVICE = 15
BPF_CGROUP_DEVICE = 6
BPF_F_ALLOW_MULTI = 2

R0, R1, R2, R3, R4, R5 = range(6)


def _instruction(code: int, dst: int = 0, src: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("=BBhI", code, src << 4 | dst, offset, value & 0xFFFFFFFF)


def load_word(dst: int, src: int, offset: int) -> bytes:
    """Assemble ``dst = *(u32 *)(src + offset)``."""
    return _instruction(0x61, dst, src, offset)


def move(dst: int, src: int) -> bytes:
    """Assemble ``(u32) dst = (u32) src``."""
    return _instruction(0xBC, dst, src)


def set_value(dst: int, value: int) -> bytes:
    """Assemble ``(u32) dst = value``."""
    return _instruction(0xB4, dst, value=value)


def and_value(dst: int, value: int) -> bytes:
    """Assemble ``(u32) dst &= value``."""
    return _instruction(0x54, dst, value=value)


def shift_right(dst: int, bits: int) -> bytes:
    """Assemble ``(u32) dst >>= bits``."""
    return _instruction(0x74, dst, value=bits)


def jump_unless_equal(dst: int, value: int, skip: int) -> bytes:
    """Assemble ``if ((u32) dst != value) goto pc + 1 + skip``."""
    return _instruction(0x56, dst, offset=skip, value=value)


def jump_if_equal(dst: int, value: int, skip: int) -> bytes:
    """Assemble ``if ((u32) dst == value) goto pc + 1 + skip``."""
    return _instruction(0x16, dst, offset=skip, value=value)


def exit_() -> bytes:
    """Assemble ``return R0``: 1 allows, 0 denies."""
    return _instruction(0x95)


def load(program: bytes, name: bytes) -> int:
    """Load a device program and return its descriptor.

    :raises OSError: EPERM without CAP_BPF.
    """
    code = ctypes.create_string_buffer(program, len(program))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    attributes = struct.pack(
        "=IIQQIIQII16s",
        BPF_PROG_TYPE_CGROUP_DEVICE,
        len(program) // 8,
        ctypes.addressof(code),
        ctypes.addressof(licence),
        0,  # log_level
        0,  # log_size
        0,  # log_buf
        0,  # kern_version
        0,  # prog_flags
        name[:15],
    )
    return _call(BPF_PROG_LOAD, attributes)[0]


def attach(directory: int, program: int) -> None:
    """Attach ``program`` to the cgroup in addition to others; all must allow an access."""
    values = (directory, program, BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI)
    _call(BPF_PROG_ATTACH, struct.pack("=IIII", *values))


def detach(directory: int, program: int) -> None:
    """Detach ``program`` from the cgroup."""
    _call(BPF_PROG_DETACH, struct.pack("=IIII", directory, program, BPF_CGROUP_DEVICE, 0))


def attached(directory: int) -> tuple[int, ...]:
    """Return the ids of the device programs attached to this cgroup itself."""
    limit = 64
    ids = (ctypes.c_uint32 * limit)()
    attributes = struct.pack(
        "=IIIIQIxxxx", directory, BPF_CGROUP_DEVICE, 0, 0, ctypes.addressof(ids), limit
    )
    _, answer = _call(BPF_PROG_QUERY, attributes)
    count: int = struct.unpack_from("=I", answer, 24)[0]
    return tuple(ids[:count])


def by_id(program_id: int) -> int:
    """Return a descriptor of a loaded program."""
    return _call(BPF_PROG_GET_FD_BY_ID, struct.pack("=III", program_id, 0, 0))[0]


def tag(program: int) -> str:
    """Return the kernel's digest of a program's instructions, as ``bpftool`` prints it."""
    info = ctypes.create_string_buffer(64)
    _call(BPF_OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", program, 64, ctypes.addressof(info)))
    return info.raw[8:16].hex()


def instructions(program: int, limit: int = 1 << 16) -> bytes:
    """Return a program from the kernel (``bpftool prog dump xlated``); empty if not readable.

    The verifier may rewrite a program; it does not rewrite those that this package assembles.
    ``limit`` is the maximum size in bytes.
    """
    size, length_at, pointer_at = 232, 20, 32  # struct bpf_prog_info: xlated_prog_len, _insns
    info = ctypes.create_string_buffer(size)
    code = ctypes.create_string_buffer(limit)
    struct.pack_into("=I", info, length_at, limit)
    struct.pack_into("=Q", info, pointer_at, ctypes.addressof(code))
    _call(BPF_OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", program, size, ctypes.addressof(info)))
    length: int = struct.unpack_from("=I", info, length_at)[0]
    readable = struct.unpack_from("=Q", info, pointer_at)[0] != 0
    return code.raw[:length] if readable and length <= limit else b""
