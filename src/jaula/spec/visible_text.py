"""Text of other programs, peers and containers without effect on a terminal. Pure.

A name, a label or an error message is chosen by someone else. Its control characters could move the
cursor, hide or replace what a terminal shows, or type for its user. They are shown as ``\\u001b``,
which in a document of JSON still is the same character.

Source: ECMA-48 (C0 and C1 control functions); Unicode 17, UAX 9, explicit directional formatting.
"""

from __future__ import annotations

_DIRECTIONS = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_LINE_ENDS = (0x2028, 0x2029)
_ESCAPED_C1_BYTES = range(0xDC80, 0xDCA0)  # surrogates of bytes that are not UTF-8 (PEP 383)
_CONTROLS = (*range(9), *range(0x0B, 0x20), *range(0x7F, 0xA0))
_TABLE = {
    number: f"\\u{number:04x}"
    for number in (*_CONTROLS, *_DIRECTIONS, *_LINE_ENDS, *_ESCAPED_C1_BYTES)
}


def visible(text: str) -> str:
    """Return a text with its control characters as escapes.

    Tabs and ends of lines (``\\n`` and ``\\r\\n``) stay.
    """
    if text.isprintable() or text == "\n":
        return text
    if "\r\n" in text:
        return "\r\n".join(part.translate(_TABLE) for part in text.split("\r\n"))
    return text.translate(_TABLE)


def visible_cell(text: str) -> str:
    """Return a text as :func:`visible_line` does, with its tabs as escapes, too."""
    return visible_line(text).replace("\t", "\\t")


def visible_line(text: str) -> str:
    """Return a text as :func:`visible` does, on one line: its ends of lines are escapes, too."""
    if text.isprintable():
        return text
    return text.translate(_TABLE).replace("\n", "\\n")
