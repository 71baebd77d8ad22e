"""config.md "POSIX-platform Hooks", runtime.md "Lifecycle": time, namespace and input of hooks."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.containers import eventually
from harness.private_runtime import RUNTIME, Bundle, Config, PrivateRuntime

RUNTIME_POINTS = ("prestart", "createRuntime", "poststart", "poststop")
CONTAINER_POINTS = ("createContainer", "startContainer")
LIFE = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
SHELL = "/bin/sh"  # busybox's in the container, the host's outside
KINDS = ("mnt", "uts", "net", "ipc", "pid", "cgroup")


def hook(script: str, *, timeout: int | None = None, env: list[str] | None = None) -> Config:
    result: Config = {"path": SHELL, "args": ["sh", "-c", script], "env": env or ["PATH=/bin"]}
    return result | ({"timeout": timeout} if timeout else {})


class Notes:
    """A directory of the host, bound into the container, in which hooks of all points write."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.mount = {
            "destination": "/notes",
            "type": "bind",
            "source": str(path),
            "options": ["bind", "rw"],
        }

    def place(self, point: str) -> str:
        """The directory as a hook of that point sees it."""
        return "/notes" if point == "startContainer" else str(self.path)

    def read(self, name: str) -> str:
        return (self.path / name).read_text()

    def lines(self) -> list[str]:
        order = self.path / "order"
        return order.read_text().splitlines() if order.exists() else []


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path / "notes")


def bundle_with(runtime: PrivateRuntime, notes: Notes, hooks: Config, **changes: Any) -> Bundle:
    mounts = [*runtime.config["mounts"], notes.mount]
    return runtime.bundle({"hooks": hooks, "mounts": mounts, **changes}, own_root=True)


def noting(notes: Notes, point: str, word: str = "", then: str = "true") -> Config:
    return hook(f"echo {word or point} >> {notes.place(point)}/order; {then}")


def test_hooks_run_in_the_order_of_the_specification(runtime: PrivateRuntime, notes: Notes) -> None:
    hooks = {point: [noting(notes, point, f"{point}{n}") for n in (1, 2)] for point in LIFE}
    bundle = bundle_with(runtime, notes, hooks)
    expected = [f"{point}{n}" for point in LIFE for n in (1, 2)]
    bundle.create()
    assert notes.lines() == expected[:6]
    assert bundle.start().returncode == 0
    assert notes.lines() == expected[:10]
    assert bundle.delete("--force").returncode == 0
    assert notes.lines() == expected


def test_state_on_standard_input(runtime: PrivateRuntime, notes: Notes) -> None:
    hooks = {p: [hook(f"cat > {notes.place(p)}/{p}.json")] for p in LIFE}
    annotations = {"org.example.key": "välue", "empty": "", "startContainer": "poststart"}
    bundle = bundle_with(runtime, notes, hooks, annotations=annotations)
    bundle.create()
    assert bundle.start().returncode == 0
    assert bundle.delete("--force").returncode == 0
    statuses = dict.fromkeys(LIFE, "creating") | {
        "startContainer": "created",
        "poststart": "running",
        "poststop": "stopped",
    }
    for point in LIFE:
        state = json.loads(notes.read(f"{point}.json"))
        pid = {"createContainer": 1, "startContainer": 1, "poststop": 0}.get(point, bundle.pid)
        assert state == {
            "ociVersion": bundle.config["ociVersion"],
            "id": bundle.id,
            "status": statuses[point],
            "pid": pid,
            "bundle": str(bundle.path),
            "annotations": annotations,
        } | ({"pid": state["pid"]} if point == "createContainer" else {}), point


def test_the_runtime_s_hooks_run_outside_and_the_container_s_inside(
    runtime: PrivateRuntime, notes: Notes
) -> None:
    look = "; ".join(f"readlink /proc/self/ns/{kind}" for kind in KINDS)
    hooks = {p: [hook(f"({look}) > {notes.place(p)}/{p}")] for p in LIFE if p != "createContainer"}
    # its path is the host's, in the container's namespaces: /proc is the host's there
    inside = "; ".join(f"readlink /proc/self/ns/{kind}" for kind in KINDS)
    hooks["createContainer"] = [
        hook(
            f"mount -t proc proc {notes.path}/proc && cd {notes.path}/proc && "
            f"({inside.replace('/proc/self', 'self')}) > {notes.path}/createContainer"
        )
    ]
    (notes.path / "proc").mkdir()
    bundle = bundle_with(runtime, notes, hooks)
    bundle.create()
    assert bundle.start().returncode == 0
    theirs = [os.readlink(f"/proc/{bundle.pid}/ns/{kind}") for kind in KINDS]
    assert bundle.delete("--force").returncode == 0
    ours = [os.readlink(f"/proc/self/ns/{kind}") for kind in KINDS]
    assert not set(ours) & set(theirs)
    for point in RUNTIME_POINTS:
        assert notes.read(point).split() == ours, point
    for point in CONTAINER_POINTS:
        assert notes.read(point).split() == theirs, point


def test_a_createcontainer_hook_sees_the_root_before_it_is_entered(
    runtime: PrivateRuntime, notes: Notes
) -> None:
    script = f"ls -d /work /usr > {notes.path}/seen; hostname > {notes.path}/hostname"
    hooks = {"createContainer": [hook(script)]}
    with runtime.created(
        {"hooks": hooks, "mounts": [*runtime.config["mounts"], notes.mount]}, own_root=True
    ):
        assert "/usr" in notes.read("seen").split()  # the host's tree: no pivot yet
        assert notes.read("hostname") == "jaula\n"


def test_environment_and_arguments_are_exactly_the_spec_s(
    runtime: PrivateRuntime, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEAKS", "1")
    points = ("prestart", "startContainer", "poststop")
    hooks: Config = {}
    for point in points:
        script = f"tr '\\0' '\\n' < /proc/$$/environ | sort > {notes.place(point)}/{point}.env; "
        script += (
            f"tr '\\0' '\\n' < /proc/$$/cmdline | tail -n 2 > {notes.place(point)}/{point}.args"
        )
        made = hook(script, env=["PATH=/bin:/usr/bin", "A=1", "B=x=y"])
        made["args"] += ["zero", "a b"]
        hooks[point] = [made]
    bundle = bundle_with(runtime, notes, hooks)
    bundle.create()
    assert bundle.start().returncode == 0
    assert bundle.delete("--force").returncode == 0
    for point in points:
        assert notes.read(f"{point}.env").split() == ["A=1", "B=x=y", "PATH=/bin:/usr/bin"]
        assert notes.read(f"{point}.args") == "zero\na b\n"


def test_a_hook_has_no_descriptors_but_three(runtime: PrivateRuntime, notes: Notes) -> None:
    hooks = {
        p: [hook(f"ls /proc/$$/fd > {notes.place(p)}/{p}; true")] for p in ("prestart", "poststop")
    }
    hooks["startContainer"] = [hook("ls /proc/$$/fd > /notes/startContainer; true")]
    bundle = bundle_with(runtime, notes, hooks)
    bundle.create()
    assert bundle.start().returncode == 0
    assert bundle.delete("--force").returncode == 0
    for point in ("prestart", "startContainer", "poststop"):
        assert set(notes.read(point).split()) <= {"0", "1", "2", "10", "255"}, point


def test_a_hook_that_takes_too_long_is_killed(runtime: PrivateRuntime, notes: Notes) -> None:
    script = f"echo $$ > {notes.path}/pid; exec sleep 300"
    bundle = bundle_with(runtime, notes, {"createRuntime": [hook(script, timeout=1)]})
    before = time.monotonic()
    text = bundle.refused()
    assert text == "createRuntime hook /bin/sh: still running after 1 seconds, killed"
    assert 0.9 < time.monotonic() - before < 10
    assert not Path(f"/proc/{notes.read('pid').strip()}").exists()
    assert not runtime.left()


def test_a_hook_that_prints_much_and_reads_nothing_does_not_block(
    runtime: PrivateRuntime, notes: Notes
) -> None:
    script = "exec 0<&-; dd if=/dev/zero bs=1M count=3 2>/dev/null"
    annotations = {f"key{n}": "x" * 1000 for n in range(200)}
    hooks = {"prestart": [hook(script)], "startContainer": [hook(script)]}
    bundle = bundle_with(runtime, notes, hooks, annotations=annotations)
    bundle.create()
    assert bundle.start().returncode == 0
    assert bundle.delete("--force").returncode == 0


@pytest.mark.parametrize("point", ["prestart", "createRuntime", "createContainer"])
def test_a_hook_that_fails_before_the_start_undoes_the_creation(
    runtime: PrivateRuntime, notes: Notes, point: str
) -> None:
    hooks = {point: [hook("echo no luck >&2; exit 5"), noting(notes, point, "never")]}
    hooks["poststop"] = [noting(notes, "poststop")]
    text = bundle_with(runtime, notes, hooks).refused()
    assert text == f"{point} hook /bin/sh: exit status 5: no luck"
    assert notes.lines() == ["poststop"]
    assert not runtime.left()


def test_a_hook_without_an_environment_gets_its_caller_s(
    runtime: PrivateRuntime, notes: Notes
) -> None:
    """A hook in the container's namespaces gets that of the container's process, as in runc."""
    words = {"path": SHELL, "args": ["sh", "-c", ""]}
    hooks = {}
    for point in LIFE:
        script = f"echo $CALLER$OWN > {notes.place(point)}/{point}"
        hooks[point] = [{**words, "args": ["sh", "-c", script]}]
    bundle = bundle_with(runtime, notes, hooks, process={"env": ["OWN=inside", "PATH=/bin"]})
    environment = {**os.environ, "CALLER": "outside"}
    bundle.create(env=environment)
    assert bundle.command("start", bundle.id, env=environment).returncode == 0
    assert bundle.command("delete", "--force", bundle.id, env=environment).returncode == 0
    for point in LIFE:
        expected = "inside\n" if point in CONTAINER_POINTS else "outside\n"
        assert notes.read(point) == expected, point


@pytest.mark.parametrize("timeout", [1, 2**31 // 1000 + 1, 2**31 - 1, 2**32 - 1])
def test_a_hook_may_have_any_timeout(runtime: PrivateRuntime, notes: Notes, timeout: int) -> None:
    hooks = {"prestart": [hook("true", timeout=timeout)]}
    assert bundle_with(runtime, notes, hooks, process={"args": ["echo", "fine"]}).printed() == (
        "fine\n"
    )


def test_a_missing_hook_fails_like_a_failing_one(runtime: PrivateRuntime, notes: Notes) -> None:
    hooks = {"createRuntime": [{"path": "/nonexistent/hook"}]}
    text = bundle_with(runtime, notes, hooks).refused()
    assert text.startswith("createRuntime hook /nonexistent/hook: ")
    assert "no such file or directory" in text.lower()


def test_a_startcontainer_hook_that_fails_fails_the_start(
    runtime: PrivateRuntime, notes: Notes
) -> None:
    hooks = {
        "startContainer": [hook("echo no luck; exit 5")],
        "poststop": [noting(notes, "poststop")],
    }
    bundle = bundle_with(runtime, notes, hooks)
    bundle.create()
    done = bundle.start()
    assert done.returncode == 1
    assert "startContainer hook /bin/sh: exit status 5: no luck" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    bundle.ended()
    assert bundle.status() == "stopped"
    assert bundle.delete().returncode == 0
    assert notes.lines() == ["poststop"]


def test_a_poststart_hook_that_fails_removes_the_container(
    runtime: PrivateRuntime, notes: Notes
) -> None:
    hooks = {"poststart": [hook("exit 3")], "poststop": [noting(notes, "poststop")]}
    bundle = bundle_with(runtime, notes, hooks)
    bundle.create()
    done = bundle.start()
    assert done.returncode == 1
    assert "poststart hook /bin/sh: exit status 3" in done.stderr
    assert bundle.ended() == -9
    assert notes.lines() == ["poststop"]
    assert "does not exist" in bundle.command("state", bundle.id).stderr
    assert not runtime.left()


@pytest.mark.parametrize("point", ["prestart", "createContainer", "startContainer", "poststart"])
def test_a_hook_that_fails_in_run_leaves_nothing(
    runtime: PrivateRuntime, notes: Notes, point: str
) -> None:
    hooks = {point: [hook("exit 4")], "poststop": [noting(notes, "poststop")]}
    bundle = bundle_with(runtime, notes, hooks)
    done = bundle.run()
    assert done.returncode == 1
    assert f"{point} hook /bin/sh: exit status 4" in done.stderr
    bundle.delete("--force")
    assert notes.lines() == ["poststop"]
    assert not runtime.left()


def test_a_failing_poststop_hook_is_logged_and_the_next_runs(
    runtime: PrivateRuntime, notes: Notes
) -> None:
    hooks = {"poststop": [hook("echo broken; exit 9"), noting(notes, "poststop")]}
    bundle = bundle_with(runtime, notes, hooks)
    bundle.create()
    done = bundle.delete("--force")
    assert done.returncode == 0
    assert 'level=warning msg="poststop hook /bin/sh: exit status 9: broken"' in done.stderr
    assert notes.lines() == ["poststop"]
    assert not (runtime.root / bundle.id).exists()


@pytest.fixture
def hanging(
    runtime: PrivateRuntime, notes: Notes
) -> Iterator[tuple[Bundle, subprocess.Popen[str]]]:
    """A ``create`` with a createRuntime hook that hangs."""
    script = f"echo $$ > {notes.path}/pid; exec sleep 300"
    bundle = bundle_with(
        runtime, notes, {"createRuntime": [hook(script)], "poststop": [noting(notes, "poststop")]}
    )
    with bundle.err.open("wb") as err:
        creating = subprocess.Popen(
            bundle.words("create"), stdin=subprocess.DEVNULL, stdout=err, stderr=err, text=True
        )
    eventually(lambda: (notes.path / "pid").exists() and notes.read("pid") != "", "the hook runs")
    yield bundle, creating
    if creating.poll() is None:
        creating.kill()
    creating.wait()
    assert bundle.delete("--force").returncode == 0
    assert not runtime.left()
    assert not Path(f"/proc/{notes.read('pid').strip()}/exe").exists()


Hanging = tuple[Bundle, "subprocess.Popen[str]"]


def test_a_container_being_created_is_refused_without_waiting(hanging: Hanging) -> None:
    bundle, _ = hanging
    state = bundle.state()
    assert (state["status"], state["pid"]) == ("creating", 0)
    assert state["bundle"] == str(bundle.path)
    assert " creating " in bundle.command("list").stdout
    for words in (["start"], ["exec"], ["pause"], ["resume"], ["delete"]):
        done = bundle.command(*words, bundle.id, *(["true"] if words == ["exec"] else []))
        assert done.returncode in (1, 255), words
        assert f"container {bundle.id} is still being created" in done.stderr, words
        assert len(done.stderr.splitlines()) == 1


def test_kill_ends_a_create_that_hangs_in_a_hook(hanging: Hanging, notes: Notes) -> None:
    bundle, creating = hanging
    assert bundle.command("kill", bundle.id, "KILL").returncode == 0
    assert creating.wait(10) == 1
    assert "createRuntime hook /bin/sh: the container's init exited" in (bundle.err.read_text())
    assert notes.lines() == ["poststop"]
    assert bundle.command("state", bundle.id).returncode == 1


def test_delete_force_ends_a_create_that_hangs_in_a_hook(hanging: Hanging) -> None:
    bundle, creating = hanging
    assert bundle.delete("--force").returncode == 0
    assert creating.wait(10) == 1


def test_a_killed_create_kills_its_hook(hanging: Hanging) -> None:
    bundle, creating = hanging
    creating.kill()
    creating.wait()
    eventually(lambda: bundle.status() == "stopped", "the container has no creator any more")
    assert bundle.start().returncode == 1


@pytest.mark.parametrize("point", ["startContainer", "poststart"])
@pytest.mark.parametrize("words", [["kill", "KILL"], ["delete"]])
def test_a_start_that_hangs_in_a_hook_can_be_ended(
    runtime: PrivateRuntime, notes: Notes, point: str, words: list[str]
) -> None:
    script = f"echo > {notes.place(point)}/runs; exec sleep 300"
    bundle = bundle_with(runtime, notes, {point: [hook(script, timeout=2)]})
    bundle.create()
    starting = subprocess.Popen(
        [RUNTIME, "--root", str(runtime.root), "start", bundle.id],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    eventually((notes.path / "runs").exists, "the hook runs")
    assert bundle.status() == "running"
    if words[0] == "kill":
        assert bundle.command("kill", bundle.id, "KILL").returncode == 0
    assert bundle.delete("--force").returncode == 0
    if point == "startContainer":
        assert starting.wait(3) == 1
    _, errors = starting.communicate(timeout=10)
    assert starting.returncode == 1
    assert len(errors.splitlines()) == 1
    assert not runtime.left()


def test_a_poststart_hook_may_use_the_container(runtime: PrivateRuntime, notes: Notes) -> None:
    bundle = runtime.bundle(own_root=True)
    line = f"{RUNTIME} --root {runtime.root} exec {bundle.id} hostname > {notes.path}/said"
    bundle.config["hooks"] = {"poststart": [hook(line, env=["PATH=/bin:/usr/bin"], timeout=15)]}
    bundle.write()
    bundle.create()
    done = bundle.start()
    assert done.returncode == 0, done.stderr
    assert notes.read("said") == "jaula\n"
    assert bundle.delete("--force").returncode == 0
