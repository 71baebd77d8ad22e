"""I24: sysctls by allow-list, one value each, namespaced ones only (CVE-2022-0811)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import containers, escape_program, images
from harness.engine import PrivateEngine
from jaula.features.verify.escape.attempts import call, path_bytes

NAMESPACED = (
    ("net.ipv4.ip_unprivileged_port_start", "0"),
    ("net.core.somaxconn", "777"),
    ("net.ipv4.ping_group_range", "0 9"),
    ("kernel.msgmax", "4096"),
    ("kernel.shmmni", "99"),
    ("kernel.sem", "10 20 30 40"),
    ("fs.mqueue.msg_max", "12"),
)
OF_THE_HOST = (
    "kernel.core_pattern",
    "kernel.modprobe",
    "kernel.hostname",
    "kernel.panic",
    "kernel.sysrq",
    "kernel.randomize_va_space",
    "kernel.pid_max",
    "kernel.unprivileged_bpf_disabled",
    "kernel.yama.ptrace_scope",
    "vm.overcommit_memory",
    "vm.drop_caches",
    "fs.file-max",
    "fs.suid_dumpable",
    "fs.protected_symlinks",
    "fs.binfmt_misc.status",
    "dev.cdrom.info",
    "user.max_user_namespaces",
    "abi.vsyscall32",
    "sunrpc.rpc_debug",
)
ESCAPES = (
    "kernel/shm_rmid_forced/../core_pattern",
    "net/../kernel/core_pattern",
    "net/ipv4/../../kernel/core_pattern",
    "net....kernel.core_pattern",
    "/kernel/core_pattern",
    "net/",
    "net",
    "",
    "net.ipv4.ip_forward\0x",
    "net ipv4",
)


def run(engine: PrivateEngine, image: str, *flags: str, inside: str = "true") -> str:
    """Return the output of a program in the container, or ``refused: ...``."""
    done = engine.cli("jaula", "run", "--rm", *flags, image, "sh", "-c", inside)
    return f"refused: {done.stderr}" if done.returncode else done.stdout.strip()


def host_value(name: str) -> str:
    return Path("/proc/sys", name.replace(".", "/")).read_text().strip()


@pytest.fixture
def core_pattern() -> Iterator[str]:
    """Assert that the value by which CVE-2022-0811 ran programs on the host is unchanged."""
    before = host_value("kernel.core_pattern")
    yield before
    assert host_value("kernel.core_pattern") == before


@pytest.mark.parametrize(("name", "value"), NAMESPACED)
def test_a_namespaced_sysctl_is_set_in_the_container_only(
    engine: PrivateEngine, busybox: str, name: str, value: str
) -> None:
    before = host_value(name)
    path = "/proc/sys/" + name.replace(".", "/")
    printed = run(engine, busybox, "--sysctl", f"{name}={value}", inside=f"cat {path}")
    assert printed.split() == value.split(), printed
    assert host_value(name) == before


@pytest.mark.parametrize("flags", [(), ("--userns", "host")], ids=" ".join)
def test_the_domain_name_is_set_in_the_container_only(
    engine: PrivateEngine, busybox: str, flags: tuple[str, ...]
) -> None:
    before = host_value("kernel.domainname")
    flags = (*flags, "--sysctl", "kernel.domainname=example.test")
    printed = run(engine, busybox, *flags, inside="cat /proc/sys/kernel/domainname")
    assert printed == "example.test"
    assert host_value("kernel.domainname") == before


@pytest.mark.parametrize("name", OF_THE_HOST)
@pytest.mark.parametrize("flags", [(), ("--privileged",)], ids=["", "privileged"])
def test_a_sysctl_of_the_host_is_refused(
    engine: PrivateEngine, busybox: str, name: str, flags: tuple[str, ...], core_pattern: str
) -> None:
    output = run(engine, busybox, *flags, "--sysctl", f"{name}=1")
    assert output.startswith("refused") and "is not allowed" in output, output


@pytest.mark.parametrize("name", ESCAPES)
def test_a_sysctl_name_with_a_path_is_refused(
    engine: PrivateEngine, busybox: str, name: str, core_pattern: str
) -> None:
    body = {"Image": busybox, "Cmd": ["true"], "HostConfig": {"Sysctls": {name: "1"}}}
    reply = engine.request("POST", "/containers/create", body)
    assert reply.status == 400, reply


@pytest.mark.parametrize("cve", ["CVE-2022-0811"])
@pytest.mark.parametrize(
    "value",
    [
        "",
        "1\nkernel.core_pattern=|/x",
        "1+kernel.core_pattern=|/x\n",
        "1\r\n2",
        "1\0",
        "x" * 2000,
        "1\x1b[2J",
    ],
)
def test_several_values_in_one_are_refused(
    engine: PrivateEngine, busybox: str, value: str, cve: str, core_pattern: str
) -> None:
    settings = {"kernel.shm_rmid_forced": value}
    body = {"Image": busybox, "Cmd": ["true"], "HostConfig": {"Sysctls": settings}}
    reply = engine.request("POST", "/containers/create", body)
    assert reply.status == 400, reply


@pytest.mark.parametrize("cve", ["CVE-2022-0811"])
def test_a_value_is_written_unsplit(
    engine: PrivateEngine, busybox: str, cve: str, core_pattern: str
) -> None:
    """The CVE was a tool that read ``+`` in a value as the start of the next setting."""
    value = "1+kernel.core_pattern=|/bin/true"
    output = run(engine, busybox, "--sysctl", f"kernel.shm_rmid_forced={value}")
    assert output.startswith("refused"), output


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (("--network", "host"), "net.core.somaxconn"),
        (("--ipc", "host"), "kernel.msgmax"),
        (("--uts", "host"), "kernel.domainname"),
    ],
)
def test_a_sysctl_of_a_namespace_shared_with_the_host_is_refused(
    engine: PrivateEngine, busybox: str, flags: tuple[str, ...], name: str
) -> None:
    before = host_value(name)
    output = run(engine, busybox, *flags, "--sysctl", f"{name}=1234")
    assert output.startswith("refused") and "not allowed" in output, output
    assert host_value(name) == before


WRITES = ("kernel/core_pattern", "vm/overcommit_memory", "kernel/panic", "fs/suid_dumpable")


def opened(engine: PrivateEngine, image: str, *flags: str) -> dict[str, int]:
    calls = {name: (call("open", path_bytes(f"/proc/sys/{name}"), 1),) for name in WRITES}
    return {
        name: escape_program.last(answer)
        for name, answer in escape_program.answers(engine, image, calls, flags).items()
    }


def test_no_sysctl_of_the_host_can_be_written_from_inside(
    engine: PrivateEngine, busybox: str
) -> None:
    assert all(value < 0 for value in opened(engine, busybox).values())
    assert all(value < 0 for value in opened(engine, busybox, "--privileged").values())


def test_without_the_protection_the_row_above_fails(engine: PrivateEngine, busybox: str) -> None:
    """Open for writing without writing: read-only paths and the user namespace prevent this."""
    flags = ("--userns", "host", "--security-opt", "systempaths=unconfined")
    result = opened(engine, busybox, *flags)
    assert all(value >= 0 for value in result.values()), result


def test_verify_detects_a_changed_sysctl(engine: PrivateEngine, busybox: str) -> None:
    flags = ("--sysctl", "net.core.somaxconn=777")
    with containers.running(engine, busybox, flags=flags) as name:
        process = containers.pid(engine, name)
        assert engine.cli("jaula", "verify", name).returncode == 0
        import subprocess

        script = "open('/proc/sys/net/core/somaxconn', 'w').write('4096')"
        enter = ("nsenter", "-t", str(process), "-n", "python3", "-c", script)
        subprocess.run(enter, check=True, timeout=10)
        done = engine.cli("jaula", "verify", name)
    assert done.returncode == 1
    assert "net/core/somaxconn = 4096" in done.stdout


SOCKETS = """
import os, socket
print(open("/proc/sys/net/ipv4/ip_unprivileged_port_start").read().strip())
print(*open("/proc/sys/net/ipv4/ping_group_range").read().split())
socket.socket().bind(("0.0.0.0", 80))
socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
"""


@pytest.mark.parametrize(
    ("flags", "groups"),
    [
        ((), "0 65535"),
        (("-u", "1000:1000", "--cap-drop", "ALL"), "0 65535"),
        (("-u", "65535:65535", "--network", "none"), "0 65535"),
        (("-u", "1000:1000", "--userns", "host", "--cap-drop", "ALL"), "0 2147483647"),
        (("-u", "6:6", "--sysctl", "net.ipv4.ping_group_range=5 7"), "5 7"),
    ],
)
def test_every_user_may_bind_low_ports_and_send_echo_requests(
    engine: PrivateEngine, flags: tuple[str, ...], groups: str
) -> None:
    tools = images.host_tools(engine)
    done = engine.cli("jaula", "run", "--rm", *flags, *tools, "/usr/bin/python3", "-c", SOCKETS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["0", groups]


@pytest.mark.parametrize("kind", ["pid", "ipc", "userns"])
def test_a_container_with_its_own_network_may_join_another(
    engine: PrivateEngine, busybox: str, kind: str
) -> None:
    with containers.running(engine, busybox, flags=("--ipc", "shareable")) as other:
        flags = (f"--{kind}", f"container:{other}")
        with containers.running(engine, busybox, flags=flags) as name:
            verified = engine.cli("jaula", "verify", name).stdout
    assert not [line for line in verified.splitlines() if "sysctl" in line and "FAILS" in line]


def test_the_defaults_are_verified(engine: PrivateEngine, plain: str) -> None:
    verified = engine.cli("jaula", "verify", plain).stdout
    assert [line for line in verified.splitlines() if "sysctls" in line and "2 settings" in line]


def test_ports_of_the_host_are_reported_when_only_its_root_may_bind_them(
    engine: PrivateEngine, busybox: str
) -> None:
    start = int(host_value("net.ipv4.ip_unprivileged_port_start"))
    assert start > 80
    flags = ("--network", "host", "--expose", "80")
    done = engine.cli("jaula", "create", *flags, busybox, "true")
    assert f"cannot bind ports below {start} of the host (exposed: 80)" in done.stderr
    engine.cli("jaula", "rm", done.stdout.strip())
    done = engine.cli("jaula", "create", *flags, "--userns", "host", busybox, "true")
    assert done.stderr == ""
    engine.cli("jaula", "rm", done.stdout.strip())
