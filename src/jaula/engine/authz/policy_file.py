"""The policy as an operator writes it: TOML, by default ``/etc/jaula/policy.toml``.

    [default]
    access = "none"

    [group.developers]
    access = "run"
    host-mounts = ["/srv/projects", "/usr/share/zoneinfo:ro"]
    capabilities = ["NET_ADMIN"]

An unknown key, a value of another type and a user or group that the host does not know are errors:
a rule that never matches would be a hole that looks like a wall.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from hashlib import sha256
from typing import Any, Final

import msgspec

from jaula import trusted_file
from jaula.engine.authz import policy as policies
from jaula.engine.authz.policy import Policy
from jaula.engine.authz.rule import AccessLevel, ContainerAccess, HostMount, PolicyRule
from jaula.errors import InvalidRequest
from jaula.security import capabilities

DEFAULT_PATH: Final = "/etc/jaula/policy.toml"
MAX_SIZE: Final = 1 << 20  # bytes
IMAGES: Final = "images"  # a table that is not about people
_MAX_ID: Final = 2**32 - 2  # the last one means 'no change' to the kernel
_NAMESPACES: Final = ("user", "pid", "ipc", "uts", "cgroup", "network", "*")

Lookup = Callable[[str], int | None]


def load(path: str, *, required: bool, user: Lookup, group: Lookup) -> Policy | None:
    """Read the file; None where there is none and none is ``required``.

    None as well for a file about images alone (:mod:`jaula.images.trust.policy`).

    Raises ``InvalidRequest``, also for a file that others than root could have written.
    """
    data = trusted_file.read(path, MAX_SIZE, "policy", required=required)
    if data is None:
        return None
    try:
        found = parse(data, user=user, group=group)
        if set(_document(data)) == {IMAGES}:
            return None
        return msgspec.structs.replace(found, source=f"{path} sha256:{sha256(data).hexdigest()}")
    except InvalidRequest as error:
        raise InvalidRequest(f"policy {path}: {error.message}", hint=error.hint) from None


def parse(data: bytes, *, user: Lookup, group: Lookup) -> Policy:
    """Read the text; ``user`` and ``group`` give the id of a name. Raises ``InvalidRequest``."""
    document = _document(data)
    _known("the file", document, ("default", "anonymous", "user", "group", "certificate", IMAGES))
    default, anonymous = policies.NOBODY, policies.UNPROVEN
    if "default" in document:
        default = _rule("[default]", document["default"])
    if "anonymous" in document:
        anonymous = _rule("[anonymous]", document["anonymous"])
    return Policy(
        users=_by_id("user", document.get("user", {}), user),
        groups=_by_id("group", document.get("group", {}), group),
        certificates={
            _proven(name): _rule(f"[certificate.{name}]", table)
            for name, table in _table("certificate", document.get("certificate", {})).items()
        },
        default=default,
        anonymous=anonymous,
    )


def _document(data: bytes) -> dict[str, Any]:
    import tomllib

    if len(data) > MAX_SIZE:
        raise InvalidRequest(f"it has more than {MAX_SIZE} bytes")
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"it is no TOML document: {error}") from None


def _proven(name: str) -> str:
    """A certificate's common name, its fingerprint, or ``*``."""
    start, _, digest = name.partition(":")
    if start == "sha256" and not re.fullmatch("[0-9a-f]{64}", digest):
        raise InvalidRequest(
            f"[certificate.{name[:80]}]: a fingerprint is sha256: and 64 hexadecimal digits",
            hint="openssl x509 -in cert.pem -outform der | sha256sum",
        )
    return name


def _by_id(kind: str, value: object, lookup: Lookup) -> dict[int, PolicyRule]:
    found: dict[int, PolicyRule] = {}
    for name, table in _table(kind, value).items():
        about = f"[{kind}.{name}]"
        number = _id(name) if name.isascii() and name.isdigit() else lookup(name)
        if number is None:
            raise InvalidRequest(f"{about}: this host has no {kind} {name!r}")
        if number in found:
            raise InvalidRequest(f"{about}: {found[number].name} has the same id {number}")
        found[number] = _rule(about, table)
    return found


def _id(text: str) -> int | None:
    return int(text) if len(text) < 11 and int(text) <= _MAX_ID else None


def _rule(name: str, value: object) -> PolicyRule:
    table = _table(name, value)
    _known(name, table, _KEYS)
    fields: dict[str, Any] = {}
    for key, item in table.items():
        field, read = _KEYS[key]
        fields[field] = read(f"{name} {key}", item)
    return PolicyRule(name=name, **fields)


def _known(about: str, table: dict[str, Any], known: Any) -> None:
    for key in table:
        if key not in known:
            raise InvalidRequest(f"{about}: unknown key {key!r}", hint=f"known: {', '.join(known)}")


def _table(about: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidRequest(f"{about}: a table is wanted, not {str(value)[:80]!r}")
    return value


def _flag(about: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidRequest(f"{about}: true or false is wanted, not {str(value)[:80]!r}")
    return value


def _texts(about: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise InvalidRequest(f"{about}: a list of texts is wanted, not {str(value)[:80]!r}")
    for item in value:
        if not isinstance(item, str) or not item or "\0" in item or "\n" in item:
            raise InvalidRequest(f"{about}: a text is wanted, not {str(item)[:80]!r}")
    return tuple(value)


def _set(about: str, value: object) -> frozenset[str]:
    return frozenset(_texts(about, value))


def _namespaces(about: str, value: object) -> frozenset[str]:
    found = _set(about, value)
    for name in sorted(found):
        if name not in _NAMESPACES:
            raise InvalidRequest(f"{about}: {name!r} is none of {', '.join(_NAMESPACES)}")
    return found


def _capabilities(about: str, value: object) -> frozenset[str]:
    """By the names that asks have; ALL also grants each one."""
    found = _set(about, value)
    if {name.upper() for name in found} & {"ALL", "CAP_ALL", "*"}:
        return frozenset({"*"})
    try:
        return frozenset(capabilities.canonical(name).removeprefix("CAP_") for name in found)
    except InvalidRequest as error:
        raise InvalidRequest(f"{about}: {error.message}", hint=error.hint) from None


def _mounts(about: str, value: object) -> tuple[HostMount, ...]:
    found = []
    for text in _texts(about, value):
        path, _, mode = text.partition(":")
        if not path.startswith("/") or mode not in ("", "ro", "rw"):
            raise InvalidRequest(f"{about}: {text[:80]!r} is no absolute path, or path:ro")
        plain = "/" + posixpath.normpath(path).lstrip("/")
        if plain != (path.rstrip("/") or "/"):
            raise InvalidRequest(f"{about}: {text[:80]!r} is not in its shortest form, {plain!r}")
        found.append(HostMount(plain, mode != "ro"))
    return tuple(found)


def _level(
    kind: type[AccessLevel] | type[ContainerAccess],
) -> Callable[[str, object], AccessLevel | ContainerAccess]:
    def read(about: str, value: object) -> AccessLevel | ContainerAccess:
        names = {level.name.lower(): level for level in kind}
        if not isinstance(value, str) or value not in names:
            raise InvalidRequest(f"{about}: {str(value)[:80]!r} is none of {', '.join(names)}")
        return names[value]

    return read


_KEYS: dict[str, tuple[str, Callable[[str, object], Any]]] = {
    "access": ("access", _level(AccessLevel)),
    "others": ("others", _level(ContainerAccess)),
    "images": ("images", _flag),
    "volumes": ("volumes", _flag),
    "host-mounts": ("host_mounts", _mounts),
    "host-namespaces": ("host_namespaces", _namespaces),
    "devices": ("devices", _set),
    "capabilities": ("capabilities", _capabilities),
    "security-options": ("security_options", _set),
    "cgroup-parents": ("cgroup_parents", _set),
    "annotations": ("annotations", _set),
    "network-options": ("network_options", _set),
    "privileged": ("privileged", _flag),
    "oom-score-adj": ("oom_score", _flag),
}
