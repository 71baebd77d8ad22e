"""``exec``: the added process by flags and by a document, and its exit."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.containers import eventually, status
from harness.private_runtime import RUNTIME, Bundle, Config, PrivateRuntime
from harness.terminal import Terminal

NAMESPACES = ("mnt", "uts", "net", "ipc", "pid", "cgroup", "user")


@pytest.fixture(scope="module")
def box(runtime: PrivateRuntime) -> Iterator[Bundle]:
    """A container for all tests of the module; exec must not change it."""
    process = {"env": ["PATH=/bin", "OWN=1"], "cwd": "/tmp", "user": {"uid": 0, "gid": 0}}
    with runtime.started({"process": process}) as bundle:
        yield bundle


def one_line(done: subprocess.CompletedProcess[str], code: int) -> str:
    assert done.returncode == code, done.stderr
    (line,) = done.stderr.splitlines()
    return line


def test_a_process_is_in_the_container_s_namespaces_and_cgroup(box: Bundle) -> None:
    links = box.inside("; ".join(f"readlink /proc/self/ns/{kind}" for kind in NAMESPACES))
    assert links.split() == [os.readlink(f"/proc/{box.pid}/ns/{kind}") for kind in NAMESPACES]
    assert box.inside("cut -d: -f3 /proc/self/cgroup | sort -u") == "/\n"
    assert box.inside("grep Seccomp: /proc/self/status") == "Seccomp:\t2\n"


@pytest.mark.parametrize(
    ("flags", "script", "printed"),
    [
        ([], "pwd; echo $OWN", "/tmp\n1\n"),
        (["--cwd", "/etc"], "pwd", "/etc\n"),
        (["--env", "A=1", "-e", "B=2", "--env=OWN=2"], "echo $A $B $OWN", "1 2 2\n"),
        (["--user", "7:8"], "id -u; id -g", "7\n8\n"),
        (["--user", "7"], "id -u; id -g", "7\n0\n"),
        (
            ["-u", "7:8", "-g", "9", "--additional-gids", "10"],
            "grep Groups /proc/self/status",
            "Groups:\t9 10 \n",
        ),
        (["--no-new-privs"], "grep NoNew /proc/self/status", "NoNewPrivs:\t1\n"),
        (
            ["--cap", "CAP_SYS_PTRACE", "-c", "CAP_CHOWN"],
            "grep CapEff /proc/self/status",
            f"CapEff:\t{1 << 19 | 1 << 0 | 1 << 5 | 1 << 10 | 1 << 29:016x}\n",
        ),
        (
            ["--cap", "CAP_SYS_PTRACE", "--user", "1000"],
            "grep -E 'Cap(Eff|Amb)' /proc/self/status",
            f"CapEff:\t{1 << 19:016x}\nCapAmb:\t{1 << 19:016x}\n",
        ),
    ],
)
def test_flags_change_the_container_s_own_process(
    box: Bundle, flags: list[str], script: str, printed: str
) -> None:
    done = box.exec("sh", "-c", script, flags=flags)
    assert (done.stdout, done.stderr, done.returncode) == (printed, "", 0)


def test_a_process_without_flags_has_the_container_s_capabilities(box: Bundle) -> None:
    own = status(box.pid)
    lines = box.inside("grep ^Cap /proc/self/status").splitlines()
    inside = dict(line.split("\t") for line in lines)
    assert inside == {f"{key}:": own[key] for key in own if key.startswith("Cap")}


def test_a_document_replaces_the_container_s_process(box: Bundle, tmp_path: Path) -> None:
    seen = "pwd; id -u; echo $OWN$X"
    document = {
        "cwd": "/etc",
        "args": ["sh", "-c", f"{seen}; umask; ulimit -n; grep CapBnd /proc/self/status"],
        "env": ["PATH=/bin", "X=x"],
        "user": {"uid": 3, "gid": 4, "umask": 0o77},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 44, "hard": 55}],
        "capabilities": {"bounding": ["CAP_KILL"]},
        "oomScoreAdj": 5,
    }
    path = tmp_path / "process.json"
    path.write_text(json.dumps(document))
    done = box.command("exec", "--process", str(path), box.id)
    assert done.stdout.split("\n")[:5] == ["/etc", "3", "x", "0077", "44"]
    assert done.stdout.split()[-1] == f"{1 << 5:016x}"
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ("", "input data was truncated"),
        ({"args": ["true"]}, "missing required field `cwd`"),
        ({"cwd": "/"}, "process.args: is empty"),
        ({"cwd": "x", "args": ["true"]}, "process.cwd: 'x' is not an absolute path"),
        ({"cwd": "/", "args": ["true"], "apparmorProfile": "p"}, "process.apparmorProfile"),
        ({"cwd": "/", "args": ["true"], "selinuxLabel": "p"}, "process.selinuxLabel"),
    ],
)
def test_a_bad_document_is_refused_in_one_line(
    box: Bundle, tmp_path: Path, document: Any, text: str
) -> None:
    path = tmp_path / "process.json"
    path.write_text(json.dumps(document) if document else "")
    done = box.command("exec", "--process", str(path), box.id)
    assert text.lower() in one_line(done, 255).lower()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 42"], 42),
        (["sh", "-c", "kill -9 $$"], 137),
        (["sh", "-c", "kill -TERM $$"], 143),
    ],
)
def test_the_exit_status_is_the_program_s(box: Bundle, words: list[str], code: int) -> None:
    done = box.exec(*words)
    assert (done.returncode, done.stderr) == (code, "")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["nope"], 'exec: \\"nope\\": executable file not found in $PATH'),
        (["/bin/nope"], "no such file or directory"),
        (["/etc"], "permission denied"),
        (["/tmp"], "permission denied"),
    ],
)
@pytest.mark.parametrize("flags", [[], ["--detach"]])
def test_a_program_that_cannot_be_run_is_255_and_one_line(
    box: Bundle, words: list[str], text: str, flags: list[str]
) -> None:
    done = box.exec(*words, flags=flags)
    assert text in one_line(done, 255)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "requires a minimum of 1 argument"),
        (["BOX"], "process args cannot be empty"),
        (["nonexistent", "true"], "container nonexistent does not exist"),
        (["--user", "root", "BOX", "true"], "ids must be numeric"),
        (["--tty", "--detach", "BOX", "true"], "without a console socket"),
        (["--console-socket", "/x", "BOX", "true"], "for a process without a terminal"),
        (["--cwd", "tmp", "BOX", "true"], "process.cwd: 'tmp' is not an absolute path"),
        (["--cwd", "/nonexistent", "BOX", "true"], "/nonexistent"),
        (["--cgroup", "absent", "BOX", "true"], "--cgroup: the container has no cgroup absent"),
        (["--cgroup", "../x", "BOX", "true"], "--cgroup: ../x: invalid cross-device link"),
        (["--cgroup", "none:x", "BOX", "true"], "the container has no controller 'none'"),
        (
            ["--cgroup", "a", "--cgroup", "b", "BOX", "true"],
            "--cgroup 'a': a controller is missing",
        ),
        (["--flag", "BOX", "true"], "flag provided but not defined: -flag"),
    ],
)
def test_an_invalid_command_line_is_refused_in_one_line(
    box: Bundle, words: list[str], text: str
) -> None:
    line = [box.id if word == "BOX" else word for word in words]
    done = box.command("exec", *line)
    assert done.returncode in (1, 255)
    assert text in one_line(done, done.returncode)


def test_a_detached_process_is_the_caller_s_child(box: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with out.open("wb") as file:
        code = subprocess.run(
            [
                RUNTIME,
                "--root",
                box.runtime.root,
                "exec",
                "--detach",
                "--pid-file",
                tmp_path / "pid",
                box.id,
                "sh",
                "-c",
                "echo out; exit 9",
            ],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            timeout=20,
            check=False,
        ).returncode
    assert code == 0
    text = (tmp_path / "pid").read_text()
    assert text.isdecimal()
    _, wait = os.waitpid(int(text), 0)
    assert os.waitstatus_to_exitcode(wait) == 9
    assert out.read_text() == "out\n"


def test_a_terminal_is_relayed(box: Bundle) -> None:
    line = [str(RUNTIME), "--root", str(box.runtime.root), "exec", "--tty", box.id, "sh"]
    with Terminal(line, dict(os.environ), rows=30, columns=100) as person:
        person.expect("# ")
        person.send("stty size; tty\r")
        person.expect(r"30 100\r\n/dev/pts/\d+")
        person.resize(20, 60)
        os.kill(person.process.pid, signal.SIGWINCH)
        time.sleep(0.2)
        person.send("stty size\r")
        person.expect("20 60")
        person.send("sleep 100\r")
        person.expect("sleep 100\r\n")
        time.sleep(0.2)
        person.send("\x03")  # the program's terminal interrupts it, and the shell continues
        person.expect("# ")
        person.send("exit 5\r")
        assert person.wait() == 5


def test_a_terminal_goes_to_the_console_socket(box: Bundle, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "console"))
        listening.listen()
        listening.settimeout(10)
        document = {
            "cwd": "/",
            "args": ["sh", "-c", "stty size; tty; exit 4"],
            "env": ["PATH=/bin"],
            "terminal": True,
            "consoleSize": {"height": 11, "width": 22},
            "user": {"uid": 0, "gid": 0},
        }
        (tmp_path / "process").write_text(json.dumps(document))
        flags = ["--console-socket", str(tmp_path / "console"), "--detach"]
        pid_file = ["--pid-file", str(tmp_path / "pid")]
        done = box.command(
            "exec", *flags, *pid_file, "--process", str(tmp_path / "process"), box.id
        )
        assert done.returncode == 0, done.stderr
        peer, _ = listening.accept()
        with peer:
            _, fds, _, _ = socket.recv_fds(peer, 100, 1)
    text = b""
    while True:
        try:
            text += os.read(fds[0], 4096)
        except OSError:  # no process has its other end
            break
    os.close(fds[0])
    assert text.startswith(b"11 22\r\n/dev/pts/")
    _, wait = os.waitpid(int((tmp_path / "pid").read_text()), 0)
    assert os.waitstatus_to_exitcode(wait) == 4


def test_signals_go_to_the_process(box: Bundle) -> None:
    script = "trap 'echo got it; exit 3' TERM; echo ready; while :; do sleep 0.05; done"
    line = [RUNTIME, "--root", box.runtime.root, "exec", box.id, "sh", "-c", script]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"ready\n"
        running.terminate()
        assert running.stdout.read() == b"got it\n"
        assert running.wait(10) == 3


def test_an_exec_exits_with_its_container(runtime: PrivateRuntime) -> None:
    with runtime.started() as bundle:
        line = [
            RUNTIME,
            "--root",
            runtime.root,
            "exec",
            bundle.id,
            "sh",
            "-c",
            "echo ready; sleep 100",
        ]
        with subprocess.Popen(line, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as running:
            assert running.stdout is not None
            assert running.stdout.readline() == b"ready\n"
            assert bundle.command("kill", bundle.id, "KILL").returncode == 0
            assert running.wait(10) == 137


def test_many_execs_run_at_once(box: Bundle) -> None:
    line = [RUNTIME, "--root", box.runtime.root, "exec", box.id, "sh", "-c", "exit $0"]
    running = [
        subprocess.Popen([*line, str(n)], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for n in range(10)
    ]
    try:
        assert [one.wait(20) for one in running] == list(range(10))
    finally:
        for one in running:
            one.kill()
            one.communicate()
    words = ("ps", "--format", "json", box.id)
    eventually(lambda: json.loads(box.command(*words).stdout) == [box.pid], "all end")


def test_an_exec_in_a_paused_container_is_frozen(runtime: PrivateRuntime) -> None:
    with runtime.started() as bundle:
        assert bundle.command("pause", bundle.id).returncode == 0
        line = [
            RUNTIME,
            "--root",
            runtime.root,
            "exec",
            "--ignore-paused",
            bundle.id,
            "echo",
            "late",
        ]
        with subprocess.Popen(line, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as running:
            time.sleep(0.3)
            assert running.poll() is None  # frozen with the rest
            assert bundle.command("resume", bundle.id).returncode == 0
            assert running.wait(10) == 0
            assert running.stdout is not None
            assert running.stdout.read() == b"late\n"


def test_an_exec_joins_the_user_namespace(runtime: PrivateRuntime) -> None:
    rows = [{"containerID": 0, "hostID": 1_700_000_000, "size": 1000}]
    kinds = ("pid", "network", "mount", "ipc", "uts", "cgroup", "user")
    changes: Config = {
        "linux": {
            "namespaces": [{"type": kind} for kind in kinds],
            "uidMappings": rows,
            "gidMappings": rows,
        }
    }
    with runtime.started(changes) as bundle:
        done = bundle.exec("sh", "-c", "id -u; id -g", flags=["--user", "5:6"])
        assert done.stdout == "5\n6\n", done.stderr
        assert done.returncode == 0


def test_a_process_enters_a_cgroup_below_the_container_s(box: Bundle) -> None:
    lines = [line.split(":", 2) for line in box.proc("cgroup").splitlines()]
    names = [("", "/sys/fs/cgroup")]
    if Path("/sys/fs/cgroup/pids").is_dir():
        names = [("pids:", "/sys/fs/cgroup/pids")]
    ((prefix, mount),) = names
    own = next(path for _, name, path in lines if name == prefix.rstrip(":"))
    below = Path(mount + own) / "below"
    below.mkdir()
    try:
        done = box.exec("cat", "/proc/self/cgroup", flags=["--cgroup", f"{prefix}below"])
        assert done.returncode == 0, done.stderr
        found = [line.split(":", 2) for line in done.stdout.splitlines()]
        assert next(path for _, name, path in found if name == prefix.rstrip(":")) == "/below"
        others = {name: path for _, name, path in found if name != prefix.rstrip(":")}
        assert "/below" not in others.values()
    finally:
        below.rmdir()


def test_a_process_may_come_from_a_pipe(box: Bundle) -> None:
    document = {"cwd": "/", "args": ["echo", "from a pipe"], "env": ["PATH=/bin"]}
    read_end, write_end = os.pipe()
    os.write(write_end, json.dumps(document).encode())
    os.close(write_end)
    try:
        done = box.command("exec", "--process", "/dev/stdin", box.id, stdin=read_end)
    finally:
        os.close(read_end)
    assert (done.stdout, done.returncode) == ("from a pipe\n", 0), done.stderr
