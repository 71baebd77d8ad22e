"""The signed payload: a statement that an image with this digest has this name.

Source: containers/image ``containers-signature.5.md`` ("JSON data format", simple signing) with the
type and the media type of cosign's ``SIGNATURE_SPEC.md``. An unknown member of ``critical`` may
change the meaning, so such a statement is refused.
"""

from __future__ import annotations

import msgspec

from jaula.errors import InvalidRequest
from jaula.images.reference import parse
from jaula.spec.image_documents import Digest

MEDIA_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
TYPE = "cosign container image signature"
LIMIT = 1 << 16  # bytes
_TEXT_LIMIT = 512  # characters of a value that are kept


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
    """``name`` is a repository, with or without tag; ``notes`` are the signer's annotations."""

    digest: str
    name: str
    notes: dict[str, str] = {}


def write(claim: SimpleSigning) -> bytes:
    """Return the bytes to be signed, in cosign's form."""
    critical = _Critical(_Identity(claim.name), _Image(claim.digest), TYPE)
    optional: dict[str, object] | None = dict(claim.notes) or None
    return msgspec.json.encode(_Payload(critical, optional))


def read(data: bytes) -> SimpleSigning:
    """Parse a payload. Call this after the signature was verified.

    :raises InvalidRequest: if it is not valid.
    """
    if len(data) > LIMIT:
        raise InvalidRequest(f"a signature's payload has {len(data)} bytes, the limit is {LIMIT}")
    try:
        payload = msgspec.json.decode(data, type=_Payload)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"a signature's payload is not valid: {error}") from None
    if payload.critical.type != TYPE:
        raise InvalidRequest(f"a signature has the unknown type {payload.critical.type[:80]!r}")
    notes = {k: str(v)[:_TEXT_LIMIT] for k, v in (payload.optional or {}).items()}
    critical = payload.critical
    return SimpleSigning(
        critical.image.docker_manifest_digest, critical.identity.docker_reference, notes
    )


def covers(claim: SimpleSigning, repository: str, tag: str | None) -> bool:
    """Return whether the statement covers an image fetched from ``repository`` under ``tag``.

    ``repository`` is ``DOMAIN/PATH``. A statement without a tag covers all tags. ``tag`` is None if
    the image is requested by digest, which matches any tag.
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
