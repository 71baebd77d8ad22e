"""Signatures of one image, and whether one of them is what a rule asks for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from jaula.errors import InvalidRequest
from jaula.images.trust import simple_signing

if TYPE_CHECKING:
    from jaula.images.trust.keys import PublicKey

COUNT_LIMIT = 64
"""Signatures of one image that are looked at; each costs the verifier a tenth of a millisecond."""


class Signature(msgspec.Struct, frozen=True):
    """``payload`` is what was signed, byte for byte; ``value`` is not encoded."""

    payload: bytes
    value: bytes


class VerifiedSignature(msgspec.Struct, frozen=True):
    """A signature that counts: the key's name and fingerprint, and what it says."""

    key: str
    fingerprint: str
    claim: simple_signing.SimpleSigning


class UnsignedImage(InvalidRequest):
    """No signature is what was asked for; the message says what was found."""

    status = 403


def find(
    signatures: Iterable[Signature],
    keys: Sequence[PublicKey],
    digest: str,
    repository: str,
    tag: str | None,
) -> VerifiedSignature:
    """The first signature by one of ``keys`` over ``digest`` under this name.

    Raises :class:`UnsignedImage`, telling what kept those that there are from counting.
    """
    reasons: dict[str, int] = {}
    for signature in tuple(signatures)[:COUNT_LIMIT]:
        found = _judged(signature, keys, digest, repository, tag)
        if isinstance(found, VerifiedSignature):
            return found
        reasons[found] = reasons.get(found, 0) + 1
    if not reasons:
        raise UnsignedImage("it has no signature")
    told = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
    raise UnsignedImage(f"it has no signature that counts: {told}")


def _judged(
    signature: Signature, keys: Sequence[PublicKey], digest: str, repository: str, tag: str | None
) -> VerifiedSignature | str:
    key = next((k for k in keys if k.verifies(signature.value, signature.payload)), None)
    if key is None:
        return "by other keys"
    try:
        claim = simple_signing.read(signature.payload)
    except InvalidRequest:
        return "that cannot be read"
    if claim.digest != digest:
        return "of another image"
    if not simple_signing.names(claim, repository, tag):
        return f"for another name ({_shown(claim.name)})"
    return VerifiedSignature(key.name, key.fingerprint, claim)


def _shown(name: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in name[:120])
