"""Texts of /proc as entries: sockets, capabilities, programs, mappings."""

from __future__ import annotations

import pytest

from jaula.features.record.ebpf_events import socket_address
from jaula.features.record.executed_files import executable_mappings
from jaula.features.record.fanotify_tracer import interpreter
from jaula.features.record.proc_sampler import effective_capabilities, parse_sockets, program_path

HEAD = (
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  t inode\n"
)
LINE = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0 0 77 1"
SIX = (
    "   1: 00000000000000000000000001000000:0050 B80D01200000000000000000{}:01BB 01 "
    "00000000:00000000 00:00000000 00000000  0 0 78 1"
).format("01000000")


def test_addresses_of_both_families_are_read() -> None:
    listening, connected = parse_sockets(HEAD + LINE + "\n" + SIX, 6)
    assert (listening.state, listening.local_port, listening.inode) == (0x0A, 8080, 77)
    assert socket_address(listening.local) == {
        "family": "inet", "address": "127.0.0.1", "port": 8080,
    }  # fmt: skip
    assert socket_address(connected.remote) == {
        "family": "inet6", "address": "2001:db8::1", "port": 443,
    }  # fmt: skip
    assert socket_address(connected.local)["address"] == "::1"


@pytest.mark.parametrize(
    "text",
    [
        "", "x", HEAD, HEAD + LINE[:60], HEAD + LINE.replace("0100007F", "0100007"),
        HEAD + LINE.replace("1F90", "11F90"), HEAD + LINE.replace(" 77 ", " x "),
        HEAD + LINE.replace("0A", "zz"), HEAD + "\udcff" * 20, HEAD + LINE.replace(":1F90", ""),
    ],
)  # fmt: skip
def test_a_line_that_is_cut_off_or_malformed_is_left_out(text: str) -> None:
    assert list(parse_sockets(text, 6)) == []


def test_effective_capabilities_are_a_mask() -> None:
    assert effective_capabilities("Name:\tCapEff: 1\nCapEff:\t00000000a80425fb\n") == 0xA80425FB
    assert effective_capabilities("CapEff:\tx\n") == 0
    assert effective_capabilities("") == 0


def test_a_file_without_a_name_is_detached() -> None:
    assert program_path(b"/memfd:x (deleted)") == (b"/memfd:x", b"", 128)
    assert program_path(b"/bin/ls (deleted)") == (b"/bin/ls", b"", 0)


def test_mappings_of_files_with_the_right_to_execute_are_found() -> None:
    maps = (
        b"00400000-00401000 r-xp 00000000 08:01 12 /bin/x y\n"
        b"00401000-00402000 rw-p 00000000 08:01 12 /bin/x y\n"
        b"7ffd0000-7ffd1000 r-xp 00000000 00:00 0  [vdso]\n"
        b"nonsense r-xp 00000000 08:01 12 /bin/z\n"
        b"7f00-8f00 r-xp 0 08:01 13 /lib/a.so (deleted)\n7f00-8f00 r-x"
    )
    assert list(executable_mappings(maps)) == ["400000-401000", "7f00-8f00"]


def elf(kind: int, *, bits: int = 64, count: int = 2) -> bytes:
    head = bytearray(4096)
    head[:6] = b"\x7fELF" + bytes([bits // 32, 1])
    offset, size = (64, 56) if bits == 64 else (52, 32)
    if bits == 64:
        head[32:40] = offset.to_bytes(8, "little")
        head[54:58] = size.to_bytes(2, "little") + count.to_bytes(2, "little")
    else:
        head[28:32] = offset.to_bytes(4, "little")
        head[42:46] = size.to_bytes(2, "little") + count.to_bytes(2, "little")
    head[offset + size : offset + size + 4] = kind.to_bytes(4, "little")
    return bytes(head)


@pytest.mark.parametrize("bits", [32, 64])
def test_a_program_with_a_dynamic_linker_is_told_from_a_static_one(bits: int) -> None:
    assert interpreter(elf(3, bits=bits))
    assert not interpreter(elf(1, bits=bits))


@pytest.mark.parametrize(
    "head", [b"", b"\x7fELF", b"\x7fELF" + b"\xff" * 60, elf(3, count=65535)[:70], b"#!" * 40]
)
def test_a_hostile_header_is_read_within_its_bytes(head: bytes) -> None:
    assert not interpreter(head)
