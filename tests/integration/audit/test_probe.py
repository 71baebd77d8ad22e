"""Escape attempts of a twin: refused by default, relaxed by a flag; nothing remains."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest

from conftest import load_image
from harness import containers
from harness.engine import PrivateEngine
from jaula.features.verify.escape import twin
from jaula.features.verify.model.result import Result, Verdict
from jaula.security.lsm import detect
from jaula.spec import runtime_spec

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the probing program is for x86_64"
)
GROUPS = {
    *(f"tried: calls {abi}" for abi in ("x86_64", "i386", "x32")),
    *(f"tried: sockets {abi}" for abi in ("x86_64", "i386", "x32")),
    *("tried: terminal", "tried: capabilities", "tried: masked paths", "tried: kernel files"),
    *("tried: read-only paths", "tried: devices", "tried: network", "tried: others"),
    *(("tried: labels",) if detect.selinux() or detect.apparmor() else ()),
    "tried: ceilings",
}


class Api:
    """The engine's API, in the form that a twin uses."""

    def __init__(self, engine: PrivateEngine) -> None:
        self.engine = engine

    def request(self, method: str, path: str, query: Any = (), body: object = None) -> bytes:
        reply = self.engine.request(method, path + ("?" + urlencode(query) if query else ""), body)
        assert reply.status < 400, reply
        return reply.body

    def document(self, method: str, path: str, query: Any = (), body: object = None) -> Any:
        import json

        return json.loads(self.request(method, path, query, body))


def tried(
    engine: PrivateEngine,
    name: str,
    asked: Mapping[str, Any] | None = None,
    told: Callable[[runtime_spec.Spec], runtime_spec.Spec] = lambda spec: spec,
) -> dict[str, Result]:
    """Rows of a twin; with ``asked`` as if the container's flags had been these.

    ``told`` is what the judge hears of the spec.
    """
    result = containers.inspect(engine, name)
    reply = engine.request("GET", f"/jaula/containers/{result['Id']}/spec")
    spec = told(runtime_spec.decode(reply.body))
    if asked is not None:
        made = twin.body

        def body(inspect: Mapping[str, Any], path: str, binds: Sequence[str]) -> dict[str, Any]:
            return made(result, path, binds)  # the twin is like the container ...

        judged = result | {"HostConfig": {**result["HostConfig"], **asked}}  # ... the judge is not
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(twin, "body", body)
            return {row.id: row for row in twin.rows(Api(engine), judged, spec)}
    return {row.id: row for row in twin.rows(Api(engine), result, spec)}


def wrong(rows: dict[str, Result]) -> dict[str, str]:
    return {name: row.effective for name, row in rows.items() if row.verdict is not Verdict.HOLDS}


NO_LABELS = ("--security-opt", "apparmor=unconfined", "--security-opt", "label=disable")
"""Without mandatory access control, which also stops attempts meant for other layers."""

MANY_LIMITS = (
    "--cpus 0.2 --cpuset-cpus 0 --tmpfs /small:size=1m --shm-size 2m --ulimit nofile=64:64 "
    "--ulimit fsize=8192 --ulimit memlock=65536 --ulimit core=0 --ulimit nproc=500"
)


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("-m", "64m", "--pids-limit", "40"),
        ("--user", "1234:1234", "--read-only", "--security-opt", "no-new-privileges"),
        ("--network", "none", "--cap-drop", "all"),
        ("--uts", "host"),
        tuple(MANY_LIMITS.split()),
        pytest.param(("--init", "-t"), marks=pytest.mark.needs("tini-static")),
    ],
    ids=" ".join,
)
def test_every_attempt_is_refused(
    engine: PrivateEngine, busybox: str, flags: tuple[str, ...]
) -> None:
    with containers.running(engine, busybox, flags=flags) as name:
        rows = tried(engine, name)
    assert wrong(rows) == {}
    assert set(rows) == GROUPS


@pytest.mark.parametrize(
    ("flags", "asked", "groups", "attempt"),
    [
        ((*NO_LABELS, "--security-opt", "seccomp=unconfined"), {"SecurityOpt": None},
         {"tried: calls x86_64", "tried: sockets x86_64"}, "io_uring_setup"),
        ((*NO_LABELS, "--security-opt", "seccomp=unconfined"), {"SecurityOpt": None},
         {"tried: calls i386", "tried: sockets i386"}, "by socketcall"),
        (("--privileged",), {"Privileged": False}, {"tried: calls x86_64"}, "mount"),
        (("--pid", "host"), {"PidMode": ""}, {"tried: others"}, "a process of the host"),
        (("--ipc", "host"), {"IpcMode": ""}, {"tried: others"}, "shared memory of the host"),
        ((*NO_LABELS, "--network", "host"), {"NetworkMode": "none"}, {"tried: network"},
         "abstract socket of the host"),
        ((*NO_LABELS, "--network", "host"), {"NetworkMode": "none"}, {"tried: network"},
         "loopback of the host"),
        ((*NO_LABELS, "--network", "host"), {"NetworkMode": "none"}, {"tried: network"},
         "a container of another network (ECONNREFUSED"),
        ((*NO_LABELS, "--security-opt", "systempaths=unconfined", "--userns", "host"),
         {"MaskedPaths": None, "ReadonlyPaths": None, "SecurityOpt": None, "UsernsMode": ""},
         {"tried: kernel files"}, "/proc/sys/kernel/core_pattern"),
        ((*NO_LABELS, "--security-opt", "systempaths=unconfined", "--userns", "host"),
         {"MaskedPaths": None, "ReadonlyPaths": None, "SecurityOpt": None, "UsernsMode": ""},
         {"tried: read-only paths"}, "/proc/bus"),
        ((*NO_LABELS, "--security-opt", "systempaths=unconfined"),
         {"MaskedPaths": None, "ReadonlyPaths": None, "SecurityOpt": None},
         {"tried: masked paths"}, "/proc/keys read"),
        ((*NO_LABELS, "-v", "/tmp:/tmp"), {}, {"tried: others"}, "a file of the host"),
    ],
)  # fmt: skip
def test_a_missing_protection_lets_an_attempt_succeed(
    engine: PrivateEngine,
    busybox: str,
    flags: tuple[str, ...],
    asked: dict[str, Any],
    groups: set[str],
    attempt: str,
) -> None:
    """The container lacks a protection that its request does not remove."""
    with containers.running(engine, busybox, flags=flags) as name:
        rows = tried(engine, name, asked)
    for group in groups:
        assert rows[group].verdict is Verdict.FAILS, rows[group]
    assert any(attempt in rows[group].effective for group in groups), wrong(rows)


@pytest.mark.parametrize(
    ("flags", "flag"),
    [
        (("--security-opt", "seccomp=unconfined"), "seccomp=unconfined"),
        (("--privileged",), "--privileged"),
        (("--cap-add", "sys_admin"), "--cap-add sys_admin"),
        (("--cap-add", "all"), "--cap-add all"),
        (("--network", "host"), "--network=host"),
        (("--pid", "host"), "--pid=host"),
        ((*NO_LABELS, "--userns", "host"), "--userns=host"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_relaxed_row_names_its_flag(
    engine: PrivateEngine, busybox: str, flags: tuple[str, ...], flag: str
) -> None:
    with containers.running(engine, busybox, flags=flags) as name:
        rows = tried(engine, name)
    assert {row.verdict for row in rows.values()} == {Verdict.HOLDS, Verdict.RELAXED}, wrong(rows)
    named = " ".join(row.requested for row in rows.values() if row.verdict is Verdict.RELAXED)
    assert flag.lower() in named.lower()


def test_a_raised_limit_is_detected(engine: PrivateEngine, busybox: str) -> None:
    """The evaluation gets smaller limits than the twin has."""
    flags = ("-m", "256m", "--pids-limit", "200")
    with containers.running(engine, busybox, flags=flags) as name:
        asked = {"Memory": 16 << 20, "MemorySwap": 16 << 20, "PidsLimit": 50}
        rows = tried(engine, name, asked)
    assert rows["tried: ceilings"].verdict is Verdict.FAILS
    assert "32 MB of memory" in rows["tried: ceilings"].effective
    assert "58 threads" in rows["tried: ceilings"].effective


def smaller(spec: runtime_spec.Spec) -> runtime_spec.Spec:
    """Return the spec with limits that are not set."""
    mounts = tuple(
        msgspec.structs.replace(mount, options=(*mount.options, "size=4096"))
        if mount.destination == "/dev/shm"
        else mount
        for mount in spec.mounts
    )
    assert spec.process is not None
    limits = tuple(
        runtime_spec.Rlimit(type=f"RLIMIT_{name}", hard=hard, soft=hard)
        for name, hard in (("NOFILE", 32), ("FSIZE", 4096), ("MEMLOCK", 8192))
    )
    process = msgspec.structs.replace(spec.process, rlimits=limits)
    return msgspec.structs.replace(spec, mounts=mounts, process=process)


def test_every_limit_that_is_not_in_effect_is_detected(engine: PrivateEngine, busybox: str) -> None:
    """The evaluation gets limits; the twin has the kernel's defaults, or none."""
    flags = ("--ulimit", "nofile=1024:1024", "--ulimit", "fsize=1000000")
    with containers.running(engine, busybox, flags=flags) as name:
        asked = {"NanoCpus": 50_000_000, "CpusetCpus": "0"}
        row = tried(engine, name, asked, smaller)["tried: ceilings"]
    assert row.verdict is Verdict.FAILS
    through = row.effective.partition("allowed: ")[2]
    expected = ["more than 0.05 processors", "8 KB in /dev/shm", "raising nofile",
                "raising fsize"]  # fmt: skip
    if (os.cpu_count() or 1) > 1:
        expected.append("processors outside the set")
    assert [each for each in expected if each not in through] == []


def namespaced(spec: runtime_spec.Spec) -> runtime_spec.Spec:
    """Return the spec with a user namespace that it does not have."""
    assert spec.linux is not None
    own = (*spec.linux.namespaces, runtime_spec.Namespace(type="user"))
    return msgspec.structs.replace(spec, linux=msgspec.structs.replace(spec.linux, namespaces=own))


def test_ids_shared_with_another_container_are_detected(
    engine: PrivateEngine, busybox: str
) -> None:
    with containers.running(engine, busybox, flags=(*NO_LABELS, "--userns", "host")) as name:
        row = tried(engine, name, {"UsernsMode": ""}, namespaced)["tried: others"]
    assert row.verdict is Verdict.FAILS
    assert "a file of another container's root" in row.effective


@pytest.fixture
def metadata() -> Iterator[None]:
    """A cloud's metadata address, on an interface of this host."""
    link = containers.unique("jm")[:15]
    for words in (
        f"ip link add {link} type bridge",
        f"ip address add 169.254.169.254/32 dev {link}",
        f"ip link set {link} up",
    ):
        subprocess.run(words.split(), check=True, timeout=10)
    yield
    subprocess.run(["ip", "link", "delete", link], check=True, timeout=10)


class Renamed(Api):
    """The engine's API, which reports every network as internal."""

    def document(self, method: str, path: str, query: Any = (), body: object = None) -> Any:
        result = super().document(method, path, query, body)
        if (method, path) == ("GET", "/networks"):
            return [network | {"Internal": True} for network in result]
        return result


@pytest.mark.usefixtures("metadata")
def test_an_internal_network_cannot_reach_the_metadata_address(
    engine: PrivateEngine, busybox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = containers.unique("net")
    assert engine.cli("jaula", "network", "create", "--internal", name).returncode == 0
    try:
        with containers.running(engine, busybox, flags=("--network", name)) as container:
            row = tried(engine, container)["tried: network"]
    finally:
        engine.cli("jaula", "network", "rm", name)
    assert (row.verdict, row.requested) == (Verdict.HOLDS, "6 refused")
    monkeypatch.setattr(sys.modules[__name__], "Api", Renamed)
    with containers.running(engine, busybox) as container:  # which reaches it, as with Docker
        row = tried(engine, container)["tried: network"]
    assert row.verdict is Verdict.FAILS
    assert "metadata address (" in row.effective


def test_ipv6_of_a_network_is_a_relaxation(engine: PrivateEngine, busybox: str) -> None:
    name = containers.unique("net")
    assert engine.cli("jaula", "network", "create", "--ipv6", name).returncode == 0
    try:
        with containers.running(engine, busybox, flags=("--network", name)) as container:
            row = tried(engine, container)["tried: network"]
    finally:
        engine.cli("jaula", "network", "rm", name)
    assert row.verdict in (Verdict.HOLDS, Verdict.RELAXED), row
    if row.verdict is Verdict.RELAXED:
        assert f"--network={name}, which has IPv6" in row.requested


def test_a_twin_leaves_nothing_and_writes_no_volume(
    new_engine: Callable[..., PrivateEngine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = new_engine()  # in which no other test keeps a container
    busybox = load_image(engine, "busybox")
    made: list[str] = []
    real = tempfile.mkdtemp
    monkeypatch.setattr(tempfile, "mkdtemp", lambda **kw: made.append(real(**kw)) or made[-1])
    (tmp_path / "file").write_text("x")
    flags = ("-v", f"{tmp_path}:/bound", "-v", "named-probe:/named", "-v", "/anonymous")
    with containers.running(engine, busybox, flags=flags) as name:
        before = left(engine)
        body = twin.body(containers.inspect(engine, name), "/nowhere")
        assert all(":ro" in bind for bind in body["HostConfig"]["Binds"])
        assert wrong(tried(engine, name)) == {}
        assert left(engine) == before
        assert os.listdir(tmp_path) == ["file"]
        assert len(made) == 4  # bait, the neighbour's program, its files, the twin's program
        assert not any(os.path.exists(path) for path in made)
    engine.request("DELETE", "/volumes/named-probe?force=1")
    containers.assert_clean(engine)


def test_a_twin_that_cannot_start_leaves_nothing(
    engine: PrivateEngine, busybox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twin, "INSIDE", "/dev/null/impossible")
    with containers.running(engine, busybox) as name:
        before = left(engine)
        with pytest.raises(AssertionError):
            tried(engine, name)
        assert left(engine) == before


def left(engine: PrivateEngine) -> dict[str, list[str]]:
    """Return the leftovers of a twin in the engine, and of this process in shared memory."""
    table = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    return {
        "containers": sorted(
            each["Id"] for each in engine.request("GET", "/containers/json?all=1").json()
        ),
        "networks": sorted(each["Name"] for each in engine.request("GET", "/networks").json()),
        "volumes": sorted(v["Name"] for v in engine.request("GET", "/volumes").json()["Volumes"]),
        "segments": [line for line in table if int(line.split()[4]) == os.getpid()],
    }


def test_the_command_prints_the_rows(engine: PrivateEngine, busybox: str) -> None:
    with containers.running(engine, busybox) as name:
        done = engine.cli("jaula", "verify", "--probe", name)
    assert done.returncode == 0, done.stdout + done.stderr
    for group in GROUPS:
        assert group in done.stdout
