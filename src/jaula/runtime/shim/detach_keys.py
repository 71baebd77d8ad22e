"""The detach sequence in a client's input.

Follows Docker: the keys are taken out of the stream; a prefix that turns out not to be the sequence
is passed on.
"""

from __future__ import annotations


class DetachScanner:
    """Looks for one sequence across pieces of input; ``None`` or empty looks for nothing."""

    def __init__(self, keys: bytes | None) -> None:
        self.keys = keys or b""
        self.matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What to pass on, and whether the sequence is complete (the rest is dropped then)."""
        if not self.keys:
            return data, False
        passed = bytearray()
        for byte in data:
            if byte == self.keys[self.matched]:
                self.matched += 1
                if self.matched == len(self.keys):
                    return bytes(passed), True
                continue
            passed += self.keys[: self.matched]
            self.matched = 0
            if byte == self.keys[0]:
                self.matched = 1
                if len(self.keys) == 1:
                    return bytes(passed), True
            else:
                passed.append(byte)
        return bytes(passed), False
