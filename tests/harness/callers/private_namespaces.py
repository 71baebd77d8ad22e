"""Private mount and network namespaces of a caller, which isolate its state from the host's.

A process holds both namespaces. /run and /dev/shm are empty in them, so callers and runtimes read
and write no state of the host at their default paths. The process exits with the standard input
that the test holds, so it never outlives the test.

Facts about podman on v1: it treats each directory below /sys/fs/cgroup with the name of a
controller as a hierarchy. If none is mounted there, it creates plain files and then fails to remove
its own cgroup. Such directories do not exist in the namespaces.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from jaula.kernel import mountinfo

T = TypeVar("T")

HOST_STATE = ("/var/lib/containers", "/var/lib/cni", "/var/lib/buildkit")
BEYOND_GRACE = 5.0  # seconds for exiting processes

SET_UP = """
set -e
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
for place in "$@"; do [ ! -d "$place" ] || mount -t tmpfs -o mode=755 tmpfs "$place"; done
mkdir -p /run/lock /run/user
bare=
for entry in /sys/fs/cgroup/*; do
    [ -L "$entry" ] || [ ! -d "$entry" ] || mountpoint -q "$entry" || bare=yes
done
if [ -n "$bare" ] && [ "$(stat -f -c %T /sys/fs/cgroup)" = tmpfs ]; then
    mkdir /run/cgroup
    mount -t tmpfs -o mode=755 tmpfs /run/cgroup
    for entry in /sys/fs/cgroup/*; do
        if [ -L "$entry" ]; then
            cp -P "$entry" /run/cgroup
        elif mountpoint -q "$entry"; then
            mkdir "/run/cgroup/${entry##*/}"
            mount --bind "$entry" "/run/cgroup/${entry##*/}"
        fi
    done
    mount --move /run/cgroup /sys/fs/cgroup
    rmdir /run/cgroup
fi
ip link set lo up
echo ready
exec cat
"""


@dataclass
class PrivateNamespaces:
    """The namespaces of one caller. ``base`` is on disk, ``/run`` only inside."""

    # Short, because socket addresses are limited to 107 bytes and container ids are 64 long; of
    # letters and digits, because containerd has a namespace of this name.
    base: Path = field(default_factory=lambda: Path(f"/var/tmp/jlc{secrets.token_hex(4)}"))
    holder: subprocess.Popen[str] | None = None
    mounted: frozenset[str] = frozenset()

    @property
    def tag(self) -> str:
        """Return the name in cgroups and directories, unique for each instance."""
        return self.base.name

    @property
    def pid(self) -> int:
        assert self.holder is not None, "the room is closed"
        return self.holder.pid

    def open(self) -> None:
        self.base.mkdir()
        self.base.chmod(0o755)
        unshare = ("unshare", "--mount", "--net", "--propagation", "private")
        self.holder = subprocess.Popen(
            [*unshare, "sh", "-c", SET_UP, "room", *HOST_STATE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self.holder.stdout is not None
        assert self.holder.stdout.readline() == "ready\n", "the namespaces could not be set up"
        self.mounted = frozenset(self._mount_points())

    def enter(self, words: Sequence[str], directory: str = "/") -> list[str]:
        """Return ``words`` as a command that runs inside."""
        spaces = f"/proc/{self.pid}/ns"
        entered = (f"--mount={spaces}/mnt", f"--net={spaces}/net", f"--wdns={directory}")
        return ["nsenter", *entered, "--", *words]

    def path(self, inside: str | Path) -> Path:
        """Return the path of an inside file for a process outside."""
        return Path(f"/proc/{self.pid}/root") / str(inside).lstrip("/")

    def bind(self, source: Path, target: str) -> None:
        """Bind mount ``source`` at ``target`` inside."""
        subprocess.run(self.enter(["mount", "--bind", str(source), target]), check=True)
        self.mounted |= {target}

    def bind_file(self, target: str, text: str) -> None:
        """Bind mount a file with this text at ``target`` inside, a file of the host."""
        copy = self.base / target.replace("/", "_")
        copy.write_text(text)
        copy.chmod(0o644)
        self.bind(copy, target)

    def add_user(self, name: str, uid: int, home: str, ids: dict[str, tuple[int, int]]) -> None:
        """Add a user and subordinate ids (name to first and number) inside only."""
        person = f"{name}:x:{uid}:{uid}::{home}:/bin/sh\n"
        self.bind_file("/etc/passwd", Path("/etc/passwd").read_text() + person)
        self.bind_file("/etc/group", Path("/etc/group").read_text() + f"{name}:x:{uid}:\n")
        rows = "".join(f"{owner}:{first}:{number}\n" for owner, (first, number) in ids.items())
        self.bind_file("/etc/subuid", rows)
        self.bind_file("/etc/subgid", rows)

    def close(self) -> None:
        """Kill the remaining processes, then remove namespaces, mounts and the directory."""
        for pid, _ in self._processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        remaining(self._processes)
        if self.holder is not None:
            self.holder.communicate(timeout=20)
        remaining(self._remove_cgroups)
        shutil.rmtree(self.base, ignore_errors=True)

    # What is there, read from the kernel and not from the caller.

    def leaks(self, *, mounts: Sequence[str] = (), groups: str = "") -> dict[str, list[str]]:
        """Return what a caller left behind after it removed its containers.

        The result excludes what the caller itself keeps: ``mounts``, and cgroups whose last name
        matches the pattern ``groups``.
        """
        looks: dict[str, Callable[[], list[str]]] = {
            "processes": lambda: [text for _, text in self._processes()],
            "mounts": lambda: sorted(set(self._mount_points()) - self.mounted - set(mounts)),
            "cgroups": lambda: [
                str(path)
                for path in self._groups()
                if path.name != self.tag and not re.fullmatch(groups, path.name)
            ],
            "containers of the runtime": self._runtime_states,
        }
        return {kind: left for kind, look in looks.items() if (left := remaining(look))}

    def _processes(self) -> list[tuple[int, str]]:
        """Return processes in these namespaces or cgroups, except the holder and this test."""
        spaces = {Path(f"/proc/{self.pid}/ns/{kind}").readlink().name for kind in ("mnt", "net")}
        result = []
        for directory in Path("/proc").glob("[0-9]*"):
            pid = int(directory.name)
            with contextlib.suppress(OSError):
                entered = {(directory / "ns" / kind).readlink().name for kind in ("mnt", "net")}
                grouped = f"/{self.tag}/" in (directory / "cgroup").read_text()
                if pid not in (self.pid, os.getpid()) and (entered & spaces or grouped):
                    command = (directory / "cmdline").read_bytes().replace(b"\0", b" ")
                    result.append((pid, f"{pid} {command.decode(errors='replace')}"))
        return result

    def _mount_points(self) -> list[str]:
        return [mount.target for mount in mountinfo.read(f"/proc/{self.pid}/mountinfo")]

    def _groups(self) -> list[Path]:
        """Return the cgroups of the tag in every hierarchy, the deepest first."""
        hierarchies = (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").glob("*/"))
        parents = [hierarchy / self.tag for hierarchy in hierarchies]
        result = [
            Path(directory)
            for parent in parents
            for directory, _, _ in os.walk(parent, topdown=False)
        ]
        return list(dict.fromkeys(result))

    def _remove_cgroups(self) -> list[str]:
        for path in self._groups():
            with contextlib.suppress(OSError):
                path.rmdir()
        return [str(path) for path in self._groups()]

    def _runtime_states(self) -> list[str]:
        """Return directories in which a runtime stores the state of a container."""
        inside = self.path("/run")
        return [str(path.relative_to(inside).parent) for path in inside.rglob("state.json")]


def remaining(look: Callable[[], list[T]], seconds: float = BEYOND_GRACE) -> list[T]:
    """Return the result of ``look`` once it is empty or ``seconds`` have passed."""
    deadline = time.monotonic() + seconds
    while (result := look()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return result
