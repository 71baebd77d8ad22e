"""``jaula why`` on running and exited containers, ``run --why``, twins, and the hint."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from harness import containers
from harness.engine import PROJECT, SLOW, PrivateEngine
from harness.terminal import Terminal

SECONDS = 30.0 * SLOW


def names(engine: PrivateEngine) -> list[str]:
    documents = engine.request("GET", "/containers/json?all=1").json()
    return [each["Names"][0].lstrip("/") for each in documents]


def ask(engine: PrivateEngine, *words: str) -> dict[str, Any]:
    done = engine.cli("jaula", "why", "--format", "json", *words)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_run_why_follows_the_first_process_from_its_first_instruction(
    engine: PrivateEngine, busybox: str
) -> None:
    name = containers.unique()
    done = engine.cli(
        "jaula", "run", "--rm", "--why", "--name", name, busybox,
        "sh", "-c", "hostname other; echo output; exit 7",
    )  # fmt: skip
    assert done.returncode == 7
    assert done.stdout == "output\n"
    assert f"{name}: exited, status 7" in done.stderr
    assert "sethostname" in done.stderr
    assert "--cap-add SYS_ADMIN" in done.stderr
    assert name not in names(engine)


@pytest.mark.parametrize("flags", [("--rm",), ()])
def test_run_why_explains_a_program_that_cannot_be_executed(
    engine: PrivateEngine, busybox: str, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    script = tmp_path / "script"
    script.write_bytes(b"#!/bin/sh\r\necho hello\r\n")
    script.chmod(0o755)
    name = containers.unique()
    done = engine.cli(
        "jaula", "run", *flags, "--why", "--name", name, "-v", f"{script}:/bin/script", busybox,
        "script",
    )  # fmt: skip
    try:
        assert done.returncode == 127, done.stderr
        assert "CR LF" in done.stderr
        assert (name in names(engine)) == (not flags)
    finally:
        engine.request("DELETE", f"/containers/{name}?force=1")


@pytest.mark.parametrize(
    ("flags", "message"),
    [(("-d",), "jaula why NAME"), (("--record=/absent/record",), "cannot be combined")],
)
def test_run_why_refuses_other_flags_and_creates_nothing(
    engine: PrivateEngine, busybox: str, flags: tuple[str, ...], message: str
) -> None:
    name = containers.unique()
    done = engine.cli("jaula", "run", *flags, "--why", "--name", name, busybox, "true")
    assert done.returncode == 125
    assert message in done.stderr
    assert name not in names(engine)


def test_memory_of_an_exited_container_is_explained(engine: PrivateEngine, busybox: str) -> None:
    name = containers.unique()
    flags = ("-m", "24m", "--memory-swap", "24m", "--name", name)
    done = engine.cli("jaula", "run", *flags, busybox, "tail", "/dev/zero")
    try:
        assert done.returncode == 137
        assert "why" not in done.stderr, "the hint is for terminals"
        (found,) = ask(engine, name)["diagnoses"]
        assert found["explanation"]["layer"] == "memory limit"
        assert "limit 24 MiB" in found["explanation"]["rule"]
    finally:
        engine.request("DELETE", f"/containers/{name}?force=1")


def test_an_exit_without_a_known_refusal_shows_the_log(engine: PrivateEngine, busybox: str) -> None:
    name = containers.unique()
    engine.cli("jaula", "run", "--name", name, busybox, "sh", "-c", "echo reason; exit 3")
    try:
        done = engine.cli("jaula", "why", name)
        assert done.returncode == 0, done.stderr
        assert "no refusal is known" in done.stdout
        assert "reason" in done.stdout
        assert "run --why" in done.stdout
    finally:
        engine.request("DELETE", f"/containers/{name}?force=1")


def test_a_running_container_is_followed_until_a_signal(
    engine: PrivateEngine, busybox: str
) -> None:
    with containers.running(engine, busybox) as name:
        process = subprocess.Popen(
            [str(PROJECT / "jaula"), "--host", engine.host, "why", name],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=engine.environment(),
        )
        try:
            assert process.stderr is not None
            assert "tracing" in process.stderr.readline()
            assert process.stdout is not None
            engine.cli("jaula", "exec", name, "hostname", "other")
            first = process.stdout.readline()
            assert "sethostname" in first, "a reason is printed at once"
            engine.cli("jaula", "exec", name, "hostname", "other")
            with containers.running(engine, busybox, "sh", "-c", "swapoff /x; sleep 60"):
                process.send_signal(2)
                process.wait(SECONDS)
                output, errors = process.stdout.read(), process.stderr.read()
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 0, errors
    assert output.count("refused by") == 1
    assert "       2  seccomp: sethostname" in output
    assert "swapoff" not in output, "another container"


def test_a_session_ends_after_a_time_and_with_the_container(
    engine: PrivateEngine, busybox: str
) -> None:
    with containers.running(engine, busybox) as name:
        done = engine.cli("jaula", "why", "--for", "200ms", name)
        assert "nothing was refused" in done.stdout
    with containers.running(engine, busybox, "sleep", "2") as name:
        done = engine.cli("jaula", "why", name)
        assert "exited, status 0" in done.stdout


def test_a_twin_proves_the_flag_and_is_removed(engine: PrivateEngine, busybox: str) -> None:
    with containers.running(engine, busybox) as name:
        before = names(engine)
        found = ask(engine, "--twin", name, "--", "sh", "-c",
                    "hostname other; mount -t ext4 /dev/absent /mnt")["diagnoses"]  # fmt: skip
        assert names(engine) == before
    proofs = {each["operations"][0]["call"]: each["explanation"]["proof"] for each in found}
    assert "with --cap-add SYS_ADMIN the call was not refused" in proofs["sethostname"]


def test_the_written_profile_allows_the_refused_calls_and_no_other(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    path = tmp_path / "profile.json"
    with containers.running(engine, busybox) as name:
        command = ("sh", "-c", "swapoff /absent; hostname other")
        found = ask(engine, "--seccomp-profile", str(path), name, "--", *command)["diagnoses"]
    flags = {each["operations"][0]["call"]: each["explanation"]["flag"] for each in found}
    assert flags["swapoff"] == f"--security-opt seccomp={path}"
    assert flags["sethostname"] == "--cap-add SYS_ADMIN"
    option = ("--security-opt", f"seccomp={path}")
    with containers.running(engine, busybox, flags=option) as name:
        found = ask(engine, name, "--", *command)["diagnoses"]
    layers = {each["operations"][0]["call"]: each["explanation"]["layer"] for each in found}
    assert layers == {"swapoff": "capability", "sethostname": "seccomp"}


def test_a_profile_is_never_overwritten(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    path = tmp_path / "profile.json"
    path.write_text("mine")
    with containers.running(engine, busybox) as name:
        done = engine.cli("jaula", "why", "--seccomp-profile", str(path), name, "--", "true")
        assert done.returncode == 1
        assert "exists" in done.stderr
        other = str(tmp_path / "other")
        done = engine.cli("jaula", "why", "--seccomp-profile", other, name, "--", "true")
        assert "no profile was written" in done.stdout
    assert path.read_text() == "mine"
    assert [each.name for each in tmp_path.iterdir()] == ["profile.json"]


PROFILE = """
version = 1
name = "web"
[files]
execute = ["/bin/sh", "/bin/sleep"]
"""


@pytest.fixture
def profile(tmp_path: Path) -> tuple[str, ...]:
    path = tmp_path / "web.toml"
    path.write_text(PROFILE)
    return ("--profile", str(path))


def test_a_start_that_a_profile_refuses_names_landlock_and_the_item(
    engine: PrivateEngine, busybox: str, profile: tuple[str, ...]
) -> None:
    with containers.running(engine, busybox, flags=profile) as name:
        for words in (("ls", "/"), ("sh", "-c", "/bin/ls /")):
            (found,) = ask(engine, name, "--", *words)["diagnoses"]
            explanation = found["explanation"]
            assert found["operations"][0]["errno"] == "EACCES"
            assert explanation["layer"] == "landlock"
            assert "no rule allows to execute /bin/ls" in explanation["rule"]
            assert "the rules to execute are for /bin/sh" in explanation["proof"]
            assert 'add "/bin/ls" to files.execute of the profile web' in explanation["in_profile"]
            assert not explanation["flag"], "the option would replace the lists of the profile"
        (found,) = ask(engine, name, "--", "/etc/passwd")["diagnoses"]
        assert "no execute bit" in found["explanation"]["rule"]
        (found,) = ask(engine, name, "--", "absent")["diagnoses"]
        assert "in no directory of PATH" in found["explanation"]["rule"]


def test_a_start_is_refused_to_a_user_by_the_mode(engine: PrivateEngine, busybox: str) -> None:
    flags = ("--cap-drop", "DAC_OVERRIDE")  # the runtime has it until execve
    with containers.running(engine, busybox, flags=flags) as name:
        engine.cli("jaula", "exec", name, "cp", "/bin/busybox", "/tmp/sleep")
        engine.cli("jaula", "exec", name, "chmod", "700", "/tmp/sleep")
        (found,) = ask(engine, "--user", "nobody", name, "--", "/tmp/sleep", "0")["diagnoses"]
    explanation = found["explanation"]
    assert explanation["layer"] == "file permission"
    assert "/tmp/sleep has mode 0700 and belongs to user 0" in explanation["rule"]
    assert "the process is user 65534" in explanation["rule"]
    assert explanation["flag"] == "--user 0"


def test_a_container_that_a_profile_does_not_let_start_names_landlock(
    engine: PrivateEngine, busybox: str, profile: tuple[str, ...]
) -> None:
    name = containers.unique()
    done = engine.cli("jaula", "run", "--name", name, *profile, "--why", busybox, "ls")
    try:
        assert done.returncode == 126, done.stderr
        assert 'add "/bin/ls" to files.execute of the profile web' in done.stderr
        (found,) = ask(engine, name)["diagnoses"]
        assert found["explanation"]["layer"] == "landlock"
    finally:
        engine.request("DELETE", f"/containers/{name}?force=1")


def test_a_symbolic_link_counts_as_its_target(engine: PrivateEngine, busybox: str) -> None:
    flags = ("--tmpfs", "/t:exec", "--security-opt", "landlock=execute=/bin/",
             "--security-opt", "landlock=execute=/t/listed")  # fmt: skip
    with containers.running(engine, busybox, flags=flags) as name:
        command = "cp /bin/busybox /t/sleep; ln -s /t/sleep /t/link; /t/link 0"
        (found,) = ask(engine, name, "--", "sh", "-c", command)["diagnoses"]
        assert "execute /t/link (it is /t/sleep)" in found["explanation"]["rule"]
        assert found["explanation"]["flag"] == "--security-opt landlock=execute=/t/sleep"


def test_a_command_that_ends_with_126_itself_was_started(
    engine: PrivateEngine, busybox: str
) -> None:
    with containers.running(engine, busybox, flags=("--read-only",)) as name:
        report = ask(engine, name, "--", "sh", "-c", "echo x > /ro; exit 126")
        (found,) = report["diagnoses"]
        assert found["explanation"]["layer"] == "read-only mount"
        assert "126" in report["state"]
        report = ask(engine, name, "--", "sh", "-c", "echo permission denied >&2; exit 126")
        assert report["diagnoses"] == []


def test_a_twin_needs_a_command(engine: PrivateEngine, busybox: str) -> None:
    with containers.running(engine, busybox) as name:
        done = engine.cli("jaula", "why", "--twin", name)
        assert done.returncode == 1
        assert "--twin needs a COMMAND" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("absent-container",), "No such container"),
        (("--for", "x", "y"), "invalid argument"),
        (("--for", "-1s", "y"), "must be positive"),
        (("--format", "xml", "y"), "xml"),
        ((), "requires at least 1 argument"),
    ],
)
def test_errors_are_one_line(engine: PrivateEngine, words: tuple[str, ...], message: str) -> None:
    done = engine.cli("jaula", "why", *words)
    assert done.returncode != 0
    assert message in done.stderr
    assert not done.stdout


def test_the_hint_is_printed_on_a_terminal_only(engine: PrivateEngine, busybox: str) -> None:
    name = containers.unique()
    words = ["run", "--name", name, busybox, "sh", "-c", "exit 126"]
    command = [str(PROJECT / "jaula"), "--host", engine.host]
    try:
        with Terminal([*command, *words], engine.environment()) as terminal:
            terminal.expect(f"jaula: to see why: jaula why {re.escape(name)}\r\n")
            assert terminal.wait() == 126
        done = engine.cli("jaula", "run", "--rm", busybox, "sh", "-c", "exit 126")
        assert (done.returncode, done.stderr) == (126, "")
    finally:
        engine.request("DELETE", f"/containers/{name}?force=1")
    with containers.running(engine, busybox) as running:
        words = ["exec", running, "sh", "-c", "exit 127"]
        with Terminal([*command, *words], engine.environment()) as terminal:
            terminal.expect(f"jaula: to see why: jaula why {re.escape(running)} -- sh")
            assert terminal.wait() == 127
        with Terminal([*command, *words[:-1], "exit 1"], engine.environment()) as terminal:
            assert terminal.wait() == 1
            assert "why" not in terminal.seen


def test_run_why_knows_the_rules_of_a_container_that_it_starts(
    engine: PrivateEngine, busybox: str, profile: tuple[str, ...]
) -> None:
    command = "/bin/sh -c true; /bin/ls /; cat /etc/shadow; sleep 1"
    done = engine.cli("jaula", "run", "--rm", *profile, "--why", busybox, "sh", "-c", command)
    assert done.stderr.count("refused by  landlock") == 1, done.stderr
    assert "no rule allows to execute /bin/ls" in done.stderr
    assert "none is for the inode" in " ".join(done.stderr.split())
