"""``harden check``: twins on the kernel, recorded with and without the profile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import containers
from harness.containers import running
from harness.engine import PrivateEngine

COMMAND = ("sh", "-c", "cat /etc/group > /dev/null; chown 5 /tmp; ls /data; exec sleep 600")


@pytest.fixture
def container(engine: PrivateEngine, busybox: str) -> Iterator[str]:
    with running(engine, busybox, *COMMAND, flags=("-v", "/data", "-p", "127.0.0.1::80")) as name:
        engine.cli("jaula", "exec", name, "sh", "-c", "echo own > /data/file")
        yield name


def check(engine: PrivateEngine, file: Path, name: str, *flags: str) -> Any:
    return engine.cli("jaula", "harden", "check", "--time", "2s", *flags, str(file), name)


def nothing_left(engine: PrivateEngine) -> bool:
    names = [row["Names"][0] for row in engine.request("GET", "/containers/json?all=1").json()]
    volumes = engine.request("GET", "/volumes").json()["Volumes"]
    return not any("jaula-check" in name for name in (*names, *(v["Name"] for v in volumes)))


def test_a_profile_that_suffices_works(
    engine: PrivateEngine, container: str, tmp_path: Path
) -> None:
    file = tmp_path / "enough.toml"
    file.write_text('name = "enough"\ncapabilities = ["CHOWN"]\n[files]\nread-only-root = false\n')
    before = containers.inspect(engine, container)
    done = check(engine, file, container, "--command", "grep own /data/file && rm /data/file")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "works under the profile enough" in done.stdout
    after = containers.inspect(engine, container)
    assert (after["Id"], after["State"]["Pid"]) == (before["Id"], before["State"]["Pid"])
    shown = engine.cli("jaula", "exec", container, "cat", "/data/file")
    assert shown.stdout == "own\n"  # the twins had copies
    assert nothing_left(engine)


@pytest.mark.parametrize("mode", ["", ":rw"])
def test_volumes_of_another_container_are_copied_too(
    engine: PrivateEngine, container: str, busybox: str, tmp_path: Path, mode: str
) -> None:
    file = tmp_path / "enough.toml"
    file.write_text('name = "enough"\n[files]\nread-only-root = false\n')
    flags = ("--volumes-from", f"{container}{mode}")
    with running(engine, busybox, "sleep", "600", flags=flags) as name:
        done = check(engine, file, name, "--command", "grep own /data/file && rm /data/file")
    assert done.returncode == 0, done.stdout + done.stderr
    assert engine.cli("jaula", "exec", container, "cat", "/data/file").stdout == "own\n"
    assert nothing_left(engine)


def test_what_a_profile_lacks_is_named(
    engine: PrivateEngine, container: str, tmp_path: Path
) -> None:
    file = tmp_path / "less.toml"
    file.write_text(
        'name = "less"\n[files]\nread = ["/bin/", "/data/", "/lib/", "/lib64/"]\n'
        'tmpfs = {"/tmp" = ""}\n'
    )
    done = check(engine, file, container, "--command", "touch /etc/new")
    assert done.returncode == 1
    assert '/etc/group was refused with EACCES: add "/etc/group" to files.read' in done.stdout
    assert 'chown needs CAP_CHOWN: add "CHOWN" to capabilities' in done.stdout
    assert "touch /etc/new ended with status 1" in done.stdout
    assert '/etc/new was refused with EROFS: add "/etc" to files.tmpfs' in done.stdout
    assert nothing_left(engine)


def test_a_program_that_cannot_start_is_broken(
    engine: PrivateEngine, container: str, tmp_path: Path
) -> None:
    file = tmp_path / "none.toml"
    file.write_text('name = "none"\n[files]\nexecute = ["/nothing"]\n')
    done = check(engine, file, container)
    assert done.returncode == 1
    assert f"{container} does not work under the profile none: it does not start: " in done.stdout
    assert "add the program and its loader to files.execute" in done.stdout
    assert nothing_left(engine)


def test_bad_input_leaves_nothing(engine: PrivateEngine, container: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text('name = "x"\ncapabilities = ["NO_SUCH"]\n')
    done = check(engine, file, container)
    assert done.returncode == 1
    assert "unknown capability 'NO_SUCH'" in done.stderr
    assert nothing_left(engine)
    assert check(engine, file, "no-such-container").returncode == 1
