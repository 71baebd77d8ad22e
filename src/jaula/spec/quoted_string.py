"""A text in double quotes on one line, which TOML and YAML read alike. Pure.

Source: TOML 1.0 ("basic strings") and YAML 1.2 (5.7, "escaped characters"), which 1.1 parsers read
alike. The escapes are those of TOML: YAML has them all, and ``\\x`` is of YAML only. JSON's are not
enough: a character above U+FFFF would become two surrogates.
"""

from __future__ import annotations

_ESCAPES = {
    '"': '\\"',
    "\\": "\\\\",
    "\b": "\\b",
    "\t": "\\t",
    "\n": "\\n",
    "\f": "\\f",
    "\r": "\\r",
}


def quoted(text: str) -> str:
    """Return a basic string of TOML, which is a double-quoted scalar of YAML, without surrogates.

    Every character that is not printable is an escape.
    """
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(each: str) -> str:
    if each in _ESCAPES:
        return _ESCAPES[each]
    if each.isprintable():
        return each
    return f"\\u{ord(each):04x}" if ord(each) <= 0xFFFF else f"\\U{ord(each):08x}"
