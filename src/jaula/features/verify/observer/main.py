"""The loop of the observer: what to verify and when, and the documents that it writes.

A document of the type ``isolation`` has the layers of one container with the verdict and the number
of rows of each, the rows that do not hold or are relaxed, and what has changed since the first
report.
``stats`` has a sample of all containers. ``removed`` ends a container. A request is answered by a
document with its number as ``Reply``, and ``Document`` or ``Error``.

The kernel reports changes of mounts, cgroups and networks (:mod:`jaula.features.verify.watch`), and
the engine hands over its events. Containers that are concerned are verified at once, while the
budget lasts. All are verified again on a timer, since the kernel reports no change of a process.

The process has one thread, since checks fork.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from jaula import cgroups
from jaula.cgroups.cgroup_driver import CgroupDriver
from jaula.cli.cli_errors import CliError
from jaula.cli.client.api_client import Client
from jaula.errors import JaulaError, Unsupported
from jaula.features.verify import pstree
from jaula.features.verify.cli.verify import Documents, container_rows
from jaula.features.verify.engine_facts import snapshot_of
from jaula.features.verify.model.container import AuditedContainer
from jaula.features.verify.model.host_snapshot import HostSnapshot
from jaula.features.verify.model.result import Result, Verdict
from jaula.features.verify.observer.samples import FIELDS, Samples
from jaula.features.verify.reports.report import check_info
from jaula.features.verify.watch import HOST, Budget, KernelReports, next_interval

INTERVAL = 1.0  # seconds between two samples
IDLE_INTERVAL = 10.0  # without a viewer
LISTING = 15.0  # seconds between two lists of containers; events make them earlier
SHARE = 0.05  # of one processor, for verifications beyond the first of each container
SLICE = 0.25  # seconds of verifications between two looks at requests and samples
MAX_AGE = 5.0  # seconds of what was read of the host
MAX_CHANGES = 50  # of one container
RENEWAL = 1.0  # seconds for which the process tree is not read again
_NICE = 5
_ORDER = (Verdict.FAILS, Verdict.UNKNOWN, Verdict.RELAXED, Verdict.HOLDS)
Document = dict[str, Any]


class Observed:
    """A running container: its document, its rows, and how they changed."""

    def __init__(self, inspect: Mapping[str, Any]) -> None:
        self.inspect = inspect
        self.rows: dict[str, Result] = {}
        self.changes: deque[Document] = deque(maxlen=MAX_CHANGES)
        self.verified = ""  # time, RFC 3339


def word(verdict: Verdict) -> str:
    """Return a verdict in lower case: reports for people write one of them in capitals. Pure."""
    return str(verdict).lower()


def layers(rows: Sequence[Result]) -> list[Document]:
    """Return the layers in the order of the report, with the number of rows by verdict. Pure."""
    found: dict[str, dict[Verdict, int]] = {}
    for row in rows:
        counts = found.setdefault(row.layer, dict.fromkeys(_ORDER, 0))
        counts[row.verdict] += 1
    return [
        {
            "Layer": name,
            "Verdict": word(next(v for v in _ORDER if counts[v])),
            **{word(verdict).capitalize(): counts[verdict] for verdict in _ORDER},
        }
        for name, counts in found.items()
    ]


def row_document(row: Result) -> Document:
    """Return a row of the report. Pure."""
    return {
        "Id": row.id,
        "Check": row.check,
        "Layer": row.layer,
        "Requested": row.requested,
        "Effective": row.effective,
        "Evidence": row.evidence,
        "Verdict": word(row.verdict),
    }


def differences(
    before: Mapping[str, Result], after: Mapping[str, Result], now: str
) -> Iterator[Document]:
    """Yield a document for each row whose verdict or request has changed. Pure.

    The value in effect alone is not compared: numbers of processes change all the time.
    """
    for name, row in after.items():
        old = before.get(name)
        if old is None or (old.verdict is row.verdict and old.requested == row.requested):
            continue
        yield {
            "Time": now,
            "Id": name,
            "Layer": row.layer,
            "Before": {"Requested": old.requested, "Effective": old.effective,
                       "Verdict": word(old.verdict)},
            "After": {"Requested": row.requested, "Effective": row.effective,
                      "Verdict": word(row.verdict)},
        }  # fmt: skip


class Observer:
    """Verifies and samples the containers of one engine."""

    def __init__(
        self,
        address: str,
        emit: Callable[[Document], None],
        input_fd: int,
        driver: CgroupDriver | None,
    ) -> None:
        """``input_fd`` has the requests, and does not block; ``driver`` is that of the host."""
        self._client = Client(address)
        self._emit = emit
        self._input_fd = input_fd
        self._rest = b""  # of an incomplete line
        self._containers: dict[str, Observed] = {}
        self._samples = Samples(driver)
        self._snapshot: HostSnapshot | None = None
        self._read_at = 0.0  # when the snapshot was made, monotonic
        self._budget = Budget(time.monotonic(), SHARE, 2.0)
        self._due: dict[str, float] = {}  # by id: since when, monotonic
        self._viewers = 1
        self._tree: tuple[float, Document] = (0.0, {})
        self._sample_at = 0.0
        self._ended = False

    def run(self) -> None:
        """Observe until the input ends."""
        with KernelReports(self._input_fd) as reports:
            list_at = self._sample_at = time.monotonic()
            round_at, cost = list_at, 0.0
            while not self._ended:
                now = time.monotonic()
                if self._answer() or now >= list_at:
                    self._list(reports)
                    list_at = now + LISTING
                if now >= self._sample_at:
                    self._emit(self._samples.take())
                    self._sample_at += INTERVAL if self._viewers else IDLE_INTERVAL
                    self._sample_at = max(self._sample_at, now + INTERVAL / 2)
                if now >= round_at:
                    self._mark(self._containers)
                    round_at = now + next_interval(cost, SHARE)
                    cost = 0.0
                spent = self._verify_some()
                cost += spent
                until = min(self._sample_at, list_at, round_at)
                if self._due and self._viewers:
                    until = min(until, time.monotonic() + (0 if spent else self._wait()))
                changed = reports.wait(until - time.monotonic())
                self._mark(self._containers if HOST in changed else changed & set(self._containers))

    def _mark(self, keys: Iterable[str]) -> None:
        """Verify containers as soon as possible, with what the host is from now on."""
        self._due |= dict.fromkeys(keys, time.monotonic())

    def _wait(self) -> float:
        return self._budget.wait(time.monotonic())

    # -- containers ------------------------------------------------------------------------------

    def _list(self, reports: KernelReports) -> None:
        """Follow the containers that run now."""
        documents = Documents(self._client)
        try:
            listed = {entry["Id"]: entry for entry in documents.listed}
            inspected = {key: documents.inspect(key) for key in listed}
        except CliError:
            return  # the engine stops, or a container was removed: the next list has it
        inspected = {k: d for k, d in inspected.items() if d["State"]["Running"]}
        for key in set(self._containers) - set(inspected):
            self._forget(key, reports)
        for key, document in inspected.items():
            known = self._containers.get(key)
            if known is not None and known.inspect["State"]["Pid"] != document["State"]["Pid"]:
                self._forget(key, reports)
                known = None
            if known is None:
                if not self._watch(document, documents, reports):
                    continue
                self._containers[key] = Observed(document)
                self._mark((key,))
            elif known.inspect != document:
                known.inspect = document
                self._mark((key,))
        states = {key: each.inspect["State"] for key, each in self._containers.items()}
        self._samples.follow(
            {key: (s["Pid"], s.get("NetworkPid", s["Pid"])) for key, s in states.items()}
        )

    @staticmethod
    def _watch(document: Document, documents: Documents, reports: KernelReports) -> bool:
        """Watch a container; return False if it has exited."""
        try:
            container = AuditedContainer(document, documents.spec(document["Id"]))
        except (CliError, JaulaError):
            return False
        try:
            reports.add(container)
        except OSError:
            reports.remove(document["Id"])
            return False
        finally:
            container.close()
        return True

    def _forget(self, key: str, reports: KernelReports) -> None:
        reports.remove(key)
        del self._containers[key]
        self._due.pop(key, None)
        self._emit({"Type": "removed", "Id": key})

    def _verify_some(self) -> float:
        """Verify some of the containers that are due; return the processor time in seconds.

        A container without rows is verified whatever the budget is.
        """
        if not self._due or not self._viewers:
            return 0.0
        allowed = not self._wait()
        chosen = [k for k in self._due if allowed or not self._containers[k].rows]
        if not chosen:
            return 0.0
        begun, end = time.process_time(), time.monotonic() + SLICE
        documents = Documents(self._client)
        for key in chosen:
            if self._due.pop(key) > self._read_at or end - self._read_at > MAX_AGE:
                self._renew()
            self._verify(key, documents)
            if time.monotonic() > end:
                break
        spent = time.process_time() - begun
        if allowed:
            self._budget.spend(time.monotonic(), spent)
        return spent

    def _verify(self, key: str, documents: Documents) -> Sequence[Result]:
        """Verify one container and write its document.

        :raises CliError: when it has exited.
        """
        observed = self._containers[key]
        assert self._snapshot is not None
        try:
            observed.inspect = documents.inspect(key)
            rows = container_rows(
                self._client, observed.inspect, self._snapshot, documents, probe=False
            )
        except CliError:
            return ()  # it has exited; the next list has it
        now = _now()
        after = {row.id: row for row in rows}
        first = not observed.rows
        changes = list(differences(observed.rows, after, now))
        observed.changes.extend(changes)
        same = [_key(row) for row in rows] == [_key(row) for row in observed.rows.values()]
        observed.rows, observed.verified = after, now
        if first or changes or not same:
            self._emit(self._isolation(key))
        return rows

    def _isolation(self, key: str) -> Document:
        observed = self._containers[key]
        inspect, rows = observed.inspect, tuple(observed.rows.values())
        host = inspect.get("HostConfig") or {}
        return {
            "Type": "isolation",
            "Id": key,
            "Name": str(inspect.get("Name") or "").lstrip("/"),
            "Time": observed.verified,
            "Layers": layers(rows),
            "Rows": [row_document(row) for row in rows if row.verdict is not Verdict.HOLDS],
            "Changes": list(observed.changes),
            "Pid": inspect["State"]["Pid"],
            "Egress": host.get("Egress"),
            "Listen": host.get("Listen"),
            "Profile": str(host.get("Profile") or "")[:80].partition("\n")[0],
        }

    def _renew(self) -> None:
        """Read the host again with the next check."""
        self._read_at = time.monotonic()
        snapshot = HostSnapshot() if self._snapshot is None else self._snapshot.renewed()
        try:
            if self._snapshot is None:
                snapshot = snapshot_of(self._client)
            else:
                snapshot.networks = self._client.get("/networks")
        except CliError:
            self._read_at = 0.0  # the engine stops
        self._snapshot = snapshot

    # -- requests --------------------------------------------------------------------------------

    def _answer(self) -> bool:
        """Answer the requests that have arrived; return whether containers have to be listed."""
        changed = False
        for request in self._read():
            if "Event" in request:
                changed = True
                if (key := request["Event"]) in self._containers:
                    self._mark((key,))
            elif "Viewers" in request:
                if not self._viewers:
                    self._sample_at = time.monotonic()
                self._viewers = int(request["Viewers"])
            else:
                self._reply(request)
        return changed

    def _read(self) -> Iterator[Document]:
        """Yield the requests that have arrived; the end of the input ends the observer."""
        while True:
            try:
                data = os.read(self._input_fd, 1 << 16)
            except BlockingIOError:
                return
            if not data:
                self._ended = True
                return
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                yield json.loads(line)

    def _reply(self, request: Document) -> None:
        number = request["Request"]
        try:
            document = self._document(request)
        except (CliError, JaulaError, OSError, LookupError) as error:
            self._emit({"Reply": number, "Error": getattr(error, "message", str(error))})
            return
        self._emit({"Reply": number, "Document": document})

    def _document(self, request: Document) -> Document:
        match request["Method"]:
            case "current":
                return {
                    "Documents": [
                        self._isolation(key) for key, o in self._containers.items() if o.rows
                    ]
                }
            case "verify":
                return self._report(request["Container"])
            case "processes":
                return self._processes()
            case "history":
                return self._samples.history(
                    request["Containers"], request["Fields"] or FIELDS, request["Points"]
                )
        raise LookupError(f"unknown method {request['Method']!r}")

    def _report(self, key: str) -> Document:
        """Return every row of a container, verified now, with the descriptions of its checks."""
        observed = self._containers.get(key)
        documents = Documents(self._client)
        document = documents.inspect(key)
        if observed is None and document["State"]["Running"]:
            observed = Observed(document)
        if observed is None:
            raise CliError("the container is not running: nothing is in effect to verify")
        self._renew()
        if key in self._containers:
            self._due.pop(key, None)
            rows: Sequence[Result] = self._verify(key, documents)
        else:
            assert self._snapshot is not None
            rows = container_rows(self._client, document, self._snapshot, documents, probe=False)
        infos = {row.check: check_info(row) for row in rows}
        return {
            "Id": key,
            "Name": str(document.get("Name") or "").lstrip("/"),
            "Time": _now(),
            "Layers": layers(rows),
            "Rows": [row_document(row) for row in rows],
            "Changes": list(observed.changes),
            "Checks": {
                info.id: {
                    "Title": info.title,
                    "Reason": info.reason,
                    "Evidence": info.evidence,
                    "Advice": info.advice,
                    "References": list(info.references),
                }
                for info in infos.values()
            },
        }

    def _processes(self) -> Document:
        """Return every process of the host, with the namespaces in which it differs."""
        made, document = self._tree
        if time.monotonic() - made < RENEWAL:
            return document
        entries = pstree.processes()
        pids = {o.inspect["State"]["Pid"]: key for key, o in self._containers.items()}
        inside = pstree.membership(entries, pids)
        document = {
            "Time": _now(),
            "Processes": [
                {
                    "Pid": entry.pid,
                    "Parent": entry.parent,
                    "Name": entry.name,
                    "Changes": list(pstree.changes(entries, entry)),
                    **({"Container": pids[entry.pid]} if entry.pid in pids else {}),
                    **({"Inside": inside[entry.pid]} if entry.pid in inside else {}),
                }
                for entry in entries.values()
            ],
        }
        self._tree = (time.monotonic(), document)
        return document


def _key(row: Result) -> tuple[object, ...]:
    """Return what viewers see of a row without a question: all of one that does not hold."""
    if row.verdict is Verdict.HOLDS:
        return row.id, row.verdict
    return row.id, row.verdict, row.requested, row.effective


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _cgroup_driver() -> CgroupDriver | None:
    """Return the driver of the host; None without a cgroup hierarchy."""
    try:
        return cgroups.detect()
    except Unsupported:
        return None


def main(address: str) -> int:
    """Observe the engine at an address until standard input ends."""
    os.nice(_NICE)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    output = sys.stdout.buffer

    def emit(document: Document) -> None:
        output.write(json.dumps(document, separators=(",", ":")).encode() + b"\n")
        output.flush()

    os.set_blocking(sys.stdin.fileno(), False)
    try:
        Observer(address, emit, sys.stdin.fileno(), _cgroup_driver()).run()
    except BrokenPipeError:
        return 0  # the engine has ended
    return 0
