"""A call of an external runtime: its error message, exit code and timeout."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.errors import RuntimeFailure
from jaula.runtime.external import command_line
from jaula.runtime.shim_protocol import ExternalRuntime


def test_the_last_error_of_the_log_is_the_reason() -> None:
    log = b"""{"level":"error","msg":"first"}
{"level":"warning","msg":"careful"}
{"level":"error","msg":"second\\nline","time":"x"}
{"level":"info","msg":"bye"}
"""
    assert command_line.error_message(log, b"printed") == "second line"


@pytest.mark.parametrize(
    ("log", "output", "reason"),
    [
        (b"", b"", "no error message"),
        (b"", b"one\ntwo\n\n", "two"),
        (b"not json\n[1]\n{}\n", b"printed", "printed"),
        (b'{"level":"error","msg":7}', b"", "no error message"),
        (b'{"level":"error","msg":""}', b"x", "x"),
        (b'{"level":"ERROR","msg":"loud"}', b"", "loud"),
        (b"[" * 100_000, b"x", "x"),
        (b'{"level":"error","msg":"cut', b"x", "x"),
        (b'{"level":"error","msg":"a\\u001b[31mb\\u0000c"}', b"", "a [31mb c"),
        (b"\xff\xfe\n", b"\xff!", "\N{REPLACEMENT CHARACTER}!"),
    ],
)
def test_any_output_of_a_runtime_gives_one_line(log: bytes, output: bytes, reason: str) -> None:
    assert command_line.error_message(log, output) == reason


@given(st.binary(), st.binary())
def test_any_bytes_give_a_printable_line(log: bytes, output: bytes) -> None:
    text = command_line.error_message(log, output)
    assert text
    assert text.isprintable()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('exec: "prog": executable file not found in $PATH', 127),
        ('exec: "prog": stat prog: no such file or directory', 127),
        ("executable file `prog` not found in $PATH: No such file or directory", 127),
        ("open executable: Permission denied", 126),
        ('exec: "prog": permission denied', 126),
        ('exec: "prog": is a directory', 126),
        ("the path `prog` is not a regular file: Operation not permitted", 126),
        ("exec prog: exec format error", 126),
        ("mount /etc/x: no such file or directory", 125),
        ("cgroup: permission denied", 125),
        ("", 125),
    ],
)
def test_only_an_error_about_the_program_sets_its_exit_code(text: str, code: int) -> None:
    assert command_line.exit_code(text, "prog") == code


def test_an_error_has_the_phrases_that_docker_searches_for() -> None:
    message = "executable file `prog` not found in $PATH: No such file or directory"
    assert "executable file not found" in command_line.docker_message(message, "prog", 127)
    message = 'exec: "prog": executable file not found in $PATH'
    assert command_line.docker_message(message, "prog", 127) == message
    assert "permission denied" in command_line.docker_message("the path `prog` is odd", "prog", 126)
    assert command_line.docker_message("anything", "prog", 125) == "anything"


def script(directory: Path, body: str, *, timeout: float = 60) -> ExternalRuntime:
    path = directory / "runtime.sh"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return ExternalRuntime("test", str(path), ("--own",), timeout=timeout)


def test_arguments_have_the_order_that_runtimes_expect(tmp_path: Path) -> None:
    runtime = script(tmp_path, f'echo "$@" >{tmp_path}/words')
    command_line.call(runtime, str(tmp_path), "kill", "ID", "9")
    assert (tmp_path / "words").read_text().split() == [
        *("--own", "--root", f"{tmp_path}/runtime"),
        *("--log", f"{tmp_path}/runtime.log", "--log-format", "json"),
        *("kill", "ID", "9"),
    ]


def test_a_hanging_runtime_is_killed_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The timeout passes after the runtime has started its child and reported it."""
    started = tmp_path / "pid"
    clock = SimpleNamespace(monotonic=lambda: 1.0 if started.exists() else 0.0)
    monkeypatch.setattr(command_line, "time", clock)
    body = f"sleep 777 & echo $! >{tmp_path}/new; mv {tmp_path}/new {started}; echo; sleep 777"
    runtime = script(tmp_path, body, timeout=0.5)
    begun = time.monotonic()
    with pytest.raises(RuntimeFailure, match=r"has not exited after 0\.5 seconds"):
        command_line.call(runtime, str(tmp_path), "create")
    assert time.monotonic() - begun < 5
    child = int((tmp_path / "pid").read_text())
    until = time.monotonic() + 5
    while os.path.exists(f"/proc/{child}") and time.monotonic() < until:
        if "Z" in Path(f"/proc/{child}/stat").read_text():
            return  # dead, and another's to reap
        time.sleep(0.01)
    assert not os.path.exists(f"/proc/{child}")


def test_a_child_that_keeps_the_output_open_is_not_awaited(tmp_path: Path) -> None:
    runtime = script(tmp_path, f"echo reason >&2; sleep 777 & echo $! >{tmp_path}/pid; exit 3")
    begun = time.monotonic()
    with pytest.raises(RuntimeFailure, match="OCI runtime delete failed: reason"):
        command_line.call(runtime, str(tmp_path), "delete", timeout=60)
    assert time.monotonic() - begun < 30
    os.kill(int((tmp_path / "pid").read_text()), 9)


def test_an_old_error_of_the_log_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "runtime.log").write_text('{"level":"error","msg":"old"}\n')
    runtime = script(tmp_path, "exit 1")
    with pytest.raises(RuntimeFailure, match="no error message"):
        command_line.call(runtime, str(tmp_path), "create")


def test_a_truncated_log_is_read_from_its_start(tmp_path: Path) -> None:
    (tmp_path / "runtime.log").write_text("x" * 500)
    runtime = script(
        tmp_path, f'echo \'{{"level":"error","msg":"new"}}\' >{tmp_path}/runtime.log; exit 1'
    )
    with pytest.raises(RuntimeFailure, match="create failed: new"):
        command_line.call(runtime, str(tmp_path), "create")


@pytest.mark.parametrize("how", ["missing", "a directory", "not executable", "no interpreter"])
def test_a_runtime_that_cannot_be_executed_is_an_error(tmp_path: Path, how: str) -> None:
    path = tmp_path / "program"
    if how == "a directory":
        path.mkdir()
    elif how != "missing":
        path.write_text("#!/nosuch\n")
        path.chmod(0o755 if how == "no interpreter" else 0o644)
    with pytest.raises(RuntimeFailure, match=f"cannot execute {path}") as caught:
        command_line.call(ExternalRuntime("test", str(path)), str(tmp_path), "create", program="x")
    assert caught.value.exit_code == 125


def test_a_service_managers_variables_are_not_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/x")
    runtime = script(tmp_path, f'echo "[$NOTIFY_SOCKET]" >{tmp_path}/said')
    command_line.call(runtime, str(tmp_path), "create")
    assert (tmp_path / "said").read_text() == "[]\n"
