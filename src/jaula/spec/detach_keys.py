"""Key sequence to detach from a container, in Docker's notation.

Source: moby ``pkg/term`` ``ToBytes`` and the ``--detach-keys`` page: a comma separated list of
single characters and of ``ctrl-`` with a letter or one of ``@ [ \\ ] ^ _``.
"""

from __future__ import annotations

from jaula.errors import InvalidRequest

DEFAULT = b"\x10\x11"  # ctrl-p,ctrl-q

_LIMIT = 64  # keys


def parse(text: str) -> bytes:
    """Return the bytes that a terminal sends for ``text``.

    :raises InvalidRequest: when ``text`` is not a valid key sequence.
    """
    keys = bytearray()
    for key in text.split(","):
        keys.append(_byte(key, text))
    if len(keys) > _LIMIT:
        raise InvalidRequest(f"detach keys hold {len(keys)} keys, at most {_LIMIT} are allowed")
    return bytes(keys)


def _byte(key: str, text: str) -> int:
    if len(key) == 1 and key.isascii():
        return ord(key)
    if key.startswith("ctrl-") and len(key) == 6:
        letter = key[5]
        if "a" <= letter <= "z":
            return ord(letter) - ord("a") + 1
        if letter in "@[\\]^_":
            return ord(letter) - ord("@")
    raise InvalidRequest(
        f"detach keys {text[:80]!r} are not valid: unknown character {key[:20]!r}",
        hint="write single characters and ctrl-LETTER, separated by commas",
    )
