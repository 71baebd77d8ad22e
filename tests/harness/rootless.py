"""An ordinary user with a private engine, in private namespaces isolated from the host.

The user, its subordinate ids, its home and /run/user exist only in these namespaces. The network
has one interface without a peer, so there is an address that is neither a container's nor loopback.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from harness.callers.private_namespaces import PrivateNamespaces, remaining
from harness.engine import PROJECT
from harness.terminal import Terminal

NAME, FIRST_UID = "tester", 200_000
FIRST_SUBID, SUBIDS, SLOTS = 3_000_000, 65536, 15_000  # below the ids of engines of root's
UPLINK = "192.0.2.2"
TREE = "/srv"  # where this project is inside: the directories above it may be closed to others
SLOW = 240.0 if "JAULA_VM" in os.environ else 60.0  # seconds


class RootlessHost:
    """A context manager; at its end no process of the engine may remain."""

    name, tree = NAME, TREE
    _living: ClassVar[set[int]] = set()

    def __init__(self, *, with_ids: bool = True, tun: bool = True) -> None:
        self.namespaces = PrivateNamespaces()
        # Every instance of any test run on this machine has its own uid and ids, so the kernel
        # identifies its processes and files.
        self.number = min(set(range(8)) - RootlessHost._living)
        RootlessHost._living.add(self.number)
        slot = (os.getpid() * 8 + self.number) % SLOTS
        self.uid = FIRST_UID + slot
        self.ids = (FIRST_SUBID + slot * SUBIDS, SUBIDS) if with_ids else None
        self.tun = tun

    def enter(self, words: Sequence[str]) -> list[str]:
        """Return ``words`` as a command that runs in the user's namespaces."""
        return self.namespaces.enter(words)

    def path(self, inside: str) -> Path:
        """Return a path of the user for a process outside."""
        return self.namespaces.path(inside)

    @property
    def home(self) -> Path:
        return self.namespaces.base / "home"

    @property
    def state(self) -> str:
        return f"/run/user/{self.uid}"

    @property
    def socket(self) -> str:
        return f"{self.state}/jaula/jaula.sock"

    @property
    def engine_log(self) -> Path:
        return self.home / ".local/share/jaula/engine.log"

    def __enter__(self) -> RootlessHost:
        self.namespaces.open()
        try:
            self._set_up()
        except BaseException:
            self.namespaces.close()
            raise
        return self

    def _set_up(self) -> None:
        self.home.mkdir(0o700)
        os.chown(self.home, self.uid, self.uid)
        own = self.namespaces.path(self.state)
        own.mkdir(0o700, parents=True)
        os.chown(own, self.uid, self.uid)
        self.namespaces.add_user(
            NAME, self.uid, str(self.home), {NAME: self.ids} if self.ids else {}
        )
        self.namespaces.bind(PROJECT, TREE)
        if self.tun and Path("/dev/net/tun").exists():
            node = self.namespaces.base / "tun"
            os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(10, 200))
            node.chmod(0o666)
            self.namespaces.bind(node, "/dev/net/tun")
        for words in (
            "ip link add uplink type bridge",
            f"ip address add {UPLINK}/24 dev uplink",
            "ip link set uplink up",
            "ip route add default via 192.0.2.1 dev uplink",
        ):
            subprocess.run(self.namespaces.enter(words.split()), check=True)

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        left: dict[str, list[str]] = {}
        try:
            self.remove_containers()
            self.stop_engine()
            left = {"processes": [_described(pid) for pid in remaining(self.processes)]}
        finally:
            self.namespaces.close()
            RootlessHost._living.discard(self.number)
        assert kind is not None or not any(left.values()), f"left behind: {left}"

    # what the user types

    def environment(self) -> dict[str, str]:
        kept = {key: os.environ[key] for key in ("LANG", "TERM") if key in os.environ}
        path = "/usr/local/bin:/usr/bin:/bin"
        own = {
            "HOME": str(self.home),
            "USER": self.name,
            "XDG_RUNTIME_DIR": self.state,
            "PATH": path,
        }
        return kept | own

    def as_user(self, *words: str) -> list[str]:
        become = ("--reuid", str(self.uid), "--regid", str(self.uid), "--clear-groups")
        return self.enter(["setpriv", *become, "--", *words])

    def run(
        self, *words: str, expect: int | None = 0, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a command line as the user; ``expect`` is the exit status, None for any."""
        settings: dict[str, Any] = {
            "capture_output": True,
            "text": True,
            "timeout": SLOW,
            "env": self.environment(),
        }
        if "input" not in options and "stdin" not in options:
            settings["stdin"] = subprocess.DEVNULL
        done = subprocess.run(self.as_user(*words), **(settings | options))
        assert expect is None or done.returncode == expect, (
            f"{' '.join(words)}: exit status {done.returncode}\n{done.stdout}\n{done.stderr}\n"
            f"{self.log_tail()}"
        )
        return done

    def jaula(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.run(f"{self.tree}/jaula", *words, **options)

    def docker(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.run("docker", "-H", f"unix://{self.socket}", *words, **options)

    def terminal(self, *words: str) -> Terminal:
        return Terminal(self.as_user(f"{self.tree}/jaula", *words), self.environment())

    def load(self, archive: Path) -> None:
        with archive.open("rb") as file:
            self.jaula("load", stdin=file)

    def log_tail(self, size: int = 3000) -> str:
        return (
            self.engine_log.read_text(errors="replace")[-size:] if self.engine_log.exists() else ""
        )

    # what a test looks at

    def processes(self, word: str = "") -> list[int]:
        """Return the user's processes whose command or name contains ``word``.

        Not zombies: they wait for the init of this machine, which may take seconds.
        """
        result = []
        for directory in Path("/proc").glob("[0-9]*"):
            try:
                status = (directory / "status").read_text()
                command = (
                    (directory / "cmdline")
                    .read_bytes()
                    .replace(b"\0", b" ")
                    .decode("utf-8", "replace")
                )
            except OSError:
                continue
            uids = next(line for line in status.splitlines() if line.startswith("Uid:")).split()
            first, number = self.ids or (0, 0)
            if "State:\tZ" in status:
                continue
            mine = int(uids[1]) == self.uid or first <= int(uids[1]) < first + number
            if mine and word in f"{command} {status.splitlines()[0]}":
                result.append(int(directory.name))
        return result

    def engines(self) -> list[int]:
        """Return process ids of engines. Forks of one have its command line and another name."""
        result = []
        for pid in self.processes(" daemon"):
            with contextlib.suppress(OSError):  # ended meanwhile
                if Path(f"/proc/{pid}/comm").read_text().strip() not in _OTHERS:
                    result.append(pid)
        return result

    def engine(self) -> int:
        """Return the process id of the engine."""
        result = self.engines()
        assert len(result) == 1, [_described(pid) for pid in result]
        return result[0]

    def remove_containers(self) -> None:
        if self.path(self.socket).exists():
            names = self.jaula("ps", "-aq", expect=None).stdout.split()
            if names:
                self.jaula("rm", "-f", "-v", *names, expect=None)

    def stop_engine(self) -> None:
        for pid in self.engines():
            os.kill(pid, signal.SIGTERM)
        remaining(self.engines)


def _described(pid: int) -> str:
    """Return id, parent, state and command of a process."""
    done = subprocess.run(
        ["ps", "-o", "pid=,ppid=,stat=,etimes=,comm=,args=", "-p", str(pid)],
        capture_output=True,
        text=True,
    )
    return done.stdout.strip() or f"{pid}, gone"


_OTHERS = ("jaula-zygote", "jaula-shim", "jaula-keeper")

_DELEGATE = """
set -e
if [ "$(stat -f -c %T /sys/fs/cgroup)" != cgroup2fs ]; then
    umount -R /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi
mkdir -p "$1/engine"
for name in . cgroup.procs cgroup.threads cgroup.subtree_control; do
    chown "$2:$2" "$1/$name" "$1/engine/$name"
done
"""
_ENTER = 'echo $$ >"$0/engine/cgroup.procs" && exec "$@"'


class DelegatedHost(RootlessHost):
    """A user whose programs run in the leaf of a v2 cgroup that root has delegated.

    Its namespaces have no other hierarchy. Without controllers there, as where v1 has them, engines
    have the cgroups without limits.
    """

    @property
    def cgroup(self) -> str:
        """The delegated cgroup, as the namespaces and a process of the host's cgroup see it."""
        return f"/sys/fs/cgroup/{self.namespaces.tag}"

    def _set_up(self) -> None:
        super()._set_up()
        command = ["sh", "-c", _DELEGATE, "sh", self.cgroup, str(self.uid)]
        subprocess.run(self.namespaces.enter(command), check=True)

    def enter(self, words: Sequence[str]) -> list[str]:
        return self.namespaces.enter(["sh", "-c", _ENTER, self.cgroup, *words])

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        self.remove_containers()
        self.stop_engine()
        remaining(self.processes)
        left = remaining(self._remove_cgroups)
        super().__exit__(kind, *details)
        assert kind is not None or not left, f"left behind: {left}"

    def _remove_cgroups(self) -> list[str]:
        """Remove the delegated cgroup. Return what is not a leaf for programs."""
        top = self.path(self.cgroup)
        found = [directory for directory, _, _ in os.walk(top, topdown=False)]
        for directory in found:
            with contextlib.suppress(OSError):
                os.rmdir(directory)
        return [each for each in found if os.path.exists(each)]


class SystemdUser(RootlessHost):
    """The user ``tester`` of a virtual machine with systemd, which delegates cgroups.

    The project is copied to a directory that the user may read.
    """

    def __init__(self) -> None:
        super().__init__()
        person = pwd.getpwnam(NAME)
        self.uid = person.pw_uid
        self.namespaces.base = Path(person.pw_dir)
        self.tree = str(PROJECT)
        self.ids = next(
            (int(first), int(number))
            for name, first, number in (
                line.split(":") for line in Path("/etc/subuid").read_text().splitlines()
            )
            if name == NAME
        )

    @property
    def home(self) -> Path:
        return self.namespaces.base

    def enter(self, words: Sequence[str]) -> list[str]:
        return list(words)

    def path(self, inside: str) -> Path:
        return Path(inside)

    def __enter__(self) -> SystemdUser:
        subprocess.run(["loginctl", "enable-linger", NAME], check=True)
        remaining(lambda: [] if Path(f"{self.state}/systemd/private").exists() else [1], 60.0)
        return self

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        self.remove_containers()
        self.stop_engine()
        left = remaining(lambda: self.processes("jaula-"), 10.0)
        shutil.rmtree(self.home / ".local", ignore_errors=True)
        assert kind is not None or not left, f"left behind: {left}"
