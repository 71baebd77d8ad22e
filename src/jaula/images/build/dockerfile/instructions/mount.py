"""``RUN --mount``: from its text to what is to be mounted.

Source: the Dockerfile reference, section 'RUN --mount'. Values may hold variables, but for
``from``, which decides about the order of stages. Of the keys that all kinds share, each kind
ignores those that it has no use for, as BuildKit does.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from typing import Any

from jaula.images.build.dockerfile.ast import MountKind, RunMount, Sharing
from jaula.images.build.dockerfile.errors import DockerfileError, nearest, plain
from jaula.spec.units import size

_ALIASES = {
    "src": "source",
    "dst": "target",
    "destination": "target",
    "ro": "readonly",
    "rw": "readwrite",
}
_ALWAYS = frozenset({"type", "target", "source", "from", "id", "readonly", "readwrite"})
_KEYS = {
    MountKind.BIND: _ALWAYS,
    MountKind.CACHE: _ALWAYS | {"sharing", "mode", "uid", "gid"},
    MountKind.TMPFS: _ALWAYS | {"size"},
    MountKind.SECRET: _ALWAYS - {"from"} | {"required", "env", "mode", "uid", "gid"},
    MountKind.SSH: _ALWAYS | {"required", "mode", "uid", "gid"},
}
_ALL = frozenset().union(*_KEYS.values())
_SWITCHES = {"readonly", "readwrite", "required"}
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})
SECRETS = "/run/secrets/"


def parse_mount(text: str, expand: Callable[[str], str] | None = None) -> RunMount:
    """Read the value of one ``--mount``; raises :class:`DockerfileError`.

    Without ``expand`` keys are checked and values with variables are left out: they are unknown
    until the instruction's turn comes.
    """
    values = _values(text, expand)
    try:
        kind = MountKind(values.pop("type", "bind").lower())
    except ValueError:
        shown = plain(_raw(text, "type"))
        if "$" in shown and expand is None:
            return RunMount(origin=values.get("from", ""))  # any kind
        raise DockerfileError(
            f'unsupported mount type "{shown}"',
            hint=nearest(shown, list(MountKind)) or f"there are {', '.join(MountKind)}",
        ) from None
    for key in values:
        if key not in _KEYS[kind]:
            raise DockerfileError(
                f"unexpected key '{key}' for mount type '{kind}'",
                hint=f"it knows {', '.join(sorted(_KEYS[kind] - {'type'}))}",
            )
    return _mount(kind, values, complete=expand is not None or "$" not in text)


def _values(text: str, expand: Callable[[str], str] | None) -> dict[str, str]:
    """Keys under their first names; a switch without a value is ``true``."""
    found: dict[str, str] = {}
    for field in _fields(text):
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        key = _ALIASES.get(key, key)
        if key not in _ALL:
            raise DockerfileError(
                f"unexpected key '{plain(key)}' in '{plain(field)}'",
                hint=nearest(key, sorted(_ALL | set(_ALIASES))),
            )
        if not equals and key not in _SWITCHES:
            raise DockerfileError(f"invalid field '{plain(field)}' must be a key=value pair")
        if key == "from" and "$" in value:
            raise DockerfileError(
                "'from' doesn't support variable expansion, define alias stage instead",
                hint=f"FROM {plain(value)} AS NAME, and from=NAME",
            )
        if expand is not None:
            value = expand(value)
        elif "$" in value and key != "type":
            continue
        found[key] = value if equals else "true"
    return found


def _fields(text: str) -> list[str]:
    """CSV: a field with a comma stands in double quotes."""
    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise DockerfileError(f"failed to parse csv mounts: {error}") from None
    if len(rows) != 1 or not rows[0]:
        raise DockerfileError("--mount needs a value", hint="type=cache,target=/root/.cache")
    return rows[0]


def _raw(text: str, wanted: str) -> str:
    return next((f.partition("=")[2] for f in _fields(text) if f.partition("=")[0] == wanted), "")


def _mount(kind: MountKind, values: dict[str, str], *, complete: bool) -> RunMount:
    given: dict[str, Any] = {"kind": kind, "writable": kind in (MountKind.CACHE, MountKind.TMPFS)}
    for key, value in values.items():
        if key == "from":
            given["origin"] = value
        elif key in ("target", "source", "id", "env"):
            given[key] = value
        elif key == "sharing":
            try:
                given["sharing"] = Sharing(value.lower())
            except ValueError:
                raise DockerfileError(
                    f'unsupported sharing value "{plain(value)}"',
                    hint=f"there are {', '.join(Sharing)}",
                ) from None
        elif key == "size":
            given["size"] = _size(value)
        elif key == "mode":
            given["mode"] = _number(key, value, 8, 0o7777)
        elif key in ("uid", "gid"):
            given[key] = _number(key, value, 10, 2**32 - 2)
        elif key == "required":
            given["required"] = _truth(key, value)
        else:
            given["writable"] = _truth(key, value) is (key == "readwrite")
    return _checked(kind, given) if complete else RunMount(**given)


def _checked(kind: MountKind, given: dict[str, Any]) -> RunMount:
    """With the values that are told by others filled in."""
    target, name, source = (given.get(key, "") for key in ("target", "id", "source"))
    if kind in (MountKind.TMPFS, MountKind.SSH):
        given["origin"] = ""
    if kind is MountKind.SECRET:
        if name and source:
            raise DockerfileError(
                "both source and id can't be set", hint="they are two names of one thing"
            )
        given["source"] = ""
        given["id"] = name = name or source or target.rstrip("/").rpartition("/")[2]
        if not name:
            raise DockerfileError(
                "invalid secret mount. one of source, target required", hint="id=NAME"
            )
        if not target and not given.get("env"):
            given["target"] = SECRETS + name.rpartition("/")[2]
    elif kind is MountKind.SSH:
        given["id"] = name or "default"
    elif not target:
        raise DockerfileError(f"{kind} mount without a target", hint="target=/PATH")
    if kind is MountKind.CACHE:
        given["id"] = name or target
    return RunMount(**given)


def _number(key: str, value: str, base: int, most: int) -> int:
    digits = "01234567" if base == 8 else "0123456789"
    if value and len(value) <= 12 and all(char in digits for char in value):
        number = int(value, base)
        if number <= most:
            return number
    raise DockerfileError(
        f"invalid value {plain(value)} for {key}", hint="octal" if base == 8 else ""
    )


def _size(value: str) -> int:
    try:
        number = size(value)
    except ValueError:
        number = -1
    if number < 0:
        raise DockerfileError(f"invalid value for size: {plain(value)}", hint="bytes, or 64m, 1g")
    return number


def _truth(key: str, value: str) -> bool:
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise DockerfileError(f"invalid value for {key}: {plain(value)}", hint="true or false")
