"""A change in the kernel without the engine fails in the right row."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness import containers
from harness.audits import Audited
from harness.engine import PrivateEngine
from jaula.features.verify.model.result import Result, Verdict
from jaula.features.verify.verify import verify
from jaula.kernel import seccomp as kernel_seccomp
from jaula.network.firewall import bridge_rules
from jaula.security.lsm import detect
from jaula.security.seccomp import seccomp_filter
from jaula.spec import runtime_spec

Look = Callable[[], dict[str, Result]]


def look_at(engine: PrivateEngine, name: str) -> dict[str, Result]:
    return Audited(engine, name).rows()


def failing(rows: dict[str, Result]) -> set[str]:
    return {name for name, row in rows.items() if row.verdict is Verdict.FAILS}


INJECTED = {"process cgroups", "process namespaces", "namespace holders", "descriptors"}
"""Rows that fail besides, since an injected process has cgroups and namespaces of the host."""


@pytest.fixture
def own(engine: PrivateEngine, busybox: str) -> Iterator[tuple[str, int, Look]]:
    """A container of the test: name, process, and its rows."""
    with containers.running(engine, busybox, flags=("-p", "127.0.0.1::80")) as name:
        yield name, containers.pid(engine, name), lambda: look_at(engine, name)


def nft(commands: str) -> str:
    done = subprocess.run(
        ["nft", "-f", "-"], input=commands, capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# -- processes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("-m", "-p"), "CAP_"),
        (("-m",), "has no filter"),
        (("-a",), "has no filter"),
    ],
)
def test_an_injected_process_fails(
    own: tuple[str, int, Look], flags: tuple[str, ...], told: str
) -> None:
    _, pid, look = own
    assert failing(look()) == set()
    inside = subprocess.Popen(
        ["nsenter", "-t", str(pid), *flags, "/bin/sleep", "100"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        containers.eventually(lambda: "processes" in failing(look()), "the process is found")
        rows = look()
        assert failing(rows) - INJECTED == {"processes"}
        assert told in rows["processes"].effective
    finally:
        os.killpg(inside.pid, 9)
        inside.wait()
    containers.eventually(lambda: failing(look()) == set(), "it is well again")


def test_a_privileged_exec_is_a_relaxation(
    engine: PrivateEngine, own: tuple[str, int, Look]
) -> None:
    name, _, look = own
    engine.cli("jaula", "exec", "-d", name, "sleep", "100")
    assert look()["processes"].verdict is Verdict.HOLDS
    engine.cli("jaula", "exec", "-d", "--privileged", name, "sleep", "100")
    row = look()["processes"]
    assert row.verdict is Verdict.RELAXED
    assert "exec --privileged" in row.requested


# -- the filter ------------------------------------------------------------------------------


def test_a_filter_that_differs_from_the_spec_fails(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    """The container runs under another filter than its documents state, as with a broken engine."""
    profile = tmp_path / "profile.json"
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}))
    flags = ("--security-opt", f"seccomp={profile}")
    with containers.running(engine, busybox, flags=flags) as name:
        result: dict[str, Any] = containers.inspect(engine, name)
        reply = engine.request("GET", f"/jaula/containers/{result['Id']}/spec")
        spec = runtime_spec.decode(reply.body)
        assert spec.linux is not None and spec.process is not None
        assert spec.process.capabilities is not None
        pretended = runtime_spec.decode(json.dumps(json.loads(reply.body)).encode())
        default = seccomp_filter.default_profile(spec.process.capabilities)
        linux = msgspec.structs.replace(spec.linux, seccomp=default)
        pretended = msgspec.structs.replace(pretended, linux=linux)
        result["HostConfig"]["SecurityOpt"] = None
        rows = {row.id: row for row in verify(result, pretended)}
        assert rows["seccomp"].verdict is Verdict.HOLDS, "mode and number are as they should be"
        assert rows["seccomp program"].verdict is Verdict.FAILS


def test_a_program_may_add_a_filter(
    engine: PrivateEngine,
) -> None:
    from harness import images

    script = (
        "import ctypes,struct,time;l=ctypes.CDLL(None);l.prctl(38,1,0,0,0);"
        "b=ctypes.create_string_buffer(struct.pack('=HBBI',6,0,0,0x7fff0000));"
        "f=struct.pack('=Hxxxxxx',1)+struct.pack('=Q',ctypes.addressof(b));"
        f"assert l.syscall({kernel_seccomp.NR_seccomp},1,0,f)==0;print('ready',flush=True);"
        "time.sleep(600)"
    )
    flags = images.host_tools(engine)
    words = ("python3", "-I", "-S", "-c", script)
    with containers.running(engine, flags[-1], *words, flags=flags[:-1]) as name:
        ready = lambda: "ready" in engine.cli("jaula", "logs", name).stdout  # noqa: E731
        containers.eventually(ready, "the program has loaded a filter of its own")
        rows = look_at(engine, name)
        assert rows["seccomp"].effective.startswith("filter, 2 filters")
        assert rows["seccomp program"].verdict is Verdict.HOLDS


def test_reading_the_filter_does_not_disturb_the_program(own: tuple[str, int, Look]) -> None:
    _, pid, look = own
    before = containers.status(pid)
    for _ in range(20):
        assert look()["seccomp program"].verdict is Verdict.HOLDS
    sleeps = lambda: containers.status(pid)["State"] == "S (sleeping)"  # noqa: E731
    containers.eventually(sleeps, "it sleeps on")
    after = containers.status(pid)
    assert before["State"] == "S (sleeping)"
    assert after["TracerPid"] == "0"
    assert after["SigPnd"] == after["ShdPnd"] == "0" * 16


def test_a_traced_process_is_reported_without_its_program(
    own: tuple[str, int, Look],
) -> None:
    _, pid, look = own
    script = (
        "import ctypes,time;l=ctypes.CDLL(None);"
        f"assert l.ptrace(0x4206,{pid},0,0)==0;print('traced',flush=True);time.sleep(100)"
    )
    with subprocess.Popen(["python3", "-c", script], stdout=subprocess.PIPE) as tracer:
        try:
            assert tracer.stdout is not None
            assert tracer.stdout.readline() == b"traced\n"
            rows = look()
            assert "seccomp program" not in rows
            assert "the program is not readable" in rows["seccomp"].effective
        finally:
            tracer.kill()
    containers.eventually(lambda: "seccomp program" in look(), "it can be read again")


def test_a_paused_container_is_verified_without_its_filter(
    engine: PrivateEngine, own: tuple[str, int, Look]
) -> None:
    name, _, look = own
    engine.cli("jaula", "pause", name)
    rows = look()
    assert "seccomp program" not in rows
    assert failing(rows) == set()
    engine.cli("jaula", "unpause", name)


# -- the firewall ----------------------------------------------------------------------------


@pytest.fixture
def table(engine: PrivateEngine) -> Iterator[str]:
    """Yield the name of the engine's tables; delete them, so that the engine restores them."""
    name = bridge_rules.table_name(engine.bridge)
    yield name
    nft(f"delete table ip {name}\ndelete table bridge {name}\n")

    def there() -> bool:
        done = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True)
        guard = f"table bridge {name}" in done.stdout.splitlines()
        return guard and not bridge_rules.tables_missing(done.stdout, engine.bridge)

    containers.eventually(there, "the engine puts its tables back")


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("flush chain ip {t} guard", "missing in ip a rule of guard"),
        ("flush chain ip {t} forward", "missing in ip a rule of forward"),
        ("flush chain bridge {t} prerouting", "missing in bridge a rule of prerouting"),
        ("insert rule ip {t} forward accept", "not the engine's: ip a rule of forward"),
        ("insert rule bridge {t} prerouting accept", "not the engine's: bridge a rule"),
        ("add chain ip {t} sneak {{ type filter hook input priority 0; }}", "chain sneak"),
    ],
)
def test_a_missing_or_foreign_rule_fails(
    own: tuple[str, int, Look], table: str, command: str, told: str
) -> None:
    _, _, look = own
    assert failing(look()) == set()
    nft(command.format(t=table) + "\n")
    rows = look()
    assert failing(rows) == {"firewall"}, rows["firewall"].effective
    assert told in rows["firewall"].effective


def test_an_unpublished_port_fails(
    engine: PrivateEngine, own: tuple[str, int, Look], table: str
) -> None:
    name, _, look = own
    endpoint = next(iter(containers.inspect(engine, name)["NetworkSettings"]["Networks"].values()))
    element = f"tcp . 60999 : {endpoint['IPAddress']} . 22"
    nft(f"add element ip {table} published_everywhere {{ {element} }}\n")
    rows = look()
    assert failing(rows) == {"published ports"}
    assert "0.0.0.0 tcp 60999 -> 22" in rows["published ports"].effective


def test_a_missing_published_port_fails(own: tuple[str, int, Look], table: str) -> None:
    _, _, look = own
    nft(f"flush map ip {table} published\n")
    rows = look()
    assert failing(rows) == {"published ports"}
    assert "missing: 127.0.0.1 tcp" in rows["published ports"].effective


def test_an_address_without_endpoint_element_fails(own: tuple[str, int, Look], table: str) -> None:
    _, _, look = own
    nft(f"flush set bridge {table} endpoints\n")
    rows = look()
    assert failing(rows) == {"firewall", "foreign translations"}  # the element names the table
    assert "no set" in rows["firewall"].effective


# -- settings, labels, sources ---------------------------------------------------------------


def inside_network(pid: int, name: str, value: str) -> None:
    script = f"open('/proc/sys/{name}', 'w').write('{value}')"
    subprocess.run(
        ["nsenter", "-t", str(pid), "-n", "python3", "-c", script], check=True, timeout=10
    )


def test_a_changed_sysctl_fails(engine: PrivateEngine, busybox: str) -> None:
    flags = ("--sysctl", "net.ipv4.ip_unprivileged_port_start=1000")
    with containers.running(engine, busybox, flags=flags) as name:
        assert look_at(engine, name)["sysctls"].verdict is Verdict.HOLDS
        pid = containers.pid(engine, name)
        inside_network(pid, "net/ipv4/ip_unprivileged_port_start", "0")
        rows = look_at(engine, name)
    assert failing(rows) == {"sysctls"}
    assert "ip_unprivileged_port_start = 0" in rows["sysctls"].effective


@pytest.mark.skipif(not os.path.exists("/proc/sys/net/ipv6"), reason="a kernel without IPv6")
def test_enabled_ipv6_fails(own: tuple[str, int, Look]) -> None:
    _, pid, look = own
    inside_network(pid, "net/ipv6/conf/eth0/disable_ipv6", "0")
    containers.eventually(lambda: "ipv6" in failing(look()), "the address is found")
    assert failing(look()) == {"ipv6"}


@pytest.mark.skipif(not detect.selinux(), reason="there are labels under SELinux only")
def test_labels_other_than_the_spec_s_fail(engine: PrivateEngine, busybox: str) -> None:
    """Mount and exec set the labels of files and processes; they cannot be changed later."""
    with containers.running(engine, busybox) as name:
        result = containers.inspect(engine, name)
        reply = engine.request("GET", f"/jaula/containers/{result['Id']}/spec")
        spec = runtime_spec.decode(reply.body)
        assert spec.linux is not None and spec.process is not None
        with pytest.raises(OSError, match="not supported"):
            os.setxattr(f"/proc/{result['State']['Pid']}/root", "security.selinux", b"x")
        linux = msgspec.structs.replace(
            spec.linux, mount_label="system_u:object_r:container_file_t:s0"
        )
        process = msgspec.structs.replace(
            spec.process, selinux_label="system_u:system_r:container_t:s0:c1,c2"
        )
        pretended = msgspec.structs.replace(spec, linux=linux, process=process)
        rows = {row.id: row for row in verify(result, pretended)}
    assert failing(rows) >= {"selinux files", "selinux label"}


@pytest.mark.skipif(
    not (detect.selinux() or detect.apparmor()),
    reason="processes have labels under a module that gives them",
)
def test_a_process_with_another_label_fails(own: tuple[str, int, Look]) -> None:
    """It has no more capabilities than the container; its filter is ignored."""
    _, pid, look = own
    script = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "/bin/sleep", "100")
    words = ["nsenter", "-t", str(pid), "-p", "-U", *script]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True) as inside:
        try:
            containers.eventually(
                lambda: " runs " in look()["processes"].effective, "the label is told"
            )
            assert failing(look()) - INJECTED == {"processes"}
        finally:
            os.killpg(inside.pid, 9)


def test_a_bound_part_of_the_host_is_named(engine: PrivateEngine, busybox: str) -> None:
    flags = ("-v", "/etc:/host:ro")
    with containers.running(engine, busybox, flags=flags) as name:
        rows = look_at(engine, name)
    assert rows["host directories"].verdict is Verdict.RELAXED
    assert "-v /etc:/host" in rows["host directories"].requested
