"""``--secret NAME[,target=,mode=,uid=,gid=]`` and ``--config``, as the engine's references."""

from __future__ import annotations

from jaula.cli.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FIELDS = {"source": "Source", "src": "Source", "target": "Target", "uid": "UID", "gid": "GID"}


def document(word: str, flag: str) -> dict[str, Any]:
    """One reference. The name may stand first by itself. Raises UsageError."""
    from jaula.cli.containers.mount_option import fields

    found: dict[str, Any] = {}
    for number, field in enumerate(fields(word)):
        key, equals, value = field.partition("=")
        if not equals and number == 0:
            key, value = "source", field
        key = key.strip().lower()
        if key in _FIELDS:
            found[_FIELDS[key]] = value
        elif key == "mode":
            found["Mode"] = _mode(word, flag, value)
        else:
            raise _bad(word, flag, f"unexpected key '{key}'")
    if not found.get("Source"):
        raise _bad(word, flag, "source is required")
    return found


def _mode(word: str, flag: str, value: str) -> int:
    try:
        return int(value.removeprefix("0o"), 8)
    except ValueError:
        raise _bad(word, flag, f"invalid mode {value!r}: octal digits are wanted") from None


def _bad(word: str, flag: str, reason: str) -> UsageError:
    return UsageError(f'invalid argument "{word}" for "--{flag}" flag: {reason}')
