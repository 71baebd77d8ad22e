"""A profile made of a record, by the commands that a user types."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.container_record import lines
from harness.engine import PrivateEngine
from jaula.spec import confinement_profile
from jaula.spec.confinement_profile import Profile

Run = Callable[..., "subprocess.CompletedProcess[str]"]
SCRIPT = "echo x > /tmp/a; mkdir /var/spool/x; cat /etc/passwd > /var/www/b; wc -l"
GENERATOR = "/usr/lib/systemd/system-generators/podman-system-generator"


@pytest.fixture
def record(engine: PrivateEngine, busybox: str, tmp_path: Path) -> Path:
    path = tmp_path / "web.record"
    done = engine.cli(
        "jaula", "run", "-i", "--name", f"web-{os.getpid()}", f"--record={path}", busybox, "sh",
        "-c", SCRIPT, input="a line\n",
    )  # fmt: skip
    try:
        assert done.returncode == 0, done.stderr
        yield path
    finally:
        engine.cli("jaula", "rm", "-fv", f"web-{os.getpid()}")


def harden(jaula: Run, *words: str) -> Profile:
    done = jaula("harden", *words)
    assert done.returncode == 0, done.stderr
    return confinement_profile.load(done.stdout.encode(), "output")


def test_a_profile_has_what_the_kernel_saw(jaula: Run, record: Path) -> None:
    made = harden(jaula, "web", "--record", str(record))
    assert made.sources[0].start_recorded
    assert made.sources[0].losses == {}
    assert made.capabilities == ()
    assert {"/bin/sh"} <= set(made.files.execute)
    assert made.files.read_only_root
    assert list(made.files.tmpfs) == ["/tmp"]
    assert made.files.volumes == ("/var/spool", "/var/www")
    assert "/etc/passwd" in made.files.read
    assert (made.network.mode, made.network.egress) == ("none", ())
    assert {"execve", "mkdir", "openat"} <= set(made.seccomp.syscalls["x86_64"])
    assert not {"socket", "mount", "ptrace"} & set(made.seccomp.syscalls["x86_64"])
    assert made.limits.memory > 0


def test_a_server_of_a_volume_has_lists_of_files_and_programs(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    name, volume = f"files-{os.getpid()}", f"files-{os.getpid()}"
    record, document = tmp_path / "files.record", tmp_path / "files.toml"
    place = ("-v", f"{volume}:/data")
    serve = ("sh", "-c", "echo x > /data/index.html; exec httpd -f -p 8080 -h /data")
    fetch = ("wget", "-q", "-O", "-", "http://127.0.0.1:8080/")
    try:
        start = ("jaula", "run", "-d", "--name", name, *place)
        done = engine.cli(*start, f"--record={record}", busybox, *serve)
        assert done.returncode == 0, done.stderr
        time.sleep(1)
        assert engine.cli("jaula", "exec", name, *fetch).stdout == "x\n"
        engine.cli("jaula", "stop", "-t", "0", name)
        for _ in range(100):  # the recorder ends after the container
            if engine.cli("jaula", "record", "verify", str(record)).returncode == 0:
                break
            time.sleep(0.1)
        engine.cli("jaula", "rm", "-f", name)
        made = engine.cli("jaula", "harden", name, "--record", str(record), "-o", str(document))
        assert made.returncode == 0, made.stderr
        files = confinement_profile.load(document.read_bytes(), "files.toml").files
        assert files.read
        assert {"/bin/sh", "/bin/wget"} <= set(files.execute)
        assert "whole root" not in document.read_text()
        done = engine.cli(*start, "--profile", str(document), busybox, *serve)
        assert done.returncode == 0, done.stderr
        time.sleep(1)
        assert engine.cli("jaula", "exec", name, *fetch).stdout == "x\n"
        denied = engine.cli("jaula", "exec", name, "sh", "-c", "echo < /etc/group; . /etc/shadow")
        assert denied.stderr.count("Permission denied") == 2, denied.stderr
    finally:
        engine.cli("jaula", "rm", "-f", name)
        engine.cli("jaula", "volume", "rm", volume)


@pytest.mark.slow
def test_flags_check_and_apply_the_profile(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    name = f"flags-{os.getpid()}"
    script = "echo ok > /tmp/a; cat /tmp/a; while :; do read x < /etc/passwd; sleep 1; done"
    path = tmp_path / f"{name}.record"
    start = ("jaula", "run", "-d", "--stop-timeout", "0", "--name", name)
    run = (*start, "--tmpfs", "/tmp", f"--record={path}", busybox)
    try:
        assert engine.cli(*run, "sh", "-c", script).returncode == 0
        time.sleep(2)
        engine.cli("jaula", "stop", "-t", "0", name)
        for _ in range(100):  # the recorder ends after the container
            if engine.cli("jaula", "record", "verify", str(path)).returncode == 0:
                break
            time.sleep(0.1)
        assert engine.cli("jaula", "start", name).returncode == 0
        bad = engine.cli("jaula", "harden", name, "--apply", "--format", "docker", cwd=tmp_path)
        assert (bad.returncode, "--apply is not combined with --format" in bad.stderr) == (1, True)
        none = engine.cli("jaula", "harden", "--check", cwd=tmp_path)
        assert (none.returncode, '--check" requires a container' in none.stderr) == (1, True)
        done = engine.cli("jaula", "harden", "--check", "--apply", name, cwd=tmp_path, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"{name} works under the profile {name}" in done.stdout
        shown = engine.cli("jaula", "inspect", "-f", "{{.HostConfig.ProfileName}}", name)
        assert shown.stdout == f"{name}\n"
        less = tmp_path / "less.toml"
        less.write_text('name = "less"\n[seccomp.syscalls]\nx86_64 = ["read"]\n')
        words = ("--profile", str(less), "--check", "--apply", name)
        done = engine.cli("jaula", "harden", *words, cwd=tmp_path, timeout=120)
        assert done.returncode == 1, done.stdout
        shown = engine.cli("jaula", "inspect", "-f", "{{.HostConfig.ProfileName}}", name)
        assert shown.stdout == f"{name}\n"  # as before
    finally:
        engine.cli("jaula", "rm", "-fv", name)


def test_records_of_the_directory_are_used_by_name(
    engine: PrivateEngine, record: Path, tmp_path: Path
) -> None:
    name = f"web-{os.getpid()}"
    record.rename(tmp_path / f"{name}-20260101T000000Z.record")
    (tmp_path / f"{name}-other.record").write_bytes(b"\n".join([*lines(name="other"), b""]))
    done = engine.cli("jaula", "harden", name, "-o", "web.toml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"using {name}-20260101T000000Z.record" in done.stderr
    assert "other" not in done.stderr
    assert confinement_profile.load((tmp_path / "web.toml").read_bytes(), "web.toml").name == name
    again = engine.cli("jaula", "harden", name, "-o", "web.toml", cwd=tmp_path)
    assert again.returncode == 1
    assert "web.toml exists" in again.stderr


def test_without_a_record_the_error_says_how_to_make_one(
    engine: PrivateEngine, tmp_path: Path
) -> None:
    done = engine.cli("jaula", "harden", "web", cwd=tmp_path)
    assert done.returncode == 1
    assert "no record of web in this directory" in done.stderr
    assert "jaula record web" in done.stderr


def test_a_changed_record_is_refused(jaula: Run, record: Path) -> None:
    data = record.read_bytes()
    record.write_bytes(data.replace(b'"mkdir"', b'"mount"', 1))
    done = jaula("harden", "web", "--record", str(record))
    assert done.returncode == 1
    assert "not an intact record" in done.stderr
    assert done.stdout == ""
    record.write_bytes(data[: data.rindex(b"\n", 0, -1) + 1])
    done = jaula("harden", "web", "--record", str(record))
    assert "no end" in done.stderr


def test_profiles_are_compared(jaula: Run, record: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a.toml", tmp_path / "b.toml"
    jaula("harden", "web", "--record", str(record), "-o", str(first))
    second.write_text(first.read_text().replace("capabilities = []", 'capabilities = ["CHOWN"]'))
    assert jaula("harden", "diff", str(first), str(first)).returncode == 0
    done = jaula("harden", "diff", str(first), str(second))
    assert (done.returncode, done.stdout) == (1, "+ capabilities CHOWN\n")


def form(jaula: Run, record: Path, name: str, path: Path) -> Path:
    done = jaula("harden", "web", "--record", str(record), "--format", name, "-o", str(path))
    assert done.returncode == 0, done.stderr
    return path


@pytest.mark.skipif(not shutil.which("docker"), reason="docker is not installed")
def test_the_script_for_docker_allows_what_was_recorded(
    engine: PrivateEngine, jaula: Run, busybox: str, record: Path, tmp_path: Path
) -> None:
    script = form(jaula, record, "docker", tmp_path / "web.sh")
    form(jaula, record, "seccomp", tmp_path / "web.seccomp.json")

    def run(text: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", str(script), "--rm", "-i", busybox, "sh", "-c", text],
            input="a line\n", text=True, capture_output=True, env=engine.environment(), timeout=60,
        )  # fmt: skip

    done = run(SCRIPT)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    assert "Read-only file system" in run("echo > /etc/x").stderr
    assert "Operation not permitted" in run("chroot / true").stderr
    assert "permission denied" in run("ping -c 1 127.0.0.1").stderr


@pytest.mark.skipif(not shutil.which("docker-compose"), reason="docker-compose is not installed")
def test_compose_reads_its_form(jaula: Run, record: Path, tmp_path: Path) -> None:
    form(jaula, record, "compose", tmp_path / "compose.yaml")
    form(jaula, record, "seccomp", tmp_path / "web.seccomp.json")
    done = subprocess.run(
        ["docker-compose", "config"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "network_mode: none" in done.stdout
    assert "read_only: true" in done.stdout


@pytest.mark.skipif(not os.path.exists(GENERATOR), reason="podman is not installed")
def test_podman_reads_its_form(jaula: Run, record: Path, tmp_path: Path) -> None:
    form(jaula, record, "quadlet", tmp_path / "web.container")
    done = subprocess.run(
        [GENERATOR, "--dryrun"], env={"QUADLET_UNIT_DIRS": str(tmp_path)}, capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "--cap-drop all" in done.stdout
    assert "mask=/proc/buddyinfo:" in done.stdout
    assert "--network none" in done.stdout or "--network=none" in done.stdout


@pytest.mark.skipif(not shutil.which("apparmor_parser"), reason="apparmor is not installed")
def test_apparmor_reads_its_form(jaula: Run, record: Path, tmp_path: Path) -> None:
    path = form(jaula, record, "apparmor", tmp_path / "web.apparmor")
    done = subprocess.run(
        ["apparmor_parser", "-QTK", str(path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_a_container_runs_under_the_profile_of_its_record(
    engine: PrivateEngine, busybox: str, record: Path, tmp_path: Path
) -> None:
    path = tmp_path / "web.toml"
    done = engine.cli("jaula", "harden", "web", "--record", str(record), "-o", str(path))
    assert done.returncode == 0, done.stderr

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return engine.cli(
            "jaula", "run", "--rm", "-i", "--profile", str(path), busybox, *words, input="a line\n"
        )

    done = run("sh", "-c", SCRIPT)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    assert run("/bin/ls").returncode == 126  # not executed in the record
    assert "ermission denied" in run("sh", "-c", "cat /etc/group").stderr
    assert "Read-only file system" in run("sh", "-c", "echo > /etc/x").stderr
    assert "Operation not permitted" in run("sh", "-c", "chroot / true").stderr
