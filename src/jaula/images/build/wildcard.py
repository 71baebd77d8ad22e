"""Which paths a pattern of ``COPY`` or ``ADD`` means. Pure.

Follows Go's ``filepath.Match``, as the Dockerfile reference says: ``*`` and ``?`` stay within one
name, ``[a-z]`` and ``[^a-z]`` are classes, a backslash takes the next character as it is. ``**`` is
any number of directories and exists for ``COPY --parents`` only; elsewhere it is a ``*``.
"""

from __future__ import annotations

import re
from functools import lru_cache

from jaula.errors import InvalidRequest

ANY_DEPTH = "**"


def is_pattern(text: str) -> bool:
    """Whether there is a wildcard in it that no backslash takes away."""
    position = 0
    while position < len(text):
        if text[position] == "\\":
            position += 1
        elif text[position] in "*?[":
            return True
        position += 1
    return False


def plain(text: str) -> str:
    """A name without wildcards as it is on disk: its backslashes are gone."""
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


@lru_cache(maxsize=256)
def paths(components: tuple[str, ...], *, deep: bool = False) -> re.Pattern[str]:
    """An expression whose ``fullmatch`` finds the paths that a pattern's components mean.

    ``deep`` says that ``**`` is any depth. The groups in it are atomic: the first place where the
    text between two wildcards is found will do, so no name and no pattern takes long.

    :raises InvalidRequest: a class without end, a backslash at the end.
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
    made = [texts[0] + "/" if texts[0] else ""]
    made += [f"(?>(?:[^/]+/)*?{text}/)" for text in texts[1:-1] if text]
    made.append(f"(?:[^/]+/)*{texts[-1]}" if texts[-1] else ".+")
    return re.compile("".join(made), re.DOTALL)


def _expression(pattern: str) -> str:
    """Of one component: what is between two stars, each found at the first place."""
    made: list[str] = [""]
    position = 0
    while position < len(pattern):
        letter = pattern[position]
        position += 1
        if letter == "*":
            made.append("")
        elif letter == "?":
            made[-1] += "[^/]"
        elif letter == "[":
            text, position = _class(pattern, position)
            made[-1] += text
        else:
            if letter == "\\":
                letter, position = _escaped(pattern, position)
            made[-1] += re.escape(letter)
    if len(made) == 1:
        return made[0]
    between = "".join(f"(?>[^/]*?{text})" for text in made[1:-1] if text)
    return f"{made[0]}{between}[^/]*{made[-1]}"


def _class(pattern: str, position: int) -> tuple[str, int]:
    """``[^a-c]`` after its first bracket, as an expression, and where it ends."""
    negated = pattern[position : position + 1] == "^"
    position += negated
    ranges: list[str] = []
    while True:
        if position >= len(pattern):
            raise _bad(pattern)
        if pattern[position] == "]" and ranges:
            break
        low, position = _bound(pattern, position)
        high = low
        if pattern[position : position + 1] == "-":
            high, position = _bound(pattern, position + 1)
        # From z to a there is nothing.
        ranges.append(f"{re.escape(low)}-{re.escape(high)}" if low <= high else "")
    inside = "".join(ranges)
    if not inside:
        return ("[^/]" if negated else r"(?!)"), position + 1
    return f"[{'^/' if negated else ''}{inside}]", position + 1


def _bound(pattern: str, position: int) -> tuple[str, int]:
    if position >= len(pattern) or pattern[position] in "-]":
        raise _bad(pattern)
    letter = pattern[position]
    if letter == "\\":
        return _escaped(pattern, position + 1)
    return letter, position + 1


def _escaped(pattern: str, position: int) -> tuple[str, int]:
    if position >= len(pattern):
        raise _bad(pattern)
    return pattern[position], position + 1


def _bad(pattern: str) -> InvalidRequest:
    return InvalidRequest(
        f"the pattern {pattern!r} cannot be read",
        hint="a class is written [a-z], and a backslash stands before another character",
    )
