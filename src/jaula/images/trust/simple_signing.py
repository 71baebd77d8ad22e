"""What is signed: a statement that an image with this digest has this name.

Source: containers/image ``containers-signature.5.md`` ("JSON data format", simple signing) with the
type and the media type that cosign's ``SIGNATURE_SPEC.md`` gives it. A member of ``critical`` that
is not known may mean anything, so such a statement is not taken.
"""

from __future__ import annotations

import msgspec

from jaula.errors import InvalidRequest
from jaula.images.reference import parse
from jaula.spec.image import Digest

MEDIA_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
TYPE = "cosign container image signature"
LIMIT = 1 << 16  # bytes
_TEXT_LIMIT = 512  # characters of a value that is shown


class _Identity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    docker_reference: str = msgspec.field(name="docker-reference")


class _Image(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    docker_manifest_digest: Digest = msgspec.field(name="docker-manifest-digest")


class _Critical(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    identity: _Identity
    image: _Image
    type: str


class _Payload(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    critical: _Critical
    optional: dict[str, object] | None = None


class SimpleSigning(msgspec.Struct, frozen=True):
    """``name`` is a repository, with a tag or without; ``notes`` are the signer's own words."""

    digest: str
    name: str
    notes: dict[str, str] = {}


def write(claim: SimpleSigning) -> bytes:
    """The bytes to be signed, as cosign writes them."""
    critical = _Critical(_Identity(claim.name), _Image(claim.digest), TYPE)
    optional: dict[str, object] | None = dict(claim.notes) or None
    return msgspec.json.encode(_Payload(critical, optional))


def read(data: bytes) -> SimpleSigning:
    """What was signed. Raises :class:`InvalidRequest`; call it after the signature was checked."""
    if len(data) > LIMIT:
        raise InvalidRequest(f"a signature's payload has {len(data)} bytes, {LIMIT} is the limit")
    try:
        found = msgspec.json.decode(data, type=_Payload)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"a signature's payload is not valid: {error}") from None
    if found.critical.type != TYPE:
        raise InvalidRequest(f"a signature is of the type {found.critical.type[:80]!r}")
    notes = {k: str(v)[:_TEXT_LIMIT] for k, v in (found.optional or {}).items()}
    critical = found.critical
    return SimpleSigning(
        critical.image.docker_manifest_digest, critical.identity.docker_reference, notes
    )


def names(claim: SimpleSigning, repository: str, tag: str | None) -> bool:
    """Whether the statement is about an image that is fetched from ``repository`` under ``tag``.

    ``repository`` is ``DOMAIN/PATH``. A statement that has no tag is about all of them; ``tag`` is
    None where the image is asked for by its digest, which needs no other name.
    """
    text = claim.name.partition("@")[0]
    try:
        reference = parse(text)
    except InvalidRequest:
        return False
    if f"{reference.domain}/{reference.path}" != repository:
        return False
    tagged = ":" in text.rpartition("/")[2]
    return not tagged or tag is None or reference.tag == tag
