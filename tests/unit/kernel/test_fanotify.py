"""Events of fanotify are decoded, and a malformed buffer is an error."""

from __future__ import annotations

import struct

import pytest

from jaula.kernel import fanotify
from jaula.kernel.fanotify import Event


def event(mask: int, fd: int, pid: int, records: bytes = b"", version: int = 3) -> bytes:
    return struct.pack("=IBBHQii", 24 + len(records), version, 0, 24, mask, fd, pid) + records


def pidfd(number: int) -> bytes:
    return struct.pack("=BBHi", 4, 0, 8, number)


def test_events_have_descriptor_and_process() -> None:
    data = event(0x1000, 7, 42, pidfd(8)) + event(fanotify.FAN_Q_OVERFLOW, -1, 0)
    assert fanotify.decode(data) == [Event(0x1000, 7, 42, 8), Event(0x4000, -1, 0, -1)]


def test_a_process_that_has_exited_has_no_descriptor() -> None:
    (found,) = fanotify.decode(event(0x20, 7, 42, pidfd(-2)))
    assert found.pidfd == -1


def test_other_records_are_skipped() -> None:
    other = struct.pack("=BBHi", 9, 0, 8, 3)
    (found,) = fanotify.decode(event(0x20, 7, 42, other + pidfd(5)))
    assert found.pidfd == 5


@pytest.mark.parametrize(
    "data",
    [
        event(1, 2, 3)[:20],
        event(1, 2, 3, version=2),
        event(1, 2, 3) + b"\0",
        struct.pack("=IBBHQii", 4, 3, 0, 24, 1, 2, 3),
        struct.pack("=IBBHQii", 400, 3, 0, 24, 1, 2, 3),
        struct.pack("=IBBHQii", 24, 3, 0, 200, 1, 2, 3),
        event(1, 2, 3, struct.pack("=BBHi", 4, 0, 0, 1)),
        event(1, 2, 3, struct.pack("=BBHi", 4, 0, 80, 1)),
    ],
)
def test_a_malformed_buffer_is_an_error(data: bytes) -> None:
    with pytest.raises(OSError, match="fanotify"):
        fanotify.decode(data)
