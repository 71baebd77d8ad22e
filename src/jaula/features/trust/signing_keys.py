"""Signing keys and trusted keys: ECDSA on P-256 and Ed25519, in PEM files.

Sources: cosign's ``SIGNATURE_SPEC.md`` ("Signature Schemes": ECDSA signatures are over SHA-256, in
DER), RFC 5208, RFC 5280 (``SubjectPublicKeyInfo``), RFC 8032. Ed25519 signs the payload itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaula.errors import InvalidRequest, Unavailable
from jaula.sha256 import sha256

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
PEM_LIMIT = 1 << 16  # bytes of a key file


class PublicKey:
    """A trusted key. ``name`` says in messages where it comes from."""

    def __init__(self, key: EllipticCurvePublicKey | Ed25519PublicKey, name: str) -> None:
        self._key = key
        self.name = name

    @property
    def pem(self) -> bytes:
        """Return the key in PEM format."""
        from cryptography.hazmat.primitives import serialization as form

        return self._key.public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)

    @property
    def fingerprint(self) -> str:
        """Return the SHA-256 of the key's DER form, in hexadecimal digits."""
        from cryptography.hazmat.primitives import serialization as form

        der = self._key.public_bytes(form.Encoding.DER, form.PublicFormat.SubjectPublicKeyInfo)
        return sha256(der).hexdigest()

    @property
    def algorithm(self) -> str:
        """Return one of :data:`ALGORITHMS`."""
        return "ecdsa" if hasattr(self._key, "curve") else "ed25519"

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Return whether ``signature`` is this key's signature over ``data``."""
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
    """A signing key. Its bytes leave the object only to be written to the owner's file."""

    def __init__(self, key: EllipticCurvePrivateKey | Ed25519PrivateKey) -> None:
        self._key = key

    def __repr__(self) -> str:
        return "PrivateKey(...)"

    @property
    def public(self) -> PublicKey:
        return PublicKey(self._key.public_key(), "own key")

    @property
    def der(self) -> bytes:
        """Return the key as PKCS #8, not encrypted."""
        from cryptography.hazmat.primitives import serialization as form

        return self._key.private_bytes(
            form.Encoding.DER, form.PrivateFormat.PKCS8, form.NoEncryption()
        )

    def sign(self, data: bytes) -> bytes:
        """Return a signature over ``data``."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        if isinstance(self._key, Ed25519PrivateKey):
            return self._key.sign(data)
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
        from cryptography.hazmat.primitives.hashes import SHA256

        return self._key.sign(data, ECDSA(SHA256()))


def require_cryptography() -> None:
    """Check that the package ``cryptography`` is installed.

    :raises Unavailable: if it is not.
    """
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise Unavailable(
            "signatures need the Python package cryptography", hint="pip install cryptography"
        ) from error


def generate(algorithm: str = "ecdsa") -> PrivateKey:
    """Generate a key.

    :raises InvalidRequest: if the algorithm is unknown.
    """
    require_cryptography()
    if algorithm == "ecdsa":
        from cryptography.hazmat.primitives.asymmetric import ec

        return PrivateKey(ec.generate_private_key(ec.SECP256R1()))
    if algorithm == "ed25519":
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return PrivateKey(Ed25519PrivateKey.generate())
    raise InvalidRequest(f"unknown algorithm {algorithm[:40]!r}", hint=f"one of {ALGORITHMS}")


def public_key(pem: bytes, name: str) -> PublicKey:
    """Parse a public key in PEM format. ``name`` names it in errors.

    :raises InvalidRequest: if it is not a public key of a supported type.
    """
    require_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if b"PRIVATE KEY" in pem[:PEM_LIMIT]:
        raise InvalidRequest(f"{name} holds a private key", hint="specify the public key, *.pub")
    try:
        key = load_pem_public_key(pem[:PEM_LIMIT])
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidRequest(f"{name} is not a public key in PEM format") from None
    if isinstance(key, Ed25519PublicKey) or _is_p256(key, ec.EllipticCurvePublicKey):
        return PublicKey(key, name)  # type: ignore[arg-type]
    raise InvalidRequest(f"{name} is neither an ECDSA key on P-256 nor an Ed25519 key")


def private_key(der: bytes, name: str) -> PrivateKey:
    """Parse a private key in PKCS #8 form. ``name`` names it in errors.

    :raises InvalidRequest: if it is not a private key of a supported type.
    """
    require_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_der_private_key

    try:
        key = load_der_private_key(der, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidRequest(f"{name} does not hold a private key") from None
    return private_key_of(key, name)


def private_key_of(key: object, name: str) -> PrivateKey:
    """Wrap a loaded key.

    :raises InvalidRequest: if its type is not supported.
    """
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if isinstance(key, Ed25519PrivateKey) or _is_p256(key, ec.EllipticCurvePrivateKey):
        return PrivateKey(key)  # type: ignore[arg-type]
    raise InvalidRequest(f"{name} is neither an ECDSA key on P-256 nor an Ed25519 key")


def _is_p256(key: object, kind: type) -> bool:
    return isinstance(key, kind) and getattr(key, "curve").name == "secp256r1"  # noqa: B009
