"""The table of support questions: ``jaula why`` names the layer that refused each one.

Questions that need AppArmor or SELinux are in ``test_lsm.py``, for virtual machines.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from harness import containers
from harness.engine import PrivateEngine

SOURCE = Path(__file__).with_name("calls.c")
pytestmark = pytest.mark.needs("gcc")


class Question(NamedTuple):
    """A question: what the user runs, in which container, and the answer."""

    id: str
    command: str  # for sh -c; `calls` is the program of calls.c
    call: str
    layer: str
    flag: str = ""  # part of the smallest flag; '' if no flag helps
    rule: str = ""  # part of the reason
    run: str = ""  # flags of run
    user: str = ""


QUESTIONS = (
    Question("mount", "calls mount", "mount", "seccomp", "--cap-add SYS_ADMIN", "administration"),
    Question("mount-proc", "calls mount-proc", "mount", "seccomp", "--cap-add SYS_ADMIN"),
    Question("remount", "calls remount /bin/calls", "mount", "seccomp", "--cap-add SYS_ADMIN"),
    Question("rebind", "calls rebind /proc", "mount", "seccomp", "--cap-add SYS_ADMIN"),
    Question("remount-file-system", "calls remount-all /bin/calls", "mount", "user namespace",
             "--userns=host", run="--cap-add SYS_ADMIN"),
    Question("nested-mount", "unshare -Urm calls remount-all /proc/sys", "mount",
             "user namespace", "", "are locked", run="--cap-add SYS_ADMIN"),
    Question("nft", "calls nft", "sendto", "capability", "--cap-add NET_ADMIN", "netlink"),
    Question("iptables-legacy", "calls iptables", "setsockopt", "capability",
             "--cap-add NET_ADMIN", "a table of iptables"),
    Question("systemd-scope", "mkdir /sys/fs/cgroup/init.scope", "mkdir", "read-only mount",
             "--privileged"),
    Question("fuse", "calls fsopen", "fsopen", "seccomp", "--cap-add SYS_ADMIN"),
    Question("fuse-device", "calls open /d/fuse 2", "open", "device rule", "--device /d/fuse"),
    Question("mount-sysadmin", "calls mount /mnt overlayfs-absent; calls mount ext4", "mount",
             "user namespace", "--userns=host", run="--cap-add SYS_ADMIN"),
    Question("strace-other-user", "calls ptrace 1", "ptrace", "capability",
             "--cap-add SYS_PTRACE --user 0",
             user="1000"),
    Question("apt-sandbox-id", "calls setgroups", "setgroups", "id map", "--userns=host"),
    Question("apt-sandbox-group", "calls setgroups", "setgroups", "capability",
             "--cap-add SETGID", run="--cap-drop SETGID"),
    Question("systemd-cgroup", "calls open /sys/fs/cgroup/x 0101", "open", "read-only mount",
             "--privileged"),
    Question("dmesg", "calls syslog", "syslog", "seccomp", "--cap-add SYSLOG --userns=host"),
    Question("chown-by-uid", "calls chown /tmp 70000", "chown", "id map", "--userns=host",
             "user 70000"),
    Question("chown-as-user", "calls chown /etc/passwd 5", "chown", "capability", "--user 0",
             user="1000"),
    Question("chown-without-capability", "calls chown /etc/passwd 5", "chown", "capability",
             "--cap-add CHOWN", run="--cap-drop CHOWN"),
    Question("port-80-as-user", "calls bind 0.0.0.0 80", "bind", "capability",
             "net.ipv4.ip_unprivileged_port_start=80", user="1000",
             run="--sysctl net.ipv4.ip_unprivileged_port_start=1024"),
    Question("clock", "calls clock", "clock_settime", "seccomp",
             "--cap-add SYS_TIME --userns=host"),
    Question("clock-with-capability", "calls clock", "clock_settime", "user namespace",
             "--userns=host", run="--cap-add SYS_TIME"),
    Question("perf", "calls perf", "perf_event_open", "seccomp",
             "--cap-add PERFMON --userns=host"),
    Question("tun", "calls open /d/tun 2", "open", "device rule", "--device /d/tun"),
    Question("io-uring", "calls io_uring", "io_uring_setup", "seccomp", "seccomp=FILE",
             "not in the default profile"),
    Question("i386", "calls socket32", "socket (i386)", "seccomp", "seccomp=FILE", "AF_ALG"),
    Question("unshare", "calls unshare 0x40000000", "unshare", "seccomp", "--cap-add SYS_ADMIN",
             "network"),
    Question("nested-user-namespace", "calls unshare 0x10000000", "unshare", "seccomp",
             "--cap-add SYS_ADMIN", "user"),
    Question("clone-namespaces", "calls clone 0x20000000", "clone", "seccomp",
             "--cap-add SYS_ADMIN", "pid"),
    Question("setns", "calls setns", "setns", "seccomp", "--cap-add SYS_ADMIN"),
    Question("chroot", "calls chroot", "chroot", "seccomp", "--cap-add SYS_CHROOT",
             run="--cap-drop SYS_CHROOT"),
    Question("chroot-as-user", "calls chroot", "chroot", "capability", "--user 0", user="1000"),
    Question("mknod", "calls mknod", "mknod", "user namespace", "--device PATH",
             "host's user namespace"),
    Question("mknod-dropped", "calls mknod", "mknod", "capability", "--device PATH",
             run="--cap-drop MKNOD"),
    Question("ip-link", "ip link add dummy0 type dummy", "sendmsg", "capability",
             "--cap-add NET_ADMIN", "netlink"),
    Question("sysctl-host", "echo 1 > /proc/sys/kernel/panic", "open", "read-only path",
             "--userns=host", "not namespaced"),
    Question("sysctl-network", "echo 1 > /proc/sys/net/ipv4/ip_forward", "open",
             "read-only path", "--sysctl net.ipv4.ip_forward"),
    Question("interrupts", "echo 1 > /proc/irq/default_smp_affinity", "open", "read-only path",
             "unmask=/proc/irq --userns=host"),
    Question("swapon", "calls swapon", "swapon", "seccomp", "seccomp=FILE"),
    Question("keyctl", "calls keyctl", "keyctl", "seccomp", "seccomp=FILE"),
    Question("add-key", "calls add_key", "add_key", "seccomp", "seccomp=FILE"),
    Question("bpf", "calls bpf", "bpf", "seccomp", "--cap-add BPF --userns=host"),
    Question("kill-other-user", "calls kill 1", "kill", "capability", "--user 0", user="1000"),
    Question("nice", "calls nice -5", "setpriority", "rlimit", "--ulimit nice=25"),
    Question("realtime", "calls realtime", "sched_setscheduler", "rlimit", "--ulimit rtprio"),
    Question("ulimit", "calls ulimit", "prlimit64", "rlimit", "--ulimit nofile=",
             run="--ulimit nofile=1000"),
    Question("mlock", "calls mlock", "mlock", "rlimit", "--ulimit memlock",
             run="--ulimit memlock=65536"),
    Question("chattr", "touch /dev/shm/x; calls chattr /dev/shm/x", "ioctl", "capability",
             "--cap-add LINUX_IMMUTABLE"),
    Question("pivot-root", "calls pivot_root", "pivot_root", "seccomp", "--cap-add SYS_ADMIN"),
    Question("umount", "calls umount", "umount2", "seccomp", "--cap-add SYS_ADMIN"),
    Question("reboot", "calls reboot", "reboot", "seccomp", "--cap-add SYS_BOOT"),
    Question("kexec", "calls kexec", "kexec_load", "seccomp", "seccomp=FILE"),
    Question("insmod", "calls insmod", "finit_module", "seccomp",
             "--cap-add SYS_MODULE --userns=host"),
    Question("quotactl", "calls quotactl", "quotactl", "seccomp", "--cap-add SYS_ADMIN"),
    Question("handle", "calls handle", "open_by_handle_at", "seccomp",
             "--cap-add DAC_READ_SEARCH --userns=host"),
    Question("userfaultfd", "calls userfaultfd", "userfaultfd", "seccomp", "seccomp=FILE"),
    Question("acct", "calls acct", "acct", "seccomp", "--cap-add SYS_PACCT --userns=host"),
    Question("iopl", "calls iopl", "iopl", "seccomp", "--cap-add SYS_RAWIO --userns=host"),
    Question("hostname", "calls hostname", "sethostname", "seccomp", "--cap-add SYS_ADMIN"),
    Question("gdb-personality", "calls personality", "personality", "seccomp", "seccomp=FILE",
             "personality"),
    Question("terminal-input", "calls sti", "ioctl", "seccomp", "seccomp=FILE", "TIOCSTI"),
    Question("fanotify", "calls fanotify", "fanotify_init", "seccomp", "--cap-add SYS_ADMIN"),
    Question("pidfd-getfd", "calls pidfd_getfd", "pidfd_getfd", "seccomp",
             "--cap-add SYS_PTRACE"),
    Question("vhangup", "calls vhangup", "vhangup", "seccomp", "--cap-add SYS_TTY_CONFIG"),
    Question("custom-profile", "calls open /etc/passwd; mkdir /tmp/refused", "mkdir", "seccomp",
             "seccomp=FILE", "profile of the container", run="--security-opt seccomp={profile}"),
    Question("masked-keys", "cat /proc/keys", "open", "masked path", "unmask=/proc/keys"),
    Question("masked-timers", "cat /proc/timer_list", "open", "masked path",
             "unmask=/proc/timer_list"),
    Question("read-only-root", "touch /etc/x", "open", "read-only mount", "--tmpfs /etc",
             run="--read-only"),
    Question("read-only-bind", "touch /ro/x", "open", "read-only mount", "without :ro",
             run="-v {directory}:/ro:ro"),
    Question("unmapped-owner", "touch /foreign/x", "open", "id map", ":U",
             run="-v {foreign}:/foreign"),
    Question("unmapped-owner-read", "cat /foreign/secret", "open", "id map", ":U",
             run="-v {foreign}:/foreign"),
    Question("proc-of-root", "ls /proc/tty/driver", "open", "id map", "--userns=host"),
    Question("file-of-root", "cat /tmp/secret", "open", "file permission", "--user 0",
             user="1000"),
    Question("root-without-override", "echo x > /tmp/of-user/x", "open", "capability",
             "--cap-add DAC_OVERRIDE", run="--cap-drop DAC_OVERRIDE"),
    Question("pids-limit", "calls fork", "clone", "pids limit", "--pids-limit 40", "limit 20",
             run="--pids-limit 20"),
    Question("nproc", "calls fork", "clone", "rlimit", "--ulimit nproc", run="--ulimit nproc=20",
             user="1000"),
    Question("memory", "calls memory", "OOM kill", "memory limit", "--memory 64m", "victim calls",
             run="-m 32m --memory-swap 32m"),
    Question("address-space", "calls reserve", "mmap", "rlimit", "--ulimit as",
             run="--ulimit as=268435456"),
    Question("tmpfs-full", "calls fill /t/x 2000000", "write", "size of a file system",
             "--tmpfs /t:size=", run="--tmpfs /t:size=1m"),
    Question("shm-full", "calls fill /dev/shm/x 3000000", "write", "size of a file system",
             "--shm-size", run="--shm-size 1m"),
    Question("too-many-files", "calls files", "dup", "rlimit", "--ulimit nofile",
             run="--ulimit nofile=64"),
    Question("file-too-large", "calls fill /tmp/x 3000000", "end by signal", "rlimit",
             "--ulimit fsize", run="--ulimit fsize=1048576"),
    Question("no-network", "calls connect 10.1.2.3 80", "connect", "network",
             "--network bridge", "--network none", run="--network none"),
    Question("internal-network", "calls connect 192.0.2.1 80", "connect", "network",
             "network connect bridge", "internal", run="--network {internal}"),
    Question("other-network", "timeout 1 calls connect {other} 80", "connect", "firewall",
             "network connect bridge", "drops packets between networks",
             run="--network {internal}-2"),
    Question("egress", "calls connect 10.9.9.9 80", "connect", "egress list",
             "--egress tcp:10.9.9.9:80", run="--egress tcp:10.1.2.3:443"),
    Question("landlock-port", "calls connect 10.9.9.9 80", "connect", "landlock",
             "landlock=tcp-connect=80", run="--security-opt landlock=tcp-connect=443"),
    Question("landlock-path", "echo x > /root/x", "open", "landlock", "landlock=write=/root/x",
             run="--security-opt landlock=exec,write=/tmp,write=/mnt"),
    Question("landlock-mount", "calls mount /mnt", "mount", "landlock", "landlock=off",
             run="--cap-add SYS_ADMIN --security-opt landlock=on,exec"),
    Question("localhost", "calls connect 127.0.0.1 4321", "connect", "network", "",
             "localhost is the container itself"),
    Question("address-in-use", "nc -l -p 4322 & sleep 0.3; calls bind 0.0.0.0 4322; kill $!",
             "bind", "network", "", "already"),
    Question("address-not-local", "calls bind 10.77.77.77 4323", "bind", "network",
             "--network host", "no interface"),
    Question("ping-raw-socket", "calls raw", "socket", "capability", "ping_group_range",
             run="--cap-drop NET_RAW"),
    Question("ping-as-user", "calls raw", "socket", "capability", "ping_group_range",
             user="1000"),
    Question("packet-socket", "calls socket 17", "socket", "capability", "--cap-add NET_RAW",
             run="--cap-drop NET_RAW"),
    Question("af-alg", "calls socket 38 5", "socket", "seccomp", "socket(AF_ALG)"),
    Question("vsock", "calls socket 40", "socket", "seccomp", "socket(AF_VSOCK)"),
    Question("netlink-audit", "calls audit", "socket", "seccomp", "--cap-add AUDIT_READ"),
    Question("disk-device", "calls open /d/disk", "open", "device rule", "--device /d/disk"),
    Question("kmsg-device", "calls open /d/kmsg", "open", "device rule", "--device /d/kmsg"),
    Question("exec-format", "/tmp/text", "execve", "program", "", "neither an ELF program"),
    Question("wrong-architecture", "calls exec /tmp/arm", "execve", "program", "", "aarch64"),
    Question("missing-loader", "calls exec /tmp/musl", "execve", "program", "",
             "ld-musl-x86_64.so.1"),
    Question("crlf-script", "calls exec /tmp/crlf", "execve", "program", "", "CR LF"),
    Question("missing-interpreter", "calls exec /tmp/script", "execve", "program", "",
             "/bin/absent"),
    Question("no-execute-bit", "calls exec /tmp/plain", "execve", "program", "",
             "no execute bit"),
    Question("noexec", "cp /bin/busybox /n/true; /n/true", "execve", "mount flag",
             "--tmpfs /n:exec", run="--tmpfs /n"),
    Question("missing-program", "calls exec /tmp/absent", "execve", "program", "",
             "does not exist"),
    Question("not-in-path", "absent-program", "execve", "program", "",
             "absent-program"),
    Question("segv", "calls segv", "end by signal", "program", "", "memory that it does not have"),
    Question("abort", "calls abort", "end by signal", "signal", "", "to itself"),
    Question("killed-inside", "sleep 5 & kill -9 $!", "end by signal", "signal", "",
             "a process of the container"),
    Question("no-new-privileges", "/tmp/suid setuid-root", "setuid", "no new privileges",
             "without --security-opt no-new-privileges", run="--security-opt no-new-privileges",
             user="1000"),
    Question("seccomp-kill", "calls hostname", "end by signal", "seccomp", "seccomp=FILE",
             "sethostname", run="--security-opt seccomp={killing}"),
)  # fmt: skip

PREPARE = r"""
mkdir -p /mnt
printf 'echo hello\n' > /tmp/text; chmod 755 /tmp/text
printf '#!/bin/sh\r\necho hello\r\n' > /tmp/crlf; chmod 755 /tmp/crlf
printf '#!/bin/absent\n' > /tmp/script; chmod 755 /tmp/script
printf '#!/bin/sh\n' > /tmp/plain; chmod 644 /tmp/plain
echo secret > /tmp/secret; chmod 600 /tmp/secret
mkdir -p /tmp/of-user; chown 1000 /tmp/of-user; chmod 700 /tmp/of-user
"""


def elf(machine: int, loader: bytes = b"") -> bytes:
    """Return the header of a program for a machine, with a loader."""
    header = b"\x7fELF\2\1\1" + bytes(9) + (2).to_bytes(2, "little")
    header += machine.to_bytes(2, "little") + (1).to_bytes(4, "little")
    header += (0x400078).to_bytes(8, "little") + (64).to_bytes(8, "little") + bytes(12)
    header += (64).to_bytes(2, "little") + (56).to_bytes(2, "little")
    header += (2 if loader else 1).to_bytes(2, "little") + bytes(6)
    load = (1).to_bytes(4, "little") + (5).to_bytes(4, "little") + bytes(8)
    load += (0x400000).to_bytes(8, "little") * 2 + (256).to_bytes(8, "little") * 2
    load += (0x1000).to_bytes(8, "little")
    if not loader:
        return (header + load).ljust(256, b"\0")
    interpreter = (3).to_bytes(4, "little") + (4).to_bytes(4, "little")
    interpreter += (176).to_bytes(8, "little") * 3 + len(loader).to_bytes(8, "little") * 2
    interpreter += (1).to_bytes(8, "little")
    return (header + interpreter + load + loader).ljust(256, b"\0")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the programs and profiles of the table."""
    place = tmp_path_factory.mktemp("why")
    place.chmod(0o755)
    for parent in (place.parent, place.parent.parent):
        parent.chmod(0o755)
    program = place / "calls"
    subprocess.run(["gcc", "-static", "-O1", "-o", str(program), str(SOURCE)], check=True)
    (place / "suid").write_bytes(program.read_bytes())
    (place / "arm").write_bytes(elf(183))
    (place / "musl").write_bytes(elf(62, b"/lib/ld-musl-x86_64.so.1\0"))
    for name in ("arm", "musl"):
        (place / name).chmod(0o755)
    foreign = place / "foreign"
    foreign.mkdir()
    (foreign / "secret").write_text("secret")
    (foreign / "secret").chmod(0o600)
    for path in (foreign, foreign / "secret"):
        os.chown(path, 4_000_000_000, 4_000_000_000)
    nodes = place / "nodes"
    nodes.mkdir()
    for name, major, minor in (
        ("fuse", 10, 229),
        ("tun", 10, 200),
        ("disk", 7, 0),
        ("kmsg", 1, 11),
    ):
        os.mknod(nodes / name, 0o020666, os.makedev(major, minor))
        (nodes / name).chmod(0o666)
    allow = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"]}
    refuse = [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]
    kill = [{"names": ["sethostname"], "action": "SCMP_ACT_KILL_PROCESS"}]
    (place / "profile.json").write_text(json.dumps(allow | {"syscalls": refuse}))
    (place / "killing.json").write_text(json.dumps(allow | {"syscalls": kill}))
    return place


@pytest.fixture(scope="module")
def internal(engine: PrivateEngine) -> Iterator[str]:
    """An internal network; that with ``-2`` at its end is an ordinary one."""
    name = containers.unique("why")
    assert engine.cli("jaula", "network", "create", "--internal", name).returncode == 0
    assert engine.cli("jaula", "network", "create", f"{name}-2").returncode == 0
    yield name
    assert engine.cli("jaula", "network", "rm", name, f"{name}-2").returncode == 0


class Containers:
    """Running containers of the table, one for each set of flags."""

    def __init__(self, engine: PrivateEngine, image: str, values: dict[str, str]) -> None:
        self._engine, self._image, self._values = engine, image, values
        self._names: dict[str, str] = {}
        self.stack = ExitStack()

    def get(self, flags: str) -> str:
        """Return the name of a container with these flags of run."""
        if flags not in self._names:
            words = [word.format(**self._values) for word in flags.split()]
            name = self.stack.enter_context(
                containers.running(
                    self._engine, self._image, "sleep", "3000",
                    flags=(
                        *("-v", f"{self._values['directory']}/calls:/bin/calls:ro"),
                        *("-v", f"{self._values['directory']}/nodes:/d"),
                        *words,
                    ),
                )
            )  # fmt: skip
            self._prepare(name, read_only="--read-only" in words or "{profile}" in flags)
            self._names[flags] = name
        return self._names[flags]

    def _prepare(self, name: str, *, read_only: bool) -> None:
        if read_only:
            return
        done = self._engine.cli("jaula", "exec", name, "sh", "-c", PREPARE)
        assert done.returncode == 0, done.stderr
        for file in ("arm", "musl", "suid"):
            source = f"{self._values['directory']}/{file}"
            done = self._engine.cli("jaula", "cp", source, f"{name}:/tmp/{file}")
            assert done.returncode == 0, done.stderr
        self._engine.cli("jaula", "exec", name, "chmod", "4755", "/tmp/suid")


@pytest.fixture(scope="module")
def table(
    engine: PrivateEngine, busybox: str, directory: Path, internal: str
) -> Iterator[Containers]:
    """The containers of the table."""
    made = Containers(
        engine,
        busybox,
        {
            "directory": str(directory),
            "foreign": str(directory / "foreign"),
            "profile": str(directory / "profile.json"),
            "killing": str(directory / "killing.json"),
            "internal": internal,
        },
    )
    with made.stack:
        yield made


def ask(engine: PrivateEngine, *words: str) -> dict[str, Any]:
    """Return the JSON report of ``jaula why``."""
    done = engine.cli("jaula", "why", "--format", "json", *words)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert not report.get("notes"), report
    return report


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda each: each.id)
def test_why_names_the_layer_that_refused(
    engine: PrivateEngine, table: Containers, question: Question
) -> None:
    name = table.get(question.run)
    words = (*(("--user", question.user) if question.user else ()), name, "--", "sh", "-c")
    command = question.command
    if "{other}" in command:
        command = command.format(other=containers.address(engine, table.get("")))
    report = ask(engine, *words, command)
    answers = [
        each["explanation"]
        for each in report["diagnoses"] + report["harmless"]
        if any(
            operation["call"] in (question.call, question.call + "at")
            for operation in each["operations"]
        )
    ]
    assert answers, report
    explanation = answers[-1]
    assert explanation["layer"] == question.layer, report
    assert question.flag in explanation["flag"], report
    assert bool(question.flag) == bool(explanation["flag"]), report
    assert bool(explanation["flag"]) == bool(explanation["gives_away"]), report
    assert question.rule in explanation["rule"], report
    assert explanation["proof"], report
