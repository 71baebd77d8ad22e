"""The chain of the audit log: how lines prove what came before them. Pure.

A line is a JSON object. It has a number ``n``, one more than the former line's, and ``prev``, the
SHA-256 of the former line's bytes without its newline; the first line's is 64 zeros. The number and
hash of the last line are kept apart, in the *head*, so that a log that was cut at its end is found
too. A file of the log is named by the number of its first line.

What this proves: whoever changes, removes or inserts a line must write every later line and the
head anew. Whoever can do that (root of the host) is found out only by a head that was written down
elsewhere; ``jaula system audit-log --verify`` prints it for that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

ZERO_HASH = "0" * 64
DROP_ACTION = "log drop"  # the action of a line that tells of old files that were removed


class Head(NamedTuple):
    """The last line: its number (0: none yet) and hash."""

    n: int = 0
    hash: str = ZERO_HASH

    def encode(self) -> bytes:
        """One line of a size that never changes, so that it is overwritten in one piece."""
        return b"%020d %s\n" % (self.n, self.hash.encode())

    @classmethod
    def decode(cls, data: bytes) -> Head | None:
        """None where it is damaged."""
        number, _, rest = data.partition(b" ")
        digest = rest.removesuffix(b"\n").decode("ascii", "replace")
        if len(data) != 86 or not number.isdigit() or set(digest) - set("0123456789abcdef"):
            return None
        return cls(int(number), digest)


class ChainLink(msgspec.Struct, frozen=True):
    """What a line says about its place; ``up_to`` of a line about dropped files is their end."""

    n: int
    prev: str
    action: str = ""
    up_to: int = 0
    up_to_hash: str = ""


class ChainError(NamedTuple):
    """Something that is wrong; ``n`` is the line's number."""

    n: int
    text: str


_links = msgspec.json.Decoder(ChainLink)


def line_hash(line: bytes) -> str:
    """The hash of a line, without its newline."""
    return hashlib.sha256(line).hexdigest()


def parse_link(line: bytes) -> ChainLink | None:
    """A line's place in the chain; None where it is no line of the log."""
    try:
        found = _links.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return found if 0 < found.n < 1 << 62 else None


class ChainCheck:
    """Follows a log from its first line on; ``last`` is the line that came last."""

    def __init__(self, start: Head | None = None) -> None:
        self.last = start or Head()
        self.findings: list[ChainError] = []
        self._begun = start is not None
        self._anchor: Head | None = None  # what came before the first line, if not the beginning
        self._dropped: set[Head] = set()
        self._head_hash = ""

    def lines(self, lines: Iterable[bytes], *, watch: int = 0) -> Iterator[tuple[ChainLink, bytes]]:
        """Check lines and give them on; ``watch`` is the number of the one that the head names."""
        for line in lines:
            found = parse_link(line)
            if found is None:
                self._wrong(self.last.n + 1, f"a line after {self.last.n} is damaged")
                # What it was is unknown: its bytes decide whether the next one follows it.
                self.last = Head(self.last.n + 1, line_hash(line))
                continue
            if not self._begun:
                self._begun = True
                if found.n != 1 or found.prev != ZERO_HASH:
                    self._anchor = Head(found.n - 1, found.prev)
            elif found.n > self.last.n + 1:
                self._wrong(found.n, _missing(self.last.n + 1, found.n - 1))
            elif found.n <= self.last.n:
                self._wrong(found.n, f"line {found.n} comes after line {self.last.n}")
            elif found.prev != self.last.hash:
                self._wrong(
                    found.n, f"line {self.last.n} is not the one that line {found.n} follows"
                )
            if found.action == DROP_ACTION:
                self._dropped.add(Head(found.up_to, found.up_to_hash))
            self.last = Head(found.n, line_hash(line))
            if found.n == watch:
                self._head_hash = self.last.hash
            yield found, line

    def end(self, head: Head | None) -> list[ChainError]:
        """Everything that is wrong, once all lines were given."""
        if self._anchor is not None and self._anchor not in self._dropped:
            self._wrong(self._anchor.n, _missing(1, self._anchor.n))
        if head is None:
            self._wrong(self.last.n, "the head, which names the last line, is missing or damaged")
        elif head.n > self.last.n:
            self._wrong(head.n, _missing(self.last.n + 1, head.n) + " at the end")
        elif head.n and self._head_hash and head.hash != self._head_hash:
            self._wrong(head.n, f"line {head.n} is not the one that the head names")
        return self.findings

    def _wrong(self, n: int, text: str) -> None:
        self.findings.append(ChainError(n, text))


def _missing(first: int, last: int) -> str:
    if first >= last:
        return f"line {last} is missing"
    return f"lines {first} to {last} are missing"
