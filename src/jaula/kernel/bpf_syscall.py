"""The system call bpf(2), and the elements of a map that another process has created.

Source: bpf(2), include/uapi/linux/bpf.h. :mod:`jaula.features.record.libbpf` loads programs.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Iterator

from jaula.kernel.libc import MACHINE, syscall

NR_bpf = {"x86_64": 321}.get(MACHINE, 280)

BPF_MAP_LOOKUP_ELEM, BPF_MAP_DELETE_ELEM, BPF_MAP_LOOKUP_BATCH = 1, 3, 24
_BATCH = 512  # elements of one call

_bpf = syscall("bpf", NR_bpf, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint)


def command(number: int, attributes: bytes) -> tuple[int, bytes]:
    """Run a command, and return its result and the attributes that the kernel has changed.

    :raises OSError: when the kernel refuses.
    """
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    return _bpf(number, ctypes.addressof(buffer), len(attributes)), buffer.raw


def lookup(map_fd: int, key: bytes, value_size: int) -> bytes | None:
    """Return the value of a key, None if it is absent.

    :raises OSError: when the kernel refuses.
    """
    name = ctypes.create_string_buffer(key, len(key))
    value = ctypes.create_string_buffer(value_size)
    attributes = struct.pack(
        "=IxxxxQQQ", map_fd, ctypes.addressof(name), ctypes.addressof(value), 0
    )
    try:
        command(BPF_MAP_LOOKUP_ELEM, attributes)
    except FileNotFoundError:
        return None
    return value.raw


def delete(map_fd: int, key: bytes) -> None:
    """Delete an element, if it exists.

    :raises OSError: when the kernel refuses.
    """
    name = ctypes.create_string_buffer(key, len(key))
    try:
        command(BPF_MAP_DELETE_ELEM, struct.pack("=IxxxxQQQ", map_fd, ctypes.addressof(name), 0, 0))
    except FileNotFoundError:
        return


def items(map_fd: int, key_size: int, value_size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a hash map (Linux 5.6).

    :raises OSError: when the kernel refuses.
    """
    keys = ctypes.create_string_buffer(key_size * _BATCH)
    values = ctypes.create_string_buffer(value_size * _BATCH)
    position, following = ctypes.create_string_buffer(8), ctypes.create_string_buffer(8)
    first, ended = True, False
    while not ended:
        attributes = struct.pack(
            "=QQQQIIQQ",
            0 if first else ctypes.addressof(position),
            ctypes.addressof(following),
            ctypes.addressof(keys),
            ctypes.addressof(values),
            _BATCH,
            map_fd,
            0,
            0,
        )
        buffer = ctypes.create_string_buffer(attributes, len(attributes))
        try:
            _bpf(BPF_MAP_LOOKUP_BATCH, ctypes.addressof(buffer), len(attributes))
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            ended = True  # the call has the last elements
        all_keys, all_values = keys.raw, values.raw
        for n in range(struct.unpack_from("=I", buffer, 32)[0]):
            yield (
                all_keys[n * key_size : (n + 1) * key_size],
                all_values[n * value_size : (n + 1) * value_size],
            )
        position.raw, first = following.raw, False
