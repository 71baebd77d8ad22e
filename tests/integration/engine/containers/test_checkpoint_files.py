"""Checkpoints that hold the container's files: its changed root and its volumes."""

from __future__ import annotations

import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness import birth, containers
from harness.engine import PrivateEngine

pytestmark = pytest.mark.criu

NAME = "files"
COUNT = """
i=0
while :; do
    i=$((i+1))
    for at in /data /root; do echo $i >$at/new; mv $at/new $at/count; done
    usleep 50000
done
"""
Run = Callable[..., None]


def jaula(engine: PrivateEngine, *words: str) -> str:
    done = engine.cli("jaula", *words)
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


def refused(engine: PrivateEngine, *words: str) -> str:
    done = engine.cli("jaula", *words)
    assert done.returncode != 0, (words, done.stdout)
    return done.stderr


def read(engine: PrivateEngine, path: str, name: str = NAME) -> str:
    return jaula(engine, "exec", name, "cat", path).strip()


def address(document: dict[str, Any]) -> str:
    (network,) = document["NetworkSettings"]["Networks"].values()
    return str(network["IPAddress"])


def wait_for_count(engine: PrivateEngine, least: int, name: str = NAME) -> int:
    deadline = time.monotonic() + 20
    while True:
        done = engine.cli("jaula", "exec", name, "cat", "/data/count")
        text = done.stdout.strip()
        if done.returncode == 0 and text and int(text) >= least:
            return int(text)
        assert time.monotonic() < deadline, (done.stdout, done.stderr)
        time.sleep(0.05)


@pytest.fixture
def run(engine: PrivateEngine, busybox: str) -> Iterator[Run]:
    """Return a function that runs a container that counts in its root and in a volume."""

    def start(*flags: str) -> None:
        jaula(engine, "run", "-d", "--name", NAME, "-v", "counted:/data", *flags, busybox,
              "sh", "-c", COUNT)  # fmt: skip
        wait_for_count(engine, 3)

    yield start
    engine.cli("jaula", "rm", "-f", "-v", NAME)
    engine.cli("jaula", "volume", "rm", "counted")


def inspected(engine: PrivateEngine, checkpoint: str) -> dict[str, object]:
    text = jaula(engine, "checkpoint", "inspect", "-f", "{{json .}}", NAME, checkpoint)
    document: dict[str, object] = msgspec.json.decode(text)
    return document


def test_a_checkpoint_holds_root_and_volumes_of_one_moment(engine: PrivateEngine, run: Run) -> None:
    run("-v", "/etc:/bound:ro")
    jaula(engine, "checkpoint", "create", "--leave-running", "--with-files", NAME, "one")
    document = inspected(engine, "one")
    assert document["Usable"], document
    held = document["ContainerFiles"]
    assert isinstance(held, dict)
    assert held["RootChanged"]
    assert held["Excluded"] == ["/bound"]
    assert [(each["Name"], each["Destinations"]) for each in held["Volumes"]] == [
        ("counted", ["/data"])
    ]
    container = containers.inspect(engine, NAME)["Id"]
    files = engine.root / "lib/checkpoints" / container / "one/files"
    with tarfile.open(files / "rootfs-diff.tar") as root, tarfile.open(files / "volume-0.tar") as v:
        in_root, in_volume = root.extractfile("root/count"), v.extractfile("count")
        assert in_root is not None
        assert in_volume is not None
        counts = [int(file.read()) for file in (in_root, in_volume)]
    assert 0 <= counts[1] - counts[0] <= 1
    assert wait_for_count(engine, counts[1] + 2)


def test_a_checkpoint_without_files_says_so(engine: PrivateEngine, run: Run) -> None:
    run()
    jaula(engine, "checkpoint", "create", "--leave-running", NAME, "one")
    assert inspected(engine, "one")["ContainerFiles"] is None


def test_a_rollback_puts_files_volumes_and_memory_back(engine: PrivateEngine, run: Run) -> None:
    run()
    jaula(engine, "exec", NAME, "sh", "-c", "echo kept >/root/note; echo kept >/data/note")
    assert jaula(engine, "snapshot", "--end-execs", NAME, "one") == "one\n"
    before = containers.inspect(engine, NAME)
    first = wait_for_count(engine, 5)
    jaula(engine, "exec", NAME, "sh", "-c",
          "rm /root/note /data/note; echo new >/data/other; echo new >/etc/other")  # fmt: skip
    wait_for_count(engine, first + 20)
    for _ in range(2):
        assert jaula(engine, "rollback", NAME, "one") == f"{NAME}\n"
        assert wait_for_count(engine, 1) < first + 20
        assert [read(engine, path) for path in ("/root/note", "/data/note")] == ["kept", "kept"]
        assert read(engine, "/etc/passwd")
        for path in ("/data/other", "/etc/other"):
            refused(engine, "exec", NAME, "cat", path)
    after = containers.inspect(engine, NAME)
    assert (after["Id"], after["State"]["Running"]) == (before["Id"], True)
    assert address(after) == address(before)
    jaula(engine, "stop", "-t", "0", NAME)
    jaula(engine, "rollback", NAME, "one")
    assert wait_for_count(engine, 1)


def test_a_rollback_without_files_is_refused_and_changes_nothing(
    engine: PrivateEngine, run: Run
) -> None:
    run()
    jaula(engine, "checkpoint", "create", "--leave-running", NAME, "one")
    pid = containers.pid(engine, NAME)
    assert "holds no files" in refused(engine, "rollback", NAME, "one")
    assert "does not exist" in refused(engine, "rollback", NAME, "two")
    jaula(engine, "snapshot", NAME, "two")
    container = containers.inspect(engine, NAME)["Id"]
    archive = engine.root / "lib/checkpoints" / container / "two/files/volume-0.tar"
    archive.write_bytes(archive.read_bytes().replace(b"count", b"COUNT"))
    assert "volume-0.tar was changed" in refused(engine, "rollback", NAME, "two")
    assert containers.pid(engine, NAME) == pid


def test_a_volume_of_another_running_container_is_not_put_back(
    engine: PrivateEngine, run: Run, busybox: str
) -> None:
    run()
    jaula(engine, "snapshot", NAME, "one")
    jaula(engine, "run", "-d", "--name", "reader", "-v", "counted:/x", busybox, "sleep", "60")
    try:
        assert "reader uses its volume counted" in refused(engine, "rollback", NAME, "one")
        assert containers.inspect(engine, NAME)["State"]["Running"]
    finally:
        jaula(engine, "rm", "-f", "reader")


def test_clones_have_files_volumes_and_addresses_of_their_own(
    engine: PrivateEngine, run: Run
) -> None:
    run()
    jaula(engine, "snapshot", NAME, "one")
    wait_for_count(engine, wait_for_count(engine, 1) + 10)
    names = ("clone1", "clone2")
    try:
        for name in names:
            jaula(engine, "clone", "--name", name, NAME, "one")
        documents = [containers.inspect(engine, name) for name in (NAME, *names)]
        addresses = {address(each) for each in documents}
        volumes = {each["Mounts"][0]["Name"] for each in documents}
        assert len(addresses) == len(volumes) == 3
        for document, name in zip(documents, (NAME, *names), strict=True):
            assert wait_for_count(engine, wait_for_count(engine, 1, name) + 2, name)
            hostname = jaula(engine, "exec", name, "hostname").strip()
            assert hostname == document["Config"]["Hostname"] == document["Id"][:12]
        jaula(engine, "rm", "-f", "-v", "clone1")
        jaula(engine, "snapshot", "clone2", "again")
        jaula(engine, "rollback", "clone2", "one")
        wait_for_count(engine, 1, "clone2")
    finally:
        for name in names:
            engine.cli("jaula", "rm", "-f", "-v", name)
        assert jaula(engine, "volume", "ls", "-q") == "counted\n"


def test_checkpoints_can_be_in_another_directory(
    engine: PrivateEngine, run: Run, tmp_path: Path
) -> None:
    run()
    directory = engine.run / "checkpoints"
    where = ("--checkpoint-dir", str(directory))
    jaula(engine, "checkpoint", "create", *where, NAME, "one")
    assert jaula(engine, "checkpoint", "ls", NAME) == "CHECKPOINT NAME\n"
    assert jaula(engine, "checkpoint", "ls", *where, NAME) == "CHECKPOINT NAME\none\n"
    assert (directory / "one").stat().st_mode & 0o777 == 0o700
    assert "does not exist" in refused(engine, "start", "--checkpoint", "one", NAME)
    jaula(engine, "start", "--checkpoint", "one", *where, NAME)
    assert wait_for_count(engine, 1)
    jaula(engine, "kill", NAME)
    core = directory / "one/images/core-1.img"
    core.write_bytes(core.read_bytes() + b"\0")
    message = refused(engine, "start", "--checkpoint", "one", *where, NAME)
    assert "core-1.img was changed" in message
    jaula(engine, "checkpoint", "rm", *where, NAME, "one")
    assert list(directory.iterdir()) == []
    for path in (tmp_path, tmp_path / "new", "relative", "/run/../tmp"):
        message = refused(engine, "start", "--checkpoint-dir", str(path), "--checkpoint", "x", NAME)
        assert "the checkpoint directory" in message, path
    assert not (tmp_path / "new").exists()


def test_snapshots_in_another_directory_are_rolled_back_cloned_and_exported(
    engine: PrivateEngine, run: Run, tmp_path: Path
) -> None:
    run()
    directory = engine.run / "checkpoints"
    where = ("--checkpoint-dir", str(directory))
    jaula(engine, "exec", NAME, "sh", "-c", "echo kept >/root/note")
    jaula(engine, "snapshot", "--end-execs", *where, NAME, "one")
    for words in (
        ("rollback", NAME, "one"),
        ("clone", NAME, "one"),
        ("checkpoint", "export", NAME, "one"),
        ("checkpoint", "inspect", NAME, "one"),
    ):
        assert "checkpoint one does not exist" in refused(engine, *words)
    jaula(engine, "exec", NAME, "rm", "/root/note")
    jaula(engine, "rollback", *where, NAME, "one")
    assert read(engine, "/root/note") == "kept"
    text = jaula(engine, "checkpoint", "inspect", *where, "-f", "{{.Usable}}", NAME, "one")
    assert text == "true\n"
    archive = tmp_path / "one.tar"
    jaula(engine, "checkpoint", "export", *where, "-o", str(archive), NAME, "one")
    try:
        jaula(engine, "clone", *where, "--name", "copied", NAME, "one")
        assert read(engine, "/root/note", "copied") == "kept"
        # The clone does not depend on the directory.
        assert {each.stat().st_nlink for each in (directory / "one/images").iterdir()} == {1}
        jaula(engine, "kill", NAME, "copied")
        jaula(engine, "checkpoint", "rm", *where, NAME, "one")
        jaula(engine, "rollback", "copied", "one")
        assert read(engine, "/root/note", "copied") == "kept"
        imported = jaula(engine, "checkpoint", "import", "-i", str(archive))
        assert "Imported checkpoint one" in imported
        jaula(engine, "start", "--checkpoint", "one", NAME)
    finally:
        engine.cli("jaula", "rm", "-f", "-v", "copied")


def test_a_changed_snapshot_in_another_directory_is_refused(
    engine: PrivateEngine, run: Run
) -> None:
    run()
    where = ("--checkpoint-dir", str(engine.run / "checkpoints"))
    jaula(engine, "snapshot", "--end-execs", *where, NAME, "one")
    volume = engine.run / "checkpoints/one/files/volume-0.tar"
    volume.write_bytes(volume.read_bytes() + bytes(512))
    count = wait_for_count(engine, 1)
    for words in (
        ("rollback", *where, NAME, "one"),
        ("clone", *where, NAME, "one"),
        ("checkpoint", "export", *where, NAME, "one"),
    ):
        assert "volume-0.tar was changed" in refused(engine, *words)
    assert wait_for_count(engine, count + 1)
    assert len(jaula(engine, "ps", "-aq").split()) == 1
    inspect = ("checkpoint", "inspect", *where, "-f", "{{.Usable}} {{.Problem}}", NAME, "one")
    text = jaula(engine, *inspect)
    assert text.startswith("false checkpoint one is refused: volume-0.tar was changed")
    jaula(engine, "checkpoint", "rm", *where, NAME, "one")


def test_a_program_that_is_bound_to_its_address_cannot_be_cloned(
    engine: PrivateEngine, busybox: str
) -> None:
    name = "bound"
    script = "exec httpd -f -p $(hostname -i):80"
    jaula(engine, "run", "-d", "--name", name, "-v", "kept:/x", busybox, "sh", "-c", script)
    try:
        containers.eventually(
            lambda: ":0050 " in jaula(engine, "exec", name, "cat", "/proc/net/tcp"), "it listens"
        )
        jaula(engine, "snapshot", name, "one")
        message = refused(engine, "clone", name, "one")
        assert "let it listen on all addresses" in message
        assert len(jaula(engine, "ps", "-aq").split()) == 1
        assert jaula(engine, "volume", "ls", "-q") == "kept\n"
        jaula(engine, "rollback", name, "one")
    finally:
        engine.cli("jaula", "rm", "-f", name)
        engine.cli("jaula", "volume", "rm", "kept")


def test_a_clone_is_a_container_of_its_caller_alone(engine: PrivateEngine, run: Run) -> None:
    """Labels, published ports and the removal at the exit are those of the clone."""
    run("-p", "127.0.0.1::80", "-l", "first=1")
    jaula(engine, "snapshot", NAME, "one")
    try:
        jaula(engine, "clone", "--rm", "-l", "second=2", "--network", "none", "--name", "other",
              NAME, "one")  # fmt: skip
        document = containers.inspect(engine, "other")
        assert {"first": "1", "second": "2"}.items() <= document["Config"]["Labels"].items()
        assert list(document["NetworkSettings"]["Networks"]) in ([], ["none"])
        assert not document["NetworkSettings"]["Ports"].get("80/tcp")
        jaula(engine, "kill", "other")
        containers.eventually(
            lambda: len(jaula(engine, "ps", "-aq").split()) == 1, "the clone is removed"
        )
    finally:
        engine.cli("jaula", "rm", "-f", "-v", "other")
        assert jaula(engine, "volume", "ls", "-q") == "counted\n"


def test_the_zygote_imports_once_what_restores_need(engine: PrivateEngine, run: Run) -> None:
    run()
    jaula(engine, "checkpoint", "create", NAME, "one")
    jaula(engine, "start", "--checkpoint", "one", NAME)
    assert engine.process is not None
    (zygote,) = (
        pid
        for pid in birth.children(engine.process.pid)
        if Path(f"/proc/{pid}/comm").read_text() == "jaula-zygote\n"
    )
    maps = Path(f"/proc/{zygote}/maps")
    containers.eventually(lambda: "google/_upb" in maps.read_text(), "protobuf is imported")
    jaula(engine, "kill", NAME)
    jaula(engine, "start", "--checkpoint", "one", NAME)
    assert wait_for_count(engine, 1)


def test_the_content_of_a_tmpfs_is_restored_below_the_limit_of_processes(
    engine: PrivateEngine, busybox: str
) -> None:
    """CRIU runs tar in the container's cgroup, in addition to the processes that it restores."""
    flags = ("--pids-limit", "2", "--tmpfs", "/kept", "--network", "none")
    script = "echo content >/kept/file; while :; do sleep 600; done"
    jaula(engine, "run", "-d", "--name", NAME, *flags, busybox, "sh", "-c", script)
    try:
        count = ("stats", "--no-stream", "--format", "{{.PIDs}}", NAME)
        containers.eventually(lambda: jaula(engine, *count) == "2\n", "both processes run")
        jaula(engine, "checkpoint", "create", NAME, "one")
        jaula(engine, "start", "--checkpoint", "one", NAME)
        assert jaula(engine, *count) == "2\n"
        assert "temporarily unavailable" in refused(engine, "exec", NAME, "true")
        archive = engine.request("GET", f"/containers/{NAME}/archive?path=/kept/file")
        assert b"content" in archive.body
    finally:
        engine.cli("jaula", "rm", "-f", "-v", NAME)
