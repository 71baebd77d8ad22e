"""``--chmod``: compute the new mode of a file. Pure.

A mode is octal digits, or the symbolic form of chmod(1): ``u=rwX,go=rX``, ``+x``, ``g=u``. Without
a class, ``+x`` applies to all: unlike chmod(1), no umask is used.
"""

from __future__ import annotations

from collections.abc import Callable

from jaula.errors import InvalidRequest

Change = Callable[[int, bool], int]
"""Map the twelve bits of a mode, and whether it is a directory's, to the new bits."""

_SHIFT = {"u": 6, "g": 3, "o": 0}
_BITS = {"r": 4, "w": 2, "x": 1}
_SPECIAL = {"u": 0o4000, "g": 0o2000, "o": 0}
_STICKY = 0o1000


def parse(text: str) -> Change:
    """Parse a mode.

    :raises InvalidRequest: if it is not valid.
    """
    if text.isascii() and text.isdigit():
        return _octal(text)
    clauses = [_clause(part, text) for part in text.split(",")]

    def change(mode: int, directory: bool) -> int:
        for clause in clauses:
            mode = clause(mode, directory)
        return mode

    return change


def _octal(text: str) -> Change:
    try:
        fixed = int(text, 8)
    except ValueError:
        fixed = -1
    if not 0 <= fixed <= 0o7777:
        raise _invalid(text)
    return lambda mode, directory: fixed


def _clause(part: str, text: str) -> Change:
    """Parse a clause such as ``ug+rx`` or, with several actions, ``ug+r-w``."""
    stated = ""
    while part[:1] in ("u", "g", "o", "a") and part:
        stated, part = stated + part[0], part[1:]
    classes = "ugo" if not stated or "a" in stated else stated
    actions: list[tuple[str, str]] = []
    while part:
        sign, part = part[0], part[1:]
        if sign not in "+-=":
            raise _invalid(text)
        end = next((i for i, c in enumerate(part) if c in "+-="), len(part))
        permissions, part = part[:end], part[end:]
        if not (permissions in ("u", "g", "o") or set(permissions) <= set("rwxXst")):
            raise _invalid(text)
        actions.append((sign, permissions))
    if not actions:
        raise _invalid(text)

    def change(mode: int, directory: bool) -> int:
        for sign, permissions in actions:
            mode = _apply(mode, directory, classes, sign, permissions)
        return mode

    return change


def _apply(mode: int, directory: bool, classes: str, sign: str, permissions: str) -> int:
    bits = mask = 0
    for user_class in classes:
        bits |= _class_bits(mode, directory, user_class, permissions)
        mask |= 0o7 << _SHIFT[user_class] | _SPECIAL[user_class]
    if "t" in permissions:
        bits |= _STICKY
    if sign == "+":
        return mode | bits
    if sign == "-":
        return mode & ~bits
    if directory:
        mask &= ~0o6000  # as chmod(1): only a number clears set-id bits of a directory
    return mode & ~mask | bits


def _class_bits(mode: int, directory: bool, user_class: str, permissions: str) -> int:
    if permissions in _SHIFT:
        return (mode >> _SHIFT[permissions] & 0o7) << _SHIFT[user_class]
    bits = 0
    for letter in permissions:
        if letter in _BITS:
            bits |= _BITS[letter] << _SHIFT[user_class]
        elif letter == "X" and (directory or mode & 0o111):
            bits |= 1 << _SHIFT[user_class]
        elif letter == "s":
            bits |= _SPECIAL[user_class]
    return bits


def _invalid(text: str) -> InvalidRequest:
    return InvalidRequest(
        f"invalid --chmod {text[:64]!r}", hint="use octal digits (755) or letters (u=rwX,go=rX)"
    )
