"""The query of a request, read as Docker's server reads it.

Source: moby ``api/server/httputils/form.go`` (BoolValue, Int64ValueOrZero), ``api/types/filters``
(FromJSON) and ``api/types/time`` (ParseTimestamps). Percent decoding is done here because
``urllib.parse`` costs more memory than the whole of this package.
"""

from __future__ import annotations

import msgspec

from jaula.errors import InvalidRequest

_FALSE = frozenset({"", "0", "no", "false", "none"})
_HEX_DIGITS = b"0123456789abcdefABCDEF"
_MAX_PAIRS = 1024


def unquote(text: str) -> str:
    """Percent escapes replaced; bytes that are not UTF-8 become U+FFFD."""
    if "%" not in text:
        return text
    first, *rest = text.encode("utf-8", "replace").split(b"%")
    plain = bytearray(first)
    for piece in rest:
        digits = piece[:2]
        if len(digits) < 2 or digits.strip(_HEX_DIGITS):
            escape = "%" + digits.decode("ascii", "replace")
            raise InvalidRequest(f"invalid URL escape {escape!r}")
        plain.append(int(digits, 16))
        plain += piece[2:]
    return plain.decode("utf-8", "replace")


class Query:
    """The names and values of one request; a name that is absent reads as the empty string."""

    __slots__ = ("_values",)

    def __init__(self, text: str = "") -> None:
        self._values: dict[str, list[str]] = {}
        if not text:
            return
        pairs = text.split("&", _MAX_PAIRS)
        if len(pairs) > _MAX_PAIRS:
            raise InvalidRequest(f"the query holds more than {_MAX_PAIRS} parameters")
        for pair in pairs:
            if pair:
                name, _, value = pair.replace("+", " ").partition("=")
                self._values.setdefault(unquote(name), []).append(unquote(value))

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def text(self, name: str) -> str:
        """The first value."""
        values = self._values.get(name)
        return values[0] if values else ""

    def texts(self, name: str) -> list[str]:
        """Every value, in order."""
        return self._values.get(name, [])

    def optional(self, name: str) -> str | None:
        """The first value, None where it is absent or empty."""
        return self.text(name) or None

    def flag(self, name: str, default: bool = False) -> bool:
        """Docker's reading of a boolean: absent, 0, no, false and none are false."""
        if name not in self._values:
            return default
        return self.text(name).strip().lower() not in _FALSE

    def integer(self, name: str) -> int | None:
        """A decimal integer of at most 64 bits, None where absent; raises InvalidRequest."""
        value = self.text(name).strip()
        if not value:
            return None
        digits = value[1:] if value[0] in "+-" else value
        if not (digits.isascii() and digits.isdecimal() and len(digits) <= 19):
            raise InvalidRequest(f"{name} {value[:40]!r} is not an integer")
        return int(value)

    def timestamp(self, name: str) -> float | None:
        """Seconds since the epoch; None where absent. Raises InvalidRequest."""
        found = self.nanoseconds(name)
        return None if found is None else found / 1e9

    def nanoseconds(self, name: str) -> int | None:
        """The same as nanoseconds: seconds with a fraction, of which nine digits count."""
        value = self.text(name).strip()
        if not value:
            return None
        seconds, _, fraction = value.partition(".")
        whole = seconds.removeprefix("-")
        digits = (whole or "0") + (fraction or "0")
        if not (digits.isascii() and digits.isdecimal() and len(digits) <= 30):
            raise InvalidRequest(
                f"{name} {value[:40]!r} is not a time", hint="write seconds since 1970"
            )
        found = int(whole or "0") * 1_000_000_000 + int(fraction[:9].ljust(9, "0"))
        return -found if seconds.startswith("-") else found

    def filters(self) -> dict[str, list[str]]:
        """The ``filters`` document: ``{"name": {"value": true}}`` or ``{"name": ["value"]}``."""
        value = self.text("filters")
        if not value:
            return {}
        try:
            document = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
            document = None
        if not isinstance(document, dict):
            raise InvalidRequest(f"invalid filter: {value[:200]!r} is not a JSON object")
        return {name: _filter(name, values) for name, values in document.items()}


def _filter(name: str, values: object) -> list[str]:
    if isinstance(values, dict) and all(isinstance(v, bool) for v in values.values()):
        return [text for text, wanted in values.items() if wanted]
    if isinstance(values, list) and all(isinstance(v, str) for v in values):
        return list(values)
    if values is None:
        return []
    raise InvalidRequest(
        f"invalid filter {name[:80]!r}",
        hint='write {"name": ["value"]} or {"name": {"value": true}}',
    )
