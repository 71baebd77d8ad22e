"""Ceilings of a policy rule: the most that one container may request. Pure.

A relaxation changes how a container is confined, and is denied unless a rule grants it. A demand is
an amount that every request has, and is allowed up to the ceiling of the rule. Demands are taken
from the resolved request, the value that a start uses.

A rule without a line for some amounts has a share of the machine as the ceiling
(:func:`machine_ceilings`), so no caller but an administrator takes all of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec

from jaula.network.port_mapper import DYNAMIC_PORTS
from jaula.spec import units
from jaula.spec.api_documents import HostConfig, Resources
from jaula.spec.pod import PodSandboxRequest
from jaula.state.container_records import PortMapping, ResolvedRequest

UNLIMITED: Final = 1 << 64
"""More than any value of the API."""

DEFAULT_SHM: Final = 64 << 20  # bytes
FIRST_ORDINARY_PORT: Final = 1024  # the kernel's ip_unprivileged_port_start

ULIMITS: Final = (
    *("as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile"),
    *("nproc", "rss", "rtprio", "rttime", "sigpending", "stack"),
)
_PRIORITY = ("nice", "rtprio")  # a container with these takes the processors from all others
_DEFAULT_ULIMITS = {name: 0 if name in _PRIORITY else UNLIMITED for name in ULIMITS}


class Bound(StrEnum):
    """Bounded values; the names are those of the flags of ``run``."""

    MEMORY = "memory"
    MEMORY_SWAP = "memory-swap"
    PIDS = "pids-limit"
    SHM_SIZE = "shm-size"
    ULIMIT = "ulimit"
    OOM_KILL_DISABLE = "oom-kill-disable"
    HOST_PORT = "host-port"


class DiskBound(StrEnum):
    """Bounded bytes on the disk, by the names of the keys of the policy without ``max-``."""

    LOG_SIZE = "log-size"
    STORAGE_SIZE = "storage-size"


_KIB, _MIB, _GIB = 1 << 10, 1 << 20, 1 << 30
_SIZES = (Bound.MEMORY, Bound.MEMORY_SWAP, Bound.SHM_SIZE, *DiskBound)


class Machine(NamedTuple):
    """What callers share: bytes of memory and disk, and numbers of threads and open files.

    ``pids_limit`` is the engine's own limit of processes of a container, 0 for none.
    """

    memory: int
    threads: int
    open_files: int
    disk: int
    pids_limit: int


def machine_ceilings(machine: Machine) -> dict[str, int]:
    """Return the ceilings of a rule that has no line for them, by their keys."""
    files = min(machine.open_files, machine.memory // 8 // _KIB)  # the kernel's memory for each
    pids = max(machine.pids_limit, machine.threads // 4)
    return {
        "pids": pids if machine.pids_limit > 0 else UNLIMITED,  # the operator's default is none
        "shm_size": max(DEFAULT_SHM, machine.memory // 2),  # as the kernel bounds a tmpfs
        "memlock": max(64 * _MIB, machine.memory // 8),
        "nofile": max(_DEFAULT_FILES, files),
        "log_size": max(256 * _MIB, machine.disk // 32),
        "storage_size": max(_GIB, machine.disk // 4),
        "build_cache": max(_GIB, machine.disk // 8),
        "record_size": max(32 * _MIB, machine.memory // 256),
        "image_documents": max(32 * _MIB, machine.memory // 256),
    }


_DEFAULT_FILES = 524_288  # of a container without --ulimit nofile


class Share(StrEnum):
    """Resources with a share per caller: a number of objects, or bytes."""

    CONTAINERS = "containers"
    NETWORKS = "networks"
    VOLUMES = "volumes"
    SECRETS = "secrets"
    IMAGES = "images"
    IMAGE_SIZE = "image-size"
    IMAGE_DOCUMENTS = "image-documents"
    IMAGE_NAMES = "image-names"
    RECORD_SIZE = "record-size"

    def describe(self, amount: int) -> str:
        """Return an amount as an error states it."""
        match self:
            case Share.IMAGE_SIZE:
                return f"{units.bytes_size(amount)} of images"
            case Share.IMAGE_DOCUMENTS:
                return f"{units.bytes_size(amount)} of configurations and manifests of images"
            case Share.IMAGE_NAMES:
                return f"{amount} names of images"
            case Share.RECORD_SIZE:
                return f"{units.bytes_size(amount)} of {_RECORDS}"
            case Share.SECRETS:
                return f"{amount} secrets and configs"
        return f"{amount} {self}"


_RECORDS = "records of containers, execs, networks, volumes, secrets and configs"


DEFAULT_SHARES: Final = MappingProxyType(
    {
        Share.CONTAINERS: 1000,
        Share.NETWORKS: 64,
        Share.VOLUMES: 1000,
        Share.SECRETS: 1000,
        Share.IMAGES: 1000,
        Share.IMAGE_SIZE: UNLIMITED,
        Share.IMAGE_NAMES: 4000,
    }
)
"""The shares of a rule without a line. The default address pools have subnets for 288 networks.

A pull gives an image two names: a tag, and its digest.

Those of :attr:`Share.IMAGE_DOCUMENTS` and :attr:`Share.RECORD_SIZE` are in :class:`Ceilings`, since
their default is a share of the machine.
"""


class Demand(msgspec.Struct, frozen=True):
    """One amount. ``name`` is that of an ulimit.

    ``amount`` is in bytes, processes or the unit of the ulimit. Of host ports it is the last one,
    and ``first`` the first one.
    """

    bound: Bound | DiskBound
    amount: int = 0
    name: str = ""
    first: int = 0

    def __str__(self) -> str:
        match self.bound:
            case Bound.OOM_KILL_DISABLE:
                return str(self.bound)
            case Bound.HOST_PORT:
                return f"{self.bound}={_ports((self.first, self.amount))}"
            case Bound.ULIMIT:
                return f"{self.bound}={self.name}={_amount(self.bound, self.amount)}"
        return f"{self.bound}={_amount(self.bound, self.amount)}"


class Ceilings(msgspec.Struct, frozen=True, kw_only=True):
    """The ceilings of a rule. ``ulimits`` has a value for each name; ports are ranges.

    ``build_cache``, ``record_size`` and ``image_documents`` are of the caller, not of a container.
    ``stated`` has the amounts that lines of the policy state, by field or name of the ulimit; the
    highest one for a user in several groups.
    """

    memory: int = UNLIMITED  # bytes; memory and swap together may be twice as much
    pids: int = UNLIMITED
    shm_size: int = UNLIMITED  # bytes
    ulimits: Mapping[str, int] = MappingProxyType(_DEFAULT_ULIMITS)
    oom_kill_disable: bool = False
    host_ports: tuple[tuple[int, int], ...] = ((FIRST_ORDINARY_PORT, 65535),)
    log_size: int = UNLIMITED  # bytes of all files of a log
    storage_size: int = UNLIMITED  # bytes that a container may write to its own files
    build_cache: int = UNLIMITED  # bytes
    record_size: int = UNLIMITED  # bytes of all records
    image_documents: int = UNLIMITED  # bytes of configurations and manifests
    stated: Mapping[str, int] = MappingProxyType({})

    def with_defaults(self, defaults: Mapping[str, int]) -> Ceilings:
        """Return the ceilings with :func:`machine_ceilings` for amounts without a line."""

        def ceiling(key: str, value: int) -> int:
            stated = self.stated.get(key, 0)
            if value < UNLIMITED or stated >= UNLIMITED:
                return value
            return max(defaults.get(key, UNLIMITED), stated)

        fields = {field: ceiling(field, getattr(self, field)) for field in _DEFAULTED}
        ulimits = {name: ceiling(name, value) for name, value in self.ulimits.items()}
        return msgspec.structs.replace(self, ulimits=ulimits, **fields)

    def allow(self, demand: Demand) -> bool:
        """Return whether a demand is within the ceilings."""
        match demand.bound:
            case Bound.OOM_KILL_DISABLE:
                return self.oom_kill_disable
            case Bound.HOST_PORT:
                return any(
                    first <= demand.first and demand.amount <= last
                    for first, last in self.host_ports
                )
        return demand.amount <= self.of(demand)

    def of(self, demand: Demand) -> int:
        """Return the ceiling for an amount."""
        match demand.bound:
            case Bound.MEMORY:
                return self.memory
            case Bound.MEMORY_SWAP:
                return UNLIMITED if self.memory == UNLIMITED else 2 * self.memory
            case Bound.PIDS:
                return self.pids
            case Bound.SHM_SIZE:
                return self.shm_size
            case DiskBound.LOG_SIZE:
                return self.log_size
            case DiskBound.STORAGE_SIZE:
                return self.storage_size
        return self.ulimits.get(demand.name, UNLIMITED)  # unknown names are not valid

    def advice(self, demand: Demand) -> str:
        """Return what a client can request instead of a denied demand."""
        match demand.bound:
            case Bound.OOM_KILL_DISABLE:
                return "leave it out, or ask the operator to grant oom-kill-disable"
            case Bound.HOST_PORT:
                allowed = ", ".join(map(_ports, self.host_ports)) or "none"
                return f"allowed are {allowed}; the operator's host-ports decides"
        most = _amount(demand.bound, self.of(demand))
        if demand.bound is DiskBound.LOG_SIZE:
            return f"the most is {most}: max-size times max-file of --log-opt"
        if demand.bound is DiskBound.STORAGE_SIZE:
            return f"the most is {most}: --storage-opt size={most}"
        flag = f"--{demand.bound}" + (f" {demand.name}=" if demand.name else " ")
        return f"the most is {most}: {flag}{most}"

    def line(self, demand: Demand) -> str:
        """Return the line of the policy that allows a denied demand."""
        amount, unlimited = demand.amount, demand.amount >= UNLIMITED
        match demand.bound:
            case Bound.OOM_KILL_DISABLE:
                return f"{demand.bound} = true"
            case Bound.HOST_PORT:
                ranges = (*self.host_ports, (demand.first, amount))
                listed = ", ".join(f'"{_ports(each)}"' for each in ranges)
                return f"host-ports = [{listed}]"
            case Bound.ULIMIT:
                return f'ulimits = ["{demand.name}{"" if unlimited else f"={amount}"}"]'
            case Bound.PIDS:
                return 'max-pids = "unlimited"' if unlimited else f"max-pids = {amount}"
            case Bound.MEMORY_SWAP:
                amount = -(-amount // 2)
        named = (Bound.SHM_SIZE, *DiskBound)
        key = f"max-{demand.bound}" if demand.bound in named else "max-memory"
        return f'{key} = "{"unlimited" if unlimited else f"{-(-amount // _MIB)}m"}"'


def union(ceilings: tuple[Ceilings, ...]) -> Ceilings:
    """Return the ceilings of a user in several groups: the highest of each."""
    return Ceilings(
        memory=max(c.memory for c in ceilings),
        pids=max(c.pids for c in ceilings),
        shm_size=max(c.shm_size for c in ceilings),
        ulimits={name: max(c.ulimits[name] for c in ceilings) for name in ULIMITS},
        oom_kill_disable=any(c.oom_kill_disable for c in ceilings),
        host_ports=tuple(dict.fromkeys(ports for c in ceilings for ports in c.host_ports)),
        log_size=max(c.log_size for c in ceilings),
        storage_size=max(c.storage_size for c in ceilings),
        build_cache=max(c.build_cache for c in ceilings),
        record_size=max(c.record_size for c in ceilings),
        image_documents=max(c.image_documents for c in ceilings),
        stated={
            key: max(c.stated.get(key, 0) for c in ceilings)
            for key in dict.fromkeys(key for c in ceilings for key in c.stated)
        },
    )


_DEFAULTED = (
    *("pids", "shm_size", "log_size", "storage_size", "build_cache"),
    *("record_size", "image_documents"),
)
"""The fields of :class:`Ceilings` that :func:`machine_ceilings` has."""


def stated_amounts(fields: Mapping[str, object], ulimits: Iterable[str]) -> dict[str, int]:
    """Return what the lines of a rule state, from its fields and the entries of ``ulimits``."""
    stated = {key: value for key, value in fields.items() if isinstance(value, int)}
    if names := [entry.partition("=")[0].lower() for entry in ulimits]:
        values = ulimit_ceilings(ulimits)
        stated |= {name: values[name] for name in (ULIMITS if "*" in names else names)}
    return stated


def of_request(
    host: HostConfig, resolved: ResolvedRequest, default_pids: int
) -> tuple[Demand, ...]:
    """Return the demands of a request. ``default_pids`` applies to one without a limit of pids."""
    shm = host.shm_size or DEFAULT_SHM
    return (
        *of_resources(host, default_pids),
        Demand(Bound.SHM_SIZE, shm),
        *_host_ports(resolved.ports),
    )


def of_sandbox(request: PodSandboxRequest, host: HostConfig) -> tuple[Demand, ...]:
    """Return the demands of a pod: shared memory, and ports of the host.

    The program of a sandbox is the engine's own, so its memory and processes need no ceiling.
    """
    return (
        Demand(Bound.SHM_SIZE, host.shm_size or DEFAULT_SHM),
        *(Demand(Bound.HOST_PORT, port.host_port, first=port.host_port) for port in request.ports),
    )


def of_resources(resources: Resources, default_pids: int) -> tuple[Demand, ...]:
    """Return the demands of limits."""
    return tuple(_of_resources(resources, default_pids))


def of_update(old: Resources, new: Resources, default_pids: int) -> tuple[Demand, ...]:
    """Return the demands of an update: those that the limits did not have before."""
    before = frozenset(of_resources(old, default_pids))
    return tuple(demand for demand in of_resources(new, default_pids) if demand not in before)


def of_log(max_size: int, max_files: int) -> tuple[Demand, ...]:
    """Return the demand of a log that is files; a ``max_size`` of 0 is no limit."""
    return (Demand(DiskBound.LOG_SIZE, _limit(max_size * max(max_files, 1))),)


def of_storage(size: int | None) -> tuple[Demand, ...]:
    """Return the demand of ``--storage-opt size=``; nothing without one."""
    return () if size is None else (Demand(DiskBound.STORAGE_SIZE, size),)


def of_ports(ports: Iterable[PortMapping]) -> tuple[Demand, ...]:
    """Return the demands of published ports."""
    return tuple(_host_ports(ports))


def _of_resources(resources: Resources, default_pids: int) -> Iterator[Demand]:
    yield Demand(Bound.MEMORY, _limit(resources.memory))
    if resources.memory_swap:
        yield Demand(Bound.MEMORY_SWAP, _limit(resources.memory_swap))
    pids = default_pids if resources.pids_limit is None else resources.pids_limit
    yield Demand(Bound.PIDS, _limit(pids))
    for ulimit in resources.ulimits:
        highest = max(ulimit.hard, ulimit.soft)
        negative = min(ulimit.hard, ulimit.soft) < 0
        yield Demand(Bound.ULIMIT, UNLIMITED if negative else highest, ulimit.name.lower())
    if resources.oom_kill_disable:
        yield Demand(Bound.OOM_KILL_DISABLE)


def _limit(value: int) -> int:
    """Return an amount; 0 and -1 are no limit in the API."""
    return value if value > 0 else UNLIMITED


def _host_ports(ports: Iterable[PortMapping]) -> Iterator[Demand]:
    for mapping in ports:
        first, last = mapping.host_port, mapping.host_port_end
        if first is None:  # the engine chooses
            first, last = DYNAMIC_PORTS[0], DYNAMIC_PORTS[-1]
        yield Demand(Bound.HOST_PORT, last or first, first=first)


def _ports(ports: tuple[int, int]) -> str:
    first, last = ports
    return str(first) if first == last else f"{first}-{last}"


def _amount(bound: Bound | DiskBound, amount: int) -> str:
    if amount >= UNLIMITED:
        return "unlimited"
    if bound in _SIZES:
        return units.bytes_size(amount).replace(" ", "")
    return str(amount)


def ulimit_ceilings(entries: Iterable[str]) -> dict[str, int]:
    """Return the ceilings of ``NAME``, for any value, and ``NAME=MAXIMUM``; ``*`` means all names.

    :raises ValueError: when a name or a number is not valid; its text names the entry.
    """
    ceilings = dict(_DEFAULT_ULIMITS)
    for entry in entries:
        name, equals, text = entry.partition("=")
        name = name.lower()
        if entry != "*" and name not in ULIMITS:
            raise ValueError(f"{entry[:80]!r} must be one of {', '.join(ULIMITS)}, or NAME=MAXIMUM")
        if equals and not (text.isascii() and text.isdigit() and int(text) < UNLIMITED):
            raise ValueError(f"{entry[:80]!r}: the maximum must be a number")
        maximum = int(text) if equals else UNLIMITED
        ceilings |= dict.fromkeys(ULIMITS if entry == "*" else (name,), maximum)
    return ceilings


def port_ranges(entries: Iterable[str]) -> tuple[tuple[int, int], ...]:
    """Return the ranges of ``443``, ``8000-8999`` and ``*``.

    :raises ValueError: when an entry is not a range of ports; its text names the entry.
    """
    ranges = []
    for entry in entries:
        first, dash, last = ("1", "-", "65535") if entry == "*" else entry.partition("-")
        numbers = (first, last) if dash else (first, first)
        if not all(n.isascii() and n.isdigit() and 0 < int(n) < 65536 for n in numbers):
            raise ValueError(f"{entry[:80]!r} must be a port, or FIRST-LAST")
        if int(numbers[0]) > int(numbers[1]):
            raise ValueError(f"{entry[:80]!r}: the last port is less than the first")
        ranges.append((int(numbers[0]), int(numbers[1])))
    return tuple(ranges)
