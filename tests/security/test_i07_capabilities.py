"""I7: the five capability sets are the requested ones, read back; inheritable and ambient empty."""

from __future__ import annotations

import os

import pytest

from harness import containers
from harness.engine import PrivateEngine

DEFAULT = 0x00000000A80425FB
NET_RAW, NET_BIND_SERVICE, SYS_ADMIN = 1 << 13, 1 << 10, 1 << 21
SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def sets(process: int) -> dict[str, int]:
    result = containers.status(process)
    return {key: int(result[key], 16) for key in SETS}


@pytest.mark.parametrize(
    ("flags", "bounding"),
    [
        ((), DEFAULT),
        (("--cap-drop", "NET_RAW"), DEFAULT & ~NET_RAW),
        (("--cap-drop", "CAP_NET_RAW"), DEFAULT & ~NET_RAW),
        (("--cap-drop", "all"), 0),
        (("--cap-drop", "ALL", "--cap-add", "net_bind_service"), NET_BIND_SERVICE),
        (("--cap-add", "sys_admin"), DEFAULT | SYS_ADMIN),
    ],
)
@pytest.mark.parametrize("cve", ["CVE-2022-24769 CVE-2022-29162"])
def test_root_has_the_default_sets(
    engine: PrivateEngine, busybox: str, flags: tuple[str, ...], bounding: int, cve: str
) -> None:
    with containers.running(engine, busybox, flags=flags) as name:
        result = sets(containers.pid(engine, name))
    assert result == {
        "CapInh": 0,
        "CapAmb": 0,
        "CapPrm": bounding,
        "CapEff": bounding,
        "CapBnd": bounding,
    }


@pytest.mark.parametrize("flags", [(), ("--cap-add", "net_admin"), ("--privileged",)])
@pytest.mark.parametrize("cve", ["CVE-2016-8867"])
def test_another_user_starts_without_capabilities(
    engine: PrivateEngine, busybox: str, flags: tuple[str, ...], cve: str
) -> None:
    with containers.running(engine, busybox, flags=("-u", "1000", *flags)) as name:
        result = sets(containers.pid(engine, name))
    assert [result[key] for key in ("CapInh", "CapPrm", "CapEff", "CapAmb")] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("flags", "effective"), [((), DEFAULT), (("-u", "1000"), 0), (("-t",), DEFAULT)]
)
@pytest.mark.parametrize("cve", ["CVE-2022-29162 CVE-2016-8867"])
def test_an_exec_has_the_containers_sets(
    engine: PrivateEngine, plain: str, flags: tuple[str, ...], effective: int, cve: str
) -> None:
    done = engine.cli("jaula", "exec", *flags, plain, "cat", "/proc/self/status")
    lines = dict(line.split(":", 1) for line in done.stdout.splitlines() if ":" in line)
    result = {key: int(lines[key], 16) for key in SETS}
    assert result == {
        "CapInh": 0,
        "CapAmb": 0,
        "CapBnd": DEFAULT,
        "CapPrm": effective,
        "CapEff": effective,
    }


def test_privileged_has_every_capability_in_its_own_user_namespace(
    engine: PrivateEngine, busybox: str
) -> None:
    with containers.running(engine, busybox, flags=("--privileged",)) as name:
        process = containers.pid(engine, name)
        result = sets(process)
        assert os.readlink(f"/proc/{process}/ns/user") != os.readlink("/proc/self/ns/user")
    assert result["CapEff"] & SYS_ADMIN
    assert result["CapEff"] == result["CapBnd"] == result["CapPrm"]
    assert result["CapInh"] == result["CapAmb"] == 0


@pytest.mark.parametrize("flags", [(), ("--security-opt", "no-new-privileges")])
def test_a_user_cannot_execute_a_program_of_another_user(
    engine: PrivateEngine, busybox: str, flags: tuple[str, ...]
) -> None:
    """The permission to execute is that of the user, not of the runtime that becomes it."""
    script = "mkdir /p; cp /bin/busybox /p/id; chown 100:100 /p/id; chmod 0700 /p/id; sleep 600"
    with containers.running(engine, busybox, "sh", "-c", script, flags=flags) as name:
        own = engine.cli("jaula", "exec", "-u", "100", name, "sh", "-c", "until /p/id; do :; done")
        assert own.returncode == 0, own.stderr
        other = engine.cli("jaula", "exec", "-u", "200", name, "/p/id")
        assert (other.returncode, other.stdout) == (126, "")
        assert "permission denied" in other.stderr
        assert engine.cli("jaula", "exec", "-u", "0", name, "/p/id").returncode == 0
