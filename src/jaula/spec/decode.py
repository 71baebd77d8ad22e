"""How a JSON body of the Docker Engine API is read.

Facts about Docker's decoder (Go's ``encoding/json``): ``null`` leaves a field as it was, so it
means 'absent' everywhere; ``Cmd``, ``Entrypoint`` and ``Shell`` may be one string; a ``null``
member of a map is that map's zero value. :func:`decode` gives the same reading. Unknown fields are
ignored, a value of a wrong type is refused.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec

Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
UInt16 = Annotated[int, msgspec.Meta(ge=0, le=2**16 - 1)]
UInt32 = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
UInt64 = Annotated[int, msgspec.Meta(ge=0)]


class Document(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """What all have in common: PascalCase on the wire."""


class Empty(Document, frozen=True, kw_only=True):
    """The value of a set written as a map: ``{"80/tcp": {}}``."""


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
"""Members that are maps keyed by the client: a null in them stands for this value."""

_STRING_OR_LIST = frozenset({"Cmd", "Entrypoint", "Shell"})


def _members(document: dict[str, Any], zero: Any) -> dict[str, Any]:
    """Null members left out, or replaced by ``zero`` where the object is a client's map."""
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


def decode(data: bytes, kind: type[_Type]) -> _Type:
    """Read a request's JSON body as Docker does; no body at all is an empty document.

    Raises ``msgspec.DecodeError`` (``ValidationError`` for a wrong type) and ``RecursionError``.
    """
    document = msgspec.json.decode(data) if data.strip() else {}
    if document is None:
        document = {}
    if isinstance(document, dict):
        document = _members(document, None)
    return msgspec.convert(document, kind)
