"""Verify the signatures of one image against the keys of a rule. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from jaula.errors import InvalidRequest
from jaula.features.trust import simple_signing

if TYPE_CHECKING:
    from jaula.features.trust.signing_keys import PublicKey

COUNT_LIMIT = 64
"""Signatures per image that are verified; each takes a tenth of a millisecond."""


class Signature(msgspec.Struct, frozen=True):
    """``payload`` is the signed document, byte for byte; ``value`` is not encoded."""

    payload: bytes
    value: bytes


class VerifiedSignature(msgspec.Struct, frozen=True):
    """A valid signature: the key's name and fingerprint, and the signed statement."""

    key: str
    fingerprint: str
    claim: simple_signing.SimpleSigning

    @property
    def name(self) -> str:
        """The name that the statement gives the image."""
        return self.claim.name


class UnsignedImage(InvalidRequest):
    """No signature satisfies the rule; the message says why."""

    status = 403


def find(
    signatures: Iterable[Signature],
    keys: Sequence[PublicKey],
    digest: str,
    repository: str,
    tag: str | None,
) -> VerifiedSignature:
    """Return the first signature by one of ``keys`` over ``digest`` under this name.

    ``tag`` is None if the image is requested by digest.

    :raises UnsignedImage: if there is none, with the reasons why the existing ones do not count.
    """
    reasons: dict[str, int] = {}
    for signature in tuple(signatures)[:COUNT_LIMIT]:
        result = _verify(signature, keys, digest, repository, tag)
        if isinstance(result, VerifiedSignature):
            return result
        reasons[result] = reasons.get(result, 0) + 1
    if not reasons:
        raise UnsignedImage("it has no signature")
    summary = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
    raise UnsignedImage(f"it has no valid signature: {summary}")


def _verify(
    signature: Signature, keys: Sequence[PublicKey], digest: str, repository: str, tag: str | None
) -> VerifiedSignature | str:
    key = next((k for k in keys if k.verifies(signature.value, signature.payload)), None)
    if key is None:
        return "by other keys"
    try:
        claim = simple_signing.read(signature.payload)
    except InvalidRequest:
        return "with an unreadable payload"
    if claim.digest != digest:
        return "of another image"
    if not simple_signing.covers(claim, repository, tag):
        return f"for another name ({_printable(claim.name)})"
    return VerifiedSignature(key.name, key.fingerprint, claim)


def _printable(name: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in name[:120])
