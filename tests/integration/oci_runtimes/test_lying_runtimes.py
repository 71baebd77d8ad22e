"""Runtimes whose claims are not the kernel's: a process elsewhere, a pause or an exit that is none.

The process that such a runtime reports has the root and namespaces of the host, as the monitor of a
virtual machine has.
"""

from __future__ import annotations

import io
import os
import socket
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import load_image
from harness import containers, leaks
from harness.engine import PrivateEngine
from harness.observed import ObservedStream

MONITOR = """#!PYTHON -IS
import json, os, signal, sys, time
words = sys.argv[1:]
calls = ("create", "start", "kill", "delete", "features", "exec", "pause", "resume", "update")
call = next(word for word in words if word in calls)

def value(flag):
    return words[words.index(flag) + 1]

def cgroups():
    with open(value("--bundle") + "/config.json") as file:
        path = json.load(file)["linux"]["cgroupsPath"]
    with open("/proc/self/mountinfo") as file:
        tops = [line.split()[4] for line in file if " - cgroup" in line]
    for top in tops:
        if top.endswith(("/systemd", "/unified")):
            continue  # a hybrid host
        os.makedirs(top + path, exist_ok=True)
        yield top + path

if call == "features":
    print("{}")
elif call == "create":
    directories = list(cgroups())
    pid = os.fork()
    if not pid:
        for directory in directories:
            try:
                with open(directory + "/cgroup.procs", "w") as file:
                    file.write(str(os.getpid()))
            except OSError:
                pass  # cpuset of version 1 without cpus
        UNSHARE
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            time.sleep(60)
    with open(value("--pid-file"), "w") as file:
        file.write(str(pid))
elif call == "kill" and GONE:
    sys.stderr.write("process already finished")
    sys.exit(1)
"""
VARIANTS = {
    # name: (what the process enters, whether ``kill`` claims that it has exited)
    "host": ("pass", False),
    "own-mounts": ("os.unshare(os.CLONE_NEWNS)", False),
    "own-namespaces": (
        "os.unshare(os.CLONE_NEWNS | os.CLONE_NEWIPC | os.CLONE_NEWUTS | os.CLONE_NEWNET)",
        False,
    ),
    "says-gone": ("pass", True),
}


def write_runtime(path: Path, variant: str) -> Path:
    enter, gone = VARIANTS[variant]
    text = MONITOR.replace("PYTHON", os.path.realpath(sys.executable))
    path.write_text(text.replace("UNSHARE", enter).replace("GONE", str(gone)))
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def lying(tmp_path_factory: pytest.TempPathFactory, worker_index: int) -> Iterator[PrivateEngine]:
    directory = tmp_path_factory.mktemp("lying")
    flags = ["--runtime-timeout", "10"]
    for name in VARIANTS:
        flags += ["--add-runtime", f"{name}={write_runtime(directory / name, name)}"]
    private = PrivateEngine((worker_index + 163) % 250 + 1, extra_flags=tuple(flags))
    with leaks.nothing_left(private):
        load_image(private, "busybox")
        yield private


@pytest.fixture(scope="module", params=["host", "own-mounts", "own-namespaces"])
def claimed(request: pytest.FixtureRequest, lying: PrivateEngine) -> Iterator[str]:
    """Yield a container whose runtime reports a process of the host."""
    flags = ("--runtime", request.param, "-v", "/usr:/usr-of-host:ro")
    with containers.running(lying, "busybox", flags=flags) as name:
        yield name


def marker(tmp_path: Path) -> Path:
    """Return a file of the host."""
    path = tmp_path / "of-the-host"
    path.write_text("only the host may read this")
    return path


@pytest.mark.slow
def test_no_call_opens_the_files_of_the_host(
    lying: PrivateEngine, claimed: str, tmp_path: Path
) -> None:
    secret = marker(tmp_path)
    reply = lying.request("GET", f"/containers/{claimed}/archive?path={secret}")
    assert reply.status == 501
    assert "is not in the container" in reply.json()["message"]
    assert lying.request("HEAD", f"/containers/{claimed}/archive?path={secret}").status == 501
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        entry = tarfile.TarInfo("new")
        entry.size = 3
        archive.addfile(entry, io.BytesIO(b"new"))
    path = f"/containers/{claimed}/archive?path={tmp_path}"
    assert lying.request("PUT", path, stream.getvalue()).status == 501
    assert not (tmp_path / "new").exists()
    for words in (("cp", f"{claimed}:{secret}", str(tmp_path / "copy")), ("debug", claimed, "id")):
        done = lying.cli("jaula", *words, stdin=-3)
        assert done.returncode != 0, words
        assert "only the host" not in done.stdout
    assert not (tmp_path / "copy").exists()
    exported = lying.request("GET", f"/containers/{claimed}/export")
    assert exported.status != 200 or b"only the host" not in exported.body
    changes = lying.request("GET", f"/containers/{claimed}/changes")
    assert str(secret) not in str(changes.body)


@pytest.mark.parametrize("kind", ["network", "pid", "ipc"])
def test_no_container_joins_a_namespace_of_the_host(
    lying: PrivateEngine, claimed: str, kind: str
) -> None:
    for userns in ((), ("--userns", "host")):
        flags = (f"--{kind}", f"container:{claimed}", *userns)
        done = lying.cli("jaula", "run", "--rm", *flags, "busybox", "true")
        assert done.returncode != 0
        if "user" not in done.stderr:
            assert "is not in the container" in done.stderr or "non-shareable" in done.stderr


def test_figures_are_not_those_of_the_host(lying: PrivateEngine, claimed: str) -> None:
    stats = lying.request("GET", f"/containers/{claimed}/stats?stream=0&one-shot=1").json()
    assert not stats.get("networks")
    top = lying.request("GET", f"/containers/{claimed}/top").json()
    assert len(top["Processes"]) <= 2
    document = containers.inspect(lying, claimed)
    assert document["State"]["Running"]
    assert document["State"]["NetworkPid"] == 0


def test_samples_have_no_traffic_of_the_host(lying: PrivateEngine, claimed: str) -> None:
    key = containers.inspect(lying, claimed)["Id"]
    with (
        containers.running(lying, "busybox") as honest,
        ObservedStream(lying) as stream,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
    ):
        own, address = containers.inspect(lying, honest)["Id"], containers.address(lying, honest)

        def traffic(container: str) -> list[float]:
            """Return the bytes per second, received and sent, of all samples."""
            samples = [each.get("Containers", {}).get(container) for each in stream.documents]
            return [figure for sample in samples if sample for figure in sample[6:8]]

        def received() -> bool:
            sock.sendto(b"x" * 1000, (address, 9))  # an interface of the host counts it, too
            return any(traffic(own)) and len(traffic(key)) > 2

        stream.wait(received, "a sample with traffic")
        assert not any(traffic(key))


@pytest.mark.slow
def test_a_pause_is_what_the_kernel_says(lying: PrivateEngine, claimed: str) -> None:
    reply = lying.request("POST", f"/containers/{claimed}/pause")
    assert reply.status == 500
    assert "is paused, but its processes run" in reply.json()["message"]
    assert containers.inspect(lying, claimed)["State"]["Status"] == "running"


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["host", "says-gone"])
def test_an_end_is_what_the_kernel_says(lying: PrivateEngine, variant: str) -> None:
    with containers.running(lying, "busybox", flags=("--runtime", variant)) as name:
        process = Path(f"/proc/{containers.pid(lying, name)}")
        assert lying.request("POST", f"/containers/{name}/kill?signal=USR2").status == 204
        assert lying.request("POST", f"/containers/{name}/stop?t=0").status == 204
        containers.eventually(lambda: not process.exists(), "the process has ended")
        state = containers.inspect(lying, name)["State"]
        assert (state["Status"], state["ExitCode"]) == ("exited", 137 if variant == "host" else 140)


@pytest.mark.slow
def test_the_next_engine_knows_it_too(
    new_engine: Callable[..., PrivateEngine], tmp_path: Path
) -> None:
    path = write_runtime(tmp_path / "monitor", "host")
    engine = new_engine("--add-runtime", f"monitor={path}")
    load_image(engine, "busybox")
    with containers.running(engine, "busybox", flags=("--runtime", "monitor")) as name:
        engine.kill()
        engine.start()
        reply = engine.request("GET", f"/containers/{name}/archive?path={marker(tmp_path)}")
        assert reply.status == 501
