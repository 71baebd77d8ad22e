"""Decoding of protobuf messages, for the services over gRPC. No other package loads protobuf."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

Kind = TypeVar("Kind", bound=Message)


def decoder(kind: type[Kind]) -> Callable[[bytes], Kind]:
    """Return a function that decodes messages of a kind. It raises ValueError for other bytes."""

    def decode(data: bytes) -> Kind:
        try:
            return kind.FromString(data)
        except DecodeError as error:
            raise ValueError(str(error)) from None

    return decode
