"""Files of a profile: paths that are read, written and executed, and the mounts for writing. Pure.

A written file has a place: the mount of the container that it is in, a tmpfs for what does not
outlive the container (/tmp, /run, /var/cache), otherwise a volume. Only a file in the root, or
directly in a directory such as /etc, makes the root writable.

Facts about Landlock: a rule is for a file or for a directory with everything below it, and the
kernel checks the file, not the symbolic link that led to it. To start a program it checks the
program, the script, and the loader that the program names.
"""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from jaula.features.harden import profile_paths
from jaula.features.harden.tally import (
    UNKNOWN,
    Observation,
    Tallies,
    Tally,
    path_of,
    shortened,
    text,
    words,
)
from jaula.spec.confinement_profile import Evidence, Files, is_mount_path, is_path

RUNTIME = "the runtime"  # executes the first program, and those of exec
TMPFS_SIZE = "64m"
MAX_PLACES = 64  # tmpfs and volumes
_LIBRARIES = {
    "libc.so.6": "/lib64/ld-linux-x86-64.so.2",
    "ld-musl-x86_64.so.1": "/lib/ld-musl-x86_64.so.1",
}
_LOADER_REASON = "loader of dynamic programs"
_ENGINE_FILES = frozenset({"/etc/hostname", "/etc/hosts", "/etc/resolv.conf"})
_SYSTEM = frozenset({"bin", "boot", "etc", "lib", "lib32", "lib64", "libx32", "sbin", "usr"})
_UNRECORDED_PATHS = frozenset(
    words(
        """mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 link linkat symlink
        symlinkat mknod mknodat truncate"""
    )
)
MASKABLE = words(
    """/proc/buddyinfo /proc/diskstats /proc/iomem /proc/ioports /proc/kallsyms /proc/modules
    /proc/pagetypeinfo /proc/partitions /proc/slabinfo /proc/softirqs /proc/vmstat /proc/zoneinfo
    /sys/hypervisor /sys/kernel /sys/module /sys/power"""
)
"""Paths that tell about the host, and that few programs read."""


def files(
    observations: Sequence[Observation],
    mounts: Sequence[str],
    evidence: dict[str, dict[str, Evidence]],
    notes: list[str],
    incomplete: dict[str, str],
    *,
    complete: bool,
) -> Files:
    """Return the files and mounts. ``incomplete`` gets the fields whose list is left out.

    ``mounts`` are the targets of the container's volumes and bind mounts. ``complete``: the records
    have the start of the container, and lost no file or program.
    """
    read, written, created = Tallies(), Tallies(), Tallies()
    touched: set[str] = set()
    unusable = 0
    for number, program, entry, _ in observations:
        if entry.kind == "bind" and entry.family == "unix" and not entry.errno:
            path = text(entry.address)
            if path and path.startswith("/") and "\0" not in path:
                created[_resolved(path)].add(number, program, entry.count, "unix socket")
            continue
        if entry.kind not in ("file", "file-refused", "change"):
            continue
        path = path_of(entry)
        if path is None:
            unusable += entry.kind != "file-refused" and not entry.detached
            continue
        if entry.kind == "change":
            created[_resolved(path)].add(number, program, entry.count, entry.syscall)
            continue
        touched.add(path)
        if entry.kind == "file":
            modes = entry.mode.split(",")
            tally = (
                created if "create" in modes and "write" in modes
                else written if "write" in modes else read
            )  # fmt: skip
            tally[path].add(number, program, entry.count)
    if unusable:
        notes.append(f"the records lack a usable path for {unusable} files")
    places = _Places(mounts)
    write = Tallies()
    for path, occurrences in (*created.items(), *written.items()):
        write[places.add(path, occurrences)].merge(occurrences)
    if len(places.tmpfs) + len(places.volumes) > MAX_PLACES:
        number = len(places.tmpfs) + len(places.volumes)
        incomplete["files.read-only-root"] = (
            f"it writes in {number} places, too many for mounts: the root is writable"
        )
        places.root["read-only-root"].merge(_sum(write))
        places.tmpfs.clear()
        places.volumes.clear()
        write = Tallies({"/": _sum(write)})
    executed, unnamed = _executed(observations, read)
    if unnamed:
        notes.append(f"{unnamed} executed programs have no path in the records")
    for path in sorted(executed):
        if any(profile_paths.covers(item, path) for item in write if item.endswith("/")):
            notes.append(f"it executes {path}, which it may write")
    notes += _change_notes(observations)
    evidence["files.read-only-root"] = places.root.evidence()
    evidence["files.tmpfs"] = places.tmpfs.evidence()
    evidence["files.volumes"] = places.volumes.evidence()
    if (
        "/" in write
        or (write_items := _generalize(write, incomplete, "files.write", "written files")) is None
    ):
        write_items = Tallies({"/": _sum(write)})
    evidence["files.write"] = write_items.evidence()
    read_items = execute_items = Tallies()
    if complete:
        if "/" in read:
            notes.append("it lists /, which no item can allow alone")
        read_items = _generalize(read, incomplete, "files.read", "files read") or Tallies()
        if profile_paths.fits(executed):
            execute_items = executed
        else:
            incomplete["files.execute"] = (
                f"{len(executed)} programs are too many for a list: all that may be read may run"
            )
        others = (*write_items, *execute_items)
        covered = [
            item for item in read_items if any(profile_paths.covers(each, item) for each in others)
        ]
        if len(covered) < len(read_items):
            for item in covered:
                del read_items[item]
        elif not set(read) - {"/"}:  # an empty list would allow all files
            for item in execute_items:
                read_items[item].merge(execute_items[item])
    evidence["files.read"] = read_items.evidence()
    evidence["files.execute"] = execute_items.evidence()
    masked = _masked(touched) if complete else ()
    return Files(
        read_only_root=not places.root,
        tmpfs={
            path: _tmpfs_options(path, executed) for path in sorted(places.tmpfs)
        },
        volumes=tuple(sorted(places.volumes)),
        read=tuple(sorted(read_items)),
        write=tuple(sorted(write_items)),
        execute=tuple(sorted(execute_items)),
        masked=masked,
    )  # fmt: skip


def _generalize(
    tallies: Tallies, incomplete: dict[str, str], field: str, title: str
) -> Tallies | None:
    """Return the items of paths; None if they are too many."""
    items = profile_paths.generalize(tallies)
    if items is None:
        incomplete[field] = (
            f"{title}: {len(tallies)} are too many for a list, so none is restricted"
        )
        return None
    result = Tallies()
    below: dict[str, set[str]] = defaultdict(set)
    for path, item in items.items():
        result[item].merge(tallies[path])
        if item != path:
            below[item].add(path)
    for item in list(result):  # a directory that another one includes
        above = next((each for each in _ancestors(item) if each in result), None)
        if above is not None:
            result[above].merge(result.pop(item))
            below[above] |= below.pop(item, set()) or {item}
    for item, each in below.items():
        result[item].reasons.clear()
        result[item].reasons[f"{len(each)} file{'' if len(each) == 1 else 's'}"] = 1
    return result


def _ancestors(item: str) -> Iterator[str]:
    """Yield the directories that include an item, the highest one first."""
    parts = item.rstrip("/").split("/")
    for number in range(2, len(parts) + 1):
        directory = "/".join(parts[:number]) + "/"
        if directory != item:
            yield directory


def _sum(tallies: Tallies) -> Tally:
    result = Tally()
    for tally in tallies.values():
        result.merge(tally)
    return result


def _masked(touched: set[str]) -> tuple[str, ...]:
    return tuple(
        path
        for path in MASKABLE
        if not any(profile_paths.covers(path + "/", each) for each in touched)
    )


class _Places:
    """The places where files are written: tmpfs, volumes, the root."""

    def __init__(self, mounts: Sequence[str]) -> None:
        self._mounts = [mount.rstrip("/") + "/" for mount in mounts]
        self.tmpfs, self.volumes, self.root = Tallies(), Tallies(), Tallies()

    def add(self, path: str, tally: Tally) -> str:
        """Add the place of a written file, and return its item among the written files."""
        if path.startswith(("/dev/", "/proc/", "/sys/")) or path in _ENGINE_FILES:
            return path
        for mount in self._mounts:
            if path.startswith(mount) or path + "/" == mount:
                self.volumes[mount.rstrip("/")].merge(tally)
                return mount
        place, transient = _place(path)
        if place == "" or not is_mount_path(place):
            self.root["read-only-root"].merge(tally)
            self.root["read-only-root"].reasons[shortened(path)] += tally.count
            return path
        (self.tmpfs if transient else self.volumes)[place].merge(tally)
        return place + "/"


def _place(path: str) -> tuple[str, bool]:
    """Return the directory that is mounted so that a file can be written, and whether a tmpfs.

    '' if no directory can be: the file is in the root or directly in a directory of the system.
    """
    parts = path.split("/")[1:]
    directory = parts[:-1]
    if not directory:
        return "", False
    if directory[0] == "tmp" or directory[:2] == ["var", "tmp"]:
        return "/" + "/".join(directory[: 1 if directory[0] == "tmp" else 2]), True
    if directory[0] == "run" or directory[:2] in (["var", "run"], ["var", "lock"]):
        size = 1 if directory[0] == "run" else 2
        return "/" + "/".join(directory[: size + 1]), True
    if directory[:2] == ["var", "cache"]:
        return "/" + "/".join(directory[:3]), True
    if directory[0] in _SYSTEM:
        if len(directory) == 1:
            return "", False
        return "/" + "/".join(directory[:3]), False
    size = {"var": 3, "home": 2, "opt": 2, "srv": 2}.get(directory[0], 1)
    return "/" + "/".join(directory[:size]), False


def _tmpfs_options(path: str, executed: Iterable[str]) -> str:
    options = [f"size={TMPFS_SIZE}"]
    if path in ("/tmp", "/var/tmp"):
        options.append("mode=1777")
    if any(program.startswith(path + "/") for program in executed):
        options.append("exec")
    return ",".join(options)


def _executed(observations: Sequence[Observation], read: Tallies) -> tuple[Tallies, int]:
    """Return the executed files and the loaders of dynamic programs, and how many have no path."""
    result = Tallies()
    unnamed = 0
    for number, program, entry, executed in observations:
        if entry.kind != "exec" or executed is None:
            continue
        names = [text(executed.path), text(executed.name)]
        if executed.truncated or executed.detached or names[0] is None:
            unnamed += 1
            continue
        for name in names:  # the second one is a script, or a symbolic link
            if name and is_path(name) and not name.startswith("/proc/"):
                result[name].add(number, RUNTIME if program == UNKNOWN else program, entry.count)
    for path, tally in read.items():
        if loader := _LIBRARIES.get(path.rpartition("/")[2]):
            result[loader].merge(tally)
            result[loader].reasons[_LOADER_REASON] += tally.count
    return result, unnamed


def _resolved(path: str) -> str:
    """Return a path without the links of the FHS; a change has the name that the process used."""
    path = "/" + posixpath.normpath(path).lstrip("/")
    for link, target in (("/var/run/", "/run/"), ("/var/lock/", "/run/lock/")):
        if path.startswith(link):
            return target + path.removeprefix(link)
    return path


def _change_notes(observations: Sequence[Observation]) -> list[str]:
    calls = Tallies()
    recorded = {(o.program, o.entry.syscall) for o in observations if o.entry.kind == "change"}
    for number, program, entry, _ in observations:
        if (program, entry.syscall) in recorded:
            continue
        if entry.kind == "syscall" and not entry.errno and entry.syscall in _UNRECORDED_PATHS:
            calls[program].add(number, program, entry.count, entry.syscall)
    return [
        f"the records lack the paths of {', '.join(sorted(tally.reasons))} by {program}"
        for program, tally in sorted(calls.items())
    ]
