"""The two forms of arguments: a JSON list of strings, or plain text."""

from __future__ import annotations

import msgspec

from jaula.images.build.dockerfile.errors import DockerfileError


def json_list(text: str) -> tuple[str, ...] | None:
    """Parse the exec form, a JSON list of strings. Return None for any other text.

    :raises DockerfileError: if it is a list of other values.
    """
    if not text.startswith("["):
        return None
    try:
        items = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None
    if not all(isinstance(item, str) for item in items):
        raise DockerfileError(
            "when using JSON array syntax, arrays must be comprised of strings only"
        )
    if any("\0" in item for item in items):
        raise DockerfileError("a JSON string contains a null byte")
    return tuple(items)


def as_json(words: tuple[str, ...]) -> str:
    """Return the canonical form of a list: ``["a", "b"]``."""
    return "[" + ", ".join(msgspec.json.encode(word).decode() for word in words) + "]"
