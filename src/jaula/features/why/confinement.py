"""Confinement of a container: the documents of the engine, and the kernel's numbers.

:func:`confinement` is pure. :class:`CgroupUsage` reads limits while the container runs, because its
cgroup is removed when it exits.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from jaula.cgroups import hierarchies
from jaula.kernel import mountinfo
from jaula.kernel.mountinfo import MountInfo
from jaula.kernel.openat2 import is_within
from jaula.security.seccomp.seccomp_filter import default_profile
from jaula.spec.annotations import LANDLOCK_ANNOTATION, Ruleset, decode_ruleset
from jaula.spec.runtime_spec import Capabilities, DeviceCgroup, Linux, Process, Seccomp, Spec

READ_LIMIT = 1 << 20  # bytes of /proc/PID/mountinfo
UNLIMITED_V1 = 1 << 62  # a limit of memory that is not less is no limit


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """A limit of a cgroup; ``limit`` is -1 if there is none. ``hits``: how often it refused."""

    current: int = 0
    peak: int = 0
    limit: int = -1
    hits: int = 0


class Network(msgspec.Struct, frozen=True):
    """A network of the engine, with its subnets."""

    name: str
    internal: bool = False
    subnets: tuple[str, ...] = ()


class Confinement(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of one container that can refuse an operation. Ids are (inside, host, size)."""

    host_users: bool = False
    privileged: bool = False
    bounding: frozenset[str] = frozenset()
    effective: frozenset[str] = frozenset()  # of a process that the runtime starts, until execve
    seccomp: Seccomp | None = None
    default_filter: bool = False
    no_new_privileges: bool = False
    landlock: Ruleset | None = None
    label: str = ""
    uids: tuple[tuple[int, int, int], ...] = ()
    gids: tuple[tuple[int, int, int], ...] = ()
    mounts: tuple[MountInfo, ...] = ()
    masked: tuple[str, ...] = ()
    readonly: tuple[str, ...] = ()
    root_readonly: bool = False
    devices: tuple[DeviceCgroup, ...] = ()
    network_mode: str = ""
    networks: tuple[Network, ...] = ()  # that the container is connected to
    other_networks: tuple[Network, ...] = ()
    egress: tuple[str, ...] | None = None  # None: no list
    pids: Usage = Usage()
    memory: Usage = Usage()
    user: str = ""
    uid: int = 0  # of the container's first process, in the container
    profile: str = ""  # name of its profile's document
    profile_calls: frozenset[str] | None = None  # that the profile lists; None: it has no list

    def mount_of(self, path: str) -> MountInfo | None:
        """Return the mount that a path is on, None if the mounts are not known."""
        best: MountInfo | None = None
        for mount in self.mounts:
            if is_within(path, mount.target) and (
                best is None or len(mount.target) >= len(best.target)
            ):
                best = mount
        return best

    def inside(self, uid: int) -> int | None:
        """Return the container's number of a user id of the host, None if it has none."""
        if self.host_users and not self.uids:
            return uid
        for inside, outside, size in self.uids:
            if outside <= uid < outside + size:
                return inside + uid - outside
        return None

    def outside(self, uid: int) -> int:
        """Return the host's number of a user id of the container; -1 if it has none."""
        if self.host_users and not self.uids:
            return uid
        for inside, outside, size in self.uids:
            if inside <= uid < inside + size:
                return outside + uid - inside
        return -1

    def maps(self, number: int, *, groups: bool) -> bool:
        """Return whether the container has a user or group id."""
        rows = self.gids if groups else self.uids
        return not rows or any(inside <= number < inside + size for inside, _, size in rows)


def confinement(
    inspect: Mapping[str, Any],
    spec: Spec,
    *,
    mounts: Sequence[MountInfo] = (),
    networks: Sequence[Mapping[str, Any]] = (),
) -> Confinement:
    """Return what confines a container. Pure.

    ``inspect`` is the engine's document, ``spec`` what the runtime received, ``mounts`` the mount
    table of the container, ``networks`` the engine's list of networks.
    """
    linux, process = spec.linux or Linux(), spec.process or Process(cwd="/")
    sets = process.capabilities or Capabilities()
    host_config = inspect.get("HostConfig") or {}
    known = [_network(each) for each in networks]
    connected = (inspect.get("NetworkSettings") or {}).get("Networks") or {}
    own_users = any(each.type == "user" for each in linux.namespaces)
    resources = linux.resources
    memory = resources.memory if resources else None
    pids = resources.pids if resources else None
    return Confinement(
        host_users=not own_users,
        privileged=bool(host_config.get("Privileged")),
        bounding=frozenset(sets.bounding),
        effective=frozenset(sets.effective),
        seccomp=linux.seccomp,
        default_filter=linux.seccomp == default_profile(sets),
        no_new_privileges=process.no_new_privileges,
        landlock=decode_ruleset(spec.annotations[LANDLOCK_ANNOTATION])
        if LANDLOCK_ANNOTATION in spec.annotations
        else None,
        label=process.apparmor_profile or process.selinux_label or "",
        uids=tuple((m.container_id, m.host_id, m.size) for m in linux.uid_mappings),
        gids=tuple((m.container_id, m.host_id, m.size) for m in linux.gid_mappings),
        mounts=tuple(mounts),
        masked=linux.masked_paths,
        readonly=linux.readonly_paths,
        root_readonly=bool(spec.root and spec.root.readonly),
        devices=resources.devices if resources else (),
        network_mode=str(host_config.get("NetworkMode") or ""),
        networks=tuple(each for each in known if each.name in connected),
        other_networks=tuple(each for each in known if each.name not in connected),
        egress=tuple(host_config["Egress"]) if host_config.get("Egress") is not None else None,
        pids=Usage(limit=pids.limit if pids and pids.limit > 0 else -1),
        memory=Usage(limit=memory.limit if memory and memory.limit and memory.limit > 0 else -1),
        uid=process.user.uid if process.user else 0,
        profile=str(host_config.get("ProfileName") or ""),
        profile_calls=_profile_calls(host_config),
        user=str((inspect.get("Config") or {}).get("User") or ""),
    )


def _profile_calls(host_config: Mapping[str, Any]) -> frozenset[str] | None:
    """Return the system calls that the options of a profile allow, None without such a list."""
    for option in host_config.get("SecurityOpt") or ():
        name, _, value = str(option).replace(":", "=", 1).partition("=")
        if name == "seccomp-allow":
            return frozenset(each for each in value.split(",") if each)
    return None


def _network(document: Mapping[str, Any]) -> Network:
    rows = (document.get("IPAM") or {}).get("Config") or ()
    return Network(
        name=str(document.get("Name")),
        internal=bool(document.get("Internal")),
        subnets=tuple(str(row["Subnet"]) for row in rows if row.get("Subnet")),
    )


def read_mounts(pid: int) -> tuple[MountInfo, ...]:
    """Return the mount table of a process; empty if it has exited."""
    try:
        return mountinfo.read(f"/proc/{pid}/mountinfo", limit=READ_LIMIT)
    except (OSError, ValueError):
        return ()


class CgroupUsage:
    """The numbers of a container's cgroups, kept after the cgroups are removed."""

    def __init__(self, pid: int) -> None:
        """Find the cgroups of the container's first process."""
        self.pids, self.memory = Usage(), Usage()
        self._paths: dict[str, str] = {}
        self._unified = ""
        try:
            with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
                lines = file.read().splitlines()
        except OSError:
            return
        mounts = hierarchies.find(mountinfo.read())
        for line in lines:
            _, _, rest = line.partition(":")
            names, _, path = rest.partition(":")
            for name in names.split(","):
                if name in ("pids", "memory") and (mount := mounts.legacy.get(name)):
                    self._paths[name] = mount + path
            if not names and mounts.unified:
                self._unified = mounts.unified + path

    def read(self) -> None:
        """Read the numbers; keep the former ones of a cgroup that is gone."""
        v1 = self._paths.get("pids")
        directory = v1 or self._unified
        current = _number(directory, "pids.current")
        if current is not None:
            self.pids = Usage(
                current=current,
                peak=max(current, _number(directory, "pids.peak") or 0, self.pids.peak),
                limit=_number(directory, "pids.max") or -1,
                hits=_field(directory, "pids.events", "max"),
            )
        v1 = self._paths.get("memory")
        if v1:
            current = _number(v1, "memory.usage_in_bytes")
            limit = _number(v1, "memory.limit_in_bytes") or -1
            peak = _number(v1, "memory.max_usage_in_bytes") or 0
            hits = _field(v1, "memory.oom_control", "oom_kill")
        else:
            current = _number(self._unified, "memory.current")
            limit = _number(self._unified, "memory.max") or -1
            peak = _number(self._unified, "memory.peak") or 0
            hits = _field(self._unified, "memory.events", "oom_kill")
        if current is not None:
            self.memory = Usage(
                current=current,
                peak=max(current, peak, self.memory.peak),
                limit=-1 if limit >= UNLIMITED_V1 else limit,
                hits=hits,
            )


def _text(directory: str, name: str) -> str | None:
    if not directory:
        return None
    try:
        with open(os.path.join(directory, name), encoding="ascii") as file:
            return file.read()
    except OSError:
        return None


def _number(directory: str, name: str) -> int | None:
    text = _text(directory, name)
    return int(text) if text is not None and text.strip().isdigit() else None


def _field(directory: str, name: str, key: str) -> int:
    for line in (_text(directory, name) or "").splitlines():
        word, _, value = line.partition(" ")
        if word == key and value.isdigit():
            return int(value)
    return 0
