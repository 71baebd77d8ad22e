"""Errors are one clear line with Docker's exit status, and leave nothing behind."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import containers, images
from harness.containers import running
from harness.engine import PROJECT, PrivateEngine

NewEngine = Callable[..., PrivateEngine]


def assert_clear(done: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    """Assert one clear error with this exit status and these words, and no traceback."""
    text = done.stdout + done.stderr
    assert "Traceback" not in text, text
    assert done.returncode == status, f"{done.returncode}: {text}"
    for word in words:
        assert word.lower() in text.lower(), f"no {word!r} in {text!r}"


def identifiers(engine: PrivateEngine) -> set[str]:
    return {one["Id"] for one in engine.request("GET", "/containers/json?all=1").json()}


BAD_RUNS: dict[str, tuple[tuple[str, ...], int, tuple[str, ...]]] = {
    "an image that is not there": (("no-such-image", "true"), 125, ("no-such-image",)),
    "a reference in capitals": (("UPPER", "true"), 125, ("lowercase",)),
    "a bad container name": (
        *(("--name", "bad/name", "IMAGE", "true"), 125),
        ("Invalid container name", "bad/name"),
    ),
    "a memory limit below the minimum": (("-m", "1m", "IMAGE", "true"), 125, ("6MB",)),
    "a memory limit that is no number": (("-m", "lots", "IMAGE", "true"), 125, ("lots",)),
    "swap below memory": (
        *(("-m", "64m", "--memory-swap", "32m", "IMAGE", "true"), 125),
        ("memory", "swap"),
    ),
    "more processors than there are": (("--cpus", "4096", "IMAGE", "true"), 125, ("cpus",)),
    "a processor that does not exist": (
        *(("--cpuset-cpus", "4000", "IMAGE", "true"), 125),
        ("4000",),
    ),
    "a capability that does not exist": (
        *(("--cap-add", "net_rwa", "IMAGE", "true"), 125),
        ("net_rwa", "net_raw"),
    ),
    "a bind source that does not exist": (
        *(("--mount", "type=bind,src=/no/such/path,dst=/x", "IMAGE", "true"), 125),
        ("/no/such/path",),
    ),
    "a relative mount target": (("-v", "/tmp:relative", "IMAGE", "true"), 125, ("relative",)),
    "an environment file that does not exist": (
        *(("--env-file", "/no/such/file", "IMAGE", "true"), 125),
        ("/no/such/file",),
    ),
    "a seccomp profile that does not exist": (
        *(("--security-opt", "seccomp=/no/such.json", "IMAGE", "true"), 125),
        ("/no/such.json",),
    ),
    "a flag that does not exist": (("--memroy", "1g", "IMAGE", "true"), 125, ("--memory",)),
    "a network that does not exist": (("--network", "nowhere", "IMAGE", "true"), 125, ("nowhere",)),
    "a container's network that is not there": (
        *(("--network", "container:nobody", "IMAGE", "true"), 125),
        ("nobody",),
    ),
    "a sysctl of the host": (
        *(("--sysctl", "kernel.core_pattern=x", "IMAGE", "true"), 125),
        ("kernel.core_pattern",),
    ),
    "a device that does not exist": (
        *(("--device", "/dev/nothing", "IMAGE", "true"), 125),
        ("/dev/nothing",),
    ),
    "a user that is not in the image": (("-u", "nobody9", "IMAGE", "true"), 125, ("nobody9",)),
    "a log driver that does not exist": (
        *(("--log-driver", "telegraph", "IMAGE", "true"), 125),
        ("telegraph",),
    ),
    "a program that is not there": (("IMAGE", "no-such-program"), 127, ("no-such-program",)),
    "a path that is not there": (("IMAGE", "/no/such/program"), 127, ("/no/such/program",)),
    "a program that cannot be executed": (("IMAGE", "/etc/passwd"), 126, ("permission denied",)),
    "a directory as the program": (("IMAGE", "/etc"), 126, ("/etc",)),
}


@pytest.mark.parametrize("case", BAD_RUNS)
def test_run_refuses_invalid_flags(engine: PrivateEngine, busybox: str, case: str) -> None:
    words, status, expected = BAD_RUNS[case]
    before = identifiers(engine)
    done = engine.cli("jaula", "run", "--rm", *(busybox if w == "IMAGE" else w for w in words))
    assert_clear(done, status, *expected)
    assert identifiers(engine) <= before, "a container was left half-made"


def test_a_missing_security_module_is_named(engine: PrivateEngine, busybox: str) -> None:
    modules = Path("/sys/kernel/security/lsm")
    if modules.exists() and "apparmor" in modules.read_text():
        pytest.skip("this kernel has AppArmor")
    done = engine.cli("jaula", "run", "--rm", "--security-opt", "apparmor=own", busybox, "true")
    assert_clear(done, 125, "apparmor")


def test_a_name_in_use_is_a_conflict(engine: PrivateEngine, busybox: str) -> None:
    with running(engine, busybox) as name:
        done = engine.cli("jaula", "run", "--name", name, busybox, "true")
        assert_clear(done, 125, "conflict", f'"/{name}"', "already in use")


def test_a_port_in_use_is_reported_and_the_container_stays_created(
    engine: PrivateEngine, busybox: str
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        taken.listen()
        name = containers.unique("port")
        done = engine.cli(
            "jaula",
            "run",
            "-d",
            "--name",
            name,
            "-p",
            f"127.0.0.1:{port}:80",
            busybox,
            "sleep",
            "9",
        )
    try:
        assert_clear(done, 125, str(port), "in use")
    finally:
        engine.request("DELETE", f"/containers/{name}?force=1")


def test_a_port_of_another_container_is_already_allocated(
    engine: PrivateEngine, busybox: str
) -> None:
    with running(engine, busybox, flags=("-p", "127.0.0.1::80")) as first:
        port = engine.cli("jaula", "port", first, "80").stdout.strip().rpartition(":")[2]
        assert port.isdigit()
        name = containers.unique("port")
        try:
            words = (
                "run",
                "-d",
                "--name",
                name,
                "-p",
                f"127.0.0.1:{port}:80",
                busybox,
                "sleep",
                "9",
            )
            assert_clear(engine.cli("jaula", *words), 125, "port is already allocated")
        finally:
            engine.request("DELETE", f"/containers/{name}?force=1")


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("start", "nobody"), 1),
        (("stop", "nobody"), 1),
        (("inspect", "nobody"), 1),
        (("logs", "nobody"), 1),
        (("exec", "nobody", "true"), 1),
        (("rm", "nobody"), 1),
        (("verify", "nobody"), 1),
        (("rmi", "nobody"), 1),
        (("save", "-o", "/dev/null", "nobody"), 1),
        (("tag", "nobody", "other"), 1),
        (("load", "-i", "/no/such/file"), 1),
        (("caps", "xyz"), 1),
    ],
)
def test_a_missing_object_is_named(
    engine: PrivateEngine, words: tuple[str, ...], status: int
) -> None:
    name = next(word for word in words if word in ("nobody", "/no/such/file", "xyz"))
    assert_clear(engine.cli("jaula", *words), status, name)


def test_an_unknown_command_suggests_a_similar_one(engine: PrivateEngine) -> None:
    done = engine.cli("jaula", "isnpect", "x")
    assert done.returncode != 0
    assert "inspect" in done.stderr


def test_pull_without_a_registry_has_a_hint(engine: PrivateEngine) -> None:
    assert_clear(engine.cli("jaula", "pull", "busybox"), 1, "bootstrap")


def test_exec_in_a_stopped_container_is_refused(engine: PrivateEngine, busybox: str) -> None:
    name = containers.unique()
    engine.cli("jaula", "run", "--name", name, busybox, "true")
    try:
        assert_clear(engine.cli("jaula", "exec", name, "true"), 1, "not running")
    finally:
        engine.request("DELETE", f"/containers/{name}")


@pytest.mark.parametrize(("program", "status"), [("no-such-program", 127), ("/etc/passwd", 126)])
def test_exec_of_an_invalid_program_fails(
    engine: PrivateEngine, busybox: str, program: str, status: int
) -> None:
    with running(engine, busybox) as name:
        assert_clear(engine.cli("jaula", "exec", name, program), status, program)


def test_a_socket_without_an_engine_is_reported(tmp_path: Path) -> None:
    host = f"unix://{tmp_path}/none.sock"
    for words, status in ((("ps",), 1), (("run", "busybox", "true"), 125)):
        done = subprocess.run(
            [str(PROJECT / "jaula"), *words],
            capture_output=True,
            text=True,
            env=os.environ | {"JAULA_HOST": host},
            timeout=30,
        )
        assert_clear(done, status, f"{tmp_path}/none.sock")


def test_an_ordinary_user_gets_a_clear_error(engine: PrivateEngine) -> None:
    done = subprocess.run(
        [
            *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
            *(sys.executable, "-m", "jaula", "ps"),
        ],
        capture_output=True,
        text=True,
        env=engine.environment() | {"PYTHONPATH": str(PROJECT / "src"), "HOME": "/"},
        cwd="/",
        timeout=30,
    )
    assert_clear(done, 1, "permission denied")


def test_a_second_engine_in_the_same_directory_is_refused(engine: PrivateEngine) -> None:
    done = subprocess.run(
        engine.command(),
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(PROJECT / "src")},
        timeout=30,
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "another engine" in done.stderr
    assert engine.request("GET", "/_ping").status == 200


def test_a_damaged_database_is_not_changed(new_engine: NewEngine) -> None:
    private = new_engine(start=False)
    library = private.root / "lib"
    library.mkdir()
    junk = b"this is no database" * 1000
    (library / "jaula.db").write_bytes(junk)
    done = subprocess.run(
        private.command(),
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(PROJECT / "src")},
        timeout=30,
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "jaula.db" in done.stderr
    assert (library / "jaula.db").read_bytes() == junk


def test_a_full_disk_is_reported_and_leaves_no_incomplete_image(
    new_engine: NewEngine, busybox_archive: Path
) -> None:
    private = new_engine(start=False)
    library = private.root / "lib"
    library.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", library], check=True)
    try:
        private.start()
        done = private.cli("jaula", "load", "-i", str(busybox_archive))
        assert_clear(done, 1, "no space left")
        assert private.request("GET", "/images/json").json() == []
        assert not [path for path in (library / "layers").iterdir() if path.suffix != ".new"]
        assert private.request("GET", "/_ping").status == 200
        private.stop()
    finally:
        subprocess.run(["umount", "-l", library], check=True)


@pytest.mark.parametrize("cut", [0, 100, 5000, 100_000, -2000])
def test_a_truncated_archive_is_refused(
    engine: PrivateEngine, busybox_archive: Path, tmp_path: Path, cut: int
) -> None:
    short = tmp_path / "short.tar"
    short.write_bytes(busybox_archive.read_bytes()[:cut] if cut else b"")
    before = engine.request("GET", "/images/json?all=1").json()
    done = engine.cli("jaula", "load", "-i", str(short))
    if cut == -2000 and done.returncode == 0:
        return  # only padding after the end was cut
    assert_clear(done, 1)
    assert done.stderr.strip()
    assert engine.request("GET", "/images/json?all=1").json() == before


HOSTILE: dict[str, list[images.Entry]] = {
    "a path that leads out": [images.file("../../../canary", b"x")],
    "an absolute path": [images.file("/canary-absolute", b"x")],
    "a link out, then a file through it": [
        images.link("out", "../../../../../../.."),
        images.file("out/canary", b"x"),
    ],
    "an absolute link, then a file through it": [
        images.link("out", "/tmp"),
        images.file("out/canary-jaula", b"x"),
    ],
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_archive_writes_nothing_outside_the_store(
    engine: PrivateEngine, case: str
) -> None:
    name = containers.unique("hostile")
    path = f"/images/create?fromSrc=-&repo={name}&tag=latest"
    reply = engine.request("POST", path, images.archive(images.busybox_entries() + HOSTILE[case]))
    assert reply.status < 600 and b"Traceback" not in reply.body
    for canary in ("/canary", "/canary-absolute", "/tmp/canary-jaula"):
        assert not Path(canary).exists()
    for directory in (engine.root, engine.root / "lib", engine.root / "lib" / "layers"):
        assert not (directory / "canary").exists()
    engine.request("DELETE", f"/images/{name}?force=1")
    assert engine.request("GET", "/_ping").status == 200
