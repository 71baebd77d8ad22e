"""Decode a JSON body of the Docker Engine API.

Facts about Docker's decoder (Go's ``encoding/json``): ``null`` leaves a field unchanged, so it
means absent everywhere. ``Cmd``, ``Entrypoint`` and ``Shell`` may be a single string. A ``null``
member of a map is the zero value of the map's type. :func:`decode` gives the same result. Unknown
fields are ignored; a value of a wrong type is an error.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec

Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
UInt16 = Annotated[int, msgspec.Meta(ge=0, le=2**16 - 1)]
UInt32 = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
UInt64 = Annotated[int, msgspec.Meta(ge=0)]


class Document(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """Base of all documents: PascalCase on the wire."""


class Empty(Document, frozen=True, kw_only=True):
    """Value of a set that is written as a map: ``{"80/tcp": {}}``."""


_ZERO_OF_MAP: dict[str, Any] = {
    "ExposedPorts": {},
    "Volumes": {},
    "EndpointsConfig": {},
    "PortBindings": [],
    "Labels": "",
    "Annotations": "",
    "StorageOpt": "",
    "Tmpfs": "",
    "Sysctls": "",
    "DriverOpts": "",
    "Options": "",
    "Config": "",
    "AuxiliaryAddresses": "",
}
"""Members that are maps with the client's keys, and the value that a null in them stands for."""

_STRING_OR_LIST = frozenset({"Cmd", "Entrypoint", "Shell"})


def _members(document: dict[str, Any], zero: Any) -> dict[str, Any]:
    """Drop null members, or replace them by ``zero`` in a map with the client's keys."""
    plain: dict[str, Any] = {}
    for name, value in document.items():
        if value is None:
            if zero is not None:
                plain[name] = zero
        elif isinstance(value, dict):
            plain[name] = _members(value, None if zero is not None else _ZERO_OF_MAP.get(name))
        elif isinstance(value, list):
            plain[name] = [_members(v, None) if isinstance(v, dict) else v for v in value]
        elif zero is None and name in _STRING_OR_LIST and isinstance(value, str):
            plain[name] = [value] if value else []
        else:
            plain[name] = value
    return plain


_Type = TypeVar("_Type", bound=msgspec.Struct)


def decode(data: bytes | bytearray, kind: type[_Type]) -> _Type:
    """Decode the JSON body of a request as Docker does; an empty body is an empty document.

    :raises msgspec.DecodeError: when the body is not valid JSON (``ValidationError``: a wrong
        type).
    :raises RecursionError: when the document is nested too deeply.
    """
    document = msgspec.json.decode(data) if data.strip() else {}
    if document is None:
        document = {}
    if isinstance(document, dict):
        document = _members(document, None)
    return msgspec.convert(document, kind)
