"""``jaula audit --docker``: a foreign dockerd is read from the kernel, and only read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.foreign_dockerd import ForeignDockerd
from jaula.kernel import mountinfo

pytestmark = [
    pytest.mark.needs("dockerd", "docker", "runc", "iptables-save"),
    pytest.mark.xdist_group("foreign-dockerd"),
]

HARD = (
    "--read-only --memory 64m --cpus 1 --user 1000 --cap-drop ALL --pids-limit 50 "
    "--security-opt no-new-privileges --health-cmd true --network own"
)
BAD = (
    "--privileged --pid host --uts host --ipc host --restart always -v /etc:/host "
    "-v {socket}:/docker.sock -p 8080:80"
)
BAD_FAILS = {"4.1", "5.4", "5.5", "5.6", "5.11", "5.12", "5.13", "5.14", "5.15", "5.16", "5.17",
             "5.18", "5.21", "5.22", "5.26", "5.27", "5.29", "5.30", "5.31",
             "5.32"}  # fmt: skip


@pytest.fixture(scope="module")
def dockerd(busybox_archive: Path) -> Iterator[ForeignDockerd]:
    with ForeignDockerd(busybox_archive) as docker:
        docker("network", "create", "own")
        bad = BAD.format(socket=docker.socket).split()
        for name, flags in (("hard", HARD.split()), ("bad", bad), ("plain", [])):
            docker("run", "-d", "--name", name, *flags, "busybox", "sleep", "100000")
        yield docker


def audit(jaula: Any, docker: ForeignDockerd, *words: str) -> dict[str, Any]:
    done = jaula("audit", "--docker", docker.address, "--no-history", "--format", "json", *words)
    assert done.returncode in (0, 1) and done.stdout, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def failing(report: dict[str, Any], subject: str) -> set[str]:
    return {
        control["id"]
        for control in report["controls"]
        for finding in control["findings"]
        if finding["subject"] == subject and finding["state"] == "fail"
    }


def limit_file(docker: ForeignDockerd, id: str) -> Path:
    """Return the file with the limit of processes of a container."""
    for mount in mountinfo.read(errors="replace"):
        path = Path(mount.target, docker.base.name, id, "pids.max")
        if mount.fstype.startswith("cgroup") and path.exists():
            return path
    raise AssertionError("no cgroup of the container has a limit of processes")


def test_containers_fail_the_controls_of_their_flags(jaula: Any, dockerd: ForeignDockerd) -> None:
    report = audit(jaula, dockerd, "--containers")
    assert failing(report, "bad") == BAD_FAILS
    # The benchmark's controls that dockerd cannot hold without --userns-remap.
    assert failing(report, "hard") == {"5.31"}
    unknown = [c["id"] for c in report["controls"] if c["state"] == "unknown"]
    assert not unknown, unknown


def test_a_limit_that_another_program_raised_fails(jaula: Any, dockerd: ForeignDockerd) -> None:
    id = dockerd("inspect", "-f", "{{.Id}}", "hard").stdout.strip()
    file = limit_file(dockerd, id)
    before = file.read_text()
    file.write_text("max")
    try:
        assert dockerd("inspect", "-f", "{{.HostConfig.PidsLimit}}", "hard").stdout == "50\n"
        assert failing(audit(jaula, dockerd, "--containers"), "hard") == {"5.29", "5.31"}
    finally:
        file.write_text(before)


def test_the_engine_its_files_and_images_are_judged(jaula: Any, dockerd: ForeignDockerd) -> None:
    report = audit(jaula, dockerd)
    states = {control["id"]: control["state"] for control in report["controls"]}
    assert len(states) == 108
    assert "unknown" not in states.values(), states
    fails = {"2.2", "2.9", "2.12", "2.13", "2.14", "2.15", "2.16", "4.5", "4.6"}
    assert {id for id in fails if states[id] != "fail"} == set()
    passes = {"2.3", "2.4", "2.5", "2.7", "2.17", "3.15", "3.16", "4.8", "5.1"}
    assert {id for id in passes if states[id] != "pass"} == set()
    assert report["engine"] == json.loads(dockerd("info", "-f", "{{json .ID}}").stdout)


def test_nothing_is_changed(jaula: Any, dockerd: ForeignDockerd) -> None:
    def documents() -> list[Any]:
        listed = dockerd("ps", "-aq", "--no-trunc").stdout.split()
        inspected = [json.loads(dockerd("inspect", id).stdout)[0] for id in sorted(listed)]
        for document in inspected:
            document["State"].pop("Health", None)  # probes go on
            document["ExecIDs"] = None
            document["Mounts"].sort(key=lambda mount: mount["Destination"])  # of a map
        return inspected

    before = documents()
    audit(jaula, dockerd)
    assert documents() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--docker", "unix:///nonexistent/d.sock"), "no dockerd listens at /nonexistent/d.sock"),
        (("--docker", "tcp://127.0.0.1:1"), "is not a unix socket of this host"),
        (("--docker", "--fix"), "--docker needs no --fix"),
        (("--docker", "--profile", "jaula"), "no --profile other than cis"),
        (("unix:///run/docker.sock",), "takes a HOST with --docker only"),
    ],
)
def test_bad_input_is_one_clear_error(jaula: Any, words: tuple[str, ...], message: str) -> None:
    done = jaula("audit", "--no-history", *words)
    assert (done.returncode, message in done.stderr) == (1, True), done.stderr


def test_another_program_at_the_socket_is_refused(jaula: Any, engine: Any) -> None:
    done = jaula("audit", "--docker", engine.host, "--no-history")
    assert done.returncode == 1 and "which is not dockerd" in done.stderr, done.stderr
