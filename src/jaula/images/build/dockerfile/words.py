"""The words of a line: at white space only, or with regard to quotes and escapes.

Quotes and escapes stay in the words: it is the substitution that takes them away.
"""

from __future__ import annotations

SPACES = (
    " \t\n\v\f\r\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""White space around a line and between words that may be quoted (Unicode's list)."""

_PLAIN = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+:@=,%*?[]{}()<>|&;!^~#`"
)
"""What needs no quotes."""

_BETWEEN = str.maketrans("\t\v\f\r", "    ")


def fields(text: str) -> list[str]:
    """Words at ASCII white space; quotes mean nothing."""
    return [word for word in text.translate(_BETWEEN).split(" ") if word]


def halves(text: str) -> tuple[str, str]:
    """The first word, and what follows the white space behind it."""
    first, _, rest = text.translate(_BETWEEN).partition(" ")
    return first, text[len(text) - len(rest) :].lstrip("\t\v\f\r ")


def quoted(text: str, escape: str) -> list[str]:
    """Words in which white space may be quoted or escaped; a quote without an end goes on to it."""
    if '"' not in text and "'" not in text and escape not in text and text.isprintable():
        return [word for word in text.split(" ") if word]
    words: list[str] = []
    start = -1  # of the word, or -1 between words
    quote = ""
    at = 0
    while at < len(text):
        char = text[at]
        if start < 0:
            if char in SPACES:
                at += 1
                continue
            start = at
        elif not quote and char in SPACES:
            words.append(text[start:at])
            start = -1
            at += 1
            continue
        if char == escape and quote != "'":
            if at + 1 == len(text):
                text = text[:at]  # at the very end it escapes nothing
                break
            at += 2
            continue
        if char == quote:
            quote = ""
        elif not quote and char in "\"'":
            quote = char
        at += 1
    if 0 <= start < len(text):
        words.append(text[start:])
    return words


def quote(text: str) -> str:
    """``text`` as one word of a line that reads back as it, with backslash as the escape.

    Line breaks become ``\\n``, so that it stays one line (that does not read back).
    """
    if text and _PLAIN.issuperset(text):
        return text
    inside = text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return '"' + inside.replace("\n", "\\n") + '"'
