"""Decode a JSON document of the Docker Engine API as Docker's decoder does (``encoding/json``).

* A key is the exact name of a field, or else its name in other letter case (``foldName`` in Go).
  Unknown keys are ignored. If several keys name one field, the last one wins, and objects are
  merged.
* ``null`` leaves a field unchanged, so it means absent everywhere. A ``null`` member of a map is
  the zero value of the map's type.
* ``Cmd``, ``Entrypoint`` and ``Shell`` may be a single string.
* A value of a wrong type is an error. So are more items of lists and members of maps than any
  request needs: each costs much more than its bytes.

msgspec knows exact names only. So the document is decoded without a type, its keys are replaced by
the names of the fields, and the result is converted. A function for each type does it, made at the
first use. If two different keys name one field, the document is decoded again in the order of its
text, which is slower.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin

import msgspec
from msgspec.structs import fields as struct_fields

Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
UInt16 = Annotated[int, msgspec.Meta(ge=0, le=2**16 - 1)]
UInt32 = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
UInt64 = Annotated[int, msgspec.Meta(ge=0)]

MAX_ITEMS = 16_384  # of one list or map: as many as there may be published ports
MAX_ALL_ITEMS = 65_536  # of all lists and maps of a document
_STRING_OR_LIST = frozenset({"Cmd", "Entrypoint", "Shell"})
# They may hold as many items as the document. An argument list of 2 MB has 100,000 short arguments.
_LONG = frozenset({"Cmd", "Entrypoint", "Env", "ExposedPorts"})
_LONG_S = "\u017f"  # Unicode folds it with s; lower() folds all other letters that equal ASCII

_Type = TypeVar("_Type")
_Normalize = Callable[[Any, "_Counter"], Any]
"""Returns a decoded value with the names of fields and without null; another type unchanged."""


class Document(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """Base of all documents: PascalCase on the wire."""


class Empty(Document, frozen=True, kw_only=True):
    """Value of a set that is written as a map: ``{"80/tcp": {}}``."""


def decode(data: bytes | bytearray | str, kind: type[_Type]) -> _Type:
    """Decode a document as Docker does; an empty one and ``null`` are an empty object.

    :raises msgspec.DecodeError: when the document is not valid JSON (``ValidationError``: a wrong
        type, or too many items).
    :raises RecursionError: when the document is nested too deeply.
    """
    document = msgspec.json.decode(data) if data.strip() else None
    if document is None:
        document = {}
    normalize = _normalizer(cast("Any", kind))  # mypy: a type variable is not hashable
    if normalize is not None:
        try:
            document = normalize(document, _Counter())
        except _RepeatedKeyError:
            document = normalize(_decode_in_order(data), _Counter())
    return msgspec.convert(document, kind)


class _Counter:
    """The items of the lists and maps of one document."""

    def __init__(self) -> None:
        self._items = 0

    def add(self, value: list[Any] | dict[str, Any], most: int) -> None:
        """Count the items of a list or map.

        :raises msgspec.ValidationError: when it has more than ``most``, or the document too many.
        """
        number = len(value)
        if number > most:
            kind = "list" if isinstance(value, list) else "map"
            raise msgspec.ValidationError(
                f"a {kind} holds {number} items; at most {most} are allowed"
            )
        self._items += number
        if self._items > MAX_ALL_ITEMS:
            raise msgspec.ValidationError(
                f"the lists and maps hold more than {MAX_ALL_ITEMS} items in all"
            )


class _RepeatedKeyError(Exception):
    """Different keys of one object name the same field."""


class _Object(dict[str, Any]):
    """An object of JSON with all of its members in the order of the text, repeated keys too."""

    def __init__(self, members: list[tuple[str, Any]]) -> None:
        super().__init__(members)
        self.members = members


def _decode_in_order(data: bytes | bytearray | str) -> Any:
    import json

    try:
        return json.loads(data, object_pairs_hook=_Object)
    except ValueError as error:  # an integer of thousands of digits
        raise msgspec.DecodeError(str(error)) from None


def _fold(name: str) -> str:
    """Return a form that two names share if Go's decoder does not distinguish them."""
    return name.replace(_LONG_S, "s").lower()


@cache
def _normalizer(kind: Any, most: int = MAX_ITEMS) -> _Normalize | None:
    """Return the function for a type; None if its values need no change.

    ``most`` are the items of a list or map.
    """
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _normalizer(args[0], most)
    if origin in (Union, UnionType):
        others = [arg for arg in args if arg is not NoneType]
        return _normalizer(others[0], most) if len(others) == 1 else None
    if origin in (list, tuple):
        return _list_normalizer(_normalizer(args[0]), most)
    if origin is dict:
        return _map_normalizer(_normalizer(args[1]), _zero(args[1]), most)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _struct_normalizer(kind)
    return None


def _zero(kind: Any) -> Any:
    """Return the zero value of Go's type in JSON; None for a pointer."""
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        return None
    if origin in (list, tuple):
        return []
    return "" if kind is str else {}


def _list_normalizer(item: _Normalize | None, most: int) -> _Normalize:
    def normalize(value: Any, counter: _Counter) -> Any:
        if not isinstance(value, list):
            return value
        counter.add(value, most)
        return value if item is None else [item(member, counter) for member in value]

    return normalize


def _map_normalizer(item: _Normalize | None, zero: Any, most: int) -> _Normalize:
    """Return the function for a map, whose keys are the client's."""

    def normalize(value: Any, counter: _Counter) -> Any:
        if not isinstance(value, dict):
            return value
        counter.add(value, most)
        if item is None and None not in value.values():
            return value
        return {
            name: zero if member is None else member if item is None else item(member, counter)
            for name, member in value.items()
        }

    return normalize


def _struct_normalizer(kind: type[msgspec.Struct]) -> _Normalize:
    members: dict[str, _Normalize | None] = {}
    for field in struct_fields(kind):
        name = field.encode_name
        change = _normalizer(field.type, MAX_ALL_ITEMS if name in _LONG else MAX_ITEMS)
        members[name] = _string_or_list(change) if name in _STRING_OR_LIST else change
    folded = {_fold(name): name for name in members}

    def normalize(value: Any, counter: _Counter) -> Any:
        if not isinstance(value, dict):
            return value
        if isinstance(value, _Object):
            value = by_field(value)
        result: dict[str, Any] = {}
        for name, member in value.items():
            if member is None:
                continue
            if name not in members:
                exact = folded.get(_fold(name))
                if exact is None:
                    continue
                if exact in value or exact in result:
                    raise _RepeatedKeyError
                name = exact
            change = members[name]
            result[name] = member if change is None else change(member, counter)
        return result

    def by_field(value: _Object) -> dict[str, Any]:
        """Return the last value of each field, with the members of all objects for it."""
        result: dict[str, Any] = {}
        for key, member in value.members:
            name = key if key in members else folded.get(_fold(key))
            if name is None or member is None:
                continue
            former = result.get(name)
            if isinstance(member, _Object) and isinstance(former, _Object):
                member = _Object(former.members + member.members)
            result[name] = member
        return result

    return normalize


def _string_or_list(items: _Normalize | None) -> _Normalize:
    def normalize(value: Any, counter: _Counter) -> Any:
        if isinstance(value, str):
            return [value] if value else []
        return value if items is None else items(value, counter)

    return normalize
