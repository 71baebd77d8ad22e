"""The keys that leave a container running and its terminal behind.

The engine consumes them and ends the stream; the client only watches them go by, so that it can
tell a detached stream from one that ended with its container.
"""

from __future__ import annotations

from jaula.cli.failure import UsageError

DEFAULT = "ctrl-p,ctrl-q"


class DetachKeys:
    """Sees the bytes on their way to the container; ``seen`` once the sequence was complete."""

    def __init__(self, text: str) -> None:
        self._keys = sequence(text or DEFAULT)
        self._at = 0
        self.seen = False

    def watch(self, data: bytes) -> None:
        """Look at bytes that are being sent."""
        if not self._keys or self.seen:
            return
        for byte in data:
            if byte == self._keys[self._at]:
                self._at += 1
            else:
                self._at = 1 if byte == self._keys[0] else 0
            if self._at == len(self._keys):
                self.seen = True
                return


def sequence(text: str) -> bytes:
    """The bytes of ``ctrl-p,ctrl-q`` or ``a,ctrl-x``. Raises UsageError."""
    keys = bytearray()
    for word in text.split(","):
        name = word.removeprefix("ctrl-")
        if len(name) != 1 or not name.isascii():
            raise UsageError(f"invalid detach keys ({text}): a letter or ctrl-<letter>, by commas")
        if name == word:
            keys += word.encode()
        elif name.isalpha():
            keys.append(ord(name.lower()) - 96)
        elif name in "@[\\]^_":
            keys.append("@".find(name) if name == "@" else 27 + "[\\]^_".index(name))
        else:
            raise UsageError(f"invalid detach keys ({text}): ctrl-{name} is no key")
    return bytes(keys)
