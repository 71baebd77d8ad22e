"""SIGKILL of the engine at each step of an edit: all of it is in effect afterwards, or nothing."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import load_image
from harness import leaks
from harness.containers import cgroup_value, eventually, inspect
from harness.faulty_engine import FaultyEngine

EDIT = {
    "Publish": {"80/tcp": [{"HostIp": "127.0.0.1"}]},
    "Unpublish": {"81/tcp": [{}]},
    "Mounts": [
        {"Type": "volume", "Source": "added", "Target": "/added"},
        {"Type": "tmpfs", "Target": "/memory"},
    ],
    "Unmount": ["/former"],
    "Connect": {"second": {}},
    "Update": {"Memory": 64 << 20, "MemorySwap": 64 << 20, "RestartPolicy": {"Name": "always"}},
    "RemoveLimits": ["PidsLimit", "CpuQuota"],
    "Labels": {"edited": "yes"},
}


class EditEngine(FaultyEngine):
    """An engine with the steps of :mod:`harness.edit_faults`."""

    script = "edit_faults.py"


@pytest.fixture(scope="module")
def faulty(worker_index: int) -> Iterator[FaultyEngine]:
    private = EditEngine((worker_index + 97) % 250 + 1)
    with leaks.nothing_left(private):
        load_image(private, "busybox")
        assert private.request("POST", "/networks/create", {"Name": "second"}).status == 201
        yield private
        private.request("DELETE", "/networks/second")


@pytest.mark.slow
@pytest.mark.parametrize(
    "stride",
    # 20 s on an idle machine, six times as long beside other tests
    [6, pytest.param(1, marks=[pytest.mark.soak, pytest.mark.timeout(600)])],
)
def test_an_edit_is_done_or_undone_wherever_the_engine_is_killed(
    faulty: FaultyEngine, stride: int
) -> None:
    undone, step = 0, 1 - stride
    while True:
        step += stride
        name = f"edited-{step}"
        create(faulty, name)
        before = state(faulty, name)
        faulty.fault.write_text(str(step))
        try:
            reply = faulty.request("POST", f"/jaula/containers/{name}/edit", EDIT)
        except (OSError, http.client.HTTPException):
            assert faulty.process is not None
            faulty.process.wait(10)
            faulty.process = None
            faulty.fault.unlink()
            faulty.start()
        else:
            assert reply.status == 200, reply
            assert step > int(faulty.fault.read_text())
            remove(faulty, name)
            break
        after = state(faulty, name)
        if after["labels"]:
            assert_changed(before, after)
        else:
            undone += 1
            assert after == before, step
            assert faulty.request("GET", "/volumes/added").status == 404
        remove(faulty, name)
    assert undone * stride > 15


def create(engine: FaultyEngine, name: str) -> None:
    body = {
        "Image": "busybox",
        "Cmd": ["sh", "-c", "for port in 80 81 82; do httpd -p $port; done; exec sleep 600"],
        "ExposedPorts": {"81/tcp": {}, "82/tcp": {}},
        "HostConfig": {
            "Binds": ["former:/former"],
            "PidsLimit": 77,
            "CpuQuota": 70000,
            "PortBindings": {
                "81/tcp": [{"HostIp": "127.0.0.1"}],
                "82/tcp": [{"HostIp": "127.0.0.1"}],
            },
        },
    }
    assert engine.request("POST", f"/containers/create?name={name}", body).status == 201
    assert engine.request("POST", f"/containers/{name}/start").status == 204
    ports = inspect(engine, name)["NetworkSettings"]["Ports"]
    eventually(lambda: all(map(answers, ports.values())), "the web servers answer")


def remove(engine: FaultyEngine, name: str) -> None:
    assert engine.request("DELETE", f"/containers/{name}?force=1").status == 204
    for volume in ("added", "former"):
        engine.request("DELETE", f"/volumes/{volume}")


def state(engine: FaultyEngine, name: str) -> dict[str, Any]:
    """Return what an edit may change, of the record and of the kernel."""
    document = inspect(engine, name)
    pid = document["State"]["Pid"]
    table = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    ports = document["NetworkSettings"]["Ports"]
    return {
        "mounted": sorted(line.split()[4] for line in table),
        "mounts": sorted(mount["Destination"] for mount in document["Mounts"]),
        "ports": ports,
        "bindings": document["HostConfig"]["PortBindings"],
        "answers": sorted(port for port in ports if answers(ports[port])),
        "networks": sorted(document["NetworkSettings"]["Networks"]),
        "interfaces": sorted(
            line.split(":")[0].strip()
            for line in Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
        ),
        "memory": document["HostConfig"]["Memory"],
        "limit": cgroup_value(pid, "memory", "memory.limit_in_bytes", "memory.max"),
        "pids": cgroup_value(pid, "pids", "pids.max", "pids.max"),
        "quota": cgroup_value(pid, "cpu", "cpu.cfs_quota_us", "cpu.max"),
        "restart": document["HostConfig"]["RestartPolicy"]["Name"],
        "labels": document["Config"]["Labels"],
        "changes": len(document.get("Changes", ())),
        "spec": sorted(m["destination"] for m in spec_of(engine, name)["mounts"]),
    }


def answers(bindings: list[dict[str, str]] | None) -> bool:
    """Return whether a web server answers at each of the bindings."""
    for binding in bindings or ():
        connection = http.client.HTTPConnection("127.0.0.1", int(binding["HostPort"]), timeout=5)
        try:
            connection.request("GET", "/")
            connection.getresponse().read()
        except OSError:
            return False
        finally:
            connection.close()
    return bool(bindings)


def spec_of(engine: FaultyEngine, name: str) -> dict[str, Any]:
    spec: dict[str, Any] = engine.request("GET", f"/jaula/containers/{name}/spec").json()
    return spec


def assert_changed(before: dict[str, Any], after: dict[str, Any]) -> None:
    mounted = set(after["mounted"])
    assert {"/added", "/memory"} <= mounted
    assert "/former" not in mounted
    assert after["spec"] == sorted({*before["spec"], "/added", "/memory"} - {"/former"})
    assert after["mounts"] == ["/added", "/memory"]
    assert "80/tcp" in after["ports"]
    assert not after["ports"].get("81/tcp")
    assert after["ports"]["82/tcp"] == before["ports"]["82/tcp"]
    assert after["answers"] == ["80/tcp", "82/tcp"]
    assert after["networks"] == sorted([*before["networks"], "second"])
    assert len(after["interfaces"]) == len(before["interfaces"]) + 1
    assert after["memory"] == 64 << 20
    assert after["limit"] == str(64 << 20)
    assert before["pids"] == "77"
    assert after["pids"] != "77"
    assert before["quota"].split()[0] == "70000"
    assert after["quota"].split()[0] in ("-1", "max")
    assert after["restart"] == "always"
    assert after["labels"] == {"edited": "yes"}
    assert after["changes"] == 1
