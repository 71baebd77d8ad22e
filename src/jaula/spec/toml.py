"""Read untrusted TOML with bounds on time and memory.

Source: TOML 1.0.

Facts about ``tomllib``: it keeps a table for each part of a dotted key, and copies the key for each
of its parts. So ``a.a.a`` of 600 kB takes all memory of a host, and many short keys take a thousand
times their bytes. Its pattern of numbers takes a hundred times a number's bytes. A number with too
many digits is a ``ValueError`` that is not a ``TOMLDecodeError``. A line or an escape takes some
microseconds. So the text is counted first.
"""

from __future__ import annotations

import re
from typing import Any

MAX_SIZE = 1 << 20  # bytes of a document
MAX_PARTS = 16  # of one dotted key
MAX_NESTING = 16  # arrays and inline tables in each other
MAX_LINES = 32768
MAX_ESCAPES = 1 << 18
MAX_BARE = 4096  # characters of a bare key, a number or a date, with the spaces around it
MAX_TABLES = 16384  # dots of keys, arrays and inline tables of a document

_SPECIAL = re.compile(r"""["'#\n=,{}\[\].]""")
_BASIC_END = re.compile(r'["\\\n]')
_LONG_END = re.compile(r'"""|\\')


def loads(data: bytes, max_size: int = MAX_SIZE) -> dict[str, Any]:
    """Return the document of a TOML text.

    :raises ValueError: when it exceeds a bound, or is not TOML.
    """
    if len(data) > max_size:
        raise ValueError(f"{len(data)} bytes; at most {max_size} are allowed")
    import tomllib  # most processes read no TOML

    text = data.decode("utf-8-sig")
    check(text)
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ValueError(str(error)) from None


def check(text: str) -> None:
    """Check the bounds of a text before it is parsed. Pure.

    What a text has after its first error is counted as anything: a parser does not reach it.

    :raises ValueError: when a key has too many parts, a bare text is too long, or the text is
        nested too deeply or has too many tables, lines or escapes.
    """
    if text.count("\n") >= MAX_LINES:
        raise ValueError(f"more than {MAX_LINES} lines")
    if text.count("\\") > MAX_ESCAPES:
        raise ValueError(f"more than {MAX_ESCAPES} escapes")
    position, parts, nesting, tables = 0, 1, 0, 0
    while position < len(text):
        match = _SPECIAL.search(text, position)
        if (match.start() if match else len(text)) - position > MAX_BARE:
            raise ValueError(
                f"a key or value of more than {MAX_BARE} characters"
                f" (at line {_line(text, position)})"
            )
        if match is None:
            return
        position = match.end()
        each = match[0]
        if each == ".":
            parts += 1
            tables += 1
            if parts > MAX_PARTS:
                raise ValueError(
                    f"a key has more than {MAX_PARTS} parts (at line {_line(text, position)})"
                )
        elif each in "\"'":
            position = _string_end(text, position - 1)
        elif each == "#":
            end = text.find("\n", position)
            position = len(text) if end < 0 else end
        else:
            parts = 1
            if each in "[{":
                nesting += 1
                tables += 1
            elif each in "]}":
                nesting = max(0, nesting - 1)
            if nesting > MAX_NESTING:
                raise ValueError(
                    f"more than {MAX_NESTING} levels of arrays and tables"
                    f" (at line {_line(text, position)})"
                )
        if tables > MAX_TABLES:
            raise ValueError(f"more than {MAX_TABLES} tables and arrays")


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def _string_end(text: str, start: int) -> int:
    """Return the position after the string that begins at ``start``."""
    quote = text[start]
    long = text.startswith(quote * 3, start)
    if quote == "'":
        end = text.find("'''" if long else "'", start + (3 if long else 1))
        line = len(text) if long else text.find("\n", start)
        if end < 0 or (not long and 0 <= line < end):
            return len(text) if long or line < 0 else line  # not closed: an error of the parser
        return _after_quotes(text, end, quote) if long else end + 1
    position = start + (3 if long else 1)
    ends = _LONG_END if long else _BASIC_END
    while (match := ends.search(text, position)) is not None:
        if match[0] == "\\":
            position = match.end() + 1
        elif match[0] == "\n":
            return match.start()  # not closed: an error of the parser
        else:
            return _after_quotes(text, match.start(), quote) if long else match.end()
    return len(text)


def _after_quotes(text: str, position: int, quote: str) -> int:
    """Return the position after three to five quotes: two may be the last of the string."""
    end = position + 3
    while end < position + 5 and text.startswith(quote, end):
        end += 1
    return end
