"""Wildcard patterns of ``COPY`` and ``ADD``. Pure.

Follows Go's ``filepath.Match``, as the Dockerfile reference says: ``*`` and ``?`` match within one
name, ``[a-z]`` and ``[^a-z]`` are character classes, a backslash escapes the next character. ``**``
matches any number of directories with ``COPY --parents`` only; elsewhere it is a ``*``.
"""

from __future__ import annotations

import re
from functools import lru_cache

from jaula.errors import InvalidRequest

ANY_DEPTH = "**"


def is_pattern(text: str) -> bool:
    """Return whether ``text`` contains a wildcard that is not escaped."""
    position = 0
    while position < len(text):
        if text[position] == "\\":
            position += 1
        elif text[position] in "*?[":
            return True
        position += 1
    return False


def plain(text: str) -> str:
    """Return a name without wildcards as it is on disk, with escapes removed."""
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


@lru_cache(maxsize=256)
def paths(components: tuple[str, ...], *, deep: bool = False) -> re.Pattern[str]:
    """Return an expression whose ``fullmatch`` accepts the paths that match the components.

    ``deep`` gives ``**`` its meaning of any depth. The groups are atomic: the first place where the
    text between two wildcards matches is sufficient, so matching is fast for every pattern.

    :raises InvalidRequest: if a class is not closed or the pattern ends with a backslash.
    """
    parts: list[list[str]] = [[]]
    for component in components:
        if deep and component == ANY_DEPTH:
            parts.append([])
        else:
            parts[-1].append(_expression(component))
    texts = ["/".join(part) for part in parts]
    if len(texts) == 1:
        return re.compile(texts[0], re.DOTALL)
    expression = [texts[0] + "/" if texts[0] else ""]
    expression += [f"(?>(?:[^/]+/)*?{text}/)" for text in texts[1:-1] if text]
    expression.append(f"(?:[^/]+/)*{texts[-1]}" if texts[-1] else ".+")
    return re.compile("".join(expression), re.DOTALL)


def _expression(pattern: str) -> str:
    """Return the expression of one component.

    Each text between two stars matches as early as possible.
    """
    segments: list[str] = [""]
    position = 0
    while position < len(pattern):
        letter = pattern[position]
        position += 1
        if letter == "*":
            segments.append("")
        elif letter == "?":
            segments[-1] += "[^/]"
        elif letter == "[":
            text, position = _class(pattern, position)
            segments[-1] += text
        else:
            if letter == "\\":
                letter, position = _escape(pattern, position)
            segments[-1] += re.escape(letter)
    if len(segments) == 1:
        return segments[0]
    between = "".join(f"(?>[^/]*?{text})" for text in segments[1:-1] if text)
    return f"{segments[0]}{between}[^/]*{segments[-1]}"


def _class(pattern: str, position: int) -> tuple[str, int]:
    """Return ``[^a-c]`` after its first bracket as an expression, and the position after it."""
    negated = pattern[position : position + 1] == "^"
    position += negated
    ranges: list[str] = []
    while True:
        if position >= len(pattern):
            raise _malformed(pattern)
        if pattern[position] == "]" and ranges:
            break
        low, position = _bound(pattern, position)
        high = low
        if pattern[position : position + 1] == "-":
            high, position = _bound(pattern, position + 1)
        # An inverted range (z-a) matches nothing.
        ranges.append(f"{re.escape(low)}-{re.escape(high)}" if low <= high else "")
    members = "".join(ranges)
    if not members:
        return ("[^/]" if negated else r"(?!)"), position + 1
    return f"[{'^/' if negated else ''}{members}]", position + 1


def _bound(pattern: str, position: int) -> tuple[str, int]:
    if position >= len(pattern) or pattern[position] in "-]":
        raise _malformed(pattern)
    letter = pattern[position]
    if letter == "\\":
        return _escape(pattern, position + 1)
    return letter, position + 1


def _escape(pattern: str, position: int) -> tuple[str, int]:
    if position >= len(pattern):
        raise _malformed(pattern)
    return pattern[position], position + 1


def _malformed(pattern: str) -> InvalidRequest:
    return InvalidRequest(
        f"the pattern {pattern!r} is malformed",
        hint="close each [ with ], and put a character after each backslash",
    )
