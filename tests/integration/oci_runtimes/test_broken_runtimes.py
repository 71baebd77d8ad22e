"""Broken runtimes: one clear error, in time, and nothing is left."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import containers, leaks
from harness.engine import PROJECT, PrivateEngine

IMAGE = "busybox"
LIMIT = 2  # seconds that these runtimes are given

SCRIPTS = {
    # Behaviour on create, and the client's error.
    "hangs": ("sleep 86371", "has not exited after 2 seconds and was killed"),
    "hangs-with-child": ("sleep 86371 & sleep 86371", "has not exited after 2 seconds"),
    "floods": ("exec yes garbage >&2", "has not exited after 2 seconds"),
    "garbles-log": ("head -c 100000 /dev/urandom >$log; exit 1", "no error message"),
    "garbles-json": ('echo \'{"level":"error","msg":[[[\' >$log; exit 1', "no error message"),
    "log-is-fifo": ("rm -f $log; mkfifo $log; exit 1", "no error message"),
    "says-why": (
        'echo \'{"level":"error","msg":"no luck"}\' >$log; exit 1',
        "failed: no luck",
    ),
    "says-on-stderr": ("echo plain reason >&2; exit 1", "create failed: plain reason"),
    "writes-no-pid": ("exit 0", "no pid file was written"),
    "pid-garbage": ("echo hello >$pidfile", "is not a process id"),
    "pid-of-init": ("echo 1 >$pidfile", "is not a process id"),
    "pid-of-another": ("echo $PPID >$pidfile", "of the pid file is not its child"),
    "pid-of-nobody": ("echo 4194000 >$pidfile", "of the pid file is not its child"),
    "kills-itself": ("kill -9 $$", "was killed by signal 9"),
    "leaves-a-process": ("sleep 86371 & exit 1", "no error message"),
}
PREFIX = """#!/bin/sh
log=/dev/null pidfile=/dev/null call=
while [ $# -gt 0 ]; do
    case $1 in
        --log) log=$2; shift ;;
        --pid-file) pidfile=$2; shift ;;
        create|start|kill|delete|features) call=$1 ;;
    esac
    shift
done
[ "$call" = create ] || exit 0
"""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("runtimes")
    made = {}
    for name, (body, _) in SCRIPTS.items():
        made[name] = directory / name
        made[name].write_text(PREFIX + body + "\n")
        made[name].chmod(0o755)
    made["not-executable"] = directory / "not-executable"
    made["not-executable"].write_text("#!/bin/sh\n")
    made["no-interpreter"] = directory / "no-interpreter"
    made["no-interpreter"].write_text("#!/nosuch\n")
    made["no-interpreter"].chmod(0o755)
    made["missing"] = directory / "missing"
    return made


def configured(scripts: dict[str, Path]) -> list[str]:
    flags = ["--runtime-timeout", str(LIMIT)]
    for name, path in scripts.items():
        flags += ["--add-runtime", f"{name}={path}"]
    return flags


def test_each_broken_runtime_gives_one_clear_error_and_leaves_nothing(
    own: Callable[..., PrivateEngine], scripts: dict[str, Path]
) -> None:
    engine = own(*configured(scripts))
    expected = {name: text for name, (_, text) in SCRIPTS.items()} | {
        "not-executable": "cannot execute",
        "no-interpreter": "cannot execute",
        "missing": "cannot execute",
    }
    for name, text in expected.items():
        begun = time.monotonic()
        done = engine.cli("jaula", "run", "--rm", "--runtime", name, IMAGE, "true")
        assert done.returncode == 125, (name, done.stderr)
        assert text in done.stderr, (name, done.stderr)
        assert done.stderr.isprintable() or "\n" in done.stderr
        assert time.monotonic() - begun < LIMIT + 15, name
        containers.assert_clean(engine)
        assert not list((engine.run / "containers").glob("*/runtime.json")), name
        assert not _of_scripts(scripts), name
    # The engine is well.
    assert engine.cli("jaula", "run", "--rm", IMAGE, "true").returncode == 0


def _of_scripts(scripts: dict[str, Path]) -> list[str]:
    """Processes that a script has left."""
    result = []
    mark = str(next(iter(scripts.values())).parent).encode()
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            words = (directory / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[:2] == [b"sleep", b"86371"] or (words[0] == b"/bin/sh" and mark in words[1]):
            result.append(f"{directory.name} {words}")
    return result


def test_an_unknown_name_is_refused_in_dockers_words(
    own: Callable[..., PrivateEngine],
) -> None:
    engine = own()
    body = {"Image": IMAGE, "Cmd": ["true"], "HostConfig": {"Runtime": "nosuch"}}
    reply = engine.request("POST", "/containers/create", body)
    assert reply.status == 400
    assert reply.json()["message"] == "unknown or invalid runtime name: nosuch"
    assert not leaks.of_containers(engine)


@pytest.mark.slow
def test_a_runtime_that_hangs_in_kill_does_not_prevent_the_kill(
    own: Callable[..., PrivateEngine], tmp_path: Path, runtime: str
) -> None:
    from integration.oci_runtimes.conftest import RUNTIMES

    script = tmp_path / "stubborn"
    script.write_text(
        '#!/bin/sh\nfor word; do [ "$word" = kill ] && exec sleep 500; done\n'
        f'exec {RUNTIMES[runtime]} "$@"\n'
    )
    script.chmod(0o755)
    engine = own("--runtime-timeout", str(LIMIT), "--add-runtime", f"stubborn={script}")
    with containers.running(engine, IMAGE, flags=("--runtime", "stubborn")) as name:
        pid = containers.pid(engine, name)
        done = engine.cli("jaula", "kill", name)
        assert done.returncode == 0, done.stderr
        containers.eventually(lambda: not os.path.exists(f"/proc/{pid}"), "it ends")
    containers.assert_clean(engine)


@pytest.mark.parametrize("terminal", [(), ("-t",)], ids=["pipes", "terminal"])
def test_a_runtime_that_changes_the_owner_of_its_stdio_changes_nothing_of_the_host(
    own: Callable[..., PrivateEngine], tmp_path: Path, terminal: tuple[str, ...]
) -> None:
    """crun changes the owner of its descriptors 0 to 2 to the container's user."""
    giving = tmp_path / "giving"
    giving.write_text(
        "#!/bin/sh\n"
        "for word; do case $word in create|exec) chown -L 7:8 /proc/$$/fd/[012] ;; esac; done\n"
        f'exec {PROJECT / "jaula-runtime"} "$@"\n'
    )
    giving.chmod(0o755)
    engine = own("--add-runtime", f"giving={giving}")
    before = os.stat("/dev/null")
    flags = ("-d", *terminal, "--name", "box", "--runtime", "giving")
    words = ("run", *flags, IMAGE, "sleep", "600")
    done = engine.cli("jaula", *words)
    assert done.returncode == 0, done.stderr
    output = engine.cli("jaula", "exec", "box", "sh", "-c", "cat; stat -L -c %u /proc/self/fd/1")
    assert (output.returncode, output.stderr) == (0, "")
    after = os.stat("/dev/null")
    assert (after.st_uid, after.st_gid, after.st_mode) == (
        before.st_uid,
        before.st_gid,
        before.st_mode,
    )
    assert engine.cli("jaula", "logs", "box").returncode == 0
