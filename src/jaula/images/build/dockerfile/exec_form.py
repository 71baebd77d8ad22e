"""The two forms of arguments: a JSON list of strings, or plain text."""

from __future__ import annotations

import msgspec

from jaula.images.build.dockerfile.errors import DockerfileError


def json_list(text: str) -> tuple[str, ...] | None:
    """The strings of a JSON list; None where ``text`` is none, which makes it plain text.

    Raises :class:`DockerfileError` where it is a list of something else.
    """
    if not text.startswith("["):
        return None
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None
    if not all(isinstance(item, str) for item in found):
        raise DockerfileError(
            "when using JSON array syntax, arrays must be comprised of strings only"
        )
    if any("\0" in item for item in found):
        raise DockerfileError("a zero byte in a JSON string")
    return tuple(found)


def as_json(words: tuple[str, ...]) -> str:
    """The canonical form of a list: ``["a", "b"]``."""
    return "[" + ", ".join(msgspec.json.encode(word).decode() for word in words) + "]"
