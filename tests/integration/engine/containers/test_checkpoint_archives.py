"""Export and import of checkpoints: own ones, signed ones, and those that are refused."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import containers
from harness.engine import PrivateEngine
from jaula.features.trust import signing_keys

pytestmark = pytest.mark.criu

NAME = "moved"
COUNT = """
i=0
while :; do
    i=$((i+1))
    for at in /data /root; do echo $i >$at/new; mv $at/new $at/count; done
    usleep 50000
done
"""
KEY, STRANGER = signing_keys.generate(), signing_keys.generate()


def jaula(engine: PrivateEngine, *words: str) -> str:
    done = engine.cli("jaula", *words)
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


def refused(engine: PrivateEngine, *words: str) -> str:
    done = engine.cli("jaula", *words)
    assert done.returncode != 0, (words, done.stdout)
    return done.stderr


def count(engine: PrivateEngine, name: str) -> int:
    return int(jaula(engine, "exec", name, "sh", "-c", "sleep 0.2; cat /data/count"))


@pytest.fixture
def private_key(tmp_path: Path) -> Callable[[signing_keys.PrivateKey], str]:
    from cryptography.hazmat.primitives import serialization as form

    def write(key: signing_keys.PrivateKey) -> str:
        path = tmp_path / f"{key.public.fingerprint}.key"
        loaded = form.load_der_private_key(key.der, None)
        path.write_bytes(
            loaded.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
        )
        return str(path)

    return write


@pytest.fixture
def source(engine: PrivateEngine, busybox: str) -> Iterator[PrivateEngine]:
    """Yield an engine with a container and its snapshot 'one'."""
    try:
        jaula(engine, "run", "-d", "--name", NAME, "-v", "moved-data:/data", "-l", "kept=yes",
              "-e", "SECRET=x", busybox, "sh", "-c", COUNT)  # fmt: skip
        count(engine, NAME)
        jaula(engine, "exec", NAME, "sh", "-c", "echo note >/data/note; echo note >/root/note")
        jaula(engine, "snapshot", NAME, "one")
        yield engine
    finally:
        engine.cli("jaula", "rm", "-f", "-v", NAME)
        engine.cli("jaula", "volume", "rm", "moved-data")


@pytest.fixture
def target(
    new_engine: Callable[..., PrivateEngine], busybox_archive: Path, tmp_path: Path
) -> PrivateEngine:
    """Return an engine that accepts checkpoints of :data:`KEY`."""
    (tmp_path / "team.pub").write_bytes(KEY.public.pem)
    policy = tmp_path / "policy.toml"
    policy.write_text('[checkpoints]\n"docker.io/library/busybox" = { signed-by = "team.pub" }\n')
    engine = new_engine("--policy", str(policy))
    with busybox_archive.open("rb") as archive:
        assert engine.cli("jaula", "load", stdin=archive).returncode == 0
    return engine


def left(engine: PrivateEngine) -> list[str]:
    """Return containers, volumes and files of checkpoints."""
    names = jaula(engine, "ps", "-aq").split() + jaula(engine, "volume", "ls", "-q").split()
    directory = engine.root / "lib/checkpoints"
    return names + [name for name in os.listdir(directory) if name != ".key"]


def test_a_container_goes_on_at_another_engine(
    source: PrivateEngine,
    target: PrivateEngine,
    private_key: Callable[[signing_keys.PrivateKey], str],
    tmp_path: Path,
) -> None:
    archive = str(tmp_path / "one.tar")
    jaula(source, "checkpoint", "export", "-k", private_key(KEY), "-o", archive, NAME, "one")
    with tarfile.open(archive) as tar:
        assert {"manifest.json", "manifest.sig", "config.dump", "spec.dump", "network.status",
                "rootfs-diff.tar", "volumes/moved-data.tar", "checkpoint/inventory.img",
                } <= set(tar.getnames())  # fmt: skip
    answer = jaula(target, "checkpoint", "import", "-i", archive)
    assert answer.startswith("Created container ")
    document = containers.inspect(target, NAME)
    assert document["Config"]["Labels"]["kept"] == "yes"
    assert document["State"]["Status"] == "created"
    jaula(target, "start", "--checkpoint", "one", NAME)
    first = count(target, NAME)
    assert count(target, NAME) > first
    for path in ("/data/note", "/root/note"):
        assert jaula(target, "exec", NAME, "cat", path) == "note\n"
    assert "is already in use" in refused(target, "checkpoint", "import", "-i", archive)
    jaula(target, "rm", "-f", NAME)
    message = refused(target, "checkpoint", "import", "-i", archive)
    assert "volume moved-data exists" in message
    jaula(target, "checkpoint", "import", "--name", "other", "-i", archive)
    jaula(target, "start", "--checkpoint", "one", "other")
    count(target, "other")
    jaula(target, "rm", "-f", "other")


def test_an_archive_of_this_engine_needs_no_signature(
    source: PrivateEngine, tmp_path: Path
) -> None:
    archive = str(tmp_path / "one.tar")
    jaula(source, "checkpoint", "export", "-o", archive, NAME, "one")
    assert "already exists" in refused(source, "checkpoint", "import", "-i", archive)
    jaula(source, "checkpoint", "rm", NAME, "one")
    answer = jaula(source, "checkpoint", "import", "-i", archive)
    assert answer.splitlines()[0] == f"Found container {containers.inspect(source, NAME)['Id']}"
    jaula(source, "rollback", NAME, "one")
    count(source, NAME)
    jaula(source, "rm", "-f", NAME)
    jaula(source, "volume", "rm", "moved-data")
    assert jaula(source, "checkpoint", "import", "-i", archive).startswith("Created container ")
    jaula(source, "start", "--checkpoint", "one", NAME)
    count(source, NAME)


def test_an_archive_that_is_not_trusted_leaves_nothing(
    source: PrivateEngine,
    target: PrivateEngine,
    private_key: Callable[[signing_keys.PrivateKey], str],
    tmp_path: Path,
) -> None:
    good, unsigned, foreign = (tmp_path / name for name in ("good", "unsigned", "foreign"))
    jaula(source, "checkpoint", "export", "-k", private_key(KEY), "-o", str(good), NAME, "one")
    jaula(source, "checkpoint", "export", "-o", str(unsigned), NAME, "one")
    key = private_key(STRANGER)
    jaula(source, "checkpoint", "export", "-k", key, "-o", str(foreign), NAME, "one")
    data = good.read_bytes()
    edits = {
        "it is not signed": unsigned.read_bytes(),
        "its signature is of no key": foreign.read_bytes(),
        "no key of the policy": data.replace(b'"left_running": true', b'"left_running": null', 1),
        "truncated": data[: len(data) // 2],
        "was changed": data[: len(data) // 2] + b"\1" + data[len(data) // 2 + 1 :],
    }
    for words, edited in edits.items():
        path = tmp_path / "edited"
        path.write_bytes(edited)
        message = refused(target, "checkpoint", "import", "-i", str(path))
        assert words in message, (words, message)
        assert left(target) == [], words
    message = refused(target, "checkpoint", "import", "-i", "/dev/null")
    assert "not the archive of a checkpoint" in message


def test_an_archive_without_its_image_or_files_is_refused(
    source: PrivateEngine,
    target: PrivateEngine,
    private_key: Callable[[signing_keys.PrivateKey], str],
    tmp_path: Path,
) -> None:
    key = private_key(KEY)
    jaula(source, "checkpoint", "create", "--leave-running", NAME, "two")
    for name, words in (("two", "holds no files"), ("one", "No such image")):
        archive = str(tmp_path / name)
        jaula(source, "checkpoint", "export", "-k", key, "-o", archive, NAME, name)
        if name == "one":
            jaula(target, "rmi", "busybox")
        assert words in refused(target, "checkpoint", "import", "-i", archive)
        assert left(target) == []
