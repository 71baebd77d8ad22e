"""Losses of a record end with status 3, and nothing is applied unless they are accepted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import containers
from harness.container_record import lines
from harness.containers import unique
from harness.engine import PrivateEngine
from jaula.features.record.record_document import Loss
from jaula.spec import confinement_profile

MANY = [("exec", "/bin/sleep", {"executed": f"/bin/{n}"}) for n in range(600)]
LOSSY: dict[str, tuple[list[tuple[str, str, dict[str, Any]]], dict[str, Loss]]] = {
    "system calls": ([], {"syscalls": Loss(occurrences=1)}),
    "texts": ([], {"files": Loss(texts=1)}),
    "programs": (MANY, {}),
}


@pytest.fixture
def name(engine: PrivateEngine, busybox: str) -> Iterator[str]:
    made = unique()
    run = ("jaula", "run", "-d", "--stop-timeout", "0", "--name", made, busybox, "sleep", "600")
    assert engine.cli(*run).returncode == 0
    yield made
    for container in engine.request("GET", "/containers/json?all=1").json():
        if container["Names"][0].startswith(f"/{made}"):
            engine.request("DELETE", f"/containers/{container['Id']}?force=1&v=1")


@pytest.mark.parametrize("kind", LOSSY)
def test_a_lossy_profile_is_applied_only_if_accepted(
    engine: PrivateEngine, name: str, tmp_path: Path, kind: str
) -> None:
    entries, losses = LOSSY[kind]
    path, file = tmp_path / "web.record", tmp_path / "web.toml"
    call = ("syscall", "/bin/sleep", {"syscall": "nanosleep"})
    path.write_bytes(b"".join(line + b"\n" for line in lines(call, *entries, losses=losses)))
    before = containers.inspect(engine, name)["Id"]
    words = ("jaula", "harden", name, "--record", str(path))
    done = engine.cli(*words)
    assert done.returncode == 3, done.stderr
    made = confinement_profile.load(done.stdout.encode(), "output")
    assert made.incomplete or made.sources[0].losses
    assert "jaula: the records lost" in done.stderr or "not restricted" in done.stderr
    assert engine.cli(*words, "--accept-losses").returncode == 0
    done = engine.cli(*words, "--apply")
    assert done.returncode == 3
    assert "is not applied: --accept-losses" in done.stderr
    simple = 'name = "w"\nincomplete = ["files.execute"]\n'
    file.write_text(simple if made.incomplete else engine.cli(*words).stdout)
    done = engine.cli("jaula", "harden", "apply", str(file), name)
    assert done.returncode == 3, done.stderr
    assert containers.inspect(engine, name)["Id"] == before
    if kind == "programs":
        file.write_text(simple)
        done = engine.cli("jaula", "harden", "apply", "--accept-losses", str(file), name)
        assert done.returncode == 0, done.stderr
        assert containers.inspect(engine, name)["Id"] != before


def test_a_complete_record_has_status_0(engine: PrivateEngine, name: str, tmp_path: Path) -> None:
    path = tmp_path / "web.record"
    call = ("syscall", "/bin/sleep", {"syscall": "nanosleep"})
    path.write_bytes(b"".join(line + b"\n" for line in lines(call)))
    done = engine.cli("jaula", "harden", name, "--record", str(path))
    assert done.returncode == 0, done.stderr
