"""``record --drift`` reports what a container does that its image or its records do not have."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness import containers
from harness.engine import PROJECT, SLOW, PrivateEngine

SECONDS = 30.0 * SLOW


class Drift:
    """A ``jaula record --drift`` that is attached."""

    def __init__(self, engine: PrivateEngine, name: str, *flags: str) -> None:
        words = ("record", "--drift", "--format", "json", *flags, name)
        self.process = subprocess.Popen(
            [str(PROJECT / "jaula"), "--host", engine.host, *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=engine.environment(),
        )  # fmt: skip
        assert self.process.stderr is not None
        # The kernel verifies the eBPF programs for a second of processor time: no limit of its own.
        self.head = self.process.stderr.readline()
        if "comparing" not in self.head:
            self.process.kill()  # its errors end only with it
            raise AssertionError(self.head + self.process.communicate()[1])
        self.errors = ""

    def end(self) -> list[dict[str, Any]]:
        time.sleep(1.2)  # one sample of mapped files
        self.process.send_signal(signal.SIGINT)
        return self.wait()

    def wait(self) -> list[dict[str, Any]]:
        output, self.errors = self.process.communicate(timeout=SECONDS)
        drifts = [json.loads(line) for line in output.splitlines()]
        assert self.process.returncode == (1 if drifts else 0), output + self.errors
        return drifts


@contextmanager
def drifting(engine: PrivateEngine, name: str, *flags: str) -> Iterator[Drift]:
    drift = Drift(engine, name, *flags)
    try:
        yield drift
    finally:
        drift.process.kill()
        drift.process.wait()


def execute(engine: PrivateEngine, name: str, script: str) -> subprocess.CompletedProcess[str]:
    return engine.cli("jaula", "exec", name, "sh", "-c", script)


def subjects(drifts: list[dict[str, Any]], kind: str) -> list[str]:
    return [drift["subject"] for drift in drifts if drift["kind"] == kind]


@contextmanager
def record(engine: PrivateEngine, name: str, path: Path) -> Iterator[None]:
    """Record what happens in the block."""
    words = [str(PROJECT / "jaula"), "--host", engine.host, "record", "-o", str(path), name]
    with subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE,
                          env=engine.environment(), text=True) as process:  # fmt: skip
        try:
            assert process.stderr is not None
            assert "recording" in process.stderr.readline()
            yield
            process.send_signal(signal.SIGINT)
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()


def test_programs_of_the_image_are_no_drift(engine: PrivateEngine, busybox: str) -> None:
    with containers.running(engine, busybox) as name, drifting(engine, name) as drift:
        assert execute(engine, name, "/bin/ls / >/dev/null; /bin/cat /etc/hosts").returncode == 0
        assert drift.end() == []
    assert "with its image" in drift.head


def test_a_copied_program_is_a_drift_with_its_digest(engine: PrivateEngine, busybox: str) -> None:
    with containers.running(engine, busybox) as name, drifting(engine, name) as drift:
        done = execute(engine, name, "cp /bin/busybox /tmp/ls; /tmp/ls /; /tmp/ls /")
        drifts = drift.end()
    assert [(each["kind"], each["subject"]) for each in drifts] == [("program", "/tmp/ls")], done
    assert drifts[0]["program"] == "/bin/sh"
    assert len(drifts[0]["digest"]) == 64


def test_a_program_that_is_removed_at_once_is_a_drift(engine: PrivateEngine, busybox: str) -> None:
    script = "for i in 1 2 3; do cp /bin/busybox /tmp/true; /tmp/true; rm /tmp/true; done"
    with containers.running(engine, busybox) as name, drifting(engine, name) as drift:
        execute(engine, name, script)
        assert subjects(drift.end(), "program") == ["/tmp/true"]


def test_a_changed_program_of_the_image_is_a_drift(engine: PrivateEngine, busybox: str) -> None:
    with containers.running(engine, busybox) as name, drifting(engine, name) as drift:
        execute(
            engine, name, "cp /bin/true /tmp/t; echo x >> /tmp/t; cp /tmp/t /bin/true; /bin/true"
        )
        drifts = drift.end()
    assert subjects(drifts, "file") == ["/bin/true"]
    assert "image's file has" in drifts[0]["detail"]


def test_a_program_that_is_restored_after_its_execution_is_a_drift(
    engine: PrivateEngine, busybox: str
) -> None:
    """The digest is of the file that ran, or the report says that it may not be."""
    script = (
        "cp /bin/busybox /tmp/good; cp /bin/busybox /tmp/bad; "
        "printf x | dd of=/tmp/bad bs=1 seek=1000 conv=notrunc; "
        "cp /tmp/bad /bin/false; /bin/false; cp /tmp/good /bin/false; /bin/false"
    )
    with containers.running(engine, busybox) as name, drifting(engine, name) as drift:
        execute(engine, name, script)
        assert "/bin/false" in subjects(drift.end(), "file")


def test_a_script_is_compared_and_its_interpreter_is_not_new(
    engine: PrivateEngine, busybox: str
) -> None:
    script = r"printf '#!/bin/sh\n/bin/true\n' > /tmp/s; chmod +x /tmp/s; /tmp/s"
    with containers.running(engine, busybox) as name, drifting(engine, name) as drift:
        execute(engine, name, script)
        drifts = drift.end()
    assert [(each["kind"], each["subject"]) for each in drifts] == [("program", "/tmp/s")]
    assert drifts[0]["digest"] == hashlib.sha256(b"#!/bin/sh\n/bin/true\n").hexdigest()


def test_a_program_that_runs_already_is_compared(engine: PrivateEngine, busybox: str) -> None:
    with containers.running(
        engine, busybox, "sh", "-c", "cp /bin/busybox /tmp/sleep; exec /tmp/sleep 600"
    ) as name:
        containers.eventually(
            lambda: execute(engine, name, "readlink /proc/1/exe").stdout.strip() == "/tmp/sleep",
            "the program",
        )
        with drifting(engine, name) as drift:
            assert subjects(drift.end(), "program") == ["/tmp/sleep"]


def test_a_program_of_a_volume_is_a_drift(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    with (
        containers.running(engine, busybox, flags=("-v", f"{tmp_path}:/data")) as name,
        drifting(engine, name) as drift,
    ):
        execute(engine, name, "cp /bin/busybox /data/true; /data/true")
        assert subjects(drift.end(), "program") == ["/data/true"]


def test_what_the_record_has_is_no_drift(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    known = (
        "cp /bin/busybox /tmp/true; /tmp/true; /bin/nc -w 1 127.0.0.1 4321; "
        "/bin/chown 5:5 /tmp/true; rm /tmp/true"
    )
    path = tmp_path / "record"
    with containers.running(engine, busybox) as name:
        with record(engine, name, path):
            execute(engine, name, known)
        with drifting(engine, name, "--baseline", str(path)) as drift:
            execute(engine, name, known)
            assert drift.end() == []
        with drifting(engine, name, "--baseline", str(path)) as drift:
            execute(
                engine,
                name,
                "/bin/nc -w 1 127.0.0.1 4322; /bin/id; touch /tmp/n; /bin/chown 5:5 /tmp/n; "
                "/bin/mknod /tmp/p p; (/bin/nc -l -p 99 & sleep 0.5; kill $!)",
            )
            drifts = drift.end()
    assert "its records" in drift.head
    assert subjects(drifts, "connect") == ["tcp 127.0.0.1:4322"]
    assert "/bin/id" in subjects(drifts, "program")
    assert "/bin/nc" not in subjects(drifts, "program")
    assert [each for each in subjects(drifts, "listen") if each.endswith(":99")]


def test_a_capability_that_the_program_did_not_use_is_a_drift(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    path = tmp_path / "record"
    with containers.running(engine, busybox) as name:
        with record(engine, name, path):
            execute(engine, name, "touch /tmp/x; /bin/chown 0:0 /tmp/x; /bin/true")
        with drifting(engine, name, "--baseline", str(path)) as drift:
            execute(engine, name, "/bin/chown 5:5 /tmp/x; /bin/chown 0:0 /tmp/x")
            drifts = drift.end()
    assert "CAP_CHOWN" in subjects(drifts, "capability")


@pytest.mark.parametrize("action", ["stop", "pause", "kill"])
def test_the_action_is_taken(engine: PrivateEngine, busybox: str, action: str) -> None:
    with (
        containers.running(engine, busybox) as name,
        drifting(engine, name, "--on-drift", action) as drift,
    ):
        subprocess.Popen(
            [str(PROJECT / "jaula"), "--host", engine.host, "exec", "-d", name, "sh", "-c",
             "cp /bin/busybox /tmp/true; /tmp/true"],
            env=engine.environment(),
        ).wait(SECONDS)  # fmt: skip
        status = {"stop": "exited", "kill": "exited", "pause": "paused"}[action]
        containers.eventually(
            lambda: containers.inspect(engine, name)["State"]["Status"] == status, status
        )
        if action == "pause":
            drifts = drift.end()
            assert engine.cli("jaula", "unpause", name).returncode == 0
        else:
            drifts = drift.wait()
            assert "container exited" in drift.errors
    assert subjects(drifts, "program") == ["/tmp/true"]


def test_a_container_that_ends_with_the_drift_is_reported(
    engine: PrivateEngine, busybox: str
) -> None:
    script = "while [ ! -e /tmp/go ]; do usleep 20000; done; exec /tmp/last"
    with (
        containers.running(engine, busybox, "sh", "-c", script) as name,
        drifting(engine, name, "--on-drift", "kill") as drift,
    ):
        execute(engine, name, "cp /bin/busybox /tmp/last; touch /tmp/go")
        assert subjects(drift.wait(), "program") == ["/tmp/last"]


@pytest.mark.parametrize("command", ["/tmp/busybox true", "exec /tmp/busybox sleep 1"])
def test_a_drift_is_an_event_of_the_engine(
    engine: PrivateEngine, busybox: str, command: str
) -> None:
    with containers.running(engine, busybox) as name:
        with drifting(engine, name) as drift:
            execute(engine, name, f"cp /bin/busybox /tmp/busybox; {command}")
            drift.end()
        until = str(int(time.time()) + 1)
        words = ("events", "--since", "1", "--until", until, "--format", "{{json .}}")
        done = engine.cli("docker", *words, "--filter", "event=drift",
                          "--filter", f"container={name}")  # fmt: skip
    (event,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert (event["Type"], event["Action"]) == ("container", "drift")
    attributes = event["Actor"]["Attributes"]
    assert (attributes["kind"], attributes["subject"]) == ("program", "/tmp/busybox")
    assert attributes["program"] == "/bin/sh"
    assert attributes["digest"].startswith("sha256:")


def test_a_report_needs_kind_and_subject(engine: PrivateEngine, busybox: str) -> None:
    with containers.running(engine, busybox) as name:
        path = f"/jaula/containers/{name}/drift"
        assert engine.request("POST", path, {"Kind": "file", "Subject": "/x"}).status == 204
        assert engine.request("POST", path, {"Kind": "file"}).status == 400
        assert engine.request("POST", path, {"Subject": "/x"}).status == 400
    assert engine.request("POST", path, {"Kind": "file", "Subject": "/x"}).status == 404


def test_a_flood_of_programs_is_bounded(engine: PrivateEngine, busybox: str) -> None:
    script = (
        r"printf '#!/bin/true\n' > /tmp/0; chmod +x /tmp/0; i=0; "
        "while [ $i -lt 300 ]; do i=$((i+1)); ln /tmp/0 /tmp/p$i; /tmp/p$i; done"
    )
    with containers.running(engine, busybox) as name, drifting(engine, name) as drift:
        execute(engine, name, script)
        drifts = drift.end()
        until = str(int(time.time()) + 1)
        done = engine.cli("jaula", "events", "--since", "1", "--until", until,
                          "--filter", "event=drift", "--filter", f"container={name}")  # fmt: skip
    assert len(set(subjects(drifts, "program"))) == 300
    assert len(done.stdout.splitlines()) < 300
    assert "without an event" in drift.errors


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        (("--drift", "-o", "x"), 125, "conflicts with --output"),
        (("--on-drift", "kill"), 125, "--on-drift needs --drift"),
        (("--drift", "--on-drift", "burn"), 125, "must be one of event, stop, pause, kill"),
        (("--drift", "--baseline", "/absent"), 2, "no file /absent"),
        (("--drift", "--baseline", "/etc/hostname"), 2, "not an intact record"),
    ],
)
def test_what_is_not_possible_is_refused(
    engine: PrivateEngine, busybox: str, flags: tuple[str, ...], status: int, message: str
) -> None:
    with containers.running(engine, busybox) as name:
        done = engine.cli("jaula", "record", *flags, name)
    assert done.returncode == status, done.stderr
    assert message in done.stderr
