"""Audit records of a socket: datagrams, and the filter that the kernel runs on them."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest

from jaula.kernel.kernel_audit import Record, decode, type_filter


def datagram(kind: int, text: bytes = b"audit(1.0:1): x") -> bytes:
    return struct.pack("=IHHII", 0, kind, 0, 0, 0) + text


def accepted(code: bytes, data: bytes) -> bool:
    """Run a filter of classic BPF, with the three instructions that it has."""
    rows: Iterator[tuple[int, int, int, int]] = struct.iter_unpack("=HBBI", code)
    program, position, value = tuple(rows), 0, 0
    while True:
        operation, true, false, constant = program[position]
        position += 1
        if operation == 0x28:
            value = int.from_bytes(data[constant : constant + 2], "big")
        elif operation == 0x15:
            position += true if value == constant else false
        else:
            assert operation == 0x06
            return constant != 0


@pytest.mark.parametrize("types", [(1400,), (1326, 1400, 1423), (1300, 1326, 1400, 1423, 1424)])
def test_the_filter_accepts_its_types_only(types: tuple[int, ...]) -> None:
    code = type_filter(types)
    kinds = (1112, 1299, *types, 1301, 1425, socket.htons(1400))
    assert [kind for kind in kinds if accepted(code, datagram(kind))] == list(types)


def test_a_datagram_is_one_record() -> None:
    assert decode(datagram(1400, b"audit(1.0:1): a=b\n\0")) == Record(1400, "audit(1.0:1): a=b")
    assert decode(datagram(1300, b"\xff")) == Record(1300, "\ufffd")
    assert decode(b"short") is None
