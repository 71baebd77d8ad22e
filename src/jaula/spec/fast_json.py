"""JSON without importing ``json``: direct use of the scanner and encoder of its C accelerator.

``json`` imports ``re`` and costs 5 ms of a client that should take 20. ``json.decoder`` and
``json.encoder`` call the same constructors of ``_json``, unchanged from Python 3.11 to 3.14. An
interpreter without the accelerator uses the ``json`` module.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    Document = dict[str, Any]

WHITESPACE = " \t\r\n"


class _Settings:
    """The attributes that ``_json.make_scanner`` reads from its decoder."""

    strict = False
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    memo: dict[str, str] = {}

    @staticmethod
    def parse_constant(name: str) -> float:
        return {"NaN": float("nan"), "Infinity": float("inf")}.get(name, float("-inf"))


try:
    from _json import encode_basestring, make_encoder, make_scanner

    _scan = make_scanner(_Settings)  # type: ignore[arg-type]
except ImportError:
    from json import JSONDecoder
    from json.encoder import encode_basestring

    make_encoder = None  # type: ignore[assignment,misc]
    _scan = JSONDecoder(strict=False).scan_once  # type: ignore[attr-defined]


def decode(data: bytes | str) -> Any:
    """Decode the single JSON value in ``data``.

    :raises ValueError: when there is no valid value or more than one.
    """
    text = data if isinstance(data, str) else data.decode("utf-8", "surrogateescape")
    value, end = _next(text, 0)
    if text[end:].strip(WHITESPACE):
        raise ValueError(f"more than one JSON value: {text[end : end + 40]!r}")
    return value


def _next(text: str, start: int) -> tuple[Any, int]:
    while start < len(text) and text[start] in WHITESPACE:
        start += 1
    try:
        value, end = _scan(text, start)
    except StopIteration:
        raise ValueError(f"not JSON: {text[start : start + 40]!r}") from None
    return value, end


def decode_lines(chunks: Iterable[bytes]) -> Iterator[Any]:
    """Yield the values of a newline-delimited JSON stream as they arrive."""
    pending = b""
    for chunk in chunks:
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            if line.strip():
                yield from _values(line)
    if pending.strip():
        yield from _values(pending)


def _values(line: bytes) -> Iterator[Any]:
    text = line.decode("utf-8", "surrogateescape").strip(WHITESPACE)
    position = 0
    while position < len(text):
        value, position = _next(text, position)
        yield value


def encode(value: object) -> str:
    """Encode ``value`` as compact JSON; non-ASCII text is kept."""
    if make_encoder is None:
        import json

        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    encoder = make_encoder(None, _refuse, encode_basestring, None, ":", ",", False, False, True)
    return "".join(encoder(value, 0))


def _refuse(value: object) -> object:
    raise TypeError(f"{type(value).__name__} has no JSON form")


def pretty(value: object, indent: str = "    ", level: int = 0) -> str:
    """Encode ``value`` over several lines in the format of ``docker inspect``."""
    if isinstance(value, dict) and value:
        inner = indent * (level + 1)
        rows = [
            f"{inner}{encode(str(key))}: {pretty(item, indent, level + 1)}"
            for key, item in value.items()
        ]
        return "{\n" + ",\n".join(rows) + "\n" + indent * level + "}"
    if isinstance(value, list) and value:
        inner = indent * (level + 1)
        rows = [inner + pretty(item, indent, level + 1) for item in value]
        return "[\n" + ",\n".join(rows) + "\n" + indent * level + "]"
    return encode(value)
