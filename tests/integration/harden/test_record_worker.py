"""Records of clients that become profiles: what a hostile one costs."""

from __future__ import annotations

import json
import os

import msgspec
import pytest

from jaula.errors import InvalidRequest
from jaula.features.verify.diagnostics.commands import RECORD, RECORD_LIMITS
from jaula.sandbox.sandbox_limits import Limits
from jaula.sandbox.sandbox_worker import Worker

MIB = 1 << 20
HOSTILE = {
    "nothing": b"",
    "other lines": b"no record\n" * 100_000,
    "empty lines": b"\n" * (4 * MIB),
    "a long line": b"x" * (8 * MIB),
    "nested": b'{"a":' * 100_000 + b"\n",
    "lists": b"[" * 100_000 + b"]" * 100_000 + b"\n",
    "a number": b'{"n":' + b"9" * MIB + b"}\n",
    "headers": b'{"type":"header"}\n' * 50_000,
}


def _profile(data: bytes, limits: Limits = RECORD_LIMITS) -> bytes:
    fd = os.memfd_create("record")
    try:
        os.write(fd, data)
        os.lseek(fd, 0, os.SEEK_SET)
        with Worker(RECORD, limits) as worker:
            return worker.call(b"", (fd,))
    finally:
        os.close(fd)


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_record_is_one_clear_error(name: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        _profile(HOSTILE[name])
    assert len(str(raised.value)) < 1000
    assert str(raised.value).isprintable()


def test_the_error_says_how_to_find_what_is_wrong() -> None:
    line = json.dumps({"type": "header"}).encode()
    with pytest.raises(InvalidRequest, match=r"is not an intact record: .*jaula record verify"):
        _profile(line + b"\n")


def test_memory_is_bounded() -> None:
    limits = msgspec.structs.replace(RECORD_LIMITS, memory=16 * MIB)
    with pytest.raises(InvalidRequest):
        _profile(b'{"n":1}\n' * (4 * MIB), limits)
