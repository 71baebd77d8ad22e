"""``jaula audit``: weakened containers and images fail their own controls and no other.

One container follows every control. Each of the others differs from it in one flag, and the report
must differ in the controls of that flag.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from jsonschema import Draft4Validator

from harness import containers
from harness.engine import PROJECT, SLOW, PrivateEngine

BASE = {
    "capabilities": "--cap-drop ALL",
    "privileges": "--security-opt no-new-privileges",
    "network": "--network {network}",
    "memory": "--memory 64m",
    "cpu": "--cpus 0.5",
    "root": "--read-only",
    "user": "--user 1000",
    "health": "--health-cmd true",
    "pids": "--pids-limit 100",
}
SSH = "echo sshd > /proc/self/comm; while :; do sleep 600; done"

# name: flags that replace those of BASE, or are new; the controls that fail.
WEAKENED: dict[str, tuple[dict[str, str], set[str]]] = {
    "privileged": ({"new": "--privileged"}, {"5.4", "5.5", "5.22"}),
    "added-capability": ({"new": "--cap-add NET_ADMIN"}, {"5.4"}),
    "every-capability": ({"new": "--cap-add ALL"}, {"5.4"}),
    "host-pid": ({"new": "--pid host"}, {"5.16"}),
    "host-ipc": ({"new": "--ipc host"}, {"5.17"}),
    "host-uts": ({"new": "--uts host"}, {"5.21"}),
    "host-users": ({"new": "--userns host"}, {"5.31"}),
    "host-network": ({"network": "--network host"}, {"5.10"}),
    "default-bridge": ({"network": ""}, {"5.30"}),
    "no-memory-limit": ({"memory": ""}, {"5.11"}),
    "no-cpu-limit": ({"cpu": ""}, {"5.12"}),
    "cpu-shares": ({"cpu": "--cpu-shares 512"}, set()),
    "writable-root": ({"root": ""}, {"5.13"}),
    "root-user": ({"user": ""}, {"4.1"}),
    "new-privileges": ({"privileges": ""}, {"5.26"}),
    "no-health-check": ({"health": ""}, {"5.27"}),
    "no-pids-limit": ({"pids": "--pids-limit -1"}, {"5.29"}),
    "always-restarted": ({"new": "--restart always"}, {"5.15"}),
    "often-restarted": ({"new": "--restart on-failure:50"}, {"5.15"}),
    "rarely-restarted": ({"new": "--restart on-failure:5"}, set()),
    "no-seccomp": ({"new": "--security-opt seccomp=unconfined"}, {"5.22"}),
    "system-directory": ({"new": "-v /etc:/host:ro"}, {"5.6"}),
    "secret-directory": ({"new": "-v /etc/ssh:/host:ro"}, {"5.6"}),
    "own-directory": ({"new": "-v {directory}:/host:ro"}, set()),
    "volume": ({"new": "-v /srv"}, set()),
    "tmpfs": ({"new": "--tmpfs /tmp"}, set()),
    "engine-socket": ({"new": "-v {socket}:/docker.sock"}, {"5.32"}),
    "socket-directory": ({"new": "-v {socket_directory}:/sockets"}, {"5.32"}),
    "device": ({"new": "--device /dev/fuse"}, {"5.18"}),
    "shared-mount": ({"new": "--userns host -v {shared}:/srv:rshared"}, {"5.20", "5.31"}),
    "privileged-port": ({"new": "-p 127.0.0.1:{low}:80"}, {"5.8"}),
    "port-everywhere": ({"new": "-p 81"}, {"5.14"}),
    "port": ({"new": "-p 127.0.0.1::82"}, set()),
    "ssh-server": ({"command": SSH}, {"5.7"}),
    "privileged-exec": ({}, {"5.23"}),
    "root-exec": ({}, {"5.24"}),
    "old-image": ({}, {"5.28"}),
}

# name: Dockerfile after FROM, the controls that fail.
GOOD = "USER 1000\nHEALTHCHECK CMD true\n"
IMAGES: dict[str, tuple[str, set[str]]] = {
    "good": (GOOD, set()),
    "root": ("HEALTHCHECK CMD true\n", {"4.1"}),
    "unwatched": ("USER 1000\n", {"4.6"}),
    "updated": ("RUN : apt-get update\n" + GOOD, {"4.7"}),
    "installed": ("RUN : apt-get update && : apt-get install -y x\n" + GOOD, set()),
    "set-user-id": ("RUN cp /bin/busybox /bin/su2 && chmod 4755 /bin/su2\n" + GOOD, {"4.8"}),
    "cleared": (
        "RUN cp /bin/busybox /bin/su2 && chmod 4755 /bin/su2\nRUN rm /bin/su2\n" + GOOD,
        set(),
    ),
    "added": ("ADD Dockerfile /x\n" + GOOD, {"4.9"}),
    "copied": ("COPY Dockerfile /x\n" + GOOD, set()),
    "secret": ("ENV DB_PASSWORD=hunter2\n" + GOOD, {"4.10"}),
    "unverified": ("RUN : apt-get --allow-unauthenticated\n" + GOOD, {"4.11"}),
}
HOSTILE = 'ENV API_TOKEN=x\x1b[2J\x07<b>&]]>\nUSER "\x1b[2J\x07<b>&]]>"\n'


def free_low_port() -> int:
    """Return a port below 1024 of 127.0.0.1 that no program listens on."""
    first = 600 + os.getpid() % 200  # another worker begins elsewhere
    for port in range(first, first + 200):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError(errno.EADDRINUSE, "no port below 1024 is free")


@contextlib.contextmanager
def shared_tmpfs(path: Path) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(path)], check=True)
    try:
        subprocess.run(["mount", "--make-shared", str(path)], check=True)
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


@pytest.fixture(scope="module", autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep the history of these tests out of the user's."""
    path = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(path))
        yield path


def audit(engine: PrivateEngine, *words: str) -> dict[str, Any]:
    done = engine.cli("jaula", "audit", "--format", "json", *words)
    assert done.returncode in (0, 1) and done.stdout, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def states(document: dict[str, Any], subject: str) -> dict[str, str]:
    """Return the states of the controls for one subject."""
    return {
        control["id"]: finding["state"]
        for control in document["controls"]
        for finding in control["findings"]
        if finding["subject"] == subject
    }


def failed(document: dict[str, Any], subject: str) -> set[str]:
    found = states(document, subject)
    assert found, f"{subject} is not in the report"
    return {id for id, state in found.items() if state in ("fail", "unknown")}


@pytest.fixture(scope="module")
def weakened(
    engine: PrivateEngine, busybox: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """Return the report on one container for each weakness, and a default one."""
    top = tmp_path_factory.mktemp("audit")
    sockets = top / "sockets"
    sockets.mkdir()
    other_engine = socket.socket(socket.AF_UNIX)
    other_engine.bind(str(sockets / "docker.sock"))
    (top / "shared").mkdir()
    (top / "directory").mkdir()
    network = containers.unique("audit")
    values = {
        "network": network,
        "socket": str(sockets / "docker.sock"),
        "socket_directory": str(sockets),
        "shared": str(top / "shared"),
        "directory": str(top / "directory"),
        "low": str(free_low_port()),
    }
    tag = f"{containers.unique('audit')}:1"
    assert engine.cli("jaula", "network", "create", network).returncode == 0
    assert engine.cli("jaula", "tag", busybox, tag).returncode == 0
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(other_engine))
        stack.callback(engine.request, "DELETE", f"/networks/{network}")
        stack.callback(engine.cli, "jaula", "rmi", "-f", tag)
        stack.enter_context(shared_tmpfs(top / "shared"))
        names = {}
        for name, (changes, _) in {"hardened": ({}, set()), **WEAKENED}.items():
            changed = {**BASE, **{k: v for k, v in changes.items() if k != "command"}}
            flags = tuple(" ".join(changed.values()).format(**values).split())
            command = ("sh", "-c", changes["command"]) if "command" in changes else ()
            image = tag if name == "old-image" else busybox
            names[name] = stack.enter_context(
                containers.running(engine, image, *command, flags=flags)
            )
        names["default"] = stack.enter_context(containers.running(engine, busybox))
        for name, flags in (
            ("privileged-exec", ("--privileged",)),
            ("root-exec", ("--user", "0")),
            ("hardened", ()),
        ):
            done = engine.cli("jaula", "exec", "-d", *flags, names[name], "sleep", "600")
            assert done.returncode == 0, done.stderr
        done = engine.cli("jaula", "commit", names["hardened"], tag)
        assert done.returncode == 0, done.stderr
        yield {"report": audit(engine, "--containers"), "names": names}


def test_a_hardened_container_fails_nothing(weakened: dict[str, Any]) -> None:
    found = states(weakened["report"], weakened["names"]["hardened"])
    assert set(found.values()) <= {"pass", "manual", "not-applicable"}, found
    assert {id for id, state in found.items() if state == "manual"} == {"5.28"}


@pytest.mark.parametrize("name", WEAKENED)
def test_a_weakened_container_fails_its_controls(weakened: dict[str, Any], name: str) -> None:
    report, subject = weakened["report"], weakened["names"][name]
    assert failed(report, subject) == WEAKENED[name][1]


def test_a_default_container_holds_against_escapes(weakened: dict[str, Any]) -> None:
    """What it fails is what Docker's defaults leave open: limits, root inside, health."""
    assert failed(weakened["report"], weakened["names"]["default"]) == {
        *("4.1", "5.11", "5.12", "5.13", "5.26", "5.27", "5.30"),
    }


def test_published_ports_need_a_person(weakened: dict[str, Any]) -> None:
    assert states(weakened["report"], weakened["names"]["port"])["5.9"] == "manual"
    assert states(weakened["report"], weakened["names"]["hardened"])["5.9"] == "pass"


def test_a_limit_that_another_program_raised_fails(engine: PrivateEngine, busybox: str) -> None:
    """The request still has the limit; the kernel does not."""
    with containers.running(engine, busybox, flags=("--memory", "64m")) as name:
        assert states(audit(engine, "--containers"), name)["5.11"] == "pass"
        pid = containers.pid(engine, name)
        directory = next(
            tree
            for names, path in containers.cgroups(pid)
            for tree in (Path("/sys/fs/cgroup/memory") / path.lstrip("/"),
                         Path("/sys/fs/cgroup") / path.lstrip("/"))
            if (names == "" or "memory" in names.split(","))
            and any((tree / f).exists() for f in ("memory.limit_in_bytes", "memory.max"))
        )  # fmt: skip
        for file in ("memory.memsw.limit_in_bytes", "memory.limit_in_bytes", "memory.max"):
            with contextlib.suppress(OSError):
                (directory / file).write_text("max" if file == "memory.max" else "-1")
        assert states(audit(engine, "--containers"), name)["5.11"] == "fail"


@pytest.fixture(scope="module")
def images(
    engine: PrivateEngine, busybox: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """Return the report on one image for each fault."""
    names = {}
    try:
        for name, (text, _) in {**IMAGES, "hostile": (HOSTILE, set())}.items():
            context = tmp_path_factory.mktemp("context")
            (context / "Dockerfile").write_text(f"FROM {busybox}\n{text}")
            tag = f"{containers.unique('audited')}:1"
            done = engine.cli("jaula", "build", "-t", tag, str(context))
            assert done.returncode == 0, f"{name}: {done.stderr}"
            names[name] = tag
        yield {"report": audit(engine, "--images"), "names": names}
    finally:
        for tag in names.values():
            engine.cli("jaula", "rmi", "-f", tag)


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_fails_its_controls(images: dict[str, Any], name: str) -> None:
    assert failed(images["report"], images["names"][name]) == IMAGES[name][1]


def test_reports_with_hostile_names_are_well_formed(
    engine: PrivateEngine, busybox: str, images: dict[str, Any]
) -> None:
    script = "printf 'sshd \\033[2J\\n<&' > /proc/self/comm; while :; do sleep 600; done"
    schema = Path(sysconfig.get_path("purelib"), "sarif-schema.json")
    with containers.running(engine, busybox, "sh", "-c", script) as name:
        containers.eventually(
            lambda: "sshd" in containers.status(containers.pid(engine, name))["Name"], "its name"
        )
        words = ("audit", "--images", "--containers", "--no-history", "--format")
        table, sarif, junit, document = (
            engine.cli("jaula", *words, form).stdout for form in ("table", "sarif", "junit", "json")
        )
    assert "5.7" in failed(json.loads(document), name)
    assert not [line for line in table.splitlines() if not line.isprintable()]
    errors = Draft4Validator(json.loads(schema.read_text())).iter_errors(json.loads(sarif))
    assert not [error.message for error in errors]
    tree = ElementTree.fromstring(junit)
    cases = list(tree.iter("testcase"))
    assert len(cases) == int(tree.attrib["tests"]) == sum(
        int(suite.attrib["tests"]) for suite in tree.iter("testsuite")
    )  # fmt: skip
    assert len(list(tree.iter("failure"))) == int(tree.attrib["failures"]) > 0
    assert images["names"]["hostile"] in junit


def test_host_and_engine_are_read(engine: PrivateEngine) -> None:
    report = audit(engine, "--host", "--engine")
    by_id = {control["id"]: control for control in report["controls"]}
    assert not [id for id, c in by_id.items() if c["state"] == "unknown"], report
    assert re.search(r"process \d+ has uid 0", by_id["2.1"]["findings"][0]["evidence"])
    assert by_id["2.4"]["state"] == by_id["2.7"]["state"] == by_id["3.16"]["state"] == "pass"
    assert str(engine.socket) in by_id["3.16"]["findings"][0]["evidence"]


def test_the_mode_of_the_socket_is_repaired(engine: PrivateEngine) -> None:
    engine.socket.chmod(0o666)
    try:
        report = audit(engine, "--engine")
        assert {c["id"] for c in report["controls"] if c["state"] == "fail"} >= {"3.16"}
        shown = engine.cli("jaula", "audit", "--engine", "--fix", "--dry-run")
        assert f"chmod 0660 {engine.socket}" in shown.stderr
        assert engine.socket.stat().st_mode & 0o777 == 0o666, "a dry run changes nothing"
        done = engine.cli("jaula", "audit", "--engine", "--fix")
        assert f"chmod 0660 {engine.socket}" in done.stderr, done.stderr
        assert engine.socket.stat().st_mode & 0o777 == 0o660
        assert re.search(r"^3\.16 .* pass ", done.stdout, re.MULTILINE), done.stdout
    finally:
        engine.socket.chmod(0o600)


def test_audit_rules_are_written_to_one_file(engine: PrivateEngine, tmp_path: Path) -> None:
    """The command has an overlay of /etc in a mount namespace of its own."""
    for name in ("upper", "work"):
        (tmp_path / name).mkdir()
    overlay = f"lowerdir=/etc,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    script = 'mount -t overlay overlay -o "$1" /etc && shift && exec "$@"'
    command = [str(PROJECT / "jaula"), "audit", "--host", "--fix", "--no-history"]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", overlay, *command],
        env=engine.environment(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1, "the kernel has not loaded them"
    written = {path for path in (tmp_path / "upper").rglob("*") if path.is_file()}
    rules, tmpfiles = (tmp_path / "upper/audit/rules.d/70-jaula.rules",
                       tmp_path / "upper/tmpfiles.d/jaula.conf")  # fmt: skip
    assert written == {rules, tmpfiles} if shutil.which("systemd-tmpfiles") else {rules}
    if tmpfiles in written:
        assert tmpfiles.read_text().splitlines()[-1] == f"d {engine.run} 0700 0 0 -"
    lines = rules.read_text().splitlines()
    assert f"-w {engine.root}/lib -p wa -k jaula" in lines
    assert lines[-1] == f"-w {engine.socket} -p wa -k jaula"
    for line in lines:
        assert line in done.stderr, "it is shown"


def test_debug_and_open_tcp_fail(new_engine: Any) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    private = new_engine("--debug", "--insecure-tcp", "--host", f"tcp://127.0.0.1:{port}")
    report = audit(private, "--engine")
    found = {control["id"]: control for control in report["controls"]}
    assert found["2.3"]["state"] == found["2.7"]["state"] == "fail"
    assert f"127.0.0.1:{port} answers without TLS" in found["2.7"]["findings"][0]["evidence"]


def test_isolated_ports_and_a_strict_profile_hold(new_engine: Any, tmp_path: Path) -> None:
    private = new_engine("--default-profile", "strict")
    found = {c["id"]: c["state"] for c in audit(private, "--engine")["controls"]}
    assert found["2.14"] == "pass"


def test_exceptions_change_the_exit_status(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    with containers.running(engine, busybox) as name:
        fails = [
            control["id"]
            for control in audit(engine, "--containers")["controls"]
            if control["state"] == "fail"
        ]
        file = tmp_path / "exceptions.toml"
        entry = '[[exception]]\nid = "{}"\nreason = "tests"\nuntil = {}\n'
        file.write_text("".join(entry.format(id, "2999-12-31") for id in fails))
        words = ("audit", "--containers", "--exceptions", str(file))
        done = engine.cli("jaula", *words)
        assert done.returncode == 0, done.stdout
        assert "until 2999-12-31: tests" in done.stdout and " excepted " in done.stdout
        file.write_text("".join(entry.format(id, "2020-01-01") for id in fails))
        done = engine.cli("jaula", *words)
        assert done.returncode == 1
        assert f"{name}: " in done.stdout
        assert "the exception ended on 2020-01-01: tests" in done.stdout
        file.write_text(entry.format("9.9", "2999-12-31"))
        done = engine.cli("jaula", *words)
        assert done.returncode == 1 and "'9.9', which is not a control" in done.stderr


def test_the_difference_of_two_reports(engine: PrivateEngine, busybox: str, tmp_path: Path) -> None:
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    words = ("audit", "--containers", "--format", "json")
    with containers.running(engine, busybox) as name:
        before.write_text(engine.cli("jaula", *words).stdout)
        done = engine.cli("jaula", "update", "--pids-limit", "-1", name)
        assert done.returncode == 0, done.stderr
        after.write_text(engine.cli("jaula", *words).stdout)
        done = engine.cli("jaula", "audit", "diff", str(before), str(after))
        assert done.returncode == 1, done.stderr
        assert re.search(rf"^5\.29 +absent +fail +{name}$", done.stdout, re.MULTILINE)
        last = engine.cli("jaula", "audit", "diff", "--format", "json")
        assert {c["id"] for c in json.loads(last.stdout)} == {"5.29"}, last.stdout
        done = engine.cli("jaula", "audit", "diff", str(after), str(before))
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("--format", "xml"), 125, "must be one of table, json, sarif, junit, html"),
        (("--dry-run",), 1, "--dry-run needs --fix"),
        (("--exceptions", "/nonexistent/file"), 1, "No such file"),
        (("extra",), 1, "takes a HOST with --docker only"),
        (("diff", "one"), 1, "requires two reports, or none"),
        (("diff", "/dev/null", "/dev/null"), 1, "is not JSON"),
    ],
)
def test_bad_input_is_one_clear_error(
    engine: PrivateEngine, words: tuple[str, ...], status: int, message: str
) -> None:
    done = engine.cli("jaula", "audit", *words)
    assert (done.returncode, message in done.stderr) == (status, True), done.stderr


def test_an_engine_of_another_host_is_refused(engine: PrivateEngine) -> None:
    for address in ("tcp://127.0.0.1:1", "ssh://nowhere.invalid"):
        done = engine.cli("jaula", "--host", address, "audit", "--no-history")
        assert done.returncode == 1
        assert "may be another one: run it on the engine's host" in done.stderr, done.stderr


def test_another_user_is_refused(engine: PrivateEngine) -> None:
    done = engine.cli("jaula", "audit", user=65534)
    assert done.returncode == 1 and "run it as root" in done.stderr, done.stderr


def test_the_host_is_audited_without_an_engine(jaula: Any, tmp_path: Path) -> None:
    done = jaula("--host", f"unix://{tmp_path}/none.sock", "audit", "--host", "--no-history")
    assert "1.2.1" in done.stdout, done.stderr
    done = jaula("--host", f"unix://{tmp_path}/none.sock", "audit", "--no-history")
    assert done.returncode == 1 and "Cannot connect" in done.stderr


def test_a_report_takes_seconds(engine: PrivateEngine, weakened: dict[str, Any]) -> None:
    before = time.monotonic()
    report = audit(engine, "--no-history")
    elapsed = time.monotonic() - before
    assert len(next(c for c in report["controls"] if c["id"] == "5.5")["findings"]) >= 38
    assert elapsed < 10 * SLOW, f"{elapsed:.1f} s for {len(weakened['names'])} containers"


def test_a_new_engine_has_the_states_of_the_document(
    new_engine: Any, busybox_archive: Path
) -> None:
    """``host`` in docs/audit.md depends on the host; such a control must still be readable."""
    text = (PROJECT / "docs/audit.md").read_text()
    rows = dict(re.findall(r"^\| (\d+(?:\.\d+)+) \| \d \| .+ \| (\w+) \|$", text, re.MULTILINE))
    private = new_engine()
    with busybox_archive.open("rb") as archive:
        assert private.cli("jaula", "load", stdin=archive).returncode == 0
    with containers.running(private, "busybox"):
        found = {c["id"]: c["state"] for c in audit(private)["controls"]}
    assert found.keys() == rows.keys()
    known = {id: state for id, state in rows.items() if state != "host"}
    assert {id: found[id] for id in known} == known
    assert "unknown" not in found.values(), found
