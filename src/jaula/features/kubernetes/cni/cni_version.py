"""Versions of the CNI protocol: which one configuration, plugins and this runtime have in common.

Source: CNI specification 1.1, "Version considerations" and the operation VERSION.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from jaula.errors import InvalidRequest

SUPPORTED = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
"""The versions that this runtime implements, oldest first."""

OLDEST, NEWEST = SUPPORTED[0], SUPPORTED[-1]


def supported(versions: Iterable[str]) -> tuple[str, ...]:
    """Return those of ``versions`` that this runtime implements, oldest first. Pure."""
    return tuple(sorted(set(versions).intersection(SUPPORTED), key=SUPPORTED.index))


def at_least(version: str, minimum: str) -> bool:
    """Return whether a supported version is ``minimum`` or later. Pure."""
    return SUPPORTED.index(version) >= SUPPORTED.index(minimum)


class _VersionResult(msgspec.Struct, frozen=True, rename="camel"):
    supported_versions: list[str]


def decode_version_result(data: bytes) -> frozenset[str]:
    """Return the versions that a plugin prints for VERSION.

    :raises InvalidRequest: when the output is not a version result.
    """
    try:
        result = msgspec.json.decode(data, type=_VersionResult)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"the output is not a version result: {error}") from None
    return frozenset(result.supported_versions)
