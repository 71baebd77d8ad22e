"""``harden`` only narrows: a recorded container chooses nothing that it was not given."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import containers
from harness.containers import unique
from harness.engine import PrivateEngine
from jaula.spec import confinement_profile

RUN = ("jaula", "run", "-d", "--stop-timeout", "0", "--name")


@pytest.fixture
def name(engine: PrivateEngine) -> Iterator[str]:
    made = unique()
    yield made
    for container in engine.request("GET", "/containers/json?all=1").json():
        if container["Names"][0].startswith(f"/{made}"):
            engine.request("DELETE", f"/containers/{container['Id']}?force=1&v=1")


def recorded(
    engine: PrivateEngine, busybox: str, name: str, path: Path, script: str, *flags: str
) -> None:
    run = ("jaula", "run", "--name", name, *flags, f"--record={path}", busybox)
    done = engine.cli(*run, "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    containers.eventually(
        lambda: engine.cli("jaula", "record", "verify", str(path)).returncode == 0, "the record"
    )


def harden(engine: PrivateEngine, name: str, path: Path) -> confinement_profile.Profile:
    done = engine.cli("jaula", "harden", name, "--record", str(path))
    assert done.returncode == 0, done.stderr
    return confinement_profile.load(done.stdout.encode(), "output")


@pytest.mark.parametrize("disk", ["vda", "sda", "nvme0n1", "loop7:", "mem"])
def test_a_file_that_the_container_made_below_dev_is_no_device(
    engine: PrivateEngine, busybox: str, name: str, tmp_path: Path, disk: str
) -> None:
    path = tmp_path / "web.record"
    script = f"echo x > '/dev/{disk}'; cat '/dev/{disk}' /dev/null; mkdir -p /dev/a:; "
    recorded(engine, busybox, name, path, f"{script} echo y > '/dev/a:/dev/{disk}:rwm' || true")
    made = harden(engine, name, path)
    assert made.devices == ()
    assert any(f"/dev/{disk}" in note for note in made.notes)


def test_a_device_that_the_container_was_given_and_opened_is_one(
    engine: PrivateEngine, busybox: str, name: str, tmp_path: Path
) -> None:
    path = tmp_path / "web.record"
    flags = ("--device", "/dev/full:/dev/log:r", "--device", "/dev/full:/dev/unused")
    recorded(engine, busybox, name, path, ": < /dev/log; : < /dev/zero", *flags)
    assert harden(engine, name, path).devices == ("/dev/full:/dev/log:r",)


WIDER = {
    "device": 'devices = ["/dev/loop-control"]\n',
    "capability": 'capabilities = ["SYS_ADMIN"]\n',
    "user": '[process]\nuser = "0"\n',
    "new privileges": "[process]\nno-new-privileges = false\n",
    "root": "[files]\nread-only-root = false\n",
    "tmpfs": '[files.tmpfs]\n"/srv" = ""\n',
    "volume": '[files]\nvolumes = ["/srv"]\n',
    "egress": '[network]\negress = ["tcp:192.0.2.1:443"]\n',
    "listen": '[network]\nlisten = ["tcp:81"]\n',
    "files": '[files]\nread = ["/usr/"]\n',
}
FLAGS = (
    *("--user", "1000", "--security-opt", "no-new-privileges", "--read-only"),
    *("--egress", "tcp:198.51.100.1:443", "--listen", "tcp:80"),
    *("--security-opt", "landlock=read=/etc/", "--security-opt", "landlock=read=/bin/"),
)


def test_apply_and_check_refuse_what_the_container_does_not_have(
    engine: PrivateEngine, busybox: str, name: str, tmp_path: Path
) -> None:
    run = (*RUN, name, *FLAGS, busybox, "sleep", "600")
    done = engine.cli(*run)
    assert done.returncode == 0, done.stderr
    before = containers.inspect(engine, name)
    file = tmp_path / "wide.toml"
    for kind, text in WIDER.items():
        file.write_text(f'name = "wide"\n{text}')
        for command in ("apply", "check"):
            if command == "check" and os.geteuid() != 0:
                continue
            done = engine.cli("jaula", "harden", command, str(file), name)
            assert done.returncode == 1, (kind, command)
            assert "gives" in done.stderr, (kind, command, done.stderr)
            assert "what it does not have" in done.stderr, (kind, command, done.stderr)
        done = engine.cli("jaula", "harden", "--apply", "--profile", str(file), name)
        assert done.returncode == 1, kind
    after = containers.inspect(engine, name)
    assert (after["Id"], after["State"]) == (before["Id"], before["State"])
    rows = engine.request("GET", "/containers/json?all=1").json()
    assert [row["Names"] for row in rows if name in row["Names"][0]] == [[f"/{name}"]]


def test_what_a_former_profile_refused_is_not_applied_from_a_record(
    engine: PrivateEngine, busybox: str, name: str, tmp_path: Path
) -> None:
    former = tmp_path / "former.toml"
    former.write_text('name = "former"\n[network]\negress = ["tcp:192.0.2.1:443"]\n')
    path = tmp_path / "web.record"
    script = "nc -w 1 198.51.100.1 22 < /dev/null; nc -w 1 192.0.2.1 443 < /dev/null; true"
    recorded(engine, busybox, name, path, script, "--profile", str(former))
    made = harden(engine, name, path)
    assert not {item for item in made.network.egress or () if "198.51.100.1" in item}
    assert any("destinations are left out" in note for note in made.notes)
