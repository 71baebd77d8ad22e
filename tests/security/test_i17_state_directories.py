"""I17: other users cannot traverse state directories; volumes are nosuid, nodev."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from harness import containers
from harness.engine import PrivateEngine


def as_nobody(*words: str) -> subprocess.CompletedProcess[str]:
    prefix = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    return subprocess.run([*prefix, *words], capture_output=True, text=True, timeout=20)


@pytest.mark.parametrize("cve", ["CVE-2021-41091 CVE-2021-41103 CVE-2025-64507"])
def test_another_user_of_the_host_cannot_access_files_of_the_engine(
    engine: PrivateEngine, busybox: str, cve: str
) -> None:
    volume = containers.unique("private")
    flags = ("-v", f"{volume}:/v")
    words = ("sh", "-c", "echo secret > /v/secret; chmod -R 777 /v; echo s > /s; sleep 600")
    # The directories above are the test's; open them, so that the engine's own modes are tested.
    for directory in (engine.root, engine.run):
        directory.chmod(0o755)
    with containers.running(engine, busybox, *words, flags=flags) as name:
        secret = engine.root / "lib" / "volumes" / volume / "_data" / "secret"
        containers.eventually(secret.exists, "the container writes to its volume")
        identifier = containers.inspect(engine, name)["Id"]
        for path in (
            secret,
            secret.parent,
            engine.root / "lib" / "jaula.db",
            engine.root / "lib" / "containers",
            engine.root / "lib" / "containers" / identifier / "config.json",
            engine.root / "lib" / "layers",
            engine.run / "containers",
            engine.run / "containers" / identifier,
        ):
            assert path.exists(), path
            look = "ls" if path.is_dir() else "cat"
            assert as_nobody(look, str(path)).returncode != 0, path
    engine.request("DELETE", f"/volumes/{volume}?force=1")


def test_the_directories_are_closed_to_other_users(engine: PrivateEngine) -> None:
    library = engine.root / "lib"
    for path in [library, *library.iterdir()]:
        mode = stat.S_IMODE(path.lstat().st_mode)
        allowed = 0o711 if path.is_dir() else 0o600
        assert mode & ~allowed == 0, f"{path}: {mode:o}"
    assert stat.S_IMODE(os.stat(engine.socket).st_mode) & 0o007 == 0


@pytest.mark.parametrize("cve", ["CVE-2021-41091"])
def test_volumes_are_nosuid_and_nodev(engine: PrivateEngine, busybox: str, cve: str) -> None:
    volume = containers.unique("suid")
    with containers.running(engine, busybox, flags=("-v", f"{volume}:/v")) as name:
        result = containers.mountinfo(containers.pid(engine, name))
    engine.request("DELETE", f"/volumes/{volume}?force=1")
    assert {"nosuid", "nodev"} <= result["/v"].options


def test_a_removed_container_leaves_no_file(engine: PrivateEngine, busybox: str) -> None:
    with containers.running(engine, busybox) as name:
        identifier = containers.inspect(engine, name)["Id"]
    for base in (engine.root / "lib" / "containers", engine.run / "containers"):
        assert not (base / identifier).exists()
    assert not list(Path("/run").glob(f"*{identifier}*"))
