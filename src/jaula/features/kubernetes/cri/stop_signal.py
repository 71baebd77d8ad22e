"""Stop signals: values of the enumeration of CRI, and the names that the engine stores. Pure."""

from __future__ import annotations

import functools
from typing import cast

from jaula.features.kubernetes.cri.enums import enum_name
from jaula.features.kubernetes.cri.proto import api_pb2
from jaula.spec import signals

_DEFAULT = "SIGTERM"


def name_of(value: int) -> str:
    """Return the name of a stop signal, '' for the image's.

    :raises InvalidRequest: when the value is unknown.
    """
    if not value:
        return ""
    name = enum_name(api_pb2.Signal, value, "the stop signal").removeprefix("SIGNAL_")
    return name.replace("PLUS", "+").replace("MINUS", "-")


def value_of(name: str) -> api_pb2.Signal:
    """Return the value of a stored stop signal; '' is the default one."""
    return cast("api_pb2.Signal", _values()[signals.parse(name or _DEFAULT)])


@functools.cache
def _values() -> dict[int, int]:
    """Return the values by number. Of two names of one signal the first one counts."""
    values: dict[int, int] = {}
    for value in api_pb2.Signal.values():
        if value:
            values.setdefault(signals.parse(name_of(value)), value)
    return values
