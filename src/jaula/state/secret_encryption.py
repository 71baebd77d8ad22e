"""Encryption of what must not lie on the disk in clear: secrets and configs of users.

AES-256-GCM (NIST SP 800-38D) under a key in the engine's root directory, ``secrets.key`` with mode
0600, which is made with the first secret. What is sealed is bound to what it is about, so that it
cannot be put in another's place. A copy of the database without the key tells nothing; against root
of this host there is no protection.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from jaula.errors import CorruptState, Unavailable

_KEY_SIZE = 32  # bytes
_NONCE_SIZE = 12  # bytes, random: far below 2**32 messages for one key (section 8.3)


class SecretEncryption:
    """Seals and opens. The package that does it is loaded when it is first needed."""

    def __init__(self, root: Path) -> None:
        self._path = root / "secrets.key"

    def seal(self, data: bytes, about: str) -> bytes:
        """``data`` encrypted, bound to ``about``. Raises ``Unavailable``, ``CorruptState``."""
        nonce = secrets.token_bytes(_NONCE_SIZE)
        sealed: bytes = self._cipher(make=True).encrypt(nonce, data, about.encode())
        return nonce + sealed

    def open(self, sealed: bytes, about: str) -> bytes:
        """What was sealed about the same. Raises ``CorruptState``, ``Unavailable``."""
        from cryptography.exceptions import InvalidTag

        cipher = self._cipher(make=False)
        nonce, data = sealed[:_NONCE_SIZE], sealed[_NONCE_SIZE:]
        try:
            return bytes(cipher.decrypt(nonce, data, about.encode()))
        except (InvalidTag, ValueError):
            raise CorruptState(
                f"{about} cannot be decrypted by {self._path}",
                hint="it, or the key, is another one than when it was made; make it anew",
            ) from None

    def _cipher(self, *, make: bool):  # type: ignore[no-untyped-def]  # loaded late
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError:
            raise Unavailable(
                "secrets need the Python package cryptography, which is not installed",
                hint="scripts/setup, or pip install cryptography",
            ) from None
        return AESGCM(self._key(make=make))

    def _key(self, *, make: bool) -> bytes:
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            if make:
                return self._make()
            raise CorruptState(
                f"the key {self._path} is gone, so no secret can be read",
                hint="put it back, or make the secrets anew",
            ) from None
        except OSError as error:
            raise CorruptState(f"the key {self._path}: {error.strerror}") from None
        with open(descriptor, "rb") as file:
            facts = os.fstat(descriptor)
            key = file.read(_KEY_SIZE + 1)
        if facts.st_mode & 0o077 or facts.st_uid != os.geteuid():
            raise CorruptState(
                f"the key {self._path} can be read by others", hint="chown root and chmod 0600"
            )
        if len(key) != _KEY_SIZE:
            raise CorruptState(f"the key {self._path} has not {_KEY_SIZE} bytes")
        return key

    def _make(self) -> bytes:
        """A new key, whole or not at all, and on the disk before anything is sealed by it."""
        key = secrets.token_bytes(_KEY_SIZE)
        half = f"{self._path}.new"
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
            with open(os.open(half, flags, 0o600), "wb") as file:
                file.write(key)
                file.flush()
                os.fsync(file.fileno())
            os.rename(half, self._path)
            directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise Unavailable(f"cannot make the key {self._path}: {error.strerror}") from None
        return key
