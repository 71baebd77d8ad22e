"""Refusals of AppArmor, SELinux, Landlock and seccomp, counted for each container.

Two sources count them. Neither costs a process anything until the kernel refuses something, except
that of seccomp by eBPF (``docs/metrics.md``), which is off by default:

* The audit records that the kernel writes anyway (:mod:`jaula.kernel.kernel_audit`), beside auditd
  and journald. The engine reads a bounded number in a second. It changes no setting of audit.
* eBPF programs, which count in a table of the kernel (:mod:`jaula.features.why.refusal_counter`).

A record has the pid of the process, whose cgroup is that of its container. A process that has
exited meanwhile is in no cgroup. Its user id or SELinux level tell the container then, unless
several ones have it.

A record of Landlock has the id of a domain only. The record of its first refusal names the process
that created the domain. That refusal is the runtime's own proof
(:func:`jaula.runtime.init.enter_landlock.restrict`) and is not counted. An engine that started
later has not seen that record. It then asks for the records of system calls, which have the pid of
the refused process, until it knows the domain.

Source: Documentation/admin-guide/LSM/landlock.rst of Linux 6.15, security/landlock/audit.c.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import re
from typing import TYPE_CHECKING, NamedTuple

from jaula import metrics
from jaula.cgroups import cgroup_path
from jaula.errors import JaulaError
from jaula.kernel import kernel_audit
from jaula.kernel.kernel_audit import (
    AUDIT_AVC,
    AUDIT_LANDLOCK_ACCESS,
    AUDIT_LANDLOCK_DOMAIN,
    AUDIT_SECCOMP,
    AUDIT_SYSCALL,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jaula.engine.engine import Engine
    from jaula.engine.hooks import EngineStart
    from jaula.engine.model.container import Container
    from jaula.features.why.refusal_tables import RefusalTables
    from jaula.kernel.kernel_audit import Record, RecordSocket
    from jaula.state.container_records import ContainerRecord

_log = logging.getLogger("jaula.refusals")
INTERVAL = 10.0  # seconds between two events of a container and layer, and two reads of the tables
_BATCH = 200  # records of one turn of the event loop
_PAUSE = 0.1  # seconds after a full batch; the kernel drops records that the buffer has no room for
_MAX_DOMAINS = 8192  # of Landlock
_MAX_UNKNOWN = 64  # domains whose container is not known yet
_MAX_TEXT = 256  # characters of an attribute
_TYPES = (AUDIT_AVC, AUDIT_SECCOMP, AUDIT_LANDLOCK_ACCESS, AUDIT_LANDLOCK_DOMAIN)
_LANDLOCK_ABI = 7  # the first one with audit records, of Linux 6.15
_INITIAL_PID_NAMESPACE = 0xEFFFFFFC  # PROC_PID_INIT_INO; records have its pids
_INITIAL_NET_NAMESPACE = 0xEFFFFFF9  # NET_NS_INIT_INO of Linux 6.18; records are sent in it
# Actions of seccomp that refuse a call: KILL_PROCESS, KILL_THREAD, TRAP, ERRNO.
_REFUSED = frozenset({0x80000000, 0x00000000, 0x00030000, 0x00050000})
_SERIAL = re.compile(r"audit\([\d.]{1,32}:(\d{1,20})\): ")
_DOMAIN = re.compile(r"domain=([0-9a-f]{1,16}) ")
_ACCESS = re.compile(r"domain=([0-9a-f]{1,16}) blockers=([\w.,]{1,200})")
_CREATED = re.compile(
    r"domain=([0-9a-f]{1,16}) status=allocated mode=\w+ pid=(\d{1,9}) uid=(\d{1,10}) "
)
_PROOF = "fs.change_topology"
_FREED = re.compile(r"domain=([0-9a-f]{1,16}) status=deallocated ")
_PATH = re.compile(r' path="([^"]*)"')
_CALL = re.compile(r" pid=(\d{1,9}) auid=\d+ uid=(\d{1,10}) ")
_SECCOMP = re.compile(
    r" uid=(\d{1,10}) .* pid=(\d{1,9}) comm=(\S{1,64}) "
    r".* syscall=(\d{1,9}) .* code=0x([0-9a-f]{1,8})\Z"
)


async def start(engine: EngineStart) -> RefusalMonitor:
    """Count the refusals of the kernel's layers to the containers of an engine."""
    ebpf = engine.engine.services.config.metrics_refusals == "ebpf"
    monitor = RefusalMonitor(engine.engine, ebpf=ebpf)
    monitor.start()
    return monitor


class Refusal(NamedTuple):
    """An operation that a layer has refused. Texts are '' if they are not known."""

    layer: str
    operation: str = ""
    object: str = ""
    program: str = ""

    def attributes(self, count: int) -> dict[str, str]:
        """Return the attributes of an event, for a number of refusals of which this is the last."""
        texts = {"layer": self.layer, "count": str(count), **self._asdict()}
        return {name: text[:_MAX_TEXT] for name, text in texts.items() if text}


class Process(NamedTuple):
    """A process of the host. ``level`` is that of its SELinux label; ``uid`` is -1 if unknown."""

    pid: int
    uid: int = -1
    level: str = ""


class Denied(NamedTuple):
    """A refusal by a process."""

    refusal: Refusal
    process: Process


class DomainDenied(NamedTuple):
    """A refusal by a domain of Landlock. ``serial`` is that of the records of the same event."""

    refusal: Refusal
    domain: str
    serial: str


class DomainCreated(NamedTuple):
    """A domain and the process that created it. The record is one of the first refusal's event."""

    domain: str
    serial: str
    process: Process


class DomainFreed(NamedTuple):
    """A domain whose last process has exited."""

    domain: str


class Call(NamedTuple):
    """The process of an event."""

    serial: str
    process: Process


Fact = Denied | DomainDenied | DomainCreated | DomainFreed | Call


def fact_of(record: Record) -> Fact | None:
    """Return what a record says, None if it is malformed or says nothing of a refusal. Pure."""
    serial = _SERIAL.match(record.text)
    match record.type:
        case kernel_audit.AUDIT_AVC:
            return _lsm_denial(record.text)
        case kernel_audit.AUDIT_SECCOMP:
            found = _SECCOMP.search(record.text)
            if found is None or int(found[5], 16) not in _REFUSED:
                return None
            refusal = Refusal("seccomp", _call_name(int(found[4])), "", found[3].strip('"'))
            return Denied(refusal, Process(int(found[2]), int(found[1])))
        case kernel_audit.AUDIT_LANDLOCK_ACCESS:
            if serial is None or (found := _ACCESS.search(record.text)) is None:
                return None
            path = _PATH.search(record.text)
            refusal = Refusal("landlock", found[2], path[1] if path else "")
            return DomainDenied(refusal, found[1], serial[1])
        case kernel_audit.AUDIT_LANDLOCK_DOMAIN:
            if serial and (found := _CREATED.search(record.text)) is not None:
                return DomainCreated(found[1], serial[1], Process(int(found[2]), int(found[3])))
            found = _FREED.search(record.text)
            return DomainFreed(found[1]) if found is not None else None
        case kernel_audit.AUDIT_SYSCALL:
            if serial is None or (found := _CALL.search(record.text)) is None:
                return None
            return Call(serial[1], Process(int(found[1]), int(found[2])))
    return None


def _lsm_denial(text: str) -> Denied | None:
    """Return a denial of AppArmor or SELinux. The parser is loaded by the first one."""
    from jaula.features.why import lsm_denials

    denial = lsm_denials.parse(text)
    if denial is None:
        return None
    operation = denial.operation + (f" {denial.kind}" if denial.kind else "")
    refusal = Refusal(denial.lsm, operation, denial.path, denial.program)
    return Denied(refusal, Process(denial.pid, denial.uid, denial.level))


def _call_name(number: int) -> str:
    """Return the name of a system call of this machine, or its number without libseccomp."""
    from jaula.features.record.syscall_names import SyscallNames

    try:
        return SyscallNames()(number, "")
    except JaulaError:
        return str(number)


def container_ids(cgroups: str) -> tuple[str, ...]:
    """Return the ids of containers in a text of /proc/PID/cgroup, the outermost cgroup first. Pure.

    A container may name the cgroups below its own.
    """
    names = cgroups.replace("\n", "/").split("/")
    return tuple(dict.fromkeys(id for name in names if (id := cgroup_path.container_id(name))))


def owns(record: ContainerRecord, process: Process) -> bool:
    """Return whether a process has the SELinux level or a user id of a container. Pure."""
    if process.level and process.level == record.level:
        return True
    ranges = (
        (record.range_start, record.range_size),
        (record.borrowed_start, record.borrowed_size),
    )
    return any(start <= process.uid < start + size for start, size in ranges if start)


class Domains:
    """The containers of Landlock's domains. A domain that is none of a container's has ''."""

    def __init__(self, container_of: Callable[[Process], str | None]) -> None:
        """``container_of`` returns the id of a container, '' for a process without one.

        It returns None if the process has exited and nothing else tells its container.
        """
        self._container_of = container_of
        self._known: dict[str, str] = {}
        self._unknown: dict[str, list[DomainDenied]] = {}

    @property
    def incomplete(self) -> bool:
        """Whether a domain has refused something and its container is not known."""
        return bool(self._unknown)

    def add(self, fact: Fact) -> list[tuple[str, Refusal]]:
        """Return the refusals of containers that are known with this fact, with their ids."""
        match fact:
            case DomainDenied(refusal, domain, _):
                if (known := self._known.get(domain)) is not None:
                    return [(known, refusal)] if known else []
                if domain in self._unknown or len(self._unknown) < _MAX_UNKNOWN:
                    waiting = self._unknown.setdefault(domain, [])
                    if len(waiting) < _BATCH:
                        waiting.append(fact)
            case DomainCreated(domain, serial, process):
                self._drop_proof(domain, serial)
                return self._resolve(domain, process)
            case Call(serial, process):
                for domain, waiting in self._unknown.items():
                    if any(each.serial == serial for each in waiting):
                        return self._resolve(domain, process)
            case DomainFreed(domain):
                self._known.pop(domain, None)
                self._unknown.pop(domain, None)
            case Denied():
                pass
        return []

    def _drop_proof(self, domain: str, serial: str) -> None:
        waiting = self._unknown.get(domain, [])
        waiting[:] = [
            each for each in waiting if (each.serial, each.refusal.operation) != (serial, _PROOF)
        ]

    def _resolve(self, domain: str, process: Process) -> list[tuple[str, Refusal]]:
        container = self._container_of(process)
        if container is None:
            return []
        while len(self._known) >= _MAX_DOMAINS:
            del self._known[next(iter(self._known))]
        self._known[domain] = container
        waiting = self._unknown.pop(domain, [])
        return [(container, each.refusal) for each in waiting] if container else []

    def forget_unknown(self) -> None:
        """Forget the refusals of domains whose container did not become known."""
        self._unknown.clear()


class EventLimit:
    """Events of refusals: the first one at once, then one for each interval with their number."""

    def __init__(self, emit: Callable[[str, dict[str, str]], None]) -> None:
        """``emit`` gets the id of a container and the attributes of an event."""
        self._emit = emit
        self._waiting: dict[tuple[str, str], tuple[int, Refusal] | None] = {}

    def add(self, container: str, refusal: Refusal, count: int = 1) -> None:
        """Emit an event, or count the refusals for the next one."""
        key = (container, refusal.layer)
        if key in self._waiting:
            former = self._waiting[key]
            self._waiting[key] = (count + (former[0] if former else 0), refusal)
        else:
            self._waiting[key] = None
            self._emit(container, refusal.attributes(count))

    def flush(self) -> None:
        """Emit the events of the last interval."""
        last, self._waiting = self._waiting, {}
        for (container, layer), waiting in last.items():
            if waiting is not None:
                self._waiting[container, layer] = None
                self._emit(container, waiting[1].attributes(waiting[0]))


class RefusalMonitor:
    """Reads the sources in the event loop."""

    def __init__(self, engine: Engine, *, ebpf: bool) -> None:
        self._engine = engine
        self._store = engine.services.container_store
        self._first_uid = engine.services.config.subid_start
        self._events = EventLimit(self._emit)
        self._domains = Domains(self._container_of)
        self._records: RecordSocket | None = None
        self._selected: tuple[int, ...] = _TYPES
        self._drops = 0
        self._tables: RefusalTables | None = None
        self._ebpf = ebpf
        self._start_task: asyncio.Task[None] | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to count. What this host does not support is logged."""
        self._open_records()
        if self._ebpf:
            self._start_task = asyncio.get_running_loop().create_task(self._load_tables())
        self._set_sources()
        self._schedule()

    async def close(self) -> None:
        """Stop."""
        for timer in (self._timer, self._pause):
            if timer is not None:
                timer.cancel()
        if self._start_task is not None:
            self._start_task.cancel()
            await asyncio.wait((self._start_task,))
        self._close_records()
        if self._tables is not None:
            self._tables.close()
            self._tables = None

    # -- sources ----------------------------------------------------------------------------------

    def _open_records(self) -> None:
        if not _in_initial_namespaces():
            _log.info("refusals have no audit records in a pid or network namespace of its own")
            return
        try:
            self._records = kernel_audit.RecordSocket(_TYPES)
        except OSError as error:
            _log.info("refusals have no audit records: %s", error.strerror)
            return
        asyncio.get_running_loop().add_reader(self._records.fileno(), self._receive)

    async def _load_tables(self) -> None:
        from jaula.features.why import refusal_tables

        try:
            self._tables = await refusal_tables.load()
        except JaulaError as error:
            _log.error("refusals are not counted by eBPF: %s", error)
            return
        self._set_sources()

    def _set_sources(self) -> None:
        """Set the metric of the sources: whether audit is on may change at any time."""
        host, records = self._engine.services.host, self._records is not None
        ebpf = self._tables.layers if self._tables is not None else ()
        counted = {
            ("apparmor", "audit"): records and host.apparmor,
            ("selinux", "audit"): records and host.selinux,
            ("landlock", "audit"): records
            and "landlock" not in ebpf
            and host.landlock >= _LANDLOCK_ABI
            and _audit_enabled(),
            ("seccomp", "audit"): records and "seccomp" not in ebpf,
            ("seccomp", "ebpf"): "seccomp" in ebpf,
            ("landlock", "ebpf"): "landlock" in ebpf,
        }
        for (layer, source), value in counted.items():
            metrics.REFUSAL_SOURCES.set(int(value), layer, source)
            if value:
                metrics.REFUSALS.add(layer, by=0)

    # -- counting ---------------------------------------------------------------------------------

    def _receive(self) -> None:
        """Count the waiting records, at most :data:`_BATCH` of them."""
        records = self._records
        assert records is not None
        for _ in range(_BATCH):
            try:
                record = records.receive()
            except OSError as error:
                if error.errno == errno.ENOBUFS:  # `drops` has their number
                    continue
                _log.error("audit records cannot be read: %s", error)
                self._close_records()
                self._set_sources()
                return
            if record is None:
                break
            if (fact := fact_of(record)) is not None:
                self._add(fact)
        else:
            loop = asyncio.get_running_loop()
            loop.remove_reader(records.fileno())
            self._pause = loop.call_later(_PAUSE, loop.add_reader, records.fileno(), self._receive)
        self._select()

    def _add(self, fact: Fact) -> None:
        counted = self._tables.layers if self._tables is not None else ()
        if not isinstance(fact, Denied):
            if "landlock" not in counted:
                for container, refusal in self._domains.add(fact):
                    self._count(container, refusal)
        elif fact.refusal.layer not in counted and (of := self._container_of(fact.process)):
            self._count(of, fact.refusal)

    def _select(self) -> None:
        """Receive the records of system calls while a domain is not known."""
        types = (*_TYPES, AUDIT_SYSCALL) if self._domains.incomplete else _TYPES
        if self._records is not None and types != self._selected:
            self._records.select(types)
            self._selected = types

    def _count(self, container_id: str, refusal: Refusal, count: int = 1) -> None:
        container = self._store.get(container_id)
        if container is None:
            return
        counts = container.refusals
        counts[refusal.layer] = counts.get(refusal.layer, 0) + count
        metrics.REFUSALS.add(refusal.layer, by=count)
        self._events.add(container_id, refusal, count)

    def _container_of(self, process: Process) -> str | None:
        """Return the container of a process, '' if it has none, None if that is not known."""
        try:
            with open(f"/proc/{process.pid}/cgroup", encoding="utf-8", errors="replace") as file:
                ids = container_ids(file.read())
        except OSError:
            ids, absent = (), None
        else:
            absent = ""
        for container_id in ids:
            if container_id in self._store:
                return container_id
        if process.uid < self._first_uid and not process.level:
            return absent
        found = [c.id for c in self._store if c.live and owns(c.record, process)]
        return found[0] if len(found) == 1 else absent

    def _emit(self, container_id: str, attributes: Mapping[str, str]) -> None:
        container: Container | None = self._store.get(container_id)
        if container is not None:
            self._engine.services.events.emit(
                *("container", "refused", container_id),
                {**container.record.event_attributes, **attributes},
            )

    # -- at an interval ---------------------------------------------------------------------------

    def _schedule(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(INTERVAL, self._tick)

    def _tick(self) -> None:
        self._schedule()
        self._domains.forget_unknown()
        self._select()
        self._set_sources()
        self._count_lost()
        if self._tables is not None:
            self._count_tables(self._tables)
        self._events.flush()

    def _count_lost(self) -> None:
        if self._records is not None:
            drops = self._records.drops()
            metrics.REFUSALS_LOST.add("audit", by=(drops - self._drops) % (1 << 32))
            self._drops = drops

    def _count_tables(self, tables: RefusalTables) -> None:
        try:
            rows, lost = tables.read(self._store.__contains__)
        except OSError as error:
            _log.error("refusals are no longer counted by eBPF: %s", error)
            tables.close()
            self._tables = None
            self._set_sources()
            return
        metrics.REFUSALS_LOST.add("ebpf", by=lost)
        for row in rows:
            operation = _call_name(row.number) if row.layer == "seccomp" else ""
            self._count(row.container, Refusal(row.layer, operation), row.added)

    def _close_records(self) -> None:
        if self._records is not None:
            asyncio.get_running_loop().remove_reader(self._records.fileno())
            self._records.close()
            self._records = None


def _audit_enabled() -> bool:
    """Return whether the kernel writes the records of Landlock."""
    try:
        return kernel_audit.enabled()
    except OSError as error:
        _log.debug("the state of audit cannot be read: %s", error)
        return False


def _in_initial_namespaces() -> bool:
    """Return whether audit records reach this process and its pids are those of records."""
    if os.stat("/proc/self/ns/pid").st_ino != _INITIAL_PID_NAMESPACE:
        return False
    own = os.stat("/proc/self/ns/net").st_ino
    try:
        return own in (_INITIAL_NET_NAMESPACE, os.stat("/proc/1/ns/net").st_ino)
    except PermissionError:
        return own == _INITIAL_NET_NAMESPACE
