"""The Debian packages, installed in a private root: Debian's docker and compose, and the web view.

The root is an overlay of this machine's, in mount, network and pid namespaces of its own, where no
systemd runs. It ends with the first process of the pid namespace. `./test --vm-all packages` tests
services, upgrades and removals.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import image_archive
from harness.engine import PROJECT

pytestmark = [pytest.mark.packages, pytest.mark.timeout(1800)]
CGROUP = "jaula-packages"
SOCKET = "/run/jaula/jaula.sock"
COMPOSE = """
services:
  store:
    image: busybox
    command: sh -c 'echo stock > /data/index.html; exec httpd -f -p 80 -h /data'
    volumes: [data:/data]
    healthcheck: {test: [CMD, test, -s, /data/index.html], interval: 1s}
  client:
    image: busybox
    command: sleep 600
    depends_on: {store: {condition: service_healthy}}
volumes:
  data: {}
"""
BROWSER = """
import http.client, json, sys
view = http.client.HTTPConnection("127.0.0.1", 8642)
headers = {"Content-Type": "application/json", "Origin": "http://127.0.0.1:8642"}
view.request("POST", "/login", json.dumps({"code": sys.argv[1]}), headers)
answer = view.getresponse()
headers["Authorization"] = "Bearer " + json.loads(answer.read())["session"]
view.request("GET", "/session", headers=headers)
print(view.getresponse().read().decode())
view.request("GET", "/static/vendor/preact.js", headers=headers)
answer = view.getresponse()
print(len(answer.read()) if answer.status == 200 else answer.status)
"""
ENTER = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" overlay "$1/root"
cd "$1/root"
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
for directory in run tmp var/lib/jaula mnt; do
    mkdir -p $directory
    mount -t tmpfs -o mode=1777 tmpfs $directory
done
mkdir mnt/packages oldroot
mount --bind "$2" mnt/packages
ip link set lo up
# dpkg would stop the services of packages that it removes, which are not of this root.
printf '#!/bin/sh\nexit 101\n' >usr/sbin/policy-rc.d
chmod 755 usr/sbin/policy-rc.d
rm -f var/lib/dpkg/info/docker*.prerm var/lib/dpkg/info/docker*.postrm
pivot_root . oldroot
umount -l /oldroot
echo ready
exec sleep infinity
"""


class Root:
    """A root with namespaces of its own, which a first process holds."""

    engine: subprocess.Popen[str]
    files: set[str]
    """Files before the installation."""

    def __init__(self, holder: subprocess.Popen[str]) -> None:
        (pid,) = Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text().split()
        self.first_process = Path("/proc", pid)
        self.enter = ("nsenter", "-t", pid, "-m", "-n", "-p", "-r", "-w")

    def command(self, *words: str) -> list[str]:
        # Debian's paths, and no variable of Docker's clients.
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        plain = (
            "env",
            "-i",
            path,
            "LC_ALL=C.UTF-8",
            "DEBIAN_FRONTEND=noninteractive",
            "HOME=/root",
        )
        return [*self.enter, *plain, *words]

    def try_(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip

    def run(self, *words: str) -> str:
        """Run a command in the root, and return its output with the errors."""
        done = self.try_(*words)
        assert done.returncode == 0, f"{words}\n{done.stdout}"
        return done.stdout

    def list_files(self) -> set[str]:
        """Return the files of the packages; other programs change other files of the host."""
        words = ("-xdev", "-path", "/var/lib/dpkg", "-prune", "-o", "-name", "*jaula*", "-print")
        return set(self.run("find", "/etc", "/usr", "/var/lib", *words).splitlines())

    def start(self, name: str, *words: str) -> subprocess.Popen[str]:
        """Start a program, which writes its pid of the namespace to a file with this name."""
        script = f'echo $$ >/tmp/{name}.pid; exec "$@"'
        return subprocess.Popen(
            self.command("sh", "-c", script, "sh", *words), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def stop(self, name: str, process: subprocess.Popen[str]) -> None:
        """Stop a program, and wait for nsenter, its parent."""
        self.run("sh", "-c", f"kill $(cat /tmp/{name}.pid)")
        process.communicate(timeout=120)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the Debian packages, the docker-cli of Debian, and an image."""
    directory = tmp_path_factory.mktemp("packages")
    words = [PROJECT / "scripts/build-deb", "--output", directory]
    subprocess.run(words, check=True, capture_output=True)
    shutil.copy(image_archive("busybox"), directory / "busybox.tar")
    shutil.copy("/usr/bin/docker", directory / "docker")
    return directory


@pytest.fixture(scope="module")
def root(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Root]:
    scratch = tmp_path_factory.mktemp("root")
    words = ["unshare", "-m", "-n", "-p", "-f", "--kill-child", "sh", "-c", ENTER, "sh"]
    with subprocess.Popen(
        [*words, str(scratch), str(packages)], stdout=subprocess.PIPE, text=True
    ) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "ready\n"
            opened = Root(holder)
            yield opened
        finally:
            holder.kill()
            holder.wait()
    deadline = time.monotonic() + 60
    while opened.first_process.exists():  # it is gone after all processes of its namespace
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for directory, _, _ in os.walk("/sys/fs/cgroup", topdown=False):
        if f"/{CGROUP}" in directory:
            os.rmdir(directory)


@pytest.fixture(scope="module")
def installed(root: Root) -> Iterator[Root]:
    """The root with the package and its engine, which has names that no other engine uses."""
    root.run("sh", "-c", "dpkg --force-depends -P docker.io docker-cli")
    root.files = root.list_files()
    root.run("sh", "-c", "dpkg -i /mnt/packages/jaula_*.deb")
    root.run("sh", "-c", "dpkg -i /mnt/packages/jaula-docker_*.deb")
    root.run("systemd-tmpfiles", "--create", "jaula.conf", "jaula-docker.conf")
    root.engine = root.start(
        "engine",
        *("jaula", "daemon", "--bridge", "jlpk0", "--bridge-subnet", "10.199.250.0/24"),
        *("--cgroup-parent", CGROUP, "--subid-start", "2900000000", "--subid-count", "5000000"),
    )
    deadline = time.monotonic() + 120
    while root.try_("test", "-S", SOCKET).returncode:  # without it, a client starts an engine
        assert root.engine.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    root.run("jaula", "load", "-i", "/mnt/packages/busybox.tar")
    yield root
    if root.engine.poll() is None:
        root.stop("engine", root.engine)


def test_the_socket_belongs_to_the_group_of_the_package(installed: Root) -> None:
    assert installed.run("stat", "-c", "%a %U %G", SOCKET) == "660 root jaula\n"
    assert installed.run("readlink", "/run/docker.sock") == "jaula/jaula.sock\n"
    assert installed.run("jaula", "run", "--rm", "busybox", "echo", "hello") == "hello\n"


def test_docker_of_debian_uses_the_engine(installed: Root) -> None:
    for docker in ("/mnt/packages/docker", "docker"):
        assert "jaula" in installed.run(docker, "version", "--format", "{{json .Server}}")
        assert installed.run(docker, "run", "--rm", "busybox", "echo", "ran") == "ran\n"


def test_compose_of_debian_uses_the_engine(installed: Root) -> None:
    installed.run("sh", "-c", f"mkdir /tmp/shop; cat >/tmp/shop/compose.yaml <<'E'{COMPOSE}E")
    project = ("/mnt/packages/docker", "compose", "--project-directory", "/tmp/shop")
    installed.run(*project, "up", "--detach", "--wait")
    page = ("exec", "-T", "client", "wget", "-q", "-O", "-", "http://store/")
    assert installed.run(*project, *page) == "stock\n"
    assert "store" in installed.run("docker", "compose", "--project-directory", "/tmp/shop", "ps")
    installed.run(*project, "down", "--volumes", "--timeout", "1")
    assert installed.run("docker", "ps", "--all", "--quiet") == ""


def test_the_web_view_needs_its_package(installed: Root) -> None:
    missing = installed.try_("jaula", "web")
    assert missing.returncode != 0 and "install the package jaula-web\n" in missing.stdout
    installed.run("sh", "-c", "dpkg -i /mnt/packages/jaula-web_*.deb")
    view = installed.start("view", "jaula", "web", "--listen", "127.0.0.1:8642")
    try:
        assert view.stdout is not None
        assert view.stdout.readline().startswith("web view on http://127.0.0.1:8642")
        code = installed.run("jaula", "web", "--open").strip().partition("#")[2]
        answer = installed.run("/usr/bin/python3", "-c", BROWSER, code)
        session, module = answer.splitlines()
        assert json.loads(session)["user"] == "root"
        assert int(module) > 1000
    finally:
        installed.stop("view", view)


def test_a_purge_leaves_no_file_but_the_group(installed: Root) -> None:
    installed.stop("engine", installed.engine)
    installed.run("dpkg", "-P", "jaula-web", "jaula-docker", "jaula")
    assert installed.list_files() == installed.files
    assert installed.run("getent", "group", "jaula").startswith("jaula:")
    assert installed.run("ls", "-A", "/var/lib/jaula") == ""
