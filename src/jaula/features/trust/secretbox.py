"""XSalsa20-Poly1305, the cipher of cosign's private key files. For secrets of a few hundred bytes.

Sources: D. J. Bernstein, "Cryptography in NaCl" (sections 7 to 9) and "Extending the Salsa20
nonce". libsodium does the work where PyNaCl is installed. Else the code below does, since
``cryptography`` has Poly1305 but not Salsa20, which is thirty lines where speed does not matter.
"""

from __future__ import annotations

import struct

from jaula.errors import InvalidRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

KEY_SIZE, NONCE_SIZE, TAG_SIZE = 32, 24, 16
LIMIT = 1 << 16  # bytes; pure Python is slow
_CONSTANTS = struct.unpack("<4I", b"expand 32-byte k")
_MASK = 0xFFFFFFFF
_QUARTERS = (
    *((0, 4, 8, 12), (5, 9, 13, 1), (10, 14, 2, 6), (15, 3, 7, 11)),  # columns
    *((0, 1, 2, 3), (5, 6, 7, 4), (10, 11, 8, 9), (15, 12, 13, 14)),  # rows
)


def seal(message: bytes, nonce: bytes, key: bytes) -> bytes:
    """Return the tag and the ciphertext.

    :raises InvalidRequest: the nonce or the key has a wrong length.
    """
    _check_lengths(nonce, key)
    if (sodium := _sodium()) is not None:
        return bytes(sodium.crypto_secretbox(message, nonce, key))
    from cryptography.hazmat.primitives.poly1305 import Poly1305

    tag_key, stream = _stream(key, nonce, len(message))
    ciphertext = bytes(a ^ b for a, b in zip(message, stream, strict=True))
    return Poly1305.generate_tag(tag_key, ciphertext) + ciphertext


def unseal(box: bytes, nonce: bytes, key: bytes) -> bytes:
    """Return the message in a box.

    :raises InvalidRequest: if the key is wrong or the box is damaged.
    """
    if not TAG_SIZE <= len(box) <= LIMIT:
        raise InvalidRequest(f"an encrypted box has an invalid length of {len(box)} bytes")
    _check_lengths(nonce, key)
    if (sodium := _sodium()) is not None:
        from nacl.exceptions import CryptoError

        try:
            return bytes(sodium.crypto_secretbox_open(box, nonce, key))
        except CryptoError:
            raise _damaged() from None
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.poly1305 import Poly1305

    ciphertext = box[TAG_SIZE:]
    tag_key, stream = _stream(key, nonce, len(ciphertext))
    try:
        Poly1305.verify_tag(tag_key, ciphertext, box[:TAG_SIZE])
    except InvalidSignature:
        raise _damaged() from None
    return bytes(a ^ b for a, b in zip(ciphertext, stream, strict=True))


def _sodium() -> ModuleType | None:
    """Return PyNaCl's binding to libsodium, or None if it is not installed or does not load."""
    try:
        from nacl import bindings
    except ImportError:
        return None
    return bindings


def _check_lengths(nonce: bytes, key: bytes) -> None:
    if len(key) != KEY_SIZE or len(nonce) != NONCE_SIZE:
        raise InvalidRequest("the nonce or the key of an encrypted box has the wrong length")


def _damaged() -> InvalidRequest:
    return InvalidRequest("the password is wrong, or the file is damaged")


def _stream(key: bytes, nonce: bytes, size: int) -> tuple[bytes, bytes]:
    """Return the key of Poly1305, and ``size`` bytes of key stream."""
    words = _core(_CONSTANTS, key, nonce[:16])
    subkey = struct.pack("<8I", *(words[i] for i in (0, 5, 10, 15, 6, 7, 8, 9)))  # HSalsa20
    blocks = -(-(32 + size) // 64)
    stream = b"".join(_block(subkey, nonce[16:], number) for number in range(blocks))
    return stream[:32], stream[32 : 32 + size]


def _block(key: bytes, nonce: bytes, number: int) -> bytes:
    counter = nonce + struct.pack("<Q", number)
    start, words = _state(_CONSTANTS, key, counter), _core(_CONSTANTS, key, counter)
    return struct.pack("<16I", *((a + b) & _MASK for a, b in zip(start, words, strict=True)))


def _state(constants: tuple[int, ...], key: bytes, counter: bytes) -> list[int]:
    k, n = struct.unpack("<8I", key), struct.unpack("<4I", counter)
    c = constants
    return [c[0], *k[:4], c[1], *n, c[2], *k[4:], c[3]]


def _core(constants: tuple[int, ...], key: bytes, counter: bytes) -> list[int]:
    """Return the state after twenty rounds, without the final addition."""
    words = _state(constants, key, counter)
    for _ in range(10):
        for a, b, c, d in _QUARTERS:
            words[b] ^= _rotate_left(words[a] + words[d], 7)
            words[c] ^= _rotate_left(words[b] + words[a], 9)
            words[d] ^= _rotate_left(words[c] + words[b], 13)
            words[a] ^= _rotate_left(words[d] + words[c], 18)
    return words


def _rotate_left(word: int, bits: int) -> int:
    word &= _MASK
    return (word << bits | word >> (32 - bits)) & _MASK
