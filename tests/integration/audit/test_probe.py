"""A twin's deeds: refused by default, told where a flag asked for them; nothing is left behind."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from harness import containers
from harness.engine import PrivateEngine
from jaula.audit.probing import twin
from jaula.audit.row import Row, Verdict
from jaula.spec import runtime

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the probing program is for x86_64"
)
GROUPS = {
    *(f"tried: calls {abi}" for abi in ("x86_64", "i386", "x32")),
    *(f"tried: sockets {abi}" for abi in ("x86_64", "i386", "x32")),
    *("tried: terminal", "tried: capabilities", "tried: masked paths", "tried: kernel files"),
    *("tried: read-only paths", "tried: devices", "tried: network", "tried: others"),
    "tried: ceilings",
}


class Api:
    """The engine's API, in the form that a twin wants."""

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
    engine: PrivateEngine, name: str, asked: Mapping[str, Any] | None = None
) -> dict[str, Row]:
    """Rows of a twin; with ``asked`` as if the container's flags had been these."""
    found = containers.inspect(engine, name)
    spec = runtime.decode(engine.request("GET", f"/jaula/containers/{found['Id']}/spec").body)
    if asked is not None:
        made = twin.body

        def body(inspect: Mapping[str, Any], path: str) -> dict[str, Any]:
            return made(found, path)  # the twin is like the container ...

        judged = found | {"HostConfig": {**found["HostConfig"], **asked}}  # ... the judge is not
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(twin, "body", body)
            return {row.id: row for row in twin.rows(Api(engine), judged, spec)}
    return {row.id: row for row in twin.rows(Api(engine), found, spec)}


def told(rows: dict[str, Row]) -> dict[str, str]:
    return {name: row.effective for name, row in rows.items() if row.verdict is not Verdict.HOLDS}


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("-m", "64m", "--pids-limit", "40"),
        ("--user", "1234:1234", "--read-only", "--security-opt", "no-new-privileges"),
        ("--network", "none", "--cap-drop", "all"),
        pytest.param(("--init", "-t"), marks=pytest.mark.needs("tini-static")),
    ],
    ids=" ".join,
)
def test_everything_is_refused(engine: PrivateEngine, busybox: str, flags: tuple[str, ...]) -> None:
    with containers.running(engine, busybox, flags=flags) as name:
        rows = tried(engine, name)
    assert told(rows) == {}
    assert set(rows) == GROUPS


@pytest.mark.parametrize(
    ("flags", "asked", "groups", "attempt"),
    [
        (("--security-opt", "seccomp=unconfined"), {"SecurityOpt": None},
         {"tried: calls x86_64", "tried: sockets x86_64"}, "io_uring_setup"),
        (("--security-opt", "seccomp=unconfined"), {"SecurityOpt": None},
         {"tried: calls i386", "tried: sockets i386"}, "by socketcall"),
        (("--privileged",), {"Privileged": False}, {"tried: calls x86_64"}, "mount"),
        (("--pid", "host"), {"PidMode": ""}, {"tried: others"}, "a process of the host"),
        (("--ipc", "host"), {"IpcMode": ""}, {"tried: others"}, "shared memory of the host"),
        (("--network", "host"), {"NetworkMode": "none"}, {"tried: network"},
         "abstract socket of the host"),
        (("--network", "host"), {"NetworkMode": "none"}, {"tried: network"},
         "loopback of the host"),
        (("--security-opt", "systempaths=unconfined", "--userns", "host"),
         {"MaskedPaths": None, "ReadonlyPaths": None, "SecurityOpt": None, "UsernsMode": ""},
         {"tried: kernel files"}, "/proc/sys/kernel/core_pattern"),
        (("--security-opt", "systempaths=unconfined", "--userns", "host"),
         {"MaskedPaths": None, "ReadonlyPaths": None, "SecurityOpt": None, "UsernsMode": ""},
         {"tried: read-only paths"}, "/proc/bus"),
        (("--security-opt", "systempaths=unconfined"),
         {"MaskedPaths": None, "ReadonlyPaths": None, "SecurityOpt": None},
         {"tried: masked paths"}, "/proc/keys read"),
        (("-v", "/tmp:/tmp"), {}, {"tried: others"}, "a file of the host"),
    ],
)  # fmt: skip
def test_a_protection_that_is_missing_is_seen_by_deed(
    engine: PrivateEngine,
    busybox: str,
    flags: tuple[str, ...],
    asked: dict[str, Any],
    groups: set[str],
    attempt: str,
) -> None:
    """The container lacks a protection that its request, as shown to the judge, does not lift."""
    with containers.running(engine, busybox, flags=flags) as name:
        rows = tried(engine, name, asked)
    for group in groups:
        assert rows[group].verdict is Verdict.FAILS, rows[group]
    assert any(attempt in rows[group].effective for group in groups), told(rows)


@pytest.mark.parametrize(
    ("flags", "flag"),
    [
        (("--security-opt", "seccomp=unconfined"), "seccomp=unconfined"),
        (("--privileged",), "--privileged"),
        (("--cap-add", "sys_admin"), "--cap-add sys_admin"),
        (("--network", "host"), "--network=host"),
        (("--pid", "host"), "--pid=host"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_a_flag_asked_for_is_relaxed_and_names_it(
    engine: PrivateEngine, busybox: str, flags: tuple[str, ...], flag: str
) -> None:
    with containers.running(engine, busybox, flags=flags) as name:
        rows = tried(engine, name)
    assert {row.verdict for row in rows.values()} == {Verdict.HOLDS, Verdict.RELAXED}, told(rows)
    named = " ".join(row.requested for row in rows.values() if row.verdict is Verdict.RELAXED)
    assert flag.lower() in named.lower()


def test_a_ceiling_that_was_raised_is_seen(engine: PrivateEngine, busybox: str) -> None:
    """The judge is told of smaller limits than the twin has."""
    flags = ("-m", "256m", "--pids-limit", "200")
    with containers.running(engine, busybox, flags=flags) as name:
        asked = {"Memory": 16 << 20, "MemorySwap": 16 << 20, "PidsLimit": 50}
        rows = tried(engine, name, asked)
    assert rows["tried: ceilings"].verdict is Verdict.FAILS
    assert "32 MB of memory" in rows["tried: ceilings"].effective
    assert "58 threads" in rows["tried: ceilings"].effective


def test_a_twin_leaves_nothing_and_writes_to_no_volume(
    engine: PrivateEngine, busybox: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    real = tempfile.mkdtemp
    monkeypatch.setattr(tempfile, "mkdtemp", lambda **kw: made.append(real(**kw)) or made[-1])
    (tmp_path / "file").write_text("x")
    flags = ("-v", f"{tmp_path}:/bound", "-v", "named-probe:/named", "-v", "/anonymous")
    with containers.running(engine, busybox, flags=flags) as name:
        before = left(engine)
        body = twin.body(containers.inspect(engine, name), "/nowhere")
        assert all(":ro" in bind for bind in body["HostConfig"]["Binds"])
        assert told(tried(engine, name)) == {}
        assert left(engine) == before
        assert os.listdir(tmp_path) == ["file"]
        assert len(made) == 2
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
    """What a twin could leave behind in the engine, and of this process in shared memory."""
    table = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    return {
        "containers": sorted(
            each["Id"] for each in engine.request("GET", "/containers/json?all=1").json()
        ),
        "volumes": sorted(v["Name"] for v in engine.request("GET", "/volumes").json()["Volumes"]),
        "segments": [line for line in table if int(line.split()[4]) == os.getpid()],
    }


def test_the_command_shows_the_rows(engine: PrivateEngine, busybox: str) -> None:
    with containers.running(engine, busybox) as name:
        done = engine.cli("jaula", "verify", "--probe", name)
    assert done.returncode == 0, done.stdout + done.stderr
    for group in GROUPS:
        assert group in done.stdout
