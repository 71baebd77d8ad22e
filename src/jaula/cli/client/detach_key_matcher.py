"""The key sequence that detaches the client and leaves the container running.

The engine consumes the keys and ends the stream. The client only watches the keys, to tell a
detached stream from one that ended with its container.
"""

from __future__ import annotations

from jaula.cli.cli_errors import UsageError
from jaula.errors import InvalidRequest
from jaula.spec.detach_keys import parse

DEFAULT = "ctrl-p,ctrl-q"


class DetachKeys:
    """Watches the input for the key sequence; ``matched`` is set once it is complete."""

    def __init__(self, text: str) -> None:
        self._keys = sequence(text or DEFAULT)
        self._at = 0
        self.matched = False

    def watch(self, data: bytes) -> None:
        """Scan bytes that are being sent."""
        if not self._keys or self.matched:
            return
        for byte in data:
            if byte == self._keys[self._at]:
                self._at += 1
            else:
                self._at = 1 if byte == self._keys[0] else 0
            if self._at == len(self._keys):
                self.matched = True
                return


def sequence(text: str) -> bytes:
    """Return the bytes of ``ctrl-p,ctrl-q`` or ``a,ctrl-x``, parsed as the engine parses it.

    :raises UsageError: when the text is not a valid sequence.
    """
    try:
        return parse(text)
    except InvalidRequest as error:
        raise UsageError(str(error)) from None
