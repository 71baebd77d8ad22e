"""The keys that leave a container running and its terminal behind.

The engine consumes them and ends the stream; the client only watches them go by, so that it can
tell a detached stream from one that ended with its container.
"""

from __future__ import annotations

from jaula.cli.errors import UsageError
from jaula.errors import InvalidRequest
from jaula.spec.detach_keys import parse

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
    """The bytes of ``ctrl-p,ctrl-q`` or ``a,ctrl-x``, as the engine reads it. Raises UsageError."""
    try:
        return parse(text)
    except InvalidRequest as error:
        raise UsageError(str(error)) from None
