"""Parse ``WWW-Authenticate``, the authentication challenge of a server. Pure.

Source: RFC 9110 section 11.6.1 and the distribution project's "Token Authentication Specification".
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SEPARATOR = r"\s*+(?:,\s*+)?"  # possessive: spaces that match in two ways take quadratic time
_SCHEME = re.compile(rf"{_SEPARATOR}({_TOKEN})(?:\s+|\Z)", re.ASCII)
_PARAMETER = re.compile(
    rf'{_SEPARATOR}({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))', re.ASCII
)
_LIMIT = 8192  # characters


class Challenge(msgspec.Struct, frozen=True):
    """One accepted way to authenticate. ``scheme`` and parameter names are in lower case."""

    scheme: str
    parameters: dict[str, str] = {}


def parse(headers: Iterable[str]) -> tuple[Challenge, ...]:
    """Return all challenges of a response. Parsing stops at the first invalid one."""
    challenges: list[Challenge] = []
    for text in headers:
        position = 0
        while position < len(text) <= _LIMIT:
            scheme = _SCHEME.match(text, position)
            if scheme is None:
                break
            position = scheme.end()
            parameters: dict[str, str] = {}
            while parameter := _PARAMETER.match(text, position):
                name, quoted, plain = parameter.groups()
                value = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
                parameters.setdefault(name.lower(), value)
                position = parameter.end()
            challenges.append(Challenge(scheme[1].lower(), parameters))
    return tuple(challenges)


def choose(challenges: Iterable[Challenge]) -> Challenge | None:
    """Return the challenge to answer: a bearer token if offered, else basic authentication."""
    by_scheme: dict[str, Challenge] = {}
    for challenge in challenges:
        by_scheme.setdefault(challenge.scheme, challenge)
    bearer = by_scheme.get("bearer")
    if bearer is not None and bearer.parameters.get("realm"):
        return bearer
    return by_scheme.get("basic")
