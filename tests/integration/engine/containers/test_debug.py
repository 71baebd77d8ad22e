"""Debug sessions on the real kernel: tools for a container that has none, and nothing left."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import load_image
from harness import containers, images, toolboxes
from harness.containers import eventually, inspect, pid, running, unique
from harness.engine import PROJECT, PrivateEngine, UnixConnection

CONFINEMENT = (
    *("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"),
    *("NoNewPrivs", "Seccomp", "Seccomp_filters"),
)
NAMESPACES = ("user", "pid", "net", "ipc", "uts", "cgroup")


@pytest.fixture(scope="module")
def bare(engine: PrivateEngine, busybox: str) -> Iterator[str]:
    """Yield an image with one program, /sleep, and no shell."""
    name = unique("bare")
    program = next(content for entry, content in images.busybox_entries() if len(content) > 1 << 16)
    yield images.import_image(engine, name, [images.file("sleep", program, 0o755)]) and name
    engine.request("DELETE", f"/images/{name}?force=1")


@pytest.fixture
def sleeper(engine: PrivateEngine, bare: str) -> Iterator[str]:
    with running(engine, bare, "/sleep", "600") as name:
        yield name


def debug(engine: PrivateEngine, *words: str) -> subprocess.CompletedProcess[str]:
    return engine.cli("jaula", "debug", *words)


def output(engine: PrivateEngine, *words: str) -> str:
    done = debug(engine, *words)
    assert done.returncode == 0, f"{done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout


def refusal(engine: PrivateEngine, *words: str) -> str:
    done = debug(engine, *words)
    assert done.returncode, done.stdout
    return done.stderr


def mounts_of(process: int) -> str:
    return Path(f"/proc/{process}/mountinfo").read_text()


def test_the_tools_come_first_and_the_files_are_those_of_the_container(
    engine: PrivateEngine, sleeper: str
) -> None:
    assert output(engine, sleeper, "ls", "/").split() == ["dev", "etc", "proc", "sleep", "sys"]
    assert output(engine, sleeper, "sh", "-c", "which ls") == "/.debug/bin/ls\n"
    script = "echo written > /etc/of-debug; cat /etc/of-debug; cat /proc/1/comm"
    assert output(engine, sleeper, "sh", "-c", script) == "written\nsleep\n"
    done = engine.cli("jaula", "cp", f"{sleeper}:/etc/of-debug", "-")
    assert done.returncode == 0
    assert debug(engine, sleeper, "sh", "-c", "exit 7").returncode == 7
    assert debug(engine, sleeper, "nothing-of-this-name").returncode == 127


def test_a_session_leaves_nothing(engine: PrivateEngine, sleeper: str) -> None:
    process, before = pid(engine, sleeper), inspect(engine, sleeper)
    table = mounts_of(process)
    output(engine, sleeper, "true")
    script = "touch /.debug/x 2>/dev/null || touch /x 2>/dev/null || echo refused"
    assert output(engine, sleeper, "sh", "-c", script) == "refused\n"
    assert mounts_of(process) == table
    assert engine.cli("jaula", "diff", sleeper).stdout == ""
    after = inspect(engine, sleeper)
    assert after == before
    done = engine.cli("jaula", "verify", sleeper)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "flags",
    [(), ("--cap-drop", "ALL"), ("--security-opt", "no-new-privileges"), ("--user", "1000:1000"),
     ("--userns=host",), ("--read-only",), ("--profile", "strict")],
)  # fmt: skip
def test_a_session_has_the_confinement_of_the_container(
    engine: PrivateEngine, bare: str, flags: tuple[str, ...]
) -> None:
    with running(engine, bare, "/sleep", "600", flags=flags) as name:
        text = output(engine, name, "cat", "/proc/self/status")
        own = containers.status(pid(engine, name))
        session = {key: value.strip() for key, _, value in
                   (line.partition(":") for line in text.splitlines())}  # fmt: skip
        for key in CONFINEMENT:
            if key in ("Uid", "Gid", "Groups"):
                continue  # the session sees those of its user namespace
            assert session[key] == own[key], key
        script = "; ".join(f"readlink /proc/self/ns/{kind}" for kind in NAMESPACES)
        inside = output(engine, name, "sh", "-c", script).split()
        init = pid(engine, name)
        assert inside == [Path(f"/proc/{init}/ns/{kind}").readlink().name for kind in NAMESPACES]
        with session_of(engine, name) as process:
            groups = Path(f"/proc/{process}/cgroup").read_text()
            assert groups == Path(f"/proc/{init}/cgroup").read_text()
            own_ids = containers.status(process)
            assert all(own_ids[key] == own[key] for key in CONFINEMENT)


@pytest.mark.parametrize("userns", ["", "host"])
def test_a_session_has_the_namespaces_that_a_container_shares(
    engine: PrivateEngine, bare: str, userns: str
) -> None:
    own_userns = (f"--userns={userns}",) if userns else ()
    with running(engine, bare, "/sleep", "600", flags=("--ipc", "shareable", *own_userns)) as one:
        shared = [
            word for kind in ("network", "pid", "ipc") for word in (f"--{kind}", f"container:{one}")
        ]
        with running(engine, bare, "/sleep", "601", flags=(*shared, *own_userns)) as other:
            script = "; ".join(f"readlink /proc/self/ns/{kind}" for kind in NAMESPACES)
            inside = output(engine, other, "sh", "-c", script).split()
            init = pid(engine, other)
            expected = [Path(f"/proc/{init}/ns/{kind}").readlink().name for kind in NAMESPACES]
            assert inside == expected
            for kind in ("user", "pid", "net", "ipc"):
                first = Path(f"/proc/{pid(engine, one)}/ns/{kind}").readlink().name
                assert first in expected
            assert "sleep 600" in output(engine, other, "ps")
            assert output(engine, "--target", "sleep", other, "ls", "/sleep") == "/sleep\n"


class session_of:
    """A detached session that sleeps; its pid on the host."""

    def __init__(self, engine: PrivateEngine, name: str, **body: Any) -> None:
        self._engine, self._name = engine, name
        self._body = {"Cmd": ["sleep", "300"], **body}

    def __enter__(self) -> int:
        path = f"/jaula/containers/{self._name}/debug"
        reply = self._engine.request("POST", path, self._body)
        assert reply.status == 201, reply
        self.id = reply.json()["Id"]
        started = self._engine.request("POST", f"/exec/{self.id}/start", {"Detach": True})
        assert started.status == 200, started
        return int(self._engine.request("GET", f"/exec/{self.id}/json").json()["Pid"])

    def __exit__(self, *_: object) -> None:
        document = self._engine.request("GET", f"/exec/{self.id}/json").json()
        if document["Running"]:
            subprocess.run(["kill", "-9", str(document["Pid"])], check=True)


def test_a_killed_session_leaves_nothing(engine: PrivateEngine, sleeper: str) -> None:
    init = pid(engine, sleeper)
    table = mounts_of(init)
    with session_of(engine, sleeper) as process:
        assert " /.debug " in mounts_of(process)
        busy = engine.request("DELETE", "/images/busybox")
        assert Path(f"/proc/{process}/root/.debug/bin/sh").exists()
        assert busy.status in (200, 409)
    eventually(lambda: not Path(f"/proc/{process}").exists(), "the session has ended")
    assert mounts_of(init) == table
    if busy.status == 200:
        load_image(engine, "busybox")


@pytest.mark.parametrize("shell", ["mkdir /.debug && touch /.debug/own", "echo own > /.debug",
                                   "ln -s /proc/1/root /.debug", "ln -s / /.debug"])  # fmt: skip
def test_what_the_container_has_at_the_place_of_the_tools_is_not_used(
    engine: PrivateEngine, busybox: str, shell: str
) -> None:
    with running(engine, busybox, "sh", "-c", f"{shell}; exec sleep 600") as name:
        done = engine.cli("jaula", "exec", name, "ls", "-ld", "/.debug")
        before = done.stdout
        assert output(engine, name, "sh", "-c", "which ls; ls -d /.debug/bin/ls").split() == [
            "/.debug/bin/ls",
            "/.debug/bin/ls",
        ]
        assert engine.cli("jaula", "exec", name, "ls", "-ld", "/.debug").stdout == before
        changed = engine.cli("jaula", "diff", name).stdout
        assert ".debug/bin" not in changed


def test_a_hostile_toolbox_has_no_rights_of_its_own(engine: PrivateEngine, sleeper: str) -> None:
    name = unique("hostile")
    entries = [
        *images.busybox_entries(without=("bin/id",)),
        images.link("bin/sh2", "/proc/1/root/sleep"),
        images.link("escape", "../../../../../../../../etc"),
    ]
    images.import_image(engine, name, entries)
    try:
        assert output(engine, "--image", name, sleeper, "ls", "/.debug/escape").split() == [
            "hostname",
            "hosts",
            "resolv.conf",
        ]  # of the container, not of the host
        with session_of(engine, sleeper, Image=name) as process:
            row = next(r for r in mounts_of(process).splitlines() if r.split()[4] == "/.debug")
            assert {"ro", "nosuid", "nodev"} <= set(row.split()[5].split(","))
    finally:
        engine.request("DELETE", f"/images/{name}?force=1")


def test_programs_of_a_dynamic_toolbox_run_with_their_own_libraries(
    engine: PrivateEngine, sleeper: str
) -> None:
    """The container has no loader and no library; a link is absolute, a script has no shell."""
    hostname = inspect(engine, sleeper)["Config"]["Hostname"] + "\n"
    with toolboxes.dynamic(engine) as name:
        assert output(engine, "--image", name, sleeper, "cat", "/etc/hostname") == hostname
        words = ("script", "one")
        expected = f"script one\n{hostname}"
        assert output(engine, "--image", name, sleeper, *words) == expected
        shown = output(engine, "--image", name, sleeper, "linked", "/proc/self/maps")
        assert "/.debug/lib/libc.so.6" in shown
        assert output(engine, "--image", name, sleeper, "sh", "-c", "cat /etc/hostname") == hostname
        assert debug(engine, "--image", name, sleeper, "broken").returncode == 127


def test_a_copy_has_the_launchers_of_a_dynamic_toolbox(engine: PrivateEngine, bare: str) -> None:
    with toolboxes.dynamic(engine) as name:
        shown = output(engine, "--image", name, bare, "linked", "/proc/self/maps")
        assert "/.debug/lib/libc.so.6" in shown


def test_a_container_with_many_entries_in_its_root_is_refused(
    engine: PrivateEngine, busybox: str
) -> None:
    script = "i=0; while [ $i -lt 1100 ]; do : > /file$i; i=$((i+1)); done; exec sleep 600"
    with running(engine, busybox, "sh", "-c", script) as name:
        eventually(
            lambda: engine.cli("jaula", "exec", name, "test", "-e", "/file1099").returncode == 0,
            "the files are there",
        )
        assert "more than 1000 entries" in refusal(engine, name, "true")


def test_what_cannot_be_debugged_is_refused(engine: PrivateEngine, sleeper: str) -> None:
    assert "No such container or image" in refusal(engine, unique("no-container"), "true")
    path = f"/jaula/containers/{sleeper}/debug"
    reply = engine.request("POST", path, {"Cmd": ["true"], "Privileged": True})
    assert reply.status == 400
    assert "privileges of the container" in reply.json()["message"]
    assert engine.request("POST", path, {"Image": "no-such-image"}).status == 404
    assert engine.request("POST", path, {"Target": "no-such-program"}).status == 400
    engine.cli("jaula", "pause", sleeper)
    reply = engine.request("POST", path, {"Cmd": ["true"]})
    assert reply.status == 409
    assert "is paused" in reply.json()["message"]
    engine.cli("jaula", "unpause", sleeper)
    engine.cli("jaula", "kill", sleeper)
    assert engine.request("POST", path, {"Cmd": ["true"]}).status == 409


def test_a_target_is_another_process_with_its_own_root(engine: PrivateEngine, busybox: str) -> None:
    script = (
        "mkdir -p /jail/bin; cp /bin/busybox /jail/bin/busybox; cp /bin/busybox /jail/only-here;"
        " chroot /jail /bin/busybox nc -l -p 9 & exec sleep 600"
    )
    with running(engine, busybox, "sh", "-c", script) as name:
        eventually(
            lambda: debug(engine, "--target", "busybox", name, "true").returncode == 0,
            "the target runs",
        )
        listed = output(engine, "--target", "busybox", name, "ls", "/").split()
        assert listed == ["bin", "only-here"]
        assert "sleep" not in refusal(engine, "--target", "9999", name, "ls")


def test_an_image_and_a_stopped_container_are_copies(engine: PrivateEngine, bare: str) -> None:
    before = images_of(engine)
    assert "sleep" in output(engine, bare, "ls", "/").split()
    assert debug(engine, bare, "sh", "-c", "exit 5").returncode == 5
    assert debug(engine, bare, "nothing-of-this-name").returncode == 127
    name = unique("stopped")
    engine.cli("jaula", "run", "--name", name, "busybox", "sh", "-c", "echo kept > /made")
    try:
        script = "cat /made; echo changed > /made; cat /made"
        assert output(engine, name, "sh", "-c", script) == "kept\nchanged\n"
        assert output(engine, name, "cat", "/made") == "kept\n"
        assert inspect(engine, name)["State"]["Status"] == "exited"
    finally:
        engine.request("DELETE", f"/containers/{name}?force=1")
    assert images_of(engine) == before
    listed = engine.request("GET", "/containers/json?all=1").json()
    assert not [c for c in listed if "jaula.debug" in (c["Labels"] or {})]


def test_the_copy_of_a_stopped_container_has_its_changes(
    engine: PrivateEngine, busybox: str
) -> None:
    """Owners, modes, deletions, links and times."""
    name = unique("stopped")
    script = (
        "echo x > /made; chown 5:6 /made; chmod 4640 /made; rm /etc/passwd; ln -s /made /link;"
        " mkdir /new; touch -d '2001-01-01 00:00:00' /new"
    )
    engine.cli("jaula", "run", "--name", name, busybox, "sh", "-c", script)
    show = "stat -c '%n %u %g %a' /made; ls /etc/passwd; readlink /link; stat -c %Y /new"
    try:
        done = debug(engine, name, "sh", "-c", show)
        assert done.stdout.split("\n")[:3] == ["/made 5 6 4640", "/made", "978307200"]
        assert "/etc/passwd: No such file" in done.stderr
        engine.request("POST", f"/containers/{name}/start")
        reply = engine.request("POST", f"/jaula/debug-copies?from={name}", {"Target": "sh"})
        assert reply.status == 400
    finally:
        engine.request("DELETE", f"/containers/{name}?force=1")


def sessions_of(engine: PrivateEngine) -> list[str]:
    listed = engine.request("GET", "/containers/json?all=1").json()
    return [c["Id"] for c in listed if "jaula.debug" in (c["Labels"] or {})]


def copy_session(engine: PrivateEngine, name: str) -> subprocess.Popen[str]:
    """Return a client with a session of a copy, which sleeps."""
    client = subprocess.Popen(
        [PROJECT / "jaula", "debug", name, "sh", "-c", "echo ready; sleep 300"],
        env=engine.environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert client.stdout is not None
    assert client.stdout.readline() == "ready\n"
    return client


def test_a_killed_client_leaves_nothing_of_a_copy(engine: PrivateEngine, busybox: str) -> None:
    before = images_of(engine)
    name = unique("stopped")
    engine.cli("jaula", "run", "--name", name, busybox, "touch", "/made")
    try:
        with copy_session(engine, name) as client:
            (session,) = sessions_of(engine)
            process = pid(engine, session)
            client.kill()
        eventually(lambda: not sessions_of(engine), "the session is removed")
        assert not Path(f"/proc/{process}").exists()
        assert images_of(engine) == before
    finally:
        engine.request("DELETE", f"/containers/{name}?force=1")


def test_a_client_that_never_starts_its_copy_leaves_nothing(
    engine: PrivateEngine, busybox: str
) -> None:
    connection = UnixConnection(str(engine.socket))
    path = f"/jaula/debug-copies?from={busybox}"
    connection.request("POST", path, '{"Cmd": ["true"]}', {"Content-Type": "application/json"})
    session = json.loads(connection.getresponse().readline())["Id"]
    assert sessions_of(engine) == [session]
    connection.close()
    eventually(lambda: not sessions_of(engine), "the session is removed")


def test_the_next_engine_removes_the_copies_of_a_killed_one(new_engine: Any) -> None:
    private: PrivateEngine = new_engine()
    load_image(private, "busybox")
    with copy_session(private, "busybox") as client:
        (session,) = sessions_of(private)
        process = pid(private, session)
        private.kill()
        private.start()
        client.wait(20)
    assert not sessions_of(private)
    assert not Path(f"/proc/{process}").exists()
    assert private.cli("jaula", "system", "check").stdout == "No problems found.\n"


def images_of(engine: PrivateEngine) -> list[str]:
    return sorted(image["Id"] for image in engine.request("GET", "/images/json?all=1").json())


def test_the_audit_log_has_the_session(engine: PrivateEngine, sleeper: str) -> None:
    output(engine, sleeper, "true")
    lines = [json.loads(line) for file in sorted((engine.root / "lib/audit").glob("*"))
             if file.is_file() for line in file.read_text(errors="replace").splitlines()
             if line.startswith("{")]  # fmt: skip
    own = [line for line in lines if str(line.get("action", "")).startswith("debug ")]
    assert [line["action"] for line in own[-2:]] == ["debug create", "debug start"]
    assert own[-1]["argv"] == ["true"]
    assert own[-2]["image"] == "busybox"


def test_a_container_that_ends_is_a_clear_error(engine: PrivateEngine, bare: str) -> None:
    for delay in range(4):
        with running(engine, bare, "/sleep", "600") as name:
            end = subprocess.Popen(["sh", "-c", f"sleep 0.0{delay}; kill -9 {pid(engine, name)}"])
            done = debug(engine, name, "true")
            end.wait()
            refused = "is not running" in done.stderr or "No such" in done.stderr
            assert done.returncode in (0, 137) or refused, done.stderr
