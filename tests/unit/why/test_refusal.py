"""Events of the kernel, with any bytes that a container may choose."""

from __future__ import annotations

import os
import struct

from jaula.features.why import refusal
from jaula.features.why.refusal import Counts, Exit, OutOfMemory, Refusal, Signal

EVENT = struct.Struct("=6IQ6QQQ4I16Q16s16s64sII256s")


def name_of(number: int, abi: str) -> str:
    return f"call{number}{abi}"


def event(kind: int, **fields: object) -> bytes:
    values = {"flags": 0, "number": 7, "error": 1, "other": 0, "text": b"", "refused": 0} | fields
    text = values["text"]
    assert isinstance(text, bytes)
    return EVENT.pack(
        kind, values["flags"], values["number"], values["error"], 42, values["other"], 9,
        *range(6), values["refused"], 1 << 21, 1, 1, 1000, 8 << 20 | 1, *range(16), b"tmpfs",
        b"name", b"/bin/x", len(text), 0, text,
    )  # fmt: skip


def test_a_refusal() -> None:
    data = event(refusal.REFUSAL, flags=2, refused=1 << 12, text=b"/a\xff")
    found = refusal.decode(data, name_of, 4096)
    assert isinstance(found, Refusal)
    assert (found.syscall, found.errno, found.entered) == ("call7", "EPERM", False)
    assert found.refused == ("CAP_NET_ADMIN",)
    assert found.effective == {"CAP_SYS_ADMIN"}
    assert (found.path, found.device) == ("/a\\xff", "8:1")
    assert found.limits["nofile"] == 7


def test_abis() -> None:
    compat = refusal.decode(event(0, flags=1), name_of, 4096)
    assert isinstance(compat, Refusal)
    assert (compat.syscall, compat.abi) == ("call7i386", "i386")
    x32 = refusal.decode(event(0, number=0x40000000), name_of, 4096)
    assert isinstance(x32, Refusal)
    assert x32.abi == "x32"


def test_ends_of_processes() -> None:
    signal = refusal.decode(event(refusal.SIGNAL, number=11, error=1, text=b"prog\0"), name_of, 1)
    assert isinstance(signal, Signal)
    assert (signal.signal, signal.receiver, signal.kernel) == ("SIGSEGV", "prog", True)
    sent = refusal.decode(event(refusal.SIGNAL, number=9, error=(1 << 32) - 6, flags=8), name_of, 1)
    assert isinstance(sent, Signal)
    assert (sent.kernel, sent.inside, sent.code) == (False, True, -6)
    end = refusal.decode(event(refusal.EXIT, error=9), name_of, 4096)
    assert isinstance(end, Exit)
    assert (end.status, end.peak) == (9, 0)
    assert isinstance(refusal.decode(event(refusal.OOM), name_of, 1), OutOfMemory)


def test_any_bytes_are_an_event() -> None:
    for _ in range(300):
        refusal.decode(os.urandom(EVENT.size), name_of, 4096)


def test_counts_of_keys() -> None:
    def key(text: bytes, first: int = 0) -> bytes:
        return struct.pack("=4IQ2Q16s64s", 7, 1, 0, 0, 0, first, 0, b"name", text)

    counts = Counts(
        [(key(b"/a"), struct.pack("=QQ", 3, 1)), (key(b"", 5), struct.pack("=QQ", 2, 1)),
         (key(b"", 6), struct.pack("=QQ", 4, 1))],
        name_of,
    )  # fmt: skip
    one = Refusal(syscall="call7", errno="EPERM", name="name", text=b"/a")
    assert counts.of(one) == 3
    assert counts.of(Refusal(syscall="call7", errno="EPERM", name="name")) == 6
    assert counts.of(Refusal(syscall="call8", errno="EPERM", name="name")) == 1
