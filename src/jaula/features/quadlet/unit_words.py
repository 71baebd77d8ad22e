"""Words of a value in a unit file: splitting with quotes and escapes, and quoting. Pure.

Source: systemd.syntax(7), systemd.service(5) "COMMAND LINES".
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_WHITESPACE = " \t\n\r"
_SIMPLE = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v",
    "\\": "\\", '"': '"', "'": "'", "s": " ",
}  # fmt: skip
_HEX_DIGITS = {"x": 2, "u": 4, "U": 8}  # digits of an escape, by the letter after the backslash
_ESCAPED = {
    "\a": "\\a", "\b": "\\b", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", "\f": "\\f",
    "\\": "\\\\", '"': '\\"',
}  # fmt: skip


def split(text: str, *, escapes: bool = True) -> list[str]:
    """Return the words of ``text`` without their quotes.

    ``escapes`` selects the rules of command lines: C escapes have a meaning, and a quote that is
    not closed ends with the text. Without it a backslash is an ordinary character.

    :raises ValueError: when an escape is unknown, or a quote is not closed.
    """
    words: list[str] = []
    position, end = 0, len(text)
    while position < end:
        if text[position] in _WHITESPACE:
            position += 1
            continue
        word, position = _word(text, position, escapes)
        words.append(word)
    return words


def _word(text: str, position: int, escapes: bool) -> tuple[str, int]:
    """Return the word that begins at ``position``, and the position after it."""
    parts: list[str] = []
    quote = ""
    while position < len(text):
        char = text[position]
        if char == "\\" and escapes:
            part, position = _escape(text, position + 1)
            parts.append(part)
            continue
        position += 1
        if quote:
            if char == quote:
                quote = ""
            else:
                parts.append(char)
        elif char in "\"'":
            quote = char
        elif char in _WHITESPACE:
            break
        else:
            parts.append(char)
    if quote and not escapes:
        raise ValueError(f"the quote {quote} is not closed")
    return "".join(parts), position


def _escape(text: str, position: int) -> tuple[str, int]:
    """Return the character of the escape whose letter is at ``position``, and what follows it."""
    letter = text[position : position + 1]
    if not letter:
        return "", position  # a backslash at the end
    if letter in _SIMPLE:
        return _SIMPLE[letter], position + 1
    if letter in _HEX_DIGITS:
        first = position + 1
        digits, base = text[first : first + _HEX_DIGITS[letter]], 16
        complete = len(digits) == _HEX_DIGITS[letter]
    else:
        first = position
        digits, base = text[first : first + 3], 8
        complete = len(digits) == 3
    try:
        code = int(digits, base) if complete and digits.isalnum() else 0
    except ValueError:
        code = 0
    if not 0 < code <= (0x10FFFF if base == 16 else 0xFF) or 0xD800 <= code < 0xE000:
        raise ValueError(f"the escape \\{text[position : position + 4]} is unknown")
    return chr(code), first + len(digits)


def repeat(flag: str, values: Iterable[object]) -> list[str]:
    """Return the words of a flag that occurs once for each value."""
    return [word for value in values for word in (flag, str(value))]


def join(words: list[str]) -> str:
    """Return ``words`` as a command line; a word with special characters is quoted."""
    return " ".join(_quoted(word) for word in words)


def _quoted(word: str) -> str:
    if word and not any(_is_special(char) for char in word):
        return word
    return '"' + "".join(_escaped(char) for char in word) + '"'


def _is_special(char: str) -> bool:
    return char <= " " or char in "\"'\\\x7f"


def _escaped(char: str) -> str:
    if char in _ESCAPED:
        return _ESCAPED[char]
    return f"\\x{ord(char):02x}" if char < " " or char == "\x7f" else char
