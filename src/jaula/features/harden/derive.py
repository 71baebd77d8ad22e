"""The profile of a container, derived from records of what it does. Pure.

Several records are joined: an item that one of them has is in the profile. What the records cannot
say is a note of the profile, never a guess.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence

from jaula.errors import InvalidRequest
from jaula.features.harden import profile_files, profile_network, profile_syscalls
from jaula.features.harden.tally import Observation, Tallies, observations, words
from jaula.features.record.record_document import Container
from jaula.features.record.record_reader import Record
from jaula.spec.confinement_profile import Evidence, Limits, Process, Profile, Seccomp, Source

DEFAULT_MARGIN = 1.5
_MAX_NOTES = 32
_MEMORY_STEP = 1 << 20  # bytes
_LEAST_MEMORY = 32 << 20  # bytes: processes of the runtime count too, at a start and for exec
_CPU_STEP = 50  # thousandths of a processor
_REFUSALS = {"memory-refused": "memory", "oom-kills": "memory", "pids-refused": "processes"}
_PEAKS = {"pids": "pids", "memory": "memory", "cpu": "cpus"}
"""The limit of each peak."""
EXEC_PIDS = 16
_LISTS = (
    (frozenset({"syscalls", "programs"}), "seccomp.syscalls"),
    (frozenset({"files", "execs", "programs"}), "files.read"),
    (frozenset({"files", "execs", "programs"}), "files.execute"),
    (frozenset({"sockets"}), "network.listen"),
    (frozenset({"sockets"}), "network.egress"),
)
"""The fields whose list is left out if one of these tables lost something."""
_SETUID = frozenset(
    words(
        """at chage chfn chsh crontab doas expiry fusermount fusermount3 gpasswd mount newgidmap
        newgrp newuidmap passwd ping pkexec sg su sudo sudoedit umount unix_chkpwd"""
    )
)
"""Programs that distributions install setuid."""


def derive(
    records: Sequence[Record],
    name: str,
    *,
    margin: float = DEFAULT_MARGIN,
) -> Profile:
    """Return the least that the container of these records needs.

    ``margin`` is the factor from a recorded peak to its limit, 0 for no limits.

    :raises InvalidRequest: when a record is not intact or its mechanism does not record all that
        a profile needs, or they are of different images.
    """
    if not records:
        raise InvalidRequest("a profile needs a record")
    containers = []
    for record in records:
        if record.errors or record.header is None or record.end is None:
            raise InvalidRequest(
                f"a record is not intact: {(record.errors or ['no end'])[0]}",
                hint="jaula record verify FILE lists what is wrong",
            )
        if record.header.not_recorded:
            raise InvalidRequest(
                f"a record by {record.header.mechanism} lacks: "
                f"{', '.join(record.header.not_recorded)}",
                hint="a profile needs records by eBPF (jaula record --mechanism ebpf)",
            )
        containers.append(record.header.container)
    sources = tuple(_source(record) for record in records)
    images = sorted({source.image_id for source in sources})
    if len(images) > 1:
        raise InvalidRequest(
            f"the records are of different images: {', '.join(image[:19] for image in images)}",
            hint="make a profile for each image",
        )
    entries = list(observations(records))
    started = any(source.start_recorded for source in sources)
    lost = {table for source in sources for table in source.losses}
    incomplete = _lost_lists(lost)
    source_notes = list(_source_notes(sources))
    notes: list[str] = []
    gaps: dict[str, str] = {}  # fields whose list is too long, with a note
    evidence: dict[str, dict[str, Evidence]] = {}
    process, evidence["process"] = _process(entries, containers, notes)
    capabilities, evidence["capabilities"] = profile_syscalls.capabilities(
        entries, containers, notes
    )
    seccomp = Seccomp()
    if not lost & {"syscalls", "programs"}:
        seccomp = profile_syscalls.seccomp(entries, evidence, notes, started=started)
    complete = started and not lost & {"files", "execs", "programs"}
    mounts = sorted({mount for container in containers for mount in container.mounts})
    file_access = profile_files.files(entries, mounts, evidence, notes, gaps, complete=complete)
    network_access = profile_network.network(
        entries, containers, evidence, notes, gaps, complete="sockets" not in lost, started=started
    )
    devices, evidence["devices"] = profile_network.devices(entries, containers, notes, gaps)
    if rings := sorted({o.entry.operation for o in entries if o.entry.kind == "io-uring"}):
        notes.insert(
            0, f"it used io_uring ({', '.join(rings)}): files and addresses of these are in no list"
        )
    limits, evidence["limits"] = _limits(entries, margin, notes)
    return Profile(
        name=name,
        image=containers[-1].image,
        sources=sources,
        process=process,
        capabilities=capabilities,
        seccomp=seccomp,
        files=file_access,
        network=network_access,
        limits=limits,
        devices=devices,
        notes=_limited([*source_notes, *gaps.values(), *notes]),
        incomplete=tuple(sorted({*incomplete, *gaps})),
        evidence={section: items for section, items in evidence.items() if items},
    )


def _lost_lists(lost: Collection[str]) -> set[str]:
    """Return the fields whose list is left out for the losses of these tables."""
    return {field for tables, field in _LISTS if not tables.isdisjoint(lost)}


def _limited(notes: list[str]) -> tuple[str, ...]:
    """Return the first notes, and how many there are more: a container can cause many."""
    if len(notes) <= _MAX_NOTES:
        return tuple(notes)
    return (*notes[: _MAX_NOTES - 1], f"{len(notes) - _MAX_NOTES + 1} more notes")


def losses(profile: Profile) -> list[str]:
    """Return what a profile lacks for losses of its records and for the length of lists."""
    lost = sorted({table for source in profile.sources for table in source.losses})
    result = [f"the records lost some of: {', '.join(lost)}"] if lost else []
    if profile.incomplete:
        result.append(f"not restricted for that or their length: {', '.join(profile.incomplete)}")
    return result


def _source(record: Record) -> Source:
    header, end = record.header, record.end
    if header is None or end is None:
        raise AssertionError("an intact record has a header and an end")
    losses = {
        table: loss.occurrences + loss.entries + loss.texts
        for table, loss in sorted(end.losses.items())
    }
    return Source(
        head=record.head.hash,
        container=header.container.name,
        image_id=header.container.image_id,
        time=header.time,
        duration=end.duration / 1e6,
        mechanism=header.mechanism,
        start_recorded=header.from_start,
        losses={table: number for table, number in losses.items() if number},
    )


def _source_notes(sources: Sequence[Source]) -> Iterator[str]:
    if not any(source.start_recorded for source in sources):
        yield (
            "no record has the start of the container (jaula run --record): ports, and files read "
            "and executed, are not restricted, and the system calls of a start are added"
        )
    for source in sources:
        if source.losses:
            lost = ", ".join(f"{number} in {table}" for table, number in source.losses.items())
            restricted = {
                "system calls": {"syscalls", "programs"},
                "files": {"files", "execs", "programs"},
                "ports and egress": {"sockets"},
            }
            free = [name for name, tables in restricted.items() if tables & source.losses.keys()]
            yield f"the record of {source.time} lost {lost}" + (
                f": not restricted are {' and '.join(free)}" if free else ""
            )


def _process(
    observations: Sequence[Observation], containers: Sequence[Container], notes: list[str]
) -> tuple[Process, dict[str, Evidence]]:
    gained = Tallies()
    user = containers[-1].user
    root = user.partition(":")[0] in ("", "0", "root")
    if not root:
        for number, program, entry, _ in observations:
            if containers[number].no_new_privileges:
                continue  # what it gained, it has in a user namespace of its own
            base = program.rpartition("/")[2]
            if entry.kind == "capability" and base in _SETUID:
                gained["no-new-privileges"].add(
                    number, program, entry.count, f"{program} gained {entry.capability}"
                )
    elif not any(o.entry.kind == "capability" for o in observations):
        notes.append("it runs as root and used no capability: another user may suffice (--user)")
    return Process(user=user, no_new_privileges=not gained), gained.evidence()


def _limits(
    entries: Sequence[Observation], margin: float, notes: list[str]
) -> tuple[Limits, dict[str, Evidence]]:
    """Return the peaks with the margin; a limit without a peak in the records stays open.

    The number of processes has room for those that an operator starts beside the program.
    """
    peaks: dict[str, int] = {}
    ceilings: dict[str, int] = {}  # of the containers, 0 if one had none
    records: dict[str, set[int]] = {}
    refused: set[str] = set()
    for number, _, entry, _ in entries:
        if entry.kind != "resource":
            continue
        if entry.resource in _REFUSALS and entry.value:
            refused.add(_REFUSALS[entry.resource])
        elif entry.resource in _PEAKS:
            peaks[entry.resource] = max(entry.value, peaks.get(entry.resource, 0))
            former = ceilings.get(entry.resource, entry.limit)
            ceilings[entry.resource] = max(entry.limit, former) if entry.limit and former else 0
            records.setdefault(entry.resource, set()).add(number)
    notes += [f"it reached its limit of {name} in the records" for name in sorted(refused)]
    if not margin:
        return Limits(), {}
    limits = {}
    evidence = {}
    for resource, peak in peaks.items():
        if resource == "pids":
            limits["pids"] = math.ceil(peak * margin) + EXEC_PIDS
            reason = f"peak {peak} x {margin:g}, and {EXEC_PIDS} for exec and health checks"
        elif resource == "memory":
            value = _round_up(math.ceil(peak * margin), _MEMORY_STEP)
            limits["memory"] = max(value, _LEAST_MEMORY)
            reason = f"{limits['memory'] >> 20} MiB: peak {peak / (1 << 20):.1f} MiB x {margin:g}"
            if limits["memory"] > value:
                reason += ", with room for the runtime"
        else:
            limits["cpu"] = _round_up(math.ceil(peak * margin), _CPU_STEP)
            reason = f"peak {peak / 1000:g} x {margin:g}"
        if 0 < ceilings[resource] < limits[resource]:
            limits[resource] = ceilings[resource]
            reason = "the container's own limit"
        evidence[_PEAKS[resource]] = Evidence(records=len(records[resource]), reason=reason)
    return Limits(
        pids=limits.get("pids", 0),
        memory=limits.get("memory", 0),
        cpus=limits.get("cpu", 0) / 1000,
    ), evidence


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step
