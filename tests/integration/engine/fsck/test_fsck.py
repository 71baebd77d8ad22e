"""``system check`` reports dangling, missing and damaged objects; ``--repair`` loses no data."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import load_image
from harness import leaks
from harness.engine import PrivateEngine

Rows = list[dict[str, Any]]
OLD = "0" * 63


@pytest.fixture(scope="module")
def kept(worker_index: int) -> Iterator[PrivateEngine]:
    """An engine whose directories may be spoiled, and are whole again after each test."""
    with leaks.nothing_left(PrivateEngine((worker_index + 57) % 250 + 1)) as private:
        load_image(private, "busybox")
        yield private


@pytest.fixture(autouse=True)
def whole(kept: PrivateEngine) -> Iterator[None]:
    yield
    kept.remove_containers()
    check(kept, "--repair")
    assert check(kept) == (0, [])


def check(engine: PrivateEngine, *flags: str) -> tuple[int, Rows]:
    done = engine.cli("jaula", "system", "check", "--format", "{{json .}}", *flags, timeout=120)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def restarted(engine: PrivateEngine, spoil: Callable[[], object]) -> None:
    """Spoil something while no engine runs, so that its start has it before it."""
    engine.stop()
    spoil()
    engine.start()


def lib(engine: PrivateEngine) -> Path:
    return engine.root / "lib"


def layer_of(engine: PrivateEngine) -> Path:
    found = json.loads(engine.cli("jaula", "image", "inspect", "busybox").stdout)
    return lib(engine) / "layers" / found[0]["RootFS"]["Layers"][0].removeprefix("sha256:")


def test_a_healthy_engine_has_no_findings(kept: PrivateEngine) -> None:
    assert kept.cli("jaula", "run", "-d", "--name", "c1", "busybox", "sleep", "9").returncode == 0
    assert kept.cli("jaula", "create", "--name", "c2", "-v", "vol:/v", "busybox").returncode == 0
    assert check(kept, "--contents") == (0, [])
    assert kept.cli("jaula", "system", "check").stdout == "No problems found.\n"
    kept.cli("jaula", "rm", "-f", "c1", "c2")
    kept.cli("jaula", "volume", "rm", "vol")


def test_a_missing_layer_is_unpacked_again(kept: PrivateEngine) -> None:
    layer = layer_of(kept)
    shutil.rmtree(layer)
    status, rows = check(kept)
    assert status == 1
    assert [(r["Area"], r["Subject"]) for r in rows] == [("layer", f"sha256:{layer.name}")]
    status, rows = check(kept, "--repair")
    assert (status, [r["Repaired"] for r in rows]) == (0, [True])
    assert kept.cli("jaula", "run", "--rm", "busybox", "echo", "well").stdout == "well\n"


def test_the_next_engine_reports_a_missing_layer_too(kept: PrivateEngine) -> None:
    layer = layer_of(kept)
    restarted(kept, lambda: shutil.rmtree(layer))
    done = kept.cli("jaula", "run", "--rm", "busybox", "true")
    assert (done.returncode, "is damaged: layer" in done.stderr) == (125, True)
    assert "jaula system check --repair" in done.stderr
    status, rows = check(kept, "--repair")
    assert (status, [r["Area"] for r in rows]) == (0, ["image"])
    assert kept.cli("jaula", "run", "--rm", "busybox", "echo", "well").stdout == "well\n"


def test_a_changed_file_is_detected_by_its_content_and_repaired(kept: PrivateEngine) -> None:
    program = next(p for p in (layer_of(kept) / "fs/bin").iterdir() if p.is_file())
    facts = program.stat()
    with program.open("r+b") as file:
        file.seek(1000)
        file.write(b"\0\1\2\3")
    os.utime(program, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert check(kept) == (0, [])
    assert kept.cli("jaula", "image", "verify", "busybox").returncode == 1
    status, rows = check(kept, "--contents", "--repair")
    assert (status, len(rows)) == (0, 1)
    assert "its content differs" in rows[0]["Problem"]
    assert kept.cli("jaula", "image", "verify", "--all").returncode == 0


def test_the_layer_of_a_running_container_is_not_replaced(kept: PrivateEngine) -> None:
    assert kept.cli("jaula", "run", "-d", "--name", "c1", "busybox", "sleep", "99").returncode == 0
    (layer_of(kept) / "fs/etc/more").touch()
    status, rows = check(kept, "--contents", "--repair")
    assert (status, rows[0]["Repaired"]) == (1, False)
    assert "containers run on it: c1" in rows[0]["Failure"]
    kept.cli("jaula", "rm", "-f", "c1")
    assert check(kept, "--contents", "--repair")[0] == 0


def test_a_missing_blob_is_reported_and_restored_by_a_load(kept: PrivateEngine) -> None:
    blobs = lib(kept) / "images/blobs/sha256"
    biggest = max(blobs.iterdir(), key=lambda p: p.stat().st_size)
    biggest.unlink()
    status, rows = check(kept, "--repair")
    assert (status, rows[0]["Area"], rows[0]["Repairable"]) == (1, "image", False)
    assert "load it again" in rows[0]["Advice"]
    load_image(kept, "busybox")
    assert check(kept) == (0, [])


def test_files_without_a_record_are_removed(kept: PrivateEngine) -> None:
    strays = [lib(kept) / "containers" / (OLD + "1"), kept.run / "containers" / (OLD + "2")]
    for stray in strays:
        (stray / "upper").mkdir(parents=True)
    half = [
        lib(kept) / "layers/new-1",
        lib(kept) / "volumes/.new-1",
        lib(kept) / "images/blobs/sha256/new-1",
    ]
    half[0].mkdir()
    half[1].mkdir()
    half[2].touch()
    assert check(kept) == (0, []), "something young may be under way"
    kept.process.send_signal(9)  # type: ignore[union-attr]
    kept.process.wait()  # type: ignore[union-attr]
    kept.process = None
    kept.start()  # which sweeps by itself
    assert not [p for p in (*strays, *half) if p.exists()]
    assert check(kept) == (0, [])


def test_a_container_without_files_is_reported(kept: PrivateEngine) -> None:
    kept.cli("jaula", "run", "--name", "c1", "busybox", "true")
    found = kept.cli("jaula", "inspect", "-f", "{{.Id}}", "c1").stdout.strip()
    shutil.rmtree(lib(kept) / "containers" / found)
    status, rows = check(kept, "--repair")
    assert (status, rows[0]["Subject"], rows[0]["Problem"]) == (1, "c1", "its files are missing")
    assert kept.cli("jaula", "rm", "c1").returncode == 0
    assert check(kept) == (0, [])


def test_volumes_without_metadata_or_files_are_reported(kept: PrivateEngine) -> None:
    volumes = lib(kept) / "volumes"
    for name in ("one", "two"):
        kept.cli("jaula", "volume", "create", name)
    (volumes / "one/_data/file").write_text("precious")
    (volumes / "one/volume.json").write_text("{ damaged")
    (volumes / "two/_data").rmdir()
    (volumes / "three").mkdir()
    assert "two" in kept.cli("jaula", "volume", "ls", "-q").stdout
    status, rows = check(kept, "--repair")
    assert status == 1
    assert {r["Subject"]: r["Repaired"] for r in rows} == {
        "one": True,
        "two": False,
        "three": True,
    }
    assert (volumes / "one/_data/file").read_text() == "precious"
    assert kept.cli("jaula", "volume", "rm", "one", "two").returncode == 0


def test_a_removed_bridge_is_reported(kept: PrivateEngine) -> None:
    subprocess.run(["ip", "link", "delete", kept.bridge], check=True)
    status, rows = check(kept, "--repair")
    assert (status, [(r["Area"], r["Repaired"]) for r in rows]) == (1, [("network", False)])
    assert "restart the engine" in rows[0]["Advice"]
    restarted(kept, lambda: None)
    done = kept.cli("jaula", "run", "--rm", "busybox", "ip", "route")
    assert "default via" in done.stdout


SHIM = """
import ctypes, sys, time
log = open(sys.argv[1], "w")
ctypes.CDLL(None).prctl(15, b"jaula-shim", 0, 0, 0)
print(flush=True)
time.sleep(600)
"""


@pytest.mark.slow
def test_strays_of_killed_containers_are_removed(kept: PrivateEngine, tmp_path: Path) -> None:
    assert kept.process is not None
    ident, port = OLD + "3", "jl0123456789"
    run_dir = kept.run / "containers" / ident
    (run_dir / "shm").mkdir(parents=True)
    mount = ("mount", "-t", "tmpfs", "shm", str(run_dir / "shm"))
    subprocess.run(["nsenter", "-t", str(kept.process.pid), "-m", *mount], check=True)
    link = ["ip", "link", "add", port, "type", "veth", "peer", "name", "jltpeer"]
    subprocess.run(link, check=True)
    subprocess.run(["ip", "link", "set", port, "master", kept.bridge], check=True)
    with (
        subprocess.Popen(["sleep", "600"]) as program,
        subprocess.Popen(
            [sys.executable, "-c", SHIM, str(run_dir / "log")], stdout=subprocess.PIPE
        ) as shim,
    ):
        try:
            assert shim.stdout is not None
            assert shim.stdout.readline() == b"\n"
            assert kept.cli("jaula", "run", "--rm", "busybox", "true").returncode == 0
            for directory in parents_of_cgroups(kept):
                (directory / ident).mkdir()
                (directory / ident / "cgroup.procs").write_text(str(program.pid))
            status, rows = check(kept)
            cgroup = f"/{kept.cgroup_parent}/{ident}"
            expected = {
                ("cgroup", cgroup),
                ("shim", str(shim.pid)),
                ("mount", str(run_dir / "shm")),
                ("network", port),
            }
            assert (status, {(r["Area"], r["Subject"]) for r in rows}) == (1, expected)
            status, rows = check(kept, "--repair")
            assert (status, {r["Repaired"] for r in rows}) == (0, {True})
            assert (program.wait(5), shim.wait(5)) == (-9, -9)
            assert leaks.of_containers(kept) == {}
        finally:
            for each in (program, shim):
                each.kill()
            subprocess.run(["ip", "link", "delete", port], check=False, capture_output=True)
            shutil.rmtree(run_dir)


def parents_of_cgroups(engine: PrivateEngine) -> list[Path]:
    """Return the directory of the engine's parent cgroup in each hierarchy that has it."""
    root = Path("/sys/fs/cgroup")
    directories = [tree / engine.cgroup_parent for tree in (root, *root.glob("*/"))]
    return sorted({directory.resolve() for directory in directories if directory.is_dir()})


def test_a_running_container_is_no_finding(kept: PrivateEngine) -> None:
    flags = ("--cgroup-parent", f"/{kept.cgroup_parent}/below", "--ipc", "shareable")
    run = ("run", "-d", "--restart", "always", "busybox")
    assert kept.cli("jaula", *run[:4], *flags, "busybox", "sleep", "99").returncode == 0
    assert kept.cli("jaula", *run, "sleep", "0.1").returncode == 0
    for _ in range(10):
        assert check(kept) == (0, [])
    kept.remove_containers()
    for directory in parents_of_cgroups(kept):
        if (directory / "below").is_dir():
            (directory / "below").rmdir()


def test_findings_are_printed_in_a_table(kept: PrivateEngine) -> None:
    (lib(kept) / "volumes/stray").mkdir()
    done = kept.cli("jaula", "system", "check")
    assert done.returncode == 1
    assert done.stdout.splitlines()[0].split() == ["AREA", "SUBJECT", "PROBLEM", "REPAIR"]
    done = kept.cli("jaula", "system", "check", "--repair")
    assert done.returncode == 0
    assert "yes: it is removed if it is empty" in done.stdout


def test_verify_requires_a_name_or_all(kept: PrivateEngine) -> None:
    done = kept.cli("jaula", "image", "verify")
    assert (done.returncode, done.stdout) == (1, "")
    done = kept.cli("jaula", "image", "verify", "nothing")
    assert (done.returncode, "No such image: nothing:latest" in done.stderr) == (1, True)


@pytest.mark.parametrize("content", [b"", b"{", b"\0" * 4096, b"[]", b'{"annotations": 1}'])
def test_a_spec_that_a_power_failure_has_damaged_is_found_and_hides_no_container(
    kept: PrivateEngine, content: bytes
) -> None:
    """The name of a new file can reach the disk before its content."""
    body = {"Image": "busybox", "Cmd": ["true"]}
    identifier = kept.request("POST", "/containers/create?name=torn", body).json()["Id"]
    assert kept.request("POST", f"/containers/{identifier}/start").status == 204
    assert kept.request("POST", f"/containers/{identifier}/wait").status == 200
    spec = lib(kept) / "containers" / identifier / "config.json"
    restarted(kept, lambda: spec.write_bytes(content))
    reply = kept.request("GET", f"/containers/{identifier}/json")
    assert reply.status == 200
    assert kept.request("GET", "/containers/json?all=1").status == 200
    status, rows = check(kept)
    assert status == 1
    assert [row["Subject"] for row in rows] == ["torn"]
    assert "cannot be read" in rows[0]["Problem"]
    assert check(kept, "--repair")[0] == 0
    assert check(kept) == (0, [])
    assert kept.request("POST", f"/containers/{identifier}/start").status == 204
    assert kept.request("POST", f"/containers/{identifier}/wait").status == 200
    assert check(kept) == (0, [])
