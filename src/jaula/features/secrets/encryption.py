"""Encryption at rest for secrets and configs of users.

AES-256-GCM (NIST SP 800-38D) with a key in the engine's root directory, ``secrets.key`` with mode
0600, which is created with the first secret. The ciphertext is bound to the object's name, so that
it cannot be swapped with another one. A copy of the database without the key reveals nothing. There
is no protection from root of this host.
"""

from __future__ import annotations

import os
from pathlib import Path

from jaula.errors import CorruptState, Unavailable, resource_error
from jaula.kernel.syncfs import write_durable

_KEY_SIZE = 32  # bytes
_NONCE_SIZE = 12  # bytes, random: far below 2**32 messages for one key (section 8.3)


class SecretEncryption:
    """Seals and opens data. The package cryptography is imported at the first use."""

    def __init__(self, root: Path) -> None:
        self._path = root / "secrets.key"

    def seal(self, data: bytes, context: str) -> bytes:
        """Return ``data`` encrypted and bound to ``context``.

        :raises Unavailable: when cryptography is not installed or the key cannot be created.
        :raises CorruptState: when the key is damaged or readable by other users.
        """
        nonce = os.urandom(_NONCE_SIZE)
        ciphertext: bytes = self._cipher(create=True).encrypt(nonce, data, context.encode())
        return nonce + ciphertext

    def open(self, ciphertext: bytes, context: str) -> bytes:
        """Return the data that was sealed with the same context.

        :raises CorruptState: when the data or the key is damaged or missing.
        :raises Unavailable: when cryptography is not installed.
        """
        from cryptography.exceptions import InvalidTag

        cipher = self._cipher(create=False)
        nonce, data = ciphertext[:_NONCE_SIZE], ciphertext[_NONCE_SIZE:]
        try:
            return bytes(cipher.decrypt(nonce, data, context.encode()))
        except (InvalidTag, ValueError):
            raise CorruptState(
                f"{context} cannot be decrypted with {self._path}",
                hint="it, or the key, has changed since it was created; create it again",
            ) from None

    def _cipher(self, *, create: bool):  # type: ignore[no-untyped-def]  # loaded late
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError:
            raise Unavailable(
                "secrets need the Python package cryptography, which is not installed",
                hint="scripts/setup, or pip install cryptography",
            ) from None
        return AESGCM(self._key(create=create))

    def _key(self, *, create: bool) -> bytes:
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            if create:
                return self._create_key()
            raise CorruptState(
                f"the key {self._path} is missing, so no secret can be read",
                hint="restore it, or create the secrets again",
            ) from None
        except OSError as error:
            raise CorruptState(f"the key {self._path}: {error.strerror}") from None
        with open(descriptor, "rb") as file:
            st = os.fstat(descriptor)
            key = file.read(_KEY_SIZE + 1)
        if st.st_mode & 0o077 or st.st_uid != os.geteuid():
            raise CorruptState(
                f"the key {self._path} is readable by other users", hint="chown root and chmod 0600"
            )
        if len(key) != _KEY_SIZE:
            raise CorruptState(f"the key {self._path} does not have {_KEY_SIZE} bytes")
        return key

    def _create_key(self) -> bytes:
        """Create a key atomically and sync it to disk before anything is encrypted with it."""
        key = os.urandom(_KEY_SIZE)
        try:
            write_durable(self._path, key)
        except OSError as error:
            what = f"cannot create the key {self._path}"
            raise resource_error(error, what) or Unavailable(f"{what}: {error.strerror}") from None
        return key
