"""Parse the value of ``RUN --mount``.

Source: the Dockerfile reference, section 'RUN --mount'. Values may contain variables, except
``from``, which determines the order of stages. As in BuildKit, each mount type ignores the common
keys that it does not use.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from typing import Any

from jaula.images.dockerfile.ast import MountKind, RunMount, Sharing
from jaula.images.dockerfile.dockerfile_error import DockerfileError, did_you_mean, printable
from jaula.spec.units import size

_ALIASES = {
    "src": "source",
    "dst": "target",
    "destination": "target",
    "ro": "readonly",
    "rw": "readwrite",
}
_COMMON = frozenset({"type", "target", "source", "from", "id", "readonly", "readwrite"})
_KEYS = {
    MountKind.BIND: _COMMON,
    MountKind.CACHE: _COMMON | {"sharing", "mode", "uid", "gid"},
    MountKind.TMPFS: _COMMON | {"size"},
    MountKind.SECRET: _COMMON - {"from"} | {"required", "env", "mode", "uid", "gid"},
    MountKind.SSH: _COMMON | {"required", "mode", "uid", "gid"},
}
_ALL_KEYS = frozenset().union(*_KEYS.values())
_SWITCHES = {"readonly", "readwrite", "required"}
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})
SECRETS = "/run/secrets/"


def parse_mount(text: str, expand: Callable[[str], str] | None = None) -> RunMount:
    """Parse the value of one ``--mount``.

    Without ``expand`` keys are checked and values with variables are omitted, since they are
    unknown until the instruction is executed.

    :raises DockerfileError: if it is not valid.
    """
    values = _values(text, expand)
    try:
        kind = MountKind(values.pop("type", "bind").lower())
    except ValueError:
        type_text = printable(_raw(text, "type"))
        if "$" in type_text and expand is None:
            return RunMount(origin=values.get("from", ""))  # may become any type
        raise DockerfileError(
            f'unsupported mount type "{type_text}"',
            hint=did_you_mean(type_text, list(MountKind)) or f"one of {', '.join(MountKind)}",
        ) from None
    for key in values:
        if key not in _KEYS[kind]:
            raise DockerfileError(
                f"unexpected key '{key}' for mount type '{kind}'",
                hint=f"one of {', '.join(sorted(_KEYS[kind] - {'type'}))}",
            )
    return _mount(kind, values, complete=expand is not None or "$" not in text)


def _values(text: str, expand: Callable[[str], str] | None) -> dict[str, str]:
    """Return the values by canonical key; a switch without a value is ``true``."""
    values: dict[str, str] = {}
    for field in _fields(text):
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        key = _ALIASES.get(key, key)
        if key not in _ALL_KEYS:
            raise DockerfileError(
                f"unexpected key '{printable(key)}' in '{printable(field)}'",
                hint=did_you_mean(key, sorted(_ALL_KEYS | set(_ALIASES))),
            )
        if not equals and key not in _SWITCHES:
            raise DockerfileError(f"invalid field '{printable(field)}' must be a key=value pair")
        if key == "from" and "$" in value:
            raise DockerfileError(
                "'from' doesn't support variable expansion, define alias stage instead",
                hint=f"use FROM {printable(value)} AS NAME, and from=NAME",
            )
        if expand is not None:
            value = expand(value)
        elif "$" in value and key != "type":
            continue
        values[key] = value if equals else "true"
    return values


def _fields(text: str) -> list[str]:
    """Split the CSV text; a field with a comma is in double quotes."""
    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise DockerfileError(f"failed to parse csv mounts: {error}") from None
    if len(rows) != 1 or not rows[0]:
        raise DockerfileError(
            "--mount needs a value", hint="for example type=cache,target=/root/.cache"
        )
    return rows[0]


def _raw(text: str, key: str) -> str:
    return next((f.partition("=")[2] for f in _fields(text) if f.partition("=")[0] == key), "")


def _mount(kind: MountKind, values: dict[str, str], *, complete: bool) -> RunMount:
    fields: dict[str, Any] = {"kind": kind, "writable": kind in (MountKind.CACHE, MountKind.TMPFS)}
    for key, value in values.items():
        if key == "from":
            fields["origin"] = value
        elif key in ("target", "source", "id", "env"):
            fields[key] = value
        elif key == "sharing":
            try:
                fields["sharing"] = Sharing(value.lower())
            except ValueError:
                raise DockerfileError(
                    f'unsupported sharing value "{printable(value)}"',
                    hint=f"one of {', '.join(Sharing)}",
                ) from None
        elif key == "size":
            fields["size"] = _size(value)
        elif key == "mode":
            fields["mode"] = _number(key, value, 8, 0o7777)
        elif key in ("uid", "gid"):
            fields[key] = _number(key, value, 10, 2**32 - 2)
        elif key == "required":
            fields["required"] = _boolean(key, value)
        else:
            fields["writable"] = _boolean(key, value) is (key == "readwrite")
    return _complete(kind, fields) if complete else RunMount(**fields)


def _complete(kind: MountKind, fields: dict[str, Any]) -> RunMount:
    """Return the mount with its defaults, which depend on other values."""
    target, name, source = (fields.get(key, "") for key in ("target", "id", "source"))
    if kind in (MountKind.TMPFS, MountKind.SSH):
        fields["origin"] = ""
    if kind is MountKind.SECRET:
        if name and source:
            raise DockerfileError("both source and id can't be set", hint="they are aliases")
        fields["source"] = ""
        fields["id"] = name = name or source or target.rstrip("/").rpartition("/")[2]
        if not name:
            raise DockerfileError(
                "invalid secret mount. one of source, target required", hint="use id=NAME"
            )
        if not target and not fields.get("env"):
            fields["target"] = SECRETS + name.rpartition("/")[2]
    elif kind is MountKind.SSH:
        fields["id"] = name or "default"
    elif not target:
        raise DockerfileError(f"{kind} mount without a target", hint="use target=/PATH")
    if kind is MountKind.CACHE:
        fields["id"] = name or target
    return RunMount(**fields)


def _number(key: str, value: str, base: int, maximum: int) -> int:
    digits = "01234567" if base == 8 else "0123456789"
    if value and len(value) <= 12 and all(char in digits for char in value):
        number = int(value, base)
        if number <= maximum:
            return number
    raise DockerfileError(
        f"invalid value {printable(value)} for {key}",
        hint="use an octal number" if base == 8 else "",
    )


def _size(value: str) -> int:
    try:
        number = size(value)
    except ValueError:
        number = -1
    if number < 0:
        raise DockerfileError(
            f"invalid value for size: {printable(value)}", hint="use bytes, or a unit: 64m, 1g"
        )
    return number


def _boolean(key: str, value: str) -> bool:
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise DockerfileError(f"invalid value for {key}: {printable(value)}", hint="use true or false")
