"""Parsers of archives that were taken over: each function says what a correct one never says."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable
from typing import Any

import msgspec

from jaula.errors import InvalidRequest
from jaula.storage.tar import tar_parser

Ask = Callable[[bytes], tuple[bytes, list[int]]]

# name, link, type, mode, uid, gid, size, seconds, nanoseconds, major, minor, attributes, offset
HONEST: list[Any] = [b"f", b"", ord("0"), 0o644, 0, 0, 1, 0, 0, 0, 0, {}, 512]
_FIELDS = (
    *("name", "link", "type", "mode", "uid", "gid", "size", "seconds", "nanoseconds"),
    *("major", "minor", "xattrs", "offset"),
)


def _entry(**fields: Any) -> list[Any]:
    values = list(HONEST)
    for name, value in fields.items():
        values[_FIELDS.index(name)] = value
    return values


def _encode(*entries: Any) -> bytes:
    return msgspec.msgpack.encode(list(entries))


LIES: dict[str, bytes] = {
    "a name that climbs": _encode(_entry(name=b"../../escaped")),
    "a name of two dots": _encode(_entry(name=b"..")),
    "a name with a zero": _encode(_entry(name=b"a\0b")),
    "a name that is too long": _encode(_entry(name=b"n/" * 3000)),
    "a name that is a number": _encode(_entry(name=7)),
    "a link that climbs": _encode(_entry(type=ord("1"), link=b"../../escaped", size=0)),
    "a type that does not exist": _encode(_entry(type=ord("9"))),
    "a type out of range": _encode(_entry(type=1 << 40)),
    "a negative type": _encode(_entry(type=-1)),
    "a mode out of range": _encode(_entry(mode=0o10000)),
    "a negative mode": _encode(_entry(mode=-1)),
    "an owner out of range": _encode(_entry(uid=2**32)),
    "a negative group": _encode(_entry(gid=-1)),
    "a negative size": _encode(_entry(size=-1)),
    "a size beyond the archive": _encode(_entry(size=1 << 30)),
    "a size beyond all limits": _encode(_entry(size=1 << 62)),
    "a size as text": _encode(_entry(size="1")),
    "a time out of range": _encode(_entry(seconds=1 << 62)),
    "a device out of range": _encode(_entry(type=ord("3"), size=0, major=1 << 40)),
    "attributes as a list": _encode(_entry(xattrs=[])),
    "an attribute as a number": _encode(_entry(xattrs={"user.a": 1})),
    "a position before the archive": _encode(_entry(offset=-512)),
    "a position at the start": _encode(_entry(offset=0)),
    "a position beyond the archive": _encode(_entry(offset=1 << 30)),
    "positions that fall": _encode(_entry(offset=2048), _entry(name=b"g", offset=512)),
    "data that overlaps": _encode(_entry(size=1024), _entry(name=b"g", offset=1024)),
    "too many entries": _encode(*[_entry(offset=512)] * 3000),
    "a field too many": _encode([*HONEST, 1]),
    "a field too few": _encode(HONEST[:-1]),
    "a value that is no list": msgspec.msgpack.encode({"f": 1}),
    "bytes that are no value": b"\xc1",
    "a list that does not end": b"\xdd\xff\xff\xff\xff",
}


def _lie(name: str) -> Callable[[bytes, list[int], Ask], bytes]:
    return lambda payload, descriptors, ask: LIES[name]


def __getattr__(name: str) -> Callable[[bytes, list[int], Ask], bytes]:
    """Return the parser that tells the lie with this number."""
    if name.startswith("lie_"):
        return _lie(list(LIES)[int(name[4:])])
    raise AttributeError(name)


def honest(payload: bytes, descriptors: list[int], ask: Ask) -> bytes:
    """Return the entry that the lies change."""
    return _encode(HONEST)


def ask_for_ever(payload: bytes, descriptors: list[int], ask: Ask) -> bytes:
    """Ask for the next bytes of an archive that has ended."""
    while True:
        ask(_encode())


def answer_too_much(payload: bytes, descriptors: list[int], ask: Ask) -> bytes:
    """Return more than an answer may have."""
    return bytes(64 << 20)


def hang(payload: bytes, descriptors: list[int], ask: Ask) -> bytes:
    """Return nothing."""
    while True:
        time.sleep(60)


def die(payload: bytes, descriptors: list[int], ask: Ask) -> bytes:
    """Exit in place of an answer."""
    os._exit(3)


def change(payload: bytes, descriptors: list[int], ask: Ask) -> bytes:
    """Change the archive that the engine has read, or say that it cannot, and parse it."""
    (descriptor,) = descriptors
    attempts: tuple[Callable[[], object], ...] = (
        lambda: mmap.mmap(descriptor, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE),
        lambda: os.write(descriptor, b"x"),
        lambda: os.ftruncate(descriptor, 0),
    )
    for attempt in attempts:
        try:
            attempt()
        except OSError:
            continue
        raise InvalidRequest("the archive was changed")
    return tar_parser.parse(payload, descriptors, ask)


def decompress_other(payload: bytes, descriptors: list[int], ask: Ask) -> bytes:
    """Return other bytes than the stream has."""
    os.write(descriptors[1], bytes(10240))
    return b""


def decompress_without_end(payload: bytes, descriptors: list[int], ask: Ask) -> bytes:
    """Return bytes for ever."""
    while True:
        os.write(descriptors[1], bytes(1 << 16))
