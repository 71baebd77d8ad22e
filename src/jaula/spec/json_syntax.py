"""The syntax error of a broken JSON document, in the words of Go's decoder. Pure.

Clients and their users know these messages from Docker. msgspec decodes; this module is called for
a document that it has refused. Source: RFC 8259 and the messages of Go's ``encoding/json``.
"""

from __future__ import annotations

import re

_SPACE = b" \t\r\n"
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
_DIGITS = re.compile(rb"[0-9]*")
_LITERALS = {ord("t"): b"true", ord("f"): b"false", ord("n"): b"null"}
_ESCAPES = b'bfnrt\\/"'
_HEX = b"0123456789abcdefABCDEF"
_NAMED = {7: "\\a", 8: "\\b", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r", 92: "\\\\"}


def syntax_error(data: bytes) -> str:
    """Return what is wrong with a document, '' if its JSON is valid."""
    try:
        end = _Scanner(data).value()
    except _SyntaxError as error:
        return f"invalid JSON: {error}"
    return "unexpected content after JSON" if data[end:].strip(_SPACE) else ""


class _SyntaxError(Exception):
    """The first byte that cannot be a part of the document."""


class _Scanner:
    """A position in a document."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def value(self) -> int:
        """Read one value; return the position after it."""
        closers: list[int] = []  # of the objects and arrays that are open
        place = "value"
        while True:
            byte = self._next()
            if place == "colon":
                place = self._expect(byte, b":", "after object key", "value")
                continue
            if place == "more":
                of_object = closers[-1] == ord("}")
                if byte == ord(","):
                    place = "key" if of_object else "value"
                    self._at += 1
                    continue
                what = "after object key:value pair" if of_object else "after array element"
                self._expect(byte, bytes([closers.pop()]), what)
            elif place.startswith("key"):
                if not (byte == ord("}") and place == "key or end"):
                    self._expect(byte, b'"', "looking for beginning of object key string")
                    self._string()
                    place = "colon"
                    continue
                self._at += 1
                closers.pop()
            elif byte == ord("]") and place == "value or end":
                self._at += 1
                closers.pop()
            elif byte in b"{[":
                self._at += 1
                closers.append(ord("}") if byte == ord("{") else ord("]"))
                place = "key or end" if byte == ord("{") else "value or end"
                continue
            else:
                self._scalar(byte)
            if not closers:
                return self._at
            place = "more"

    def _next(self) -> int:
        """Return the next byte that is not a space."""
        while self._peek() in _SPACE:
            self._at += 1
        return self._data[self._at]

    def _peek(self) -> int:
        if self._at >= len(self._data):
            raise _SyntaxError("unexpected EOF")
        return self._data[self._at]

    def _expect(self, byte: int, allowed: bytes, what: str, then: str = "") -> str:
        if byte not in allowed:
            raise _SyntaxError(f"invalid character {_quoted(byte)} {what}")
        self._at += 1
        return then

    def _scalar(self, byte: int) -> None:
        literal = _LITERALS.get(byte)
        if literal is not None:
            for letter in literal:
                what = f"in literal {literal.decode()} (expecting '{chr(letter)}')"
                self._expect(self._peek(), bytes([letter]), what)
        elif byte == ord('"'):
            self._at += 1
            self._string()
        elif byte == ord("-") or byte in b"0123456789":
            self._number(byte)
        else:
            self._expect(byte, b"", "looking for beginning of value")

    def _string(self) -> None:
        while True:
            match = _PLAIN.match(self._data, self._at)
            self._at = match.end() if match else self._at
            byte = self._peek()
            self._expect(byte, b'"\\', "in string literal")
            if byte == ord('"'):
                return
            escape = self._peek()
            self._expect(escape, _ESCAPES + b"u", "in string escape code")
            for _ in range(4 if escape == ord("u") else 0):
                self._expect(self._peek(), _HEX, "in \\u hexadecimal character escape")

    def _number(self, byte: int) -> None:
        digits = b"0123456789"
        if byte == ord("-"):
            self._at += 1
            byte = self._peek()
            if byte not in digits:
                self._expect(byte, b"", "in numeric literal")
        self._at += 1
        if byte != ord("0"):
            self._skip_digits()
        if self._data[self._at : self._at + 1] == b".":
            self._at += 1
            self._expect(self._peek(), digits, "after decimal point in numeric literal")
            self._skip_digits()
        if self._data[self._at : self._at + 1] in (b"e", b"E"):
            self._at += 1
            if self._peek() in b"+-":
                self._at += 1
            self._expect(self._peek(), digits, "in exponent of numeric literal")
            self._skip_digits()

    def _skip_digits(self) -> None:
        match = _DIGITS.match(self._data, self._at)
        self._at = match.end() if match else self._at


def _quoted(byte: int) -> str:
    """Return a byte in Go's quotes; Go prints a byte of a longer character as one of Latin-1."""
    if byte == ord("'"):
        return "'\\''"
    if byte in _NAMED:
        return f"'{_NAMED[byte]}'"
    if byte < 0x20 or byte == 0x7F:
        return f"'\\x{byte:02x}'"
    return f"'\\u{byte:04x}'" if 0x80 <= byte <= 0xA0 or byte == 0xAD else f"'{chr(byte)}'"
