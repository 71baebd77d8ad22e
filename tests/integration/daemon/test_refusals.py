"""Refusals of the kernel's layers are counted for the container that they happened in."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import load_image
from harness import containers, landlock, leaks
from harness.engine import PrivateEngine
from jaula.kernel import kernel_audit
from jaula.kernel.netlink import NLM_F, Netlink, Request

AUDIT_SET, AUDIT_STATUS_ENABLED = 1001, 1
KILLED = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["sethostname"], "action": "SCMP_ACT_KILL_PROCESS"}],
}
LOGGED = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "flags": ["SECCOMP_FILTER_FLAG_LOG"],
    "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}],
}
LANDLOCK = ("--security-opt", "landlock=write=/tmp")


def in_initial_namespaces() -> bool:
    try:
        kernel_audit.RecordSocket((kernel_audit.AUDIT_AVC,)).close()
    except OSError as error:
        return error.errno not in (errno.EPROTONOSUPPORT, errno.EPERM, errno.ECONNREFUSED)
    return os.stat("/proc/self/ns/pid").st_ino == 0xEFFFFFFC


pytestmark = pytest.mark.skipif(not in_initial_namespaces(), reason="audit records do not reach us")
needs_records_of_landlock = pytest.mark.skipif(landlock.abi() < 7, reason="needs Linux 6.15")


def set_enabled(value: int) -> None:
    status = struct.pack("=11I", AUDIT_STATUS_ENABLED, value, *[0] * 9)
    with Netlink(protocol=kernel_audit.NETLINK_AUDIT) as netlink:
        netlink.send(Request(AUDIT_SET, NLM_F(0), status, "set the audit status"))


@contextlib.contextmanager
def auditing() -> Iterator[None]:
    """Audit is on in the block. It is a setting of the host, so it is set back."""
    before = kernel_audit.enabled()
    set_enabled(1)
    try:
        yield
    finally:
        set_enabled(int(before))


@pytest.fixture(scope="module")
def counted(worker_index: int) -> Iterator[PrivateEngine]:
    private = PrivateEngine((worker_index + 113) % 250 + 1)
    with leaks.nothing_left(private):
        load_image(private, "busybox")
        yield private


def metric(engine: PrivateEngine, metric_name: str, /, **labels: str) -> float | None:
    """Return a sample of a fresh page; None if there is none with these labels."""
    time.sleep(1.05)
    for line in engine.request("GET", "/metrics").body.decode().splitlines():
        if line.startswith(f"{metric_name}{{") and all(
            f'{k}="{v}"' in line for k, v in labels.items()
        ):
            return float(line.rpartition(" ")[2])
    return None


def refusals(engine: PrivateEngine, name: str, layer: str) -> float | None:
    return metric(engine, "jaula_container_refusals_total", name=name, layer=layer)


@contextlib.contextmanager
def running(engine: PrivateEngine, *flags: str) -> Iterator[str]:
    with containers.running(engine, "busybox", flags=flags) as name:
        yield name


def execute(engine: PrivateEngine, name: str, *command: str) -> None:
    engine.cli("jaula", "exec", name, *command)


def profile(tmp_path: Path, document: object) -> tuple[str, str]:
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(document))
    return "--security-opt", f"seccomp={path}"


def test_a_killed_process_is_counted_and_an_event(counted: PrivateEngine, tmp_path: Path) -> None:
    began = time.time()
    with running(counted, *profile(tmp_path, KILLED)) as name, running(counted) as other:
        assert refusals(counted, name, "seccomp") == 0
        execute(counted, name, "hostname", "x")
        assert refusals(counted, name, "seccomp") == 1
        assert refusals(counted, other, "seccomp") == 0
        assert containers.inspect(counted, name)["Refusals"] == {"seccomp": 1}
        (event,) = containers.events(counted, began, event="refused", container=name)
    attributes = event["Actor"]["Attributes"]
    assert attributes["layer"] == "seccomp"
    assert attributes["operation"] == "sethostname"
    assert attributes["program"] == "hostname"
    assert attributes["count"] == "1"
    assert attributes["name"] == name


@pytest.mark.slow
def test_many_refusals_are_counted_or_lost_and_two_events(
    counted: PrivateEngine, tmp_path: Path
) -> None:
    began = time.time()
    loop = "i=0; while [ $i -lt 1500 ]; do i=$((i+1)); mkdir /x; done 2>/dev/null"
    with running(counted, *profile(tmp_path, LOGGED)) as name:
        before = metric(counted, "jaula_refusals_lost_total", source="audit")
        execute(counted, name, "sh", "-c", loop)

        def complete() -> bool:
            lost = metric(counted, "jaula_refusals_lost_total", source="audit")
            assert before is not None
            assert lost is not None
            return (refusals(counted, name, "seccomp") or 0) + lost - before >= 1500

        containers.eventually(complete, "1500 refusals", 60)

        def emitted() -> list[Any]:
            return containers.events(counted, began, event="refused", container=name)

        containers.eventually(lambda: len(emitted()) > 1, "the event of the interval", 30)
        first, *others = emitted()
    assert first["Actor"]["Attributes"]["count"] == "1"
    assert 1 <= len(others) <= (time.time() - began) / 10 + 1
    assert int(others[0]["Actor"]["Attributes"]["count"]) > 1


@needs_records_of_landlock
def test_landlock_is_counted_only_while_audit_is_on(counted: PrivateEngine) -> None:
    with running(counted, *LANDLOCK) as name:
        if not kernel_audit.enabled():
            execute(counted, name, "touch", "/etc/x")
            time.sleep(1)
            assert refusals(counted, name, "landlock") is None
            assert metric(
                counted, "jaula_refusals_source", layer="landlock", source="audit"
            ) == 0  # fmt: skip
        with auditing():
            execute(counted, name, "touch", "/etc/x")
            containers.eventually(
                lambda: (refusals(counted, name, "landlock") or 0) >= 1, "a refusal", 20
            )
            assert metric(
                counted, "jaula_refusals_source", layer="landlock", source="audit"
            ) == 1  # fmt: skip


@pytest.mark.slow
@needs_records_of_landlock
def test_a_domain_that_an_earlier_engine_has_seen_is_known(worker_index: int) -> None:
    private = PrivateEngine((worker_index + 121) % 250 + 1)
    with leaks.nothing_left(private), auditing():
        load_image(private, "busybox")
        command = "while true; do echo x > /etc/x; sleep 0.2; done"
        words = ("run", "-d", "--name", "web", *LANDLOCK, "busybox", "sh", "-c", command)
        assert private.cli("jaula", *words).returncode == 0
        containers.eventually(
            lambda: (refusals(private, "web", "landlock") or 0) >= 1, "the first engine counts", 20
        )
        private.stop()
        private.start()
        containers.eventually(
            lambda: (refusals(private, "web", "landlock") or 0) >= 1, "the second engine counts", 20
        )


def test_processes_outside_of_containers_are_not_counted(counted: PrivateEngine) -> None:
    program = (
        "import ctypes, struct\n"
        "l = ctypes.CDLL(None)\n"
        "rows = ((32,0,0,0),(21,0,1,170),(6,0,0,0x80000000),(6,0,0,0x7fff0000))\n"
        "code = ctypes.create_string_buffer(b''.join(struct.pack('=HBBI', *r) for r in rows))\n"
        "l.prctl(38, 1, 0, 0, 0)\n"
        "l.prctl(22, 2, ctypes.create_string_buffer(struct.pack('=HxxxxxxQ', 4,"
        " ctypes.addressof(code))))\n"
        "l.syscall(170)\n"
    )
    before = metric(counted, "jaula_refusals_total", layer="seccomp")
    done = subprocess.run([sys.executable, "-c", program], check=False)
    assert done.returncode == -31
    assert metric(counted, "jaula_refusals_total", layer="seccomp") == before


def test_ebpf_counts_every_refused_call_or_says_why_not(worker_index: int) -> None:
    flags = ("--metrics-refusals", "ebpf")
    private = PrivateEngine((worker_index + 129) % 250 + 1, extra_flags=flags)
    with leaks.nothing_left(private):
        load_image(private, "busybox")

        def decided() -> bool:
            source = metric(private, "jaula_refusals_source", layer="seccomp", source="ebpf")
            return source == 1 or "refusals are not counted by eBPF" in private.log_tail()

        containers.eventually(decided, "the programs are loaded or refused", 300)
        if metric(private, "jaula_refusals_source", layer="seccomp", source="ebpf") == 0:
            assert "the eBPF programs" in private.log_tail()
            assert metric(private, "jaula_refusals_source", layer="seccomp", source="audit") == 1
            return
        began = time.time()
        with running(private) as name:
            containers.eventually(
                lambda: refusals(private, name, "seccomp") is not None, "a series", 20
            )
            before = refusals(private, name, "seccomp") or 0
            for _ in range(3):
                execute(private, name, "mount", "-t", "tmpfs", "none", "/mnt")
            containers.eventually(
                lambda: refusals(private, name, "seccomp") == before + 3, "three refusals", 60
            )
            seen = containers.events(private, began, event="refused", container=name)
        assert seen[-1]["Actor"]["Attributes"]["operation"] == "mount"


def test_none_reads_no_source(worker_index: int) -> None:
    flags = ("--metrics-refusals", "none")
    private = PrivateEngine((worker_index + 137) % 250 + 1, extra_flags=flags)
    with leaks.nothing_left(private):
        for layer in ("apparmor", "selinux", "landlock", "seccomp"):
            assert metric(private, "jaula_refusals_source", layer=layer, source="audit") == 0


@pytest.mark.vm
@pytest.mark.needs("/sys/kernel/security/apparmor/profiles")
def test_a_denial_of_apparmor_is_counted_also_if_its_process_has_exited(
    counted: PrivateEngine,
) -> None:
    text = "profile jaula-refusal-test { file, capability, network, audit deny /tmp/** w, }"
    subprocess.run(["apparmor_parser", "-r", "-K"], input=text, text=True, check=True)
    try:
        with running(
            counted, "--network", "none", "--security-opt", "apparmor=jaula-refusal-test"
        ) as name:
            for _ in range(3):
                execute(counted, name, "touch", "/tmp/x")
            containers.eventually(
                lambda: refusals(counted, name, "apparmor") == 3, "three denials", 60
            )
            (event, *_) = containers.events(counted, 0, event="refused", container=name)
            assert event["Actor"]["Attributes"]["object"] == "/tmp/x"
            assert event["Actor"]["Attributes"]["layer"] == "apparmor"
    finally:
        subprocess.run(["apparmor_parser", "-R", "-K"], input=text, text=True, check=True)
