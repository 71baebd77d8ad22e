"""Complete a create request from the document of a profile. Pure.

The document (:mod:`jaula.spec.confinement_profile`) becomes ordinary members of the request:
capabilities, ``--security-opt``, a read-only root, tmpfs, limits. So the policy, the record,
``inspect`` and ``verify`` need not know documents. Explicit options of the request stay, and
:func:`deviations` lists those that are weaker than the document. Completing a request twice changes
nothing.

System calls become ``seccomp-allow=``, which narrows the default filter and never widens it. So a
document needs no permission for them. Capabilities and devices beyond the defaults do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from jaula.config import OWN_RUNTIME
from jaula.engine.volumes import mount_spec
from jaula.errors import InvalidRequest
from jaula.security import capability_sets
from jaula.security.landlock_ruleset import TCP_FROM
from jaula.spec import listen
from jaula.spec.api_documents import ContainerCreate, DeviceMapping, HostConfig
from jaula.spec.confinement_profile import Profile
from jaula.spec.decode import Empty

_NANO = 10**9  # NanoCpus of one CPU


def complete(body: ContainerCreate, profile: Profile, landlock: int) -> dict[str, Any]:
    """Return the members of ``HostConfig`` to change, with ``user`` and ``volumes`` of the body.

    ``landlock`` is the kernel's Landlock ABI, 0 for none.

    :raises InvalidRequest: when the document has an unknown capability.
    """
    return dict(_changes(body, profile, landlock))


def has_option(host: HostConfig, option: str) -> bool:
    """Return whether a security option is set, whatever its value."""
    return any(text.replace("=", ":").partition(":")[0] == option for text in host.security_opt)


def landlock_applies(host: HostConfig, landlock: int) -> bool:
    """Return whether the runtime can confine this container's processes with Landlock."""
    own = host.runtime in ("", OWN_RUNTIME)
    return bool(landlock and own and not host.privileged and not host.pid_mode)


def _changes(body: ContainerCreate, profile: Profile, landlock: int) -> Iterator[tuple[str, Any]]:
    host, keeps = body.host_config, body.host_config.profile_keeps
    yield from _capabilities(host, profile)
    yield "security_opt", (*host.security_opt, *_security_options(host, profile, landlock))
    yield from _files(body, profile)
    published = host.port_bindings or host.publish_all_ports
    if (
        profile.network.mode == "none"
        and host.network_mode in ("", "default")
        and not published
        and "NetworkMode" not in keeps
    ):
        yield "network_mode", "none"
    shared = _shares_network(host)
    if host.egress is None and profile.network.egress is not None and not shared:
        yield "egress", profile.network.egress
    if host.listen is None and profile.network.listen is not None and not shared:
        yield "listen", profile.network.listen
    yield from _limits(host, profile)
    present = {mapping.path_on_host for mapping in host.devices}
    devices = [_device(text) for text in profile.devices]
    if new := [mapping for mapping in devices if mapping.path_on_host not in present]:
        yield "devices", (*host.devices, *new)
    if profile.process.user and not body.user:
        yield "user", profile.process.user


def _shares_network(host: HostConfig) -> bool:
    return host.network_mode.partition(":")[0] in ("host", "container")


def _canonical(names: tuple[str, ...]) -> set[str]:
    """Return the names with ``CAP_``; ``ALL`` stays."""
    return {
        "ALL" if name.upper() in ("ALL", "CAP_ALL") else capability_sets.canonical(name)
        for name in names
    }


def _capabilities(host: HostConfig, profile: Profile) -> Iterator[tuple[str, Any]]:
    for name in profile.capabilities:
        if name.upper() in ("ALL", "CAP_ALL"):
            raise InvalidRequest(f"profile {profile.name}: capabilities must be named, not {name}")
    dropped, added = _canonical(host.cap_drop), _canonical(host.cap_add)
    if "ALL" not in dropped:
        yield "cap_drop", ("ALL", *host.cap_drop)
    if "ALL" not in added:
        new = [
            name
            for name in profile.capabilities
            if capability_sets.canonical(name) not in dropped | added
        ]
        if new:
            yield "cap_add", (*host.cap_add, *new)


def _security_options(host: HostConfig, profile: Profile, landlock: int) -> Iterator[str]:
    if profile.process.no_new_privileges and not has_option(host, "no-new-privileges"):
        yield "no-new-privileges"
    if not has_option(host, "seccomp"):
        yield from (
            option
            for option in _seccomp_options(profile)
            if not has_option(host, option.partition("=")[0])
        )
    if landlock_applies(host, landlock) and not has_option(host, "landlock"):
        yield "landlock=exec"
        yield from (f"landlock={text}" for text in _landlock_rules(profile))
        if landlock >= TCP_FROM:
            yield from _bind_rules(host, profile)
    masked = [path for path in profile.files.masked if f"mask={path}" not in host.security_opt]
    yield from (f"mask={path}" for path in masked)


def _seccomp_options(profile: Profile) -> Iterator[str]:
    allowed = profile.seccomp.syscalls
    for architecture, names in sorted(allowed.items()):
        if names:
            yield f"seccomp-allow={architecture}:{','.join(sorted(set(names)))}"
    for architecture, names in sorted(profile.seccomp.unavailable.items()):
        if absent := set(names) - set(allowed.get(architecture, ())):
            yield f"seccomp-enosys={architecture}:{','.join(sorted(absent))}"


def _landlock_rules(profile: Profile) -> Iterator[str]:
    files = profile.files
    for kind, paths in (("read", files.read), ("write", files.write), ("execute", files.execute)):
        yield from (f"{kind}={path}" for path in paths)


def _bind_rules(host: HostConfig, profile: Profile) -> Iterator[str]:
    """Yield the rules for bind(2) of TCP ports.

    Clients bind port 0 too. So it is allowed where the firewall refuses connections to it.
    """
    items = profile.network.listen if host.listen is None else host.listen
    if profile.network.listen is None or items is None:
        return
    ports = {port.number for port in listen.parse(items) if port.protocol == "tcp"}
    if not _shares_network(host):
        ports.add(0)
    yield from (f"landlock=tcp-bind={port}" for port in sorted(ports) or ("none",))


def _files(body: ContainerCreate, profile: Profile) -> Iterator[tuple[str, Any]]:
    host, files = body.host_config, profile.files
    taken = {request.mount.destination for request in mount_spec.mount_requests(body)}
    if files.read_only_root and "ReadonlyRootfs" not in host.profile_keeps:
        yield "readonly_rootfs", True
    if new := {path: options for path, options in files.tmpfs.items() if path not in taken}:
        yield "tmpfs", {**host.tmpfs, **new}
        taken |= set(new)
    if volumes := [path for path in files.volumes if path not in taken]:
        yield "volumes", {**body.volumes, **dict.fromkeys(volumes, Empty())}


def _limits(host: HostConfig, profile: Profile) -> Iterator[tuple[str, Any]]:
    limits, keeps = profile.limits, host.profile_keeps
    if limits.pids and host.pids_limit is None:
        yield "pids_limit", limits.pids
    if limits.memory:
        memory = host.memory
        if not memory and "Memory" not in keeps:
            memory = limits.memory
            yield "memory", memory
        if memory > 0 and not host.memory_swap and "MemorySwap" not in keeps:
            yield "memory_swap", memory
    if limits.cpus and not (host.nano_cpus or host.cpu_quota or host.cpu_period):
        yield "nano_cpus", int(limits.cpus * _NANO)


def _device(text: str) -> DeviceMapping:
    """Return the mapping of ``PATH[:PATH_IN_CONTAINER[:PERMISSIONS]]``."""
    path, _, rest = text.partition(":")
    inside, _, permissions = rest.partition(":")
    return DeviceMapping(
        path_on_host=path, path_in_container=inside or path, cgroup_permissions=permissions or "rwm"
    )


def deviations(host: HostConfig, profile: Profile) -> tuple[str, ...]:
    """Return what a completed request allows beyond its document, because it was explicit."""
    weaker = []
    if host.privileged:
        weaker.append("privileged")
    allowed = _canonical(profile.capabilities)
    weaker += [f"cap-add={name}" for name in host.cap_add if not _canonical((name,)) <= allowed]
    options = host.security_opt
    if profile.process.no_new_privileges and "no-new-privileges" not in options:
        weaker.append("new privileges")
    if not set(_seccomp_options(profile)) <= set(options):
        weaker.append("other seccomp filter")
    rules = {f"landlock={text}" for text in ("exec", *_landlock_rules(profile))}
    if not rules <= set(options):
        weaker.append("other Landlock rules")
    if profile.files.read_only_root and not host.readonly_rootfs:
        weaker.append("writable root")
    if profile.network.mode == "none" and host.network_mode != "none":
        weaker.append(f"network={host.network_mode or 'default'}")
    egress = profile.network.egress
    if egress is not None and (host.egress is None or not set(host.egress) <= set(egress)):
        weaker.append("other egress list")
    ports = profile.network.listen
    if ports is not None and (host.listen is None or not set(host.listen) <= set(ports)):
        weaker.append("other listen list")
    limits = profile.limits
    if limits.pids and not 0 < (host.pids_limit or 0) <= limits.pids:
        weaker.append(f"pids-limit={host.pids_limit}")
    if limits.memory and not 0 < host.memory <= limits.memory:
        weaker.append(f"memory={host.memory}")
    if limits.cpus and not 0 < host.nano_cpus <= int(limits.cpus * _NANO):
        weaker.append(f"cpus={host.nano_cpus / _NANO:g}")
    devices = {_device(text).path_on_host for text in profile.devices}
    weaker += [
        f"device={mapping.path_on_host}"
        for mapping in host.devices
        if mapping.path_on_host not in devices
    ]
    return tuple(weaker)


def replace(body: ContainerCreate, changes: dict[str, Any]) -> ContainerCreate:
    """Return the request with the changes of :func:`complete`."""
    own = {name: changes[name] for name in ("user", "volumes") if name in changes}
    host = {name: value for name, value in changes.items() if name not in own}
    return msgspec.structs.replace(
        body, host_config=msgspec.structs.replace(body.host_config, **host), **own
    )
