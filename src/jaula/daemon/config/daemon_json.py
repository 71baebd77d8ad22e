"""The configuration file ``daemon.json``: JSON with Docker's keys. Pure.

Source: docker docs, "dockerd", section "Daemon configuration file". Docker's keys are supported
where this engine has the setting. Its own keys are ``subid-start``, ``subid-count``,
``pids-limit``, ``selinux-type``, ``selinux-file-type``, ``sandbox-pool``, ``spare-shims``,
``spare-inits``, ``durability``, ``policy``, ``runtime-timeout``, ``registry-realms``,
``registry-certs``, ``insecure-tcp``, ``web``, ``audit-head``, ``audit-head-interval``,
``publish-past-firewall``, ``cri``, ``cni-*``, ``stream-*``, ``metrics-labels``,
``metrics-verify-interval`` and ``metrics-refusals``. As in dockerd, an unknown key is an error, and
so is a setting that is also set by a flag. A line that begins with ``//`` is a comment: the file
that the packages install
describes its keys.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from jaula.config import OWN_RUNTIME, RuntimeConfig
from jaula.daemon.config.setting import (
    Setting,
    read_integer,
    read_object,
    read_string,
    read_strings,
    type_error,
)
from jaula.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

MAX_SIZE = 1 << 20  # bytes
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def parse(data: bytes) -> tuple[dict[str, object], dict[str, Any]]:
    """Return the settings by names of ``EngineConfig``, and the document's values by key.

    ``root`` and ``run`` are the fields of its ``paths``.

    :raises InvalidRequest: when the document is invalid.
    """
    document = _document(data)
    supported = _settings()
    unknown = sorted(key for key in document if key not in supported)
    if unknown:
        raise InvalidRequest(
            f"the following directives don't match any configuration option: {', '.join(unknown)}"
        )
    settings: dict[str, object] = {}
    for key, value in document.items():
        settings |= supported[key].read(key, value)
    return settings, document


def _settings() -> dict[str, Setting]:
    from jaula.daemon.config import cgroup_settings, logging, network_keys, registry_keys, storage

    return (
        SETTINGS
        | cgroup_settings.keys()
        | logging.keys()
        | network_keys.keys()
        | registry_keys.keys()
        | storage.keys()
    )


def check_conflicts(document: Mapping[str, Any], flags: Mapping[str, str]) -> None:
    """Refuse settings that are set by flag and file. ``flags`` are the flags with their values.

    :raises InvalidRequest: when a setting is set twice.
    """
    conflicts = [
        f"{key}: (from flag: {flags[flag]}, from file: {json.dumps(value)})"
        for key, value in document.items()
        for flag in _settings()[key].flags
        if flag in flags
    ]
    if conflicts:
        raise InvalidRequest(
            "the following directives are specified both as a flag and in the configuration file: "
            + ", ".join(conflicts)
        )


def check_runtimes(runtimes: Collection[RuntimeConfig], default: str) -> None:
    """Refuse a duplicate runtime name and an unknown default runtime.

    :raises InvalidRequest: when one of them is present.
    """
    names = [OWN_RUNTIME, *(runtime.name for runtime in runtimes)]
    for name in names:
        if names.count(name) > 1:
            reason = "is reserved" if name == OWN_RUNTIME else "is defined twice"
            raise InvalidRequest(f"runtime name '{name}' {reason}")
    if default not in names:
        raise InvalidRequest(f"specified default runtime '{default}' does not exist")


def runtime(name: str, path: str, arguments: tuple[str, ...] = ()) -> RuntimeConfig:
    """Return a validated runtime.

    :raises InvalidRequest: when the name or the path is invalid.
    """
    if not name or len(name) > 64 or set(name) - _NAME:
        raise InvalidRequest(
            f"invalid runtime name {name!r}", hint="letters, digits and ._- are allowed"
        )
    if not path or "\0" in path or any("\0" in word for word in arguments):
        raise InvalidRequest(f"runtime {name}: invalid path {path!r}")
    return RuntimeConfig(name, path, arguments)


def add_runtime(text: str) -> RuntimeConfig:
    """Parse ``NAME=PATH`` of ``--add-runtime``.

    :raises InvalidRequest: when it is malformed.
    """
    name, equals, path = text.partition("=")
    if not equals:
        raise InvalidRequest(f"invalid runtime {text!r}", hint="write NAME=PATH")
    return runtime(name.strip(), path.strip())


def _document(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_SIZE:
        raise InvalidRequest(f"the file has {len(data)} bytes, more than {MAX_SIZE}")
    try:
        text = _without_comments(data.decode("utf-8-sig"))
        if not text.strip():
            return {}
        document = json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"not a valid JSON document: {error}") from None
    if not isinstance(document, dict):
        raise InvalidRequest("not a JSON object")
    return document


def _without_comments(text: str) -> str:
    """Empty the lines that begin with ``//``, which no line of JSON does. Keep their number."""
    return "\n".join(
        "" if line.lstrip(" \t").startswith("//") else line for line in text.split("\n")
    )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"duplicate key {repeated!r}")
    return result


def _text(field: str) -> Callable[[str, Any], dict[str, object]]:
    return lambda key, value: {field: read_string(key, value)}


def _number(field: str) -> Callable[[str, Any], dict[str, object]]:
    return lambda key, value: {field: read_integer(key, value)}


def _directories(field: str) -> Callable[[str, Any], dict[str, object]]:
    def read(key: str, value: Any) -> dict[str, object]:
        directories = read_strings(key, value)
        for directory in directories:
            if not directory.startswith("/"):
                raise type_error(key, "absolute paths", directory)
        return {field: tuple(directories)}

    return read


def _names(field: str) -> Callable[[str, Any], dict[str, object]]:
    return lambda key, value: {field: tuple(read_strings(key, value))}


def check_image_names(key: str, names: Sequence[str]) -> None:
    """Check names of images, which may be the beginning of a full name and ``*``.

    :raises InvalidRequest: when one cannot be a name.
    """
    for name in names:
        from jaula.images.reference import familiar

        if name != "*" and familiar(name.removesuffix("*").rstrip("/:") or "*") is None:
            raise type_error(key, "names of images", name)


def _flag(key: str, value: object) -> dict[str, object]:
    if not isinstance(value, bool):
        raise type_error(key, "true or false", value)
    return {key.replace("-", "_"): value}


def _hosts(key: str, value: object) -> dict[str, object]:
    result = read_strings(key, value)
    if not result:
        raise type_error(key, "a list of addresses", value)
    return {"hosts": tuple(result)}


def _bip(key: str, value: object) -> dict[str, object]:
    import ipaddress

    text = read_string(key, value)
    try:
        bridge = ipaddress.IPv4Interface(text)
    except ValueError as error:
        raise InvalidRequest(f"{key}: {error}") from None
    bridge_address = f"{bridge.network.network_address + 1}/{bridge.network.prefixlen}"
    if text != bridge_address:
        raise InvalidRequest(
            f"{key}: {text} is not the first address of its network",
            hint=f"the bridge must have the first address, {bridge_address}",
        )
    return {"bridge_subnet": str(bridge.network)}


def _ulimits(key: str, value: object) -> dict[str, object]:
    limits = read_object(key, value, ("nofile",))
    if "nofile" not in limits:
        return {}
    limit = read_object(f"{key}: nofile", limits["nofile"], ("Name", "Soft", "Hard"))
    if limit.get("Name", "nofile") != "nofile":
        raise type_error(f"{key}: nofile: Name", '"nofile"', limit["Name"])
    hard = read_integer(f"{key}: nofile: Hard", limit.get("Hard"))
    soft = read_integer(f"{key}: nofile: Soft", limit.get("Soft", hard))
    if soft > hard:
        raise InvalidRequest(f"{key}: nofile: soft limit {soft} is above hard limit {hard}")
    return {"nofile": (soft, hard)}


def _runtimes(key: str, value: object) -> dict[str, object]:
    result = []
    for name, entry in read_object(key, value).items():
        prefix = f"{key}: {name[:64]}"
        entry = read_object(prefix, entry, ("path", "runtimeArgs"))
        path = read_string(f"{prefix}: path", entry.get("path"))
        arguments = read_strings(f"{prefix}: runtimeArgs", entry.get("runtimeArgs") or [])
        result.append(runtime(name, path, tuple(arguments)))
    return {"runtimes": tuple(result)}


SETTINGS: dict[str, Setting] = {
    "data-root": Setting(("root",), _text("root")),
    "exec-root": Setting(("run",), _text("run")),
    "hosts": Setting(("host", "socket"), _hosts),
    "tls": Setting(("tls",), _flag),
    "tlsverify": Setting(("tlsverify",), _flag),
    "tlscacert": Setting(("tlscacert",), _text("tlscacert")),
    "tlscert": Setting(("tlscert",), _text("tlscert")),
    "tlskey": Setting(("tlskey",), _text("tlskey")),
    "insecure-tcp": Setting(("insecure-tcp",), _flag),
    "group": Setting(("socket-group",), _text("socket_group")),
    "web": Setting(("web",), _text("web")),
    "cri": Setting(("cri",), _flag),
    "cri-group": Setting(("cri-socket-group",), _text("cri_socket_group")),
    "cri-pinned-images": Setting(("cri-pinned-image",), _names("cri_pinned_images")),
    "cni-conf-dir": Setting(("cni-conf-dir",), _text("cni_conf_dir")),
    "cni-bin-dirs": Setting(("cni-bin-dir",), _directories("cni_bin_dirs")),
    "stream-server-address": Setting(("stream-server-address",), _text("stream_server_address")),
    "stream-server-port": Setting(("stream-server-port",), _number("stream_server_port")),
    "stream-idle-timeout": Setting(("stream-idle-timeout",), _number("stream_idle_timeout")),
    "stream-tls-cert": Setting(("stream-tls-cert",), _text("stream_tls_cert")),
    "stream-tls-key": Setting(("stream-tls-key",), _text("stream_tls_key")),
    "storage-driver": Setting(("storage-driver",), _text("storage_driver")),
    "bridge": Setting(("bridge",), _text("bridge")),
    "bip": Setting(("bridge-subnet",), _bip),
    "cgroup-parent": Setting(("cgroup-parent",), _text("cgroup_parent")),
    "default-ulimits": Setting(("nofile",), _ulimits),
    "default-profile": Setting(("default-profile",), _text("default_profile")),
    "policy": Setting(("policy",), _text("policy")),
    "debug": Setting(("debug",), _flag),
    "runtimes": Setting(("add-runtime",), _runtimes),
    "default-runtime": Setting(("default-runtime",), _text("default_runtime")),
    "runtime-timeout": Setting(("runtime-timeout",), _number("runtime_timeout")),
    "subid-start": Setting(("subid-start",), _number("subid_start")),
    "subid-count": Setting(("subid-count",), _number("subid_count")),
    "userns-remap": Setting(("userns-remap", "subid-start", "subid-count"), _text("userns_remap")),
    "pids-limit": Setting(("pids-limit",), _number("pids_limit")),
    "selinux-type": Setting(("selinux-type",), _text("selinux_type")),
    "selinux-file-type": Setting(("selinux-file-type",), _text("selinux_file_type")),
    "audit-head": Setting(("audit-head",), _text("audit_head")),
    "audit-head-interval": Setting(("audit-head-interval",), _number("audit_head_interval")),
    "durability": Setting(("durability",), _text("durability")),
    "pull-mode": Setting(("pull-mode",), _text("pull_mode")),
    "cdi-spec-dirs": Setting(("cdi-spec-dir",), _directories("cdi_spec_dirs")),
    "sandbox-pool": Setting(("sandbox-pool",), _number("sandbox_pool")),
    "spare-shims": Setting(("spare-shims",), _number("spare_shims")),
    "spare-inits": Setting(("spare-inits",), _number("spare_inits")),
    "metrics-addr": Setting(("metrics-addr",), _text("metrics_addr")),
    "metrics-labels": Setting(("metrics-label",), _names("metrics_label")),
    "metrics-verify-interval": Setting(
        ("metrics-verify-interval",), _number("metrics_verify_interval")
    ),
    "metrics-refusals": Setting(("metrics-refusals",), _text("metrics_refusals")),
}
