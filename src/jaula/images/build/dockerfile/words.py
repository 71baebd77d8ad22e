"""The words of a line: at white space only, or with regard to quotes and escapes.

Quotes and escapes stay in the words: it is the substitution that takes them away.
"""

from __future__ import annotations

SPACES = (
    " \t\n\v\f\r\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""White space around a line and between words that may be quoted (Unicode's list)."""

_UNQUOTED = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+:@=,%*?[]{}()<>|&;!^~#`"
)
"""Characters that need no quotes."""

_TO_SPACE = str.maketrans("\t\v\f\r", "    ")


def fields(text: str) -> list[str]:
    """Split at ASCII white space; quotes have no meaning."""
    return [word for word in text.translate(_TO_SPACE).split(" ") if word]


def halves(text: str) -> tuple[str, str]:
    """Return the first word, and the text after the white space behind it."""
    first, _, rest = text.translate(_TO_SPACE).partition(" ")
    return first, text[len(text) - len(rest) :].lstrip("\t\v\f\r ")


def quoted(text: str, escape: str) -> list[str]:
    """Split at white space that is not quoted or escaped. An open quote extends to the end."""
    if '"' not in text and "'" not in text and escape not in text and text.isprintable():
        return [word for word in text.split(" ") if word]
    words: list[str] = []
    start = -1  # start of the word, -1 between words
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
                text = text[:at]  # an escape at the end has no effect
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
    r"""Return ``text`` as one word of a line that parses back to it, with backslash as the escape.

    Line breaks become ``\n`` to keep it on one line (this does not parse back).
    """
    if text and _UNQUOTED.issuperset(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return '"' + escaped.replace("\n", "\\n") + '"'
