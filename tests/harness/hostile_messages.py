"""Hostile requests of CRI, derived from the descriptors of the messages.

:func:`mutations` changes one field of a valid request at a time, wherever it is nested, to each
hostile value of its type. :func:`damaged` damages the bytes of a request.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, NamedTuple

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_MARK = "\x01\x02\x03\x04"  # becomes bytes that are not UTF-8
_NOT_UTF8 = b"\xff\xfe\xc0\x80"
_MANY = 3000  # elements
_LARGE = 1 << 20  # bytes
_INTEGERS = {
    FieldDescriptor.TYPE_INT64: (-1, -(1 << 63), (1 << 63) - 1),
    FieldDescriptor.TYPE_INT32: (-1, -(1 << 31), (1 << 31) - 1),
    FieldDescriptor.TYPE_UINT64: (1, 1 << 63, (1 << 64) - 1),
    FieldDescriptor.TYPE_UINT32: (1, (1 << 31), (1 << 32) - 1),
    FieldDescriptor.TYPE_ENUM: (1, 99, -1),
}
_TEXTS = (
    "a\0b",
    "../../etc/passwd",
    "/proc/self/environ",
    "x\ny: z",
    "\u202e\U0001f512 %s {0}",
    "-1",
    "9" * 40,
    "x" * _LARGE,
    _MARK,
)
_BYTES = (b"\0", b"\xff\xfe", b"x" * _LARGE)


class Mutation(NamedTuple):
    """A hostile request; ``label`` has the path of the field and the beginning of the value."""

    label: str
    data: bytes


def mutations(base: Message) -> Iterator[Mutation]:
    """Yield the request with each of its fields changed to each hostile value."""
    for path in _paths(base.DESCRIPTOR, ()):
        for value in _values(path[-1]):
            changed = type(base)()
            changed.CopyFrom(base)
            _set(changed, path, value)
            data = changed.SerializeToString().replace(_MARK.encode(), _NOT_UTF8)
            yield Mutation(f"{'.'.join(field.name for field in path)}={repr(value)[:40]}", data)


def damaged(base: Message, random_: random.Random, count: int) -> Iterator[Mutation]:
    """Yield the bytes of a request, cut, with flipped bits, and with unknown fields."""
    data = base.SerializeToString()
    for _ in range(count):
        cut = random_.randrange(len(data) + 1)
        yield Mutation(f"cut at {cut}", data[:cut])
        flipped = bytearray(data or b"\0")
        flipped[random_.randrange(len(flipped))] ^= 1 << random_.randrange(8)
        yield Mutation(f"flipped to {bytes(flipped[:20]).hex()}", bytes(flipped))
    for tail in (
        b"\xba\x3e\x03abc",  # field 999 of type string
        b"\xb8\x3e\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x0b" * 200,  # groups in groups
        b"\x0a\x00" * 5000,  # the first field, empty
        b"\x0a\xff\xff\xff\xff\x07",  # longer than the message
        b"\x07",  # a wire type that does not exist
    ):
        yield Mutation(f"tail {tail[:8].hex()}", data + tail)


def _paths(
    descriptor: Any, above: tuple[FieldDescriptor, ...]
) -> Iterator[tuple[FieldDescriptor, ...]]:
    """Yield the path of each field of a message and of the messages in it."""
    for field in descriptor.fields:
        if field.name == "windows":
            continue
        path = (*above, field)
        yield path
        nested = field.message_type
        if nested is None or nested.GetOptions().map_entry:
            continue
        if nested not in (step.message_type for step in above):
            yield from _paths(nested, path)


def _values(field: FieldDescriptor) -> tuple[Any, ...]:
    """Return hostile values of a field, for a repeated one of the list."""
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return (
            {text: text for text in _TEXTS[:5]},
            {"": ""},
            {f"key{n}": "" for n in range(_MANY)},
            {"key": "x" * (4 * _LARGE)},
            {_MARK: _MARK},
        )
    if field.message_type is not None:
        return ((None,) * _MANY,) if field.is_repeated else (None,)
    values: tuple[Any, ...]
    match field.type:
        case FieldDescriptor.TYPE_STRING:
            values = _TEXTS
        case FieldDescriptor.TYPE_BYTES:
            values = _BYTES
        case FieldDescriptor.TYPE_BOOL:
            values = (True,)
        case FieldDescriptor.TYPE_DOUBLE | FieldDescriptor.TYPE_FLOAT:
            values = (float("nan"), float("inf"), -1.0)
        case kind:
            values = _INTEGERS[kind]
    if field.is_repeated:
        return (*((value,) for value in values), (values[0],) * _MANY)
    return values


def _set(message: Any, path: tuple[FieldDescriptor, ...], value: Any) -> None:
    """Set the field of a path; repeated messages on the way get one element."""
    for field in path[:-1]:
        holder = getattr(message, field.name)
        if field.is_repeated:
            message = holder[0] if len(holder) else holder.add()
        else:
            holder.SetInParent()
            message = holder
    field = path[-1]
    holder = getattr(message, field.name)
    if isinstance(value, dict):
        holder.update(value)
    elif field.message_type is not None and field.is_repeated:
        for _ in value:
            holder.add()
    elif field.message_type is not None:
        holder.SetInParent()
    elif field.is_repeated:
        holder.extend(value)
    else:
        setattr(message, field.name, value)
