"""Keys that sign and keys that are trusted: ECDSA on P-256 and Ed25519, in PEM files.

Sources: cosign's ``SIGNATURE_SPEC.md`` ("Signature Schemes": ECDSA signatures are over SHA-256, in
DER), RFC 5208, RFC 5280 (``SubjectPublicKeyInfo``), RFC 8032. Ed25519 signs the payload itself.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from jaula.errors import InvalidRequest, Unavailable

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import (
        EllipticCurvePrivateKey,
        EllipticCurvePublicKey,
    )
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

ALGORITHMS = ("ecdsa", "ed25519")
PEM_LIMIT = 1 << 16  # bytes of a key's file


class PublicKey:
    """A key whose signatures count. ``name`` says in messages where it came from."""

    def __init__(self, key: EllipticCurvePublicKey | Ed25519PublicKey, name: str) -> None:
        self._key = key
        self.name = name

    @property
    def pem(self) -> bytes:
        """The file's content."""
        from cryptography.hazmat.primitives import serialization as form

        return self._key.public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the key's DER form, in hexadecimal digits."""
        from cryptography.hazmat.primitives import serialization as form

        der = self._key.public_bytes(form.Encoding.DER, form.PublicFormat.SubjectPublicKeyInfo)
        return hashlib.sha256(der).hexdigest()

    @property
    def algorithm(self) -> str:
        """One of :data:`ALGORITHMS`."""
        return "ecdsa" if hasattr(self._key, "curve") else "ed25519"

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Whether this key's owner signed exactly these bytes."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            if isinstance(self._key, Ed25519PublicKey):
                self._key.verify(signature, data)
            else:
                from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
                from cryptography.hazmat.primitives.hashes import SHA256

                self._key.verify(signature, data, ECDSA(SHA256()))
        except InvalidSignature:
            return False
        return True


class PrivateKey:
    """A key that signs. Its bytes are given out only to be written to its owner's file."""

    def __init__(self, key: EllipticCurvePrivateKey | Ed25519PrivateKey) -> None:
        self._key = key

    def __repr__(self) -> str:
        return "PrivateKey(...)"

    @property
    def public(self) -> PublicKey:
        return PublicKey(self._key.public_key(), "its own")

    @property
    def der(self) -> bytes:
        """PKCS #8, not encrypted."""
        from cryptography.hazmat.primitives import serialization as form

        return self._key.private_bytes(
            form.Encoding.DER, form.PrivateFormat.PKCS8, form.NoEncryption()
        )

    def sign(self, data: bytes) -> bytes:
        """A signature over these bytes."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        if isinstance(self._key, Ed25519PrivateKey):
            return self._key.sign(data)
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
        from cryptography.hazmat.primitives.hashes import SHA256

        return self._key.sign(data, ECDSA(SHA256()))


def need() -> None:
    """Raise :class:`Unavailable` where the package that knows the mathematics is not installed."""
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise Unavailable(
            "signatures need the Python package cryptography", hint="pip install cryptography"
        ) from error


def generate(algorithm: str = "ecdsa") -> PrivateKey:
    """A new key. Raises :class:`InvalidRequest` for an algorithm that is not known."""
    need()
    if algorithm == "ecdsa":
        from cryptography.hazmat.primitives.asymmetric import ec

        return PrivateKey(ec.generate_private_key(ec.SECP256R1()))
    if algorithm == "ed25519":
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return PrivateKey(Ed25519PrivateKey.generate())
    raise InvalidRequest(f"unknown algorithm {algorithm[:40]!r}", hint=f"one of {ALGORITHMS}")


def public_key(pem: bytes, name: str) -> PublicKey:
    """Read a public key's PEM text. Raises :class:`InvalidRequest`."""
    need()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if b"PRIVATE KEY" in pem[:PEM_LIMIT]:
        raise InvalidRequest(f"{name} holds a private key", hint="name the public one, *.pub")
    try:
        key = load_pem_public_key(pem[:PEM_LIMIT])
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidRequest(f"{name} is no public key in PEM form") from None
    if isinstance(key, Ed25519PublicKey) or _is_p256(key, ec.EllipticCurvePublicKey):
        return PublicKey(key, name)  # type: ignore[arg-type]
    raise InvalidRequest(f"{name} is neither an ECDSA key on P-256 nor an Ed25519 key")


def private_key(der: bytes, name: str) -> PrivateKey:
    """Read a private key's PKCS #8 form. Raises :class:`InvalidRequest`."""
    need()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_der_private_key

    try:
        key = load_der_private_key(der, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidRequest(f"{name} holds no private key") from None
    return checked(key, name)


def checked(key: object, name: str) -> PrivateKey:
    """A key that was read, if it is of a kind that signs here. Raises :class:`InvalidRequest`."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if isinstance(key, Ed25519PrivateKey) or _is_p256(key, ec.EllipticCurvePrivateKey):
        return PrivateKey(key)  # type: ignore[arg-type]
    raise InvalidRequest(f"{name} is neither an ECDSA key on P-256 nor an Ed25519 key")


def _is_p256(key: object, kind: type) -> bool:
    return isinstance(key, kind) and getattr(key, "curve").name == "secp256r1"  # noqa: B009
