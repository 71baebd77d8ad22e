"""Files in and out of containers: the docker command, docker-py, and our own command."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import docker as sdk
import pytest

from harness import containers
from harness.engine import PrivateEngine

Run = Callable[..., CompletedProcess[str]]


def tar_of(**files: str) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.uid, info.gid = len(text), 1234, 1235
            tar.addfile(info, io.BytesIO(text.encode()))
    return made.getvalue()


@pytest.fixture(params=["docker", "jaula"])
def cp(request: pytest.FixtureRequest, engine: PrivateEngine) -> Run:
    return lambda *words, **options: engine.cli(request.param, "cp", *words, **options)


@pytest.fixture
def made(engine: PrivateEngine, busybox: str) -> Iterator[str]:
    """A container that was never started, with a volume and a bind mount."""
    name = containers.unique("made")
    done = engine.cli("jaula", "create", "--name", name, "-v", "/data/volume", busybox, "true")
    assert done.returncode == 0, done.stderr
    yield name
    engine.request("DELETE", f"/containers/{name}?force=1&v=1")


def ok(done: CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_both_directions_with_a_running_container(
    engine: PrivateEngine, busybox: str, cp: Run, tmp_path: Path
) -> None:
    (tmp_path / "tree/sub").mkdir(parents=True)
    (tmp_path / "tree/sub/f").write_text("content")
    (tmp_path / "tree/link").symlink_to("sub/f")
    os.chown(tmp_path / "tree/sub/f", 1000, 1001)
    with containers.running(engine, busybox) as name:
        ok(cp(f"{tmp_path}/tree", f"{name}:/tmp"))
        ok(cp(f"{tmp_path}/tree/.", f"{name}:/tmp/other"))
        ok(cp("-L", f"{tmp_path}/tree/link", f"{name}:/tmp/followed"))
        shown = engine.cli("jaula", "exec", name, "stat", "-c", "%u:%g %s", "/tmp/tree/sub/f")
        assert shown.stdout == "1000:1001 7\n"
        for path in ("/tmp/tree/link", "/tmp/other/sub/f", "/tmp/followed"):
            assert ok(engine.cli("jaula", "exec", name, "cat", path)) == "content"
        ok(cp(f"{name}:/tmp/tree", f"{tmp_path}/back"))
        assert (tmp_path / "back/sub/f").read_text() == "content"
        assert os.readlink(tmp_path / "back/link") == "sub/f"
        ok(cp("-L", f"{name}:/tmp/tree/link", f"{tmp_path}/file"))
        assert (tmp_path / "file").read_text() == "content"
        ok(cp(f"{name}:/", f"{tmp_path}/all"))
        assert (tmp_path / "all/etc/passwd").exists()
        assert not list((tmp_path / "all/proc").iterdir())


def test_archives_come_and_go_through_pipes(
    engine: PrivateEngine, busybox: str, cp: Run, tmp_path: Path
) -> None:
    with containers.running(engine, busybox) as name:
        ok(cp("-", f"{name}:/tmp", input=tar_of(f="piped"), text=False))
        done = cp(f"{name}:/tmp/f", "-", text=False)
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:  # type: ignore[arg-type]
            (member,) = tar.getmembers()
            assert (member.name, member.uid, member.gid) == ("f", 1234, 1235)
        refused = cp("-", f"{name}:/etc/passwd", input=tar_of(f=""), text=False)
        assert refused.returncode == 1


def test_a_container_that_was_never_started_has_its_volumes(
    engine: PrivateEngine, cp: Run, made: str, busybox: str, tmp_path: Path
) -> None:
    (tmp_path / "seed").write_text("seed")
    ok(cp(f"{tmp_path}/seed", f"{made}:/data/volume/seed"))
    ok(cp(f"{tmp_path}/seed", f"{made}:/etc/seed"))
    ok(cp(f"{made}:/data", f"{tmp_path}/data"))
    assert (tmp_path / "data/volume/seed").read_text() == "seed"
    volume = containers.inspect(engine, made)["Mounts"][0]["Source"]
    assert (Path(volume) / "seed").read_text() == "seed"
    assert Path("/proc/self/mountinfo").read_text().count(volume) == 0


@pytest.mark.parametrize("words", [("{0}:/nope", "/tmp/x"), ("/etc/hostname", "{0}:/nope/x")])
def test_a_missing_path_is_named(engine: PrivateEngine, cp: Run, made: str, words: Any) -> None:
    done = cp(*(word.format(made) for word in words))
    assert done.returncode == 1
    assert f"Could not find the file /nope in container {made}" in done.stderr


def test_read_only_places_are_not_written(
    engine: PrivateEngine, busybox: str, cp: Run, tmp_path: Path
) -> None:
    (tmp_path / "host").mkdir()
    (tmp_path / "f").write_text("f")
    flags = ("--read-only", "-v", f"{tmp_path}/host:/ro:ro", "-v", "/rw")
    with containers.running(engine, busybox, flags=flags) as name:
        for _ in ("running", "stopped"):
            assert (
                "container rootfs is marked read-only"
                in cp(f"{tmp_path}/f", f"{name}:/tmp/f").stderr
            )
            assert (
                "mounted volume is marked read-only" in cp(f"{tmp_path}/f", f"{name}:/ro/f").stderr
            )
            ok(cp(f"{tmp_path}/f", f"{name}:/rw/f"))
            assert not list((tmp_path / "host").iterdir())
            engine.cli("jaula", "stop", "-t", "0", name)


def test_archive_mode_gives_files_to_the_containers_user(
    engine: PrivateEngine, busybox: str, cp: Run, tmp_path: Path
) -> None:
    (tmp_path / "f").write_text("f")
    with containers.running(engine, busybox, flags=("-u", "42:43")) as name:
        ok(cp("-a", f"{tmp_path}/f", f"{name}:/tmp/f"))
        assert ok(engine.cli("jaula", "exec", name, "stat", "-c", "%u:%g", "/tmp/f")) == "42:43\n"


def test_files_in_a_bind_mount_keep_plain_ids(
    engine: PrivateEngine, busybox: str, cp: Run, tmp_path: Path
) -> None:
    (tmp_path / "host").mkdir()
    with containers.running(engine, busybox, flags=("-v", f"{tmp_path}/host:/h")) as name:
        ok(cp("-", f"{name}:/h", input=tar_of(f="x"), text=False))
        assert (tmp_path / "host/f").stat().st_uid == 1234
        assert (tmp_path / "host/f").read_text() == "x"


def test_docker_py_sends_and_gets_archives(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    client = sdk.DockerClient(base_url=engine.host, timeout=30)
    try:
        container = client.containers.create(busybox, "true")
        try:
            assert container.put_archive("/tmp", tar_of(a="one"))
            chunks, described = container.get_archive("/tmp/a")
            assert described["name"] == "a"
            assert described["size"] == 3
            with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
                assert tar.extractfile("a").read() == b"one"  # type: ignore[union-attr]
            with pytest.raises(sdk.errors.NotFound):
                container.get_archive("/missing")
        finally:
            container.remove(force=True)
    finally:
        client.close()


def test_compressed_archives_are_unpacked(engine: PrivateEngine, made: str) -> None:
    import gzip

    path = f"/containers/{made}/archive?path=/tmp"
    assert engine.request("PUT", path, gzip.compress(tar_of(z="packed"))).status == 200
    reply = engine.request("GET", f"{path}/z")
    assert b"packed" in reply.body
    assert reply.headers["Content-Type"] == "application/x-tar"


def test_a_damaged_archive_is_an_error_and_the_container_starts(
    engine: PrivateEngine, made: str
) -> None:
    path = f"/containers/{made}/archive?path=/tmp"
    assert engine.request("PUT", path, tar_of(z="packed")[:600]).status == 400
    assert engine.request("POST", f"/containers/{made}/start").status == 204


def test_large_files_are_not_held_in_memory(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    assert engine.process is not None
    size = 192 << 20
    with (tmp_path / "large").open("wb") as file:
        file.truncate(size)
    status = Path(f"/proc/{engine.process.pid}/status")

    def resident() -> int:
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) << 10

    with containers.running(engine, busybox) as name:
        before = resident()
        ok(engine.cli("jaula", "cp", f"{tmp_path}/large", f"{name}:/large"))
        ok(engine.cli("jaula", "cp", f"{name}:/large", f"{tmp_path}/back"))
        assert (tmp_path / "back").stat().st_size == size
        assert resident() - before < 48 << 20
