"""``--chmod``: what becomes of a file's mode. Pure.

Octal digits, or the symbolic form of chmod(1): ``u=rwX,go=rX``, ``+x``, ``g=u``. The umask that
chmod(1) applies where nobody is named does not exist here: ``+x`` is for all.
"""

from __future__ import annotations

from collections.abc import Callable

from jaula.errors import InvalidRequest

Change = Callable[[int, bool], int]
"""From a mode's twelve bits, and whether it is a directory's, to the new ones."""

_SHIFT = {"u": 6, "g": 3, "o": 0}
_BITS = {"r": 4, "w": 2, "x": 1}
_SPECIAL = {"u": 0o4000, "g": 0o2000, "o": 0}
_STICKY = 0o1000


def parse(text: str) -> Change:
    """Read a mode. Raises :class:`InvalidRequest`."""
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
        raise _refuse(text)
    return lambda mode, directory: fixed


def _clause(part: str, text: str) -> Change:
    """``ug+rx``, which may go on: ``ug+r-w``."""
    who = ""
    while part[:1] in ("u", "g", "o", "a") and part:
        who, part = who + part[0], part[1:]
    whom = "ugo" if not who or "a" in who else who
    actions: list[tuple[str, str]] = []
    while part:
        sign, part = part[0], part[1:]
        if sign not in "+-=":
            raise _refuse(text)
        end = next((i for i, c in enumerate(part) if c in "+-="), len(part))
        wanted, part = part[:end], part[end:]
        if not (wanted in ("u", "g", "o") or set(wanted) <= set("rwxXst")):
            raise _refuse(text)
        actions.append((sign, wanted))
    if not actions:
        raise _refuse(text)

    def change(mode: int, directory: bool) -> int:
        for sign, wanted in actions:
            mode = _applied(mode, directory, whom, sign, wanted)
        return mode

    return change


def _applied(mode: int, directory: bool, whom: str, sign: str, wanted: str) -> int:
    bits = mask = 0
    for one in whom:
        bits |= _own_bits(mode, directory, one, wanted)
        mask |= 0o7 << _SHIFT[one] | _SPECIAL[one]
    if "t" in wanted:
        bits |= _STICKY
    if sign == "+":
        return mode | bits
    if sign == "-":
        return mode & ~bits
    if directory:
        mask &= ~0o6000  # as chmod(1): a directory keeps what only a number can take away
    return mode & ~mask | bits


def _own_bits(mode: int, directory: bool, one: str, wanted: str) -> int:
    if wanted in _SHIFT:
        return (mode >> _SHIFT[wanted] & 0o7) << _SHIFT[one]
    bits = 0
    for letter in wanted:
        if letter in _BITS:
            bits |= _BITS[letter] << _SHIFT[one]
        elif letter == "X" and (directory or mode & 0o111):
            bits |= 1 << _SHIFT[one]
        elif letter == "s":
            bits |= _SPECIAL[one]
    return bits


def _refuse(text: str) -> InvalidRequest:
    return InvalidRequest(
        f"invalid --chmod {text[:64]!r}", hint="octal digits as 755, or letters as u=rwX,go=rX"
    )
