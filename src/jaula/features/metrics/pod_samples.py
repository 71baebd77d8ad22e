"""Samples of pods for metrics: more details than :mod:`.stats`, running pods only.

The functions read many files, so they are called in a thread.

Source: proc(5), ``/proc/PID/fd``; sysfs, ``/sys/dev/block``.
"""

from __future__ import annotations

import os
import resource
import time
from typing import TYPE_CHECKING, NamedTuple

from jaula.engine.userns import join
from jaula.kernel import mountinfo

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from jaula.engine.model.container import Container
    from jaula.features.metrics.pod_usage import CgroupUsage, LayerSample, PodStats
    from jaula.state.container_records import ContainerRecord

_DESCRIPTORS = 16384  # of a container that are examined
_UNLIMITED = 2**64 - 1  # RLIM_INFINITY

Device = tuple[int, int]
"""The major and minor number of a block device."""


class OpenFiles(NamedTuple):
    """The open file descriptors of a container, and those of them that are sockets."""

    descriptors: int
    sockets: int


class FileSystem(NamedTuple):
    """The file system of the writable layers: bytes and inodes. ``device`` is a path or a name."""

    device: str
    size: int
    inodes: int
    free_inodes: int


class ContainerSample(NamedTuple):
    """One running container.

    ``open_files`` is None for a container with more descriptors than are examined. ``files_limit``
    is RLIMIT_NOFILE of its first process, None if that has exited. ``devices`` has the names of the
    block devices in its statistics.
    """

    record: ContainerRecord
    cgroup: CgroupUsage
    layer: LayerSample | None
    open_files: OpenFiles | None
    files_limit: int | None
    file_system: FileSystem
    devices: Mapping[Device, str]


class SandboxSample(NamedTuple):
    """One running pod. ``moment`` is in nanoseconds since the epoch."""

    record: ContainerRecord
    moment: int
    networks: Mapping[str, Mapping[str, int]]
    containers: Sequence[ContainerSample]


def collect(
    stats: PodStats, pods: Iterable[tuple[Container, Sequence[Container]]], directory: str
) -> list[SandboxSample]:
    """Return samples of those of the pods, each with its containers, that run.

    ``directory`` is that of the writable layers.
    """
    samples: list[SandboxSample] = []
    file_system = read_file_system(directory)
    names: dict[Device, str] = {}
    for sandbox, members in pods:
        if not sandbox.live:
            continue
        networks, moment = stats.networks(sandbox), time.time_ns()
        containers = [
            _container(stats, member, cgroup, file_system, names)
            for member in members
            if (cgroup := stats.cgroup(member, detailed=True)) is not None
        ]
        samples.append(SandboxSample(sandbox.record, moment, networks, containers))
    return samples


def _container(
    stats: PodStats,
    container: Container,
    cgroup: CgroupUsage,
    file_system: FileSystem,
    names: dict[Device, str],
) -> ContainerSample:
    for entry in cgroup.stats.blkio.devices:
        if (entry.major, entry.minor) not in names:
            names[entry.major, entry.minor] = device_name(entry.major, entry.minor)
    return ContainerSample(
        container.record,
        cgroup,
        stats.layer(container),
        open_files(cgroup.pids),
        files_limit(join.process_in(container, "user")),
        file_system,
        names,
    )


def open_files(pids: Collection[int], limit: int = _DESCRIPTORS) -> OpenFiles | None:
    """Count the descriptors of processes; None if there are more than ``limit``.

    A process that has exited has none. The links are read and not followed, so a file system that
    does not answer delays nothing.
    """
    descriptors = sockets = 0
    for pid in pids:
        try:
            directory = os.open(f"/proc/{pid}/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue  # it has just exited
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    descriptors += 1
                    if descriptors > limit:
                        return None
                    sockets += _is_socket(directory, entry.name)
        except OSError:
            continue  # it has just exited
        finally:
            os.close(directory)
    return OpenFiles(descriptors, sockets)


def _is_socket(directory: int, name: str) -> bool:
    try:
        return os.readlink(name, dir_fd=directory).startswith("socket:")
    except OSError:
        return False  # it has just been closed


def files_limit(pid: int) -> int | None:
    """Return the soft limit of open files of a process; None if it has exited."""
    if pid <= 0:
        return None
    try:
        soft, _hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    except OSError:
        return None
    return _UNLIMITED if soft == resource.RLIM_INFINITY else soft


def device_name(major: int, minor: int) -> str:
    """Return the path of a block device; its numbers if sysfs does not know it."""
    numbers = f"{major}:{minor}"
    try:
        with open(f"/sys/dev/block/{numbers}/uevent", encoding="utf-8") as file:
            pairs = dict(line.strip().partition("=")[::2] for line in file)
    except OSError:
        return numbers  # it was removed, or it is a network file system
    return f"/dev/{pairs['DEVNAME']}" if "DEVNAME" in pairs else numbers


def read_file_system(directory: str) -> FileSystem:
    """Return the file system of a directory.

    ``device`` is the source of its mount, since btrfs and others have no block device of their own.
    """
    status = os.statvfs(directory)
    number = os.stat(directory).st_dev
    device = f"{os.major(number)}:{os.minor(number)}"
    for mount in mountinfo.read(errors="backslashreplace"):
        if mount.device == device and mount.source.startswith("/"):
            device = mount.source
            break
    return FileSystem(device, status.f_blocks * status.f_frsize, status.f_files, status.f_ffree)
