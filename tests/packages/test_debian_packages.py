"""The Debian packages on a system with systemd: each transition of dpkg, without a network.

`./test --vm-all packages` builds two versions (scripts/upgrade-debs) and runs this in a virtual
machine. The tests are one story: each leaves the state that the next one expects.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from packages import debian
from packages.debian import CLIENTS, NEW, OLD, PROJECT, run

pytestmark = [
    pytest.mark.vm,
    pytest.mark.xdist_group("packages"),
    pytest.mark.timeout(2400),
    pytest.mark.skipif(
        "JAULA_VM" not in os.environ
        or not OLD.is_dir()
        or not Path("/run/systemd/system").is_dir(),
        reason="needs a virtual machine with systemd, and the packages of scripts/upgrade-debs",
    ),
]

COUNT = int(os.environ.get("JAULA_UPGRADE_CONTAINERS", "50"))
LIMIT = float(os.environ.get("JAULA_INSTALL_LIMIT", "60"))  # seconds, on an idle host
INTERVAL = 0.5  # seconds between two bursts of a container
BURST = 10  # lines
SOCKET = Path("/run/jaula/jaula.sock")
IMAGE = PROJECT / ".venv/test-images/busybox.tar"
# `read` waits without a new process.
WRITER = (
    "mkfifo /tmp/f; exec 3<>/tmp/f; i=0; "
    f"while :; do n=$((i+{BURST})); while [ $i -lt $n ]; do echo line $i; i=$((i+1)); done; "
    f"read -t {INTERVAL} x <&3; done"
)
COMPOSE = """
services:
  store:
    image: busybox
    command: sh -c 'echo stock > /data/index.html; exec httpd -f -p 80 -h /data'
    init: true
    volumes: [data:/data]
    healthcheck: {test: [CMD, test, -s, /data/index.html], interval: 1s}
  client:
    image: busybox
    command: sleep 600
    init: true
    depends_on: {store: {condition: service_healthy}}
volumes:
  data: {}
"""
PURGED = {
    "groups": r"\+ jaula:.*",
    # systemd-sysusers writes backups. The script of dh_apparmor removes a directory that is empty.
    "files": r"\+ /etc/(group-|gshadow-|\.pwd\.lock)|- /etc/apparmor\.d/disable",
}
"""What may be new (+) or missing (-) after a purge, by kind."""
LINE = re.compile(rb"line (\d+)\n")


@pytest.fixture(scope="module")
def before() -> dict[str, list[str]]:
    return debian.snapshot()


@pytest.fixture(scope="module", autouse=True)
def report() -> Iterator[list[str]]:
    """Yield a list of measurements, which are printed at the end."""
    lines: list[str] = []
    yield lines
    print("\n" + "\n".join(lines))


def lines_of(name: str) -> list[int]:
    """Return the numbers that a container has logged."""
    log = debian.request("GET", f"/containers/{name}/logs?stdout=1")
    return [int(number) for number in LINE.findall(log)]


def test_first_container_after_the_installation(
    before: dict[str, list[str]], report: list[str]
) -> None:
    begin = time.monotonic()
    run("dpkg", "-i", debian.package(OLD))
    installed = time.monotonic()
    run("jaula", "load", "-i", IMAGE)
    assert run("jaula", "run", "--rm", "busybox", "echo", "hello") == "hello\n"
    end = time.monotonic()
    report.append(f"install {installed - begin:.0f} s, first container {end - begin:.0f} s")
    assert end - begin < LIMIT
    assert debian.is_active("jaula.service") and debian.is_active("jaula.socket")
    group = run("getent", "group", "jaula").split(":")[2]
    socket_status = SOCKET.stat()
    assert socket_status.st_gid == int(group)
    assert socket_status.st_mode & 0o777 == 0o660


def test_upgrade_keeps_containers_and_every_line_of_their_logs(report: list[str]) -> None:
    names = [f"writer{number}" for number in range(COUNT)]
    for name in names:
        debian.start(name, "busybox", "sh", "-c", WRITER)
    pids = debian.init_pids()
    times = {name: debian.start_time(pid) for name, pid in pids.items()}
    assert len(pids) == COUNT
    counts = {name: len(lines_of(name)) for name in names[:1]}
    inode = SOCKET.stat().st_ino

    begin = time.monotonic()
    output = run("dpkg", "-i", debian.package(NEW))
    seconds = time.monotonic() - begin

    assert debian.is_active("jaula.service"), output
    assert SOCKET.stat().st_ino == inode  # it stays open, so that requests wait
    assert run("jaula", "--version") != "jaula version 0.0.1\n"
    assert debian.init_pids() == pids
    assert {name: debian.start_time(pid) for name, pid in pids.items()} == times
    assert run("jaula", "exec", names[0], "echo", "inside") == "inside\n"
    for name in names:
        numbers = lines_of(name)
        assert numbers == list(range(len(numbers))), name
    written = len(lines_of(names[0])) - counts[names[0]]
    assert written > 10
    report.append(
        f"upgrade under {COUNT} containers {seconds:.0f} s; one wrote {written} lines meanwhile"
    )


def test_failed_upgrade_keeps_engine_and_containers(tmp_path: Path) -> None:
    pids = debian.init_pids()
    engine = run("systemctl", "show", "--value", "-p", "MainPID", "jaula.service")
    control = tmp_path / "package/DEBIAN/control"
    (tmp_path / "package").mkdir()
    run("dpkg-deb", "-e", debian.package(NEW), control.parent)
    control.write_text(re.sub(r"(?m)^Version: .*$", "Version: 9.0-1", control.read_text()))
    (control.parent / "conffiles").unlink()
    (control.parent / "preinst").write_text("#!/bin/sh\nexit 1\n")
    (control.parent / "preinst").chmod(0o755)
    broken = tmp_path / "broken.deb"  # it fails before its files would be unpacked
    run("dpkg-deb", "-b", "-Znone", tmp_path / "package", broken)
    assert "error processing" in run("dpkg", "-i", broken, check=False)
    assert debian.status() == "installed"
    assert run("systemctl", "show", "--value", "-p", "MainPID", "jaula.service") == engine
    assert debian.init_pids() == pids


def test_changed_settings_and_containers_survive_an_installation_of_the_same_version() -> None:
    pids = debian.init_pids()
    settings = Path("/etc/jaula/daemon.json")
    text = settings.read_text()
    settings.write_text(text.replace('"group": "jaula"', '"debug": true,\n    "group": "jaula"'))
    run("dpkg", "-i", "--force-confold", debian.package(NEW))
    assert '"debug": true' in settings.read_text()
    assert json.loads(debian.request("GET", "/info"))["Debug"] is True
    assert debian.init_pids() == pids


def test_docker_finds_its_socket_and_its_command() -> None:
    run("dpkg", "-i", debian.package(NEW, "jaula-docker"))
    assert os.readlink("/run/docker.sock") == "jaula/jaula.sock"
    assert run("docker", "ps", "--quiet", "--filter", "name=writer0").strip()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("/run/docker.sock")
        client.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
        assert b"200 OK" in client.recv(4096)


def test_docker_and_compose_of_debian_use_the_socket(tmp_path: Path) -> None:
    assert "conflicting packages" in run(
        "dpkg", "-i", debian.package(CLIENTS, "docker-cli"), check=False
    )
    run("dpkg-deb", "-x", debian.package(CLIENTS, "docker-cli"), tmp_path / "client")
    run("dpkg", "-i", debian.package(CLIENTS, "docker-compose"))
    docker = tmp_path / "client/usr/bin/docker"
    assert run(docker, "run", "--rm", "busybox", "echo", "docker") == "docker\n"
    assert "jaula" in run(docker, "version")
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    project = (docker, "compose", "--project-directory", tmp_path, "--project-name", "shop")
    try:
        run(*project, "up", "--detach", "--wait", "--wait-timeout", "300")
        page = ("exec", "-T", "client", "wget", "-q", "-O", "-", "http://store/")
        assert run(*project, *page) == "stock\n"
    finally:
        run(*project, "down", "--volumes", "--timeout", "1")
    assert not [c for c in debian.containers(every=True) if c["Name"].startswith("/shop")]


def test_removed_docker_package_takes_its_socket_with_it() -> None:
    run("dpkg", "-P", "docker-compose", "jaula-docker")
    assert not os.path.lexists("/run/docker.sock")
    assert not Path("/usr/bin/docker").exists()


def test_web_view_of_the_package_serves_the_engine() -> None:
    assert "jaula-web" in run("jaula", "web", check=False)
    run("dpkg", "-i", debian.package(NEW, "jaula-web"))
    view = debian.PackagedWebView()
    try:
        view.start()
        browser = view.log_in()
        assert browser.begin()["user"] == "root"
        containers = browser.api("GET", "/containers/json").json()
        assert {c["Id"] for c in containers} == {c["Id"] for c in debian.containers()}
        assert browser.request("GET", "/static/vendor/preact.js").status == 200
    finally:
        view.stop()
    run("dpkg", "-P", "jaula-web")


def test_removal_stops_containers_and_keeps_data_and_settings(report: list[str]) -> None:
    run("jaula", "volume", "create", "kept")
    run("jaula", "run", "--rm", "-v", "kept:/data", "busybox", "sh", "-c", "echo 1 > /data/file")
    assert len(debian.containers()) == COUNT
    begin = time.monotonic()
    output = run("dpkg", "-r", "jaula")
    report.append(f"removal with {COUNT} containers {time.monotonic() - begin:.0f} s")
    assert "not all containers" not in output
    assert "triggering units" not in output  # the socket is stopped with the engine
    assert debian.status() == "config-files"
    after = debian.snapshot()
    assert after["processes"] == []
    assert after["active units"] == []
    assert not SOCKET.exists()
    assert not [link for link in after["links"] if link.startswith("jaula")]
    assert not [line for line in after["firewall"] if "jaula" in line]
    assert Path("/etc/jaula/daemon.json").exists()
    assert Path("/var/lib/jaula").is_dir()


def test_installation_after_a_removal_finds_the_containers_again() -> None:
    run("dpkg", "-i", debian.package(NEW))
    stopped = debian.containers(every=True)
    assert [c["State"]["ExitCode"] for c in stopped] == [137] * COUNT  # they ignore the signal
    words = ("jaula", "run", "--rm", "-v", "kept:/data", "busybox", "cat", "/data/file")
    assert run(*words) == "1\n"
    name = debian.containers(every=True)[0]["Name"].lstrip("/")
    run("jaula", "start", name)
    assert lines_of(name)[-1] >= 0


def test_purge_leaves_nothing_but_the_group(before: dict[str, list[str]]) -> None:
    run("dpkg", "-P", "jaula")
    assert debian.status() in ("", "not-installed")
    left = debian.difference(before, debian.snapshot())
    unexpected = {
        kind: [line for line in lines if not re.fullmatch(PURGED.get(kind, ""), line)]
        for kind, lines in left.items()
    }
    assert {kind: lines for kind, lines in unexpected.items() if lines} == {}
