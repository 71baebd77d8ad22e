"""Tables of a mechanism that counts in the recorder, in the form of the kernel's tables.

They have the limits of ``bpf/record.bpf.c``, so a container cannot make them grow.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from hashlib import blake2b

from jaula.features.record import ebpf_events
from jaula.features.record.ebpf_events import Counts, Event, Key

_LIMITS = {
    "syscalls": 65536,
    "programs": 4096,
    "execs": 16384,
    "files": 65536,
    "refused_files": 16384,
    "sockets": 8192,
    "capabilities": 8192,
    "signals": 8192,
    "mounts": 4096,
}
_MAX_TEXT = 4096  # bytes
PATH_TRUNCATED, PATH_DETACHED = 64, 128


class Tables:
    """Counts of keys. The first occurrence of each is sent to ``receive`` with its text."""

    def __init__(self, receive: Callable[[Event], None]) -> None:
        self._receive = receive
        self._counts: dict[Key, list[int]] = {}  # occurrences, first, last
        self._sizes: dict[str, int] = {}
        self._key = os.urandom(16)
        self._lost: dict[int, list[int]] = {}  # occurrences, events, texts

    def program(self, path: bytes, name: bytes = b"", flags: int = 0) -> int:
        """Return the number of a program; ``name`` is that in execve(2)."""
        text = name[:255] + b"\0" + components(path)
        number = self._number(ebpf_events.PROGRAM, text)
        key = Key(0, number, ebpf_events.PROGRAM, flags)
        self.count(key, text)
        return number if key in self._counts else ebpf_events.UNLISTED_PROGRAM

    def text(self, kind: int, program: int, text: bytes, detail: int = 0) -> None:
        """Count an occurrence of what a text and ``detail`` describe."""
        if len(text) > _MAX_TEXT:
            self.lose(kind, 2)
            return
        self.count(Key(program, self._number(kind, text), kind, detail), text)

    def count(self, key: Key, text: bytes = b"") -> None:
        """Count an occurrence of a key."""
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        counts = self._counts.get(key)
        if counts is not None:
            counts[0] += 1
            counts[2] = now
            return
        table = ebpf_events.TABLES[key.kind]
        size = self._sizes.get(table, 0)
        if size >= _LIMITS[table]:
            self.lose(key.kind, 0)
            return
        self._sizes[table] = size + 1
        self._counts[key] = [1, now, now]
        self._receive(Event(key, now, text))

    def _number(self, kind: int, text: bytes) -> int:
        """Return a number of a text: its keyed hash, so that a container cannot make two alike."""
        digest = blake2b(text, digest_size=8, key=self._key, person=b"%d" % kind).digest()
        return int.from_bytes(digest, "little") | 1 << 63

    def lose(self, kind: int, reason: int) -> None:
        """Count an occurrence (0), event (1) or text (2) that is in no entry."""
        self._lost.setdefault(kind, [0, 0, 0])[reason] += 1

    def counts(self) -> Iterator[tuple[Key, Counts]]:
        """Yield the numbers of every key."""
        for key, (occurrences, first, last) in self._counts.items():
            yield key, Counts(occurrences, first, last)

    def losses(self) -> dict[int, tuple[int, int, int]]:
        """Return lost occurrences, events and texts by kind."""
        return {kind: (lost[0], lost[1], lost[2]) for kind, lost in self._lost.items()}


def components(path: bytes) -> bytes:
    """Return a path in the form of the kernel's events: the last component first. Pure."""
    return b"".join(name + b"\0" for name in reversed(path.split(b"/")) if name)
