"""``--secret NAME[,target=,mode=,uid=,gid=]`` and ``--config``, as references for the engine."""

from __future__ import annotations

from jaula.cli.cli_errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FIELDS = {"source": "Source", "src": "Source", "target": "Target", "uid": "UID", "gid": "GID"}


def document(word: str, flag: str) -> dict[str, Any]:
    """Return one reference. The name may come first without ``source=``.

    :raises UsageError: when it is invalid.
    """
    from jaula.cli.containers.mount_option import fields

    reference: dict[str, Any] = {}
    for number, field in enumerate(fields(word)):
        key, equals, value = field.partition("=")
        if not equals and number == 0:
            key, value = "source", field
        key = key.strip().lower()
        if key in _FIELDS:
            reference[_FIELDS[key]] = value
        elif key == "mode":
            reference["Mode"] = _mode(word, flag, value)
        else:
            raise _bad(word, flag, f"unexpected key '{key}'")
    if not reference.get("Source"):
        raise _bad(word, flag, "source is required")
    return reference


def _mode(word: str, flag: str, value: str) -> int:
    try:
        return int(value.removeprefix("0o"), 8)
    except ValueError:
        raise _bad(word, flag, f"invalid mode {value!r}: must be octal digits") from None


def _bad(word: str, flag: str, reason: str) -> UsageError:
    return UsageError(f'invalid argument "{word}" for "--{flag}" flag: {reason}')
