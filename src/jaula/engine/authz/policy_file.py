"""The parser of the operator's policy file: TOML, by default ``/etc/jaula/policy.toml``.

    [default]
    access = "none"

    [group.developers]
    access = "run"
    host-mounts = ["/srv/projects", "/usr/share/zoneinfo:ro"]
    capabilities = ["NET_ADMIN"]

    [container.traefik]
    access = "read"
    users = ["alice"]

An unknown key, a value of the wrong type, and a user or group that the host does not have are
errors: a rule that never matches would only look like a protection.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from jaula import trusted_file
from jaula.engine.authz.authorization_policy import (
    ANONYMOUS_RULE,
    DEFAULT_RULE,
    LABEL,
    AccessLevel,
    ContainerAccess,
    ContainerEntry,
    HostMount,
    Policy,
    PolicyRule,
    entry_title,
)
from jaula.engine.authz.request_ceilings import (
    DEFAULT_SHARES,
    UNLIMITED,
    Ceilings,
    Share,
    port_ranges,
    stated_amounts,
    ulimit_ceilings,
)
from jaula.errors import InvalidRequest
from jaula.logs import address
from jaula.security import capability_sets
from jaula.sha256 import sha256
from jaula.spec import units
from jaula.spec.migration_target import canonical_target

DEFAULT_PATH: Final = "/etc/jaula/policy.toml"
MAX_SIZE: Final = 1 << 20  # bytes
IMAGES: Final = "images"  # the table of the image policy
CHECKPOINTS: Final = "checkpoints"  # the table of keys of checkpoints, as that of images
CONTAINERS: Final = "container"  # the table of engine sockets in containers
_MAX_ID: Final = 2**32 - 2  # 2**32 - 1 means 'no change' in system calls
_NAMESPACES: Final = ("user", "pid", "ipc", "uts", "cgroup", "network", "*")

Lookup = Callable[[str], int | None]
BUILT_IN: Final = Policy()


def load(
    path: str, *, required: bool, user: Lookup, group: Lookup, built_in: Policy = BUILT_IN
) -> Policy | None:
    """Read the file. Return None if it is absent and not ``required``.

    Return None as well for a file with an image policy only
    (:mod:`jaula.features.trust.signature_policy`). A file with nothing but this and entries for
    containers has no rules for callers: the result adds the entries to ``built_in``.

    :raises InvalidRequest: when the file is invalid, or writable by other users.
    """
    data = trusted_file.read(path, MAX_SIZE, "policy", required=required)
    if data is None:
        return None
    try:
        policy = parse(data, user=user, group=group)
        tables = set(_document(data))
        if tables and tables <= {IMAGES, CHECKPOINTS}:
            return None
        if CONTAINERS in tables and tables <= {IMAGES, CHECKPOINTS, CONTAINERS}:
            policy = msgspec.structs.replace(built_in, containers=policy.containers)
        return msgspec.structs.replace(policy, source=f"{path} sha256:{sha256(data).hexdigest()}")
    except InvalidRequest as error:
        raise InvalidRequest(f"policy {path}: {error.message}", hint=error.hint) from None


def parse(data: bytes, *, user: Lookup, group: Lookup) -> Policy:
    """Parse the text; ``user`` and ``group`` return the id of a name. Pure, except for these.

    :raises InvalidRequest: when the text is invalid.
    """
    document = _document(data)
    _check_keys(
        "the file",
        document,
        ("default", "anonymous", "user", "group", "certificate", CONTAINERS, IMAGES, CHECKPOINTS),
    )
    default, anonymous = DEFAULT_RULE, ANONYMOUS_RULE
    if "default" in document:
        default = _rule("[default]", document["default"])
    if "anonymous" in document:
        anonymous = _rule("[anonymous]", document["anonymous"])
    return Policy(
        users=_by_id("user", document.get("user", {}), user),
        groups=_by_id("group", document.get("group", {}), group),
        certificates={
            _certificate(name): _rule(f"[certificate.{name}]", table)
            for name, table in _table("certificate", document.get("certificate", {})).items()
        },
        containers={
            _container(key): _container_entry(key, table, user, group)
            for key, table in _table(CONTAINERS, document.get(CONTAINERS, {})).items()
        },
        default=default,
        anonymous=anonymous,
    )


def _document(data: bytes) -> dict[str, Any]:
    from jaula.spec import toml

    if len(data) > MAX_SIZE:
        raise InvalidRequest(f"larger than {MAX_SIZE} bytes")
    try:
        return toml.loads(data)
    except ValueError as error:
        raise InvalidRequest(f"not a TOML document: {error}") from None


def _certificate(name: str) -> str:
    """Check the key of a certificate: its common name, its fingerprint, or ``*``."""
    start, _, digest = name.partition(":")
    if start == "sha256" and not re.fullmatch("[0-9a-f]{64}", digest):
        raise InvalidRequest(
            f"[certificate.{name[:80]}]: a fingerprint must be sha256: and 64 hexadecimal digits",
            hint="openssl x509 -in cert.pem -outform der | sha256sum",
        )
    return name


def _container(key: str) -> str:
    """Check the key of an entry for containers: a name, ``label=KEY`` or ``label=KEY=VALUE``."""
    valid = (
        key.removeprefix(LABEL).partition("=")[0]
        if key.startswith(LABEL)
        else re.fullmatch("[a-zA-Z0-9][a-zA-Z0-9_.-]+", key)
    )
    if not valid:
        raise InvalidRequest(
            f"{entry_title(key[:80])}: must be the name of a container, or label=KEY=VALUE"
        )
    return key


def _container_entry(key: str, value: object, user: Lookup, group: Lookup) -> ContainerEntry:
    """Parse an entry: the keys of a rule, and those of :class:`ContainerEntry`."""
    title = entry_title(key)
    table = dict(_table(title, value))
    ids: dict[str, frozenset[int]] = {}
    for name, kind, lookup in (("users", "user", user), ("groups", "group", group)):
        names = _strings(f"{title} {name}", table.pop(name, []))
        ids[name] = frozenset(_number(title, kind, text, lookup) for text in names)
    return ContainerEntry(_rule(title, table, more=("users", "groups")), **ids)


def _number(title: str, kind: str, text: str, lookup: Lookup) -> int:
    """Return the id that ``text`` is or names."""
    number = _id(text) if text.isascii() and text.isdigit() else lookup(text)
    if number is None:
        raise InvalidRequest(f"{title}: this host has no {kind} {text!r}")
    return number


def _by_id(kind: str, value: object, lookup: Lookup) -> dict[int, PolicyRule]:
    rules: dict[int, PolicyRule] = {}
    for name, table in _table(kind, value).items():
        title = f"[{kind}.{name}]"
        number = _number(title, kind, name, lookup)
        if number in rules:
            raise InvalidRequest(f"{title}: {rules[number].name} has the same id {number}")
        rules[number] = _rule(title, table)
    return rules


def _id(text: str) -> int | None:
    return int(text) if len(text) < 11 and int(text) <= _MAX_ID else None


def _rule(name: str, value: object, *, more: tuple[str, ...] = ()) -> PolicyRule:
    """Parse a rule. ``more`` are keys that the caller has read already, for the error."""
    table = _table(name, value)
    _check_keys(name, table, (*KEYS, *more))
    fields: dict[str, Any] = {}
    ceilings: dict[str, Any] = {}
    shares = dict(DEFAULT_SHARES)
    for key, item in table.items():
        title = f"{name} {key}"
        if key in _SHARES:
            share = _SHARES[key]
            shares[share] = _amount(share, title, item)
            continue
        field, read = _KEYS.get(key) or _CEILINGS[key]
        target = fields if key in _KEYS else ceilings
        target[field] = read(title, item)
    stated = stated_amounts(ceilings, table.get("ulimits", ()))
    return PolicyRule(
        name=name, ceilings=Ceilings(**ceilings, stated=stated), shares=shares, **fields
    )


def _check_keys(title: str, table: dict[str, Any], known: Any) -> None:
    for key in table:
        if key not in known:
            raise InvalidRequest(f"{title}: unknown key {key!r}", hint=f"known: {', '.join(known)}")


def _table(title: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidRequest(f"{title}: must be a table, not {str(value)[:80]!r}")
    return value


def _boolean(title: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidRequest(f"{title}: must be true or false, not {str(value)[:80]!r}")
    return value


def _strings(title: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise InvalidRequest(f"{title}: must be a list of strings, not {str(value)[:80]!r}")
    for item in value:
        if not isinstance(item, str) or not item or "\0" in item or "\n" in item:
            raise InvalidRequest(f"{title}: must be a string, not {str(item)[:80]!r}")
    return tuple(value)


def _set(title: str, value: object) -> frozenset[str]:
    return frozenset(_strings(title, value))


def _namespaces(title: str, value: object) -> frozenset[str]:
    names = _set(title, value)
    for name in sorted(names):
        if name not in _NAMESPACES:
            known = ", ".join(_NAMESPACES)
            raise InvalidRequest(f"{title}: {name!r} must be one of {known}")
    return names


def _capabilities(title: str, value: object) -> frozenset[str]:
    """Return the names as in privileges; ALL grants every one."""
    names = _set(title, value)
    if {name.upper() for name in names} & {"ALL", "CAP_ALL", "*"}:
        return frozenset({"*"})
    try:
        return frozenset(capability_sets.canonical(name).removeprefix("CAP_") for name in names)
    except InvalidRequest as error:
        raise InvalidRequest(f"{title}: {error.message}", hint=error.hint) from None


def _mounts(title: str, value: object) -> tuple[HostMount, ...]:
    mounts = []
    for text in _strings(title, value):
        path, _, mode = text.partition(":")
        if not path.startswith("/") or mode not in ("", "ro", "rw"):
            raise InvalidRequest(f"{title}: {text[:80]!r} must be an absolute path, or path:ro")
        shortest = "/" + posixpath.normpath(path).lstrip("/")
        if shortest != (path.rstrip("/") or "/"):
            raise InvalidRequest(
                f"{title}: {text[:80]!r} must be in its shortest form, {shortest!r}"
            )
        mounts.append(HostMount(shortest, mode != "ro"))
    return tuple(mounts)


def _log_addresses(title: str, value: object) -> frozenset[str]:
    """Return the addresses as in privileges, with scheme and port."""
    try:
        return frozenset(
            text if text == "*" else str(address.parse(text)) for text in _strings(title, value)
        )
    except InvalidRequest as error:
        raise InvalidRequest(f"{title}: {error.message}", hint=error.hint) from None


def _targets(title: str, value: object) -> frozenset[str]:
    """Return the addresses of engines as HOST:PORT."""
    try:
        return frozenset(
            text if text == "*" else canonical_target(text) for text in _strings(title, value)
        )
    except InvalidRequest as error:
        raise InvalidRequest(f"{title}: {error.message}", hint=error.hint) from None


def _size(title: str, value: object) -> int:
    """Return bytes from ``"512m"``; ``"unlimited"`` is no ceiling."""
    if value == "unlimited":
        return UNLIMITED
    try:
        number = units.size(value) if isinstance(value, str) else -1
    except ValueError:
        number = -1
    if number <= 0:
        raise InvalidRequest(f"{title}: {str(value)[:80]!r} must be a size such as 512m or 8g")
    return number


def _count(title: str, value: object) -> int:
    """Return a number from 0; ``"unlimited"`` is no ceiling."""
    if value == "unlimited":
        return UNLIMITED
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise InvalidRequest(f"{title}: {str(value)[:80]!r} must be a number from 0")
    return value


def _amount(share: Share, title: str, value: object) -> int:
    return _size(title, value) if share is Share.IMAGE_SIZE else _count(title, value)


def _entries(parse: Callable[[tuple[str, ...]], Any]) -> Callable[[str, object], Any]:
    def read(title: str, value: object) -> Any:
        entries = _strings(title, value)
        try:
            return parse(entries)
        except ValueError as error:
            raise InvalidRequest(f"{title}: {error}") from None

    return read


def _labels(title: str, value: object) -> frozenset[str]:
    """Return labels as KEY or KEY=VALUE, written with ``label=`` before them."""
    texts = _strings(title, value)
    for text in texts:
        if not text.startswith(LABEL) or not text.removeprefix(LABEL).partition("=")[0]:
            raise InvalidRequest(f"{title}: {text[:80]!r} must be label=KEY or label=KEY=VALUE")
    return frozenset(text.removeprefix(LABEL) for text in texts)


def _level(
    kind: type[AccessLevel] | type[ContainerAccess],
) -> Callable[[str, object], AccessLevel | ContainerAccess]:
    def read(title: str, value: object) -> AccessLevel | ContainerAccess:
        names = {level.name.lower(): level for level in kind}
        if not isinstance(value, str) or value not in names:
            known = ", ".join(names)
            raise InvalidRequest(f"{title}: {str(value)[:80]!r} must be one of {known}")
        return names[value]

    return read


_KEYS: dict[str, tuple[str, Callable[[str, object], Any]]] = {
    "access": ("access", _level(AccessLevel)),
    "others": ("container_access", _level(ContainerAccess)),
    "images": ("images", _boolean),
    "volumes": ("volumes", _boolean),
    "host-mounts": ("host_mounts", _mounts),
    "host-namespaces": ("host_namespaces", _namespaces),
    "devices": ("devices", _set),
    "capabilities": ("capabilities", _capabilities),
    "security-options": ("security_options", _set),
    "cgroup-parents": ("cgroup_parents", _set),
    "annotations": ("annotations", _set),
    "network-options": ("network_options", _set),
    "log-addresses": ("log_addresses", _log_addresses),
    "checkpoint-directories": ("checkpoint_directories", _set),
    "remove": ("remove", _labels),
    "privileged": ("privileged", _boolean),
    "oom-score-adj": ("oom_score", _boolean),
    "migrate": ("migrate", _boolean),
    "migrate-to": ("migrate_to", _targets),
}

_CEILINGS: dict[str, tuple[str, Callable[[str, object], Any]]] = {
    "max-memory": ("memory", _size),
    "max-pids": ("pids", _count),
    "max-shm-size": ("shm_size", _size),
    "max-log-size": ("log_size", _size),
    "max-storage-size": ("storage_size", _size),
    "max-build-cache": ("build_cache", _size),
    "max-record-size": ("record_size", _size),
    "max-image-documents": ("image_documents", _size),
    "ulimits": ("ulimits", _entries(ulimit_ceilings)),
    "oom-kill-disable": ("oom_kill_disable", _boolean),
    "host-ports": ("host_ports", _entries(port_ranges)),
}

_SHARES: Final = {f"max-{share}": share for share in DEFAULT_SHARES}

KEYS: Final = (*_KEYS, *_CEILINGS, *_SHARES)
"""Every key of a rule."""
