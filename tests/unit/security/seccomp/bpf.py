"""A classic BPF machine for tests: the return value of a filter for a call on any architecture."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from jaula.kernel.seccomp import ARCHITECTURES


def run(program: bytes, architecture: str, number: int, args: Sequence[int] = ()) -> int:
    """Return the SECCOMP_RET_* value.

    :raises AssertionError: when the kernel's checker would refuse the program.
    """
    token = ARCHITECTURES["SCMP_ARCH_X86_64" if architecture == "SCMP_ARCH_X32" else architecture]
    values = [*args, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("=IIQ6Q", number & 0xFFFFFFFF, token, 0, *values)
    code = list(struct.iter_unpack("=HBBI", program))
    accumulator, at = 0, 0
    while True:
        assert at < len(code), "ran off the end"
        op, jt, jf, k = code[at]
        at += 1
        match op:
            case 0x20:
                assert k % 4 == 0
                assert k + 4 <= len(data)
                (accumulator,) = struct.unpack_from("=I", data, k)
            case 0x54:
                accumulator &= k
            case 0x05:
                at += k
            case 0x15:
                at += jt if accumulator == k else jf
            case 0x25:
                at += jt if accumulator > k else jf
            case 0x35:
                at += jt if accumulator >= k else jf
            case 0x06:
                return k
            case _:
                raise AssertionError(f"instruction {op:#x}")
