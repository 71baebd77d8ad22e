"""Translate ``attest:provenance`` and ``attest:sbom``, the options of BuildKit's attestations.

Pure. Source: moby/buildkit ``frontend/attestations`` and ``docs/attestations``. The values are
lines of CSV. Build arguments ``BUILDKIT_ATTEST_NAME`` have the same meaning.
"""

from __future__ import annotations

import csv
import posixpath
from collections.abc import Mapping

import msgspec

from jaula.errors import InvalidRequest, Unsupported
from jaula.features.build.build_options import ProvenanceOptions

_PREFIXES = ("attest:", "build-arg:BUILDKIT_ATTEST_")
_MAX_VALUE = 4096  # characters
TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})
"""Go's words for true and false."""
_CLIENT_FIELDS = frozenset({"type", "disabled"})  # of the flag --attest
_BUILTIN_GENERATOR = "builtin"
_VERSIONS = ("v1", "v0.2")
_MODES = {"max": True, "full": True, "min": False}
_HOST_ARGUMENTS = frozenset({"cgroup-parent", "image-resolve-mode", "platform", "cache-imports"})


class AttestationRequest(msgspec.Struct, frozen=True):
    """The attestations that a client requests."""

    provenance: ProvenanceOptions | None = None
    sbom: bool = False


def attestation_request(attributes: Mapping[str, str]) -> AttestationRequest:
    """Return the attestations that the options of a client request.

    :raises InvalidRequest: when an attestation or a field of it is not valid.
    :raises Unsupported: when a field requests what the builder does not have.
    """
    values: dict[str, str] = {}
    for key, value in attributes.items():
        for prefix in _PREFIXES:
            if key.startswith(prefix):
                values[key[len(prefix) :].lower()] = value
    provenance, sbom = None, False
    for name, value in values.items():
        if name not in ("provenance", "sbom"):
            raise InvalidRequest(
                f"unknown attestation type {name[:64]!r}", hint="must be provenance or sbom"
            )
        fields = _fields(name, value)
        if _boolean(name, fields, "disabled"):
            continue
        if name == "sbom":
            _check_sbom(fields)
            sbom = True
        else:
            provenance = _provenance(fields)
    return AttestationRequest(provenance, sbom)


def recorded_arguments(attributes: Mapping[str, str]) -> dict[str, str]:
    """Return the options of a client that its provenance states: those of the build, not the host.

    Pure.
    """
    return {
        key: value
        for key, value in attributes.items()
        if key not in _HOST_ARGUMENTS and not key.startswith(_PREFIXES)
    }


def _fields(name: str, text: str) -> dict[str, str]:
    if len(text) > _MAX_VALUE:
        raise InvalidRequest(
            f"the attestation {name} has {len(text)} characters, the limit is {_MAX_VALUE}"
        )
    try:
        fields = next(csv.reader([text], strict=True), [])
    except csv.Error as error:
        raise InvalidRequest(f"failed to parse {name}: {error}") from None
    pairs = (field.partition("=") for field in fields)
    return {key.strip(): value for key, _, value in pairs if key}


def _boolean(name: str, fields: Mapping[str, str], key: str) -> bool:
    text = fields.get(key, "false")
    if text not in TRUE | FALSE:
        raise InvalidRequest(
            f"failed to parse {key} of the attestation {name}: {text[:64]!r}",
            hint="must be true or false",
        )
    return text in TRUE


def _check_sbom(fields: Mapping[str, str]) -> None:
    generator = fields.get("generator", _BUILTIN_GENERATOR)
    if generator != _BUILTIN_GENERATOR:
        raise Unsupported(
            f"the generator {generator[:128]!r} is not supported",
            hint="no image is run as a generator; leave it out for the one that is built in",
        )
    if unknown := sorted(fields.keys() - _CLIENT_FIELDS - {"generator"}):
        raise Unsupported(
            f"the field {unknown[0][:64]!r} of the attestation sbom is not supported",
            hint="it is a parameter of a generator, and none is run",
        )


def _provenance(fields: Mapping[str, str]) -> ProvenanceOptions:
    inline_only = _boolean("provenance", fields, "inline-only")
    known = {
        *("mode", "version", "inline-only", "reproducible", "capture-usage"),
        *("complete-materials", "builder-id", "filename"),
    }
    unknown = sorted(fields.keys() - _CLIENT_FIELDS - known)
    if unknown and not inline_only:  # only the default of a client has this field
        raise InvalidRequest(
            f"unknown field {unknown[0][:64]!r} of the attestation provenance",
            hint=f"must be one of {', '.join(sorted(known))}",
        )
    mode, version = fields.get("mode", "max"), fields.get("version", _VERSIONS[0])
    if mode not in _MODES:
        raise InvalidRequest(f"invalid mode {mode[:64]!r}", hint="must be min or max")
    if version not in _VERSIONS:
        raise InvalidRequest(
            f"invalid provenance SLSA version: {version[:64]!r}",
            hint=f"must be one of {', '.join(_VERSIONS)}",
        )
    if _boolean("provenance", fields, "capture-usage"):
        raise Unsupported("capture-usage of the attestation provenance is not supported")
    filename = posixpath.basename(fields.get("filename", ProvenanceOptions().filename))
    if filename in ("", ".", "..") or "\0" in filename or len(filename) > 200:
        raise InvalidRequest(f"invalid filename {filename[:64]!r} of the attestation provenance")
    return ProvenanceOptions(
        version=version,
        detailed=_MODES[mode],
        inline_only=inline_only,
        reproducible=_boolean("provenance", fields, "reproducible"),
        complete=_boolean("provenance", fields, "complete-materials"),
        builder=fields.get("builder-id", ""),
        filename=filename,
    )
