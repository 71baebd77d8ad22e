"""Builds that fail or are cancelled leave no files."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import load_image
from harness import builds, leaks
from harness.engine import PrivateEngine

SLOW = "RUN --mount=type=cache,target=/c --mount=target=/ctx echo begun; sleep 100\n"


def left(engine: PrivateEngine) -> list[str]:
    """What a build has while it runs, and what it may have half-made."""
    lib = engine.root / "lib"
    places = (
        lib / "build" / "work",
        lib / "containers",
        engine.run / "containers",
        engine.run / "builds",
    )
    found = [str(path) for place in places if place.is_dir() for path in place.iterdir()]
    found += [str(path) for path in lib.glob("layers/new-*")]
    found += [str(path) for path in lib.glob("images/blobs/sha256/new-*")]
    found += [str(path) for path in lib.glob("build/caches/new-*")]
    return found + leaks.cgroups(engine)


def running_steps(engine: PrivateEngine) -> list[str]:
    """Return the cgroups of steps whose program runs."""
    return [
        path for path in leaks.cgroups_now(engine) if names(path) - {"jaula-zygote", "jaula-shim"}
    ]


def names(cgroup: str) -> set[str]:
    """Return the names of the processes in a cgroup: a spare init and a stage have the engine's."""
    found = set()
    with contextlib.suppress(OSError):  # the cgroup or a process ends
        for pid in Path(cgroup, "cgroup.procs").read_text().split():
            found.add(Path(f"/proc/{pid}/comm").read_text().strip())
    return found


def all_gone(engine: PrivateEngine) -> None:
    deadline = time.monotonic() + 20
    while found := left(engine):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def own(new_engine: Callable[..., PrivateEngine]) -> PrivateEngine:
    engine = new_engine()
    load_image(engine, "busybox")
    return engine


def layers(engine: PrivateEngine) -> set[str]:
    return {path.name for path in (engine.root / "lib" / "layers").iterdir()}


def test_a_client_that_leaves_ends_its_build(own: PrivateEngine) -> None:
    before = layers(own)
    files = {"Dockerfile": f"FROM busybox\nRUN echo > /layer\n{SLOW}"}
    with builds.running(own, files) as sock:
        seen = b""
        while b'"begun\\n"' not in seen:
            piece = sock.recv(65536)
            assert piece, seen
            seen += piece
        assert running_steps(own)
    all_gone(own)
    assert own.request("POST", "/build/prune?all=1").status == 200
    assert layers(own) == before


def test_a_client_that_leaves_during_the_upload_leaves_no_files(own: PrivateEngine) -> None:
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect(str(own.socket))
        sock.sendall(b"POST /build HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n")
        sock.sendall(builds.context({"big": b"x" * 9_000_000})[:8_000_000])
        until(lambda: any((own.root / "lib" / "build" / "work").glob("*/context/big")))
    all_gone(own)


def test_a_build_is_cancelled_by_its_id(own: PrivateEngine) -> None:
    files = {"Dockerfile": f"FROM busybox\n{SLOW}"}
    with builds.running(own, files, buildid="mine") as sock:
        until(lambda: bool(running_steps(own)))
        assert own.request("POST", "/build/cancel?id=other").status == 404
        assert own.request("POST", "/build/cancel?id=mine").status == 204
        seen = b""
        while piece := sock.recv(65536):
            seen += piece
            if b"cancelled" in seen:
                break
        assert b"the build was cancelled" in seen
    all_gone(own)


def test_steps_are_not_visible_as_containers(own: PrivateEngine) -> None:
    with builds.running(own, {"Dockerfile": f"FROM busybox\n{SLOW}"}):
        until(lambda: bool(running_steps(own)))
        assert own.request("GET", "/containers/json?all=1").json() == []
        step = Path(running_steps(own)[0]).name
        assert own.request("GET", f"/containers/{step}/json").status == 404
        assert own.request("POST", "/containers/prune").json()["ContainersDeleted"] is None
        assert own.request("GET", "/info").json()["Containers"] == 0
    all_gone(own)


@pytest.mark.parametrize(
    "moment", ["run", *(pytest.param(each, marks=pytest.mark.slow) for each in ("copy", "receive"))]
)
def test_the_next_engine_sweeps_the_files_of_a_killed_one(own: PrivateEngine, moment: str) -> None:
    before = layers(own)
    big = {f"f{n}": b"x" * 4096 for n in range(3000)}
    text = {"run": SLOW, "copy": "COPY . /a\nCOPY . /b\nCOPY . /c\n", "receive": "COPY . /\n"}
    files = {"Dockerfile": f"FROM busybox\n{text[moment]}", **big}
    with builds.running(own, files):
        work = own.root / "lib" / "build" / "work"
        match moment:
            case "run":
                until(lambda: bool(running_steps(own)))
                cache = next((own.root / "lib" / "build" / "caches").glob("*/data"))
                (cache / "kept").touch()
            case "copy":
                until(lambda: any((own.root / "lib" / "containers").glob("*/upper/*/f1*")))
            case "receive":
                until(lambda: any(work.glob("*/context/f1*")))
        own.kill()
    own.start()
    all_gone(own)
    assert not leaks.mounts(own)
    assert own.request("GET", "/containers/json?all=1").json() == []
    own.request("POST", "/build/prune?all=0")
    if moment == "run":  # what is kept between builds is, but for a prune
        assert not any((own.root / "lib" / "build" / "caches").iterdir())
    own.request("POST", "/build/prune?all=1")
    assert layers(own) == before
    assert builds.build(own, {"Dockerfile": "FROM busybox\nRUN true\n"}).image


def test_a_cache_directory_outlives_a_killed_engine(own: PrivateEngine) -> None:
    caches = own.root / "lib" / "build" / "caches"
    with builds.running(own, {"Dockerfile": f"FROM busybox\n{SLOW}"}):
        until(lambda: bool(running_steps(own)) and any(caches.glob("*/data")))
        (next(caches.glob("*/data")) / "kept").write_text("x")
        own.kill()
    own.start()
    all_gone(own)
    assert (next(caches.glob("*/data")) / "kept").read_text() == "x"


def test_an_engine_that_stops_ends_its_builds(own: PrivateEngine) -> None:
    with builds.running(own, {"Dockerfile": f"FROM busybox\n{SLOW}"}):
        until(lambda: bool(running_steps(own)))
        assert own.process is not None
        own.process.send_signal(signal.SIGTERM)
        own.process.wait(30)
    assert not leaks.cgroups(own)
    assert not left(own)
    own.start()


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        ("RUNN x", 400, "Dockerfile:1: unknown instruction"),
        ("FROM busybox\nRUNN x", 400, "Dockerfile:2: unknown instruction: RUNN"),
        ("FROM busybox\nCOPY nothing /", 200, "'nothing' is not in the build context"),
        ("FROM busybox\nCOPY --from=nobody a /", 200, "cannot pull image nobody"),
        ("FROM busybox\nRUN exit 3", 200, "returned a non-zero code: 3"),
        ('FROM busybox\nRUN ["/nothing"]', 200, "/nothing"),
        ("FROM busybox\nRUN --mount=target=/proc/x true", 200, "/proc"),
        ("FROM busybox\nRUN --mount=target=/x,source=none true", 200, "none"),
        ("FROM busybox\nUSER nobody-here\nRUN true", 200, "nobody-here"),
        ("FROM busybox\nRUN --network=host true", 200, "--allow network.host"),
        ("FROM scratch\nRUN true", 200, "without a layer"),
        ("", 400, "no instructions"),
    ],
)
def test_a_failed_build_reports_one_error(
    engine: PrivateEngine, busybox: str, text: str, status: int, words: str
) -> None:
    built = builds.build(engine, {"Dockerfile": text})
    assert words in built.error, built
    assert built.status == status
    assert not built.image


@pytest.mark.parametrize(
    ("body", "query", "status", "words"),
    [
        (b"no archive at all" * 100, "", 400, "archive"),
        (b"", "", 400, "Dockerfile"),
        (builds.context({"x": ""}), "", 400, "Dockerfile"),
        (builds.context({"Dockerfile": "FROM busybox"}), "version=2", 400, "BuildKit"),
        (builds.context({"Dockerfile": "FROM busybox"}), "buildargs=x", 400, "buildargs"),
        (builds.context({"Dockerfile": "FROM busybox"}), "t=UPPER", 400, "UPPER"),
        (builds.context({"Dockerfile": "FROM busybox"}), "networkmode=nonet", 404, "nonet"),
        (builds.context({"Dockerfile": "FROM busybox"}), "memory=1", 400, "emory"),
    ],
)
def test_an_invalid_request_is_rejected(
    engine: PrivateEngine, busybox: str, body: bytes, query: str, status: int, words: str
) -> None:
    reply = engine.request("POST", f"/build?{query}", body, headers={"Content-Type": "x"})
    assert words in reply.body.decode(), reply
    assert reply.status == status
