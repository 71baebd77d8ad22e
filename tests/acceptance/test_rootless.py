"""An ordinary user's engine in private namespaces: images, containers, ports."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.callers.caller import has_terminal, until
from harness.rootless import SLOW, UPLINK, RootlessHost

pytestmark = [pytest.mark.xdist_group("rootless")]

SERVER = """
import socket, sys
with socket.create_server((sys.argv[1], int(sys.argv[2]))) as server:
    print("ready", flush=True)
    while True:
        client, _ = server.accept()
        with client:
            client.sendall(b"from the host")
"""
ECHO = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
    server.bind(("0.0.0.0", 53))
    print("ready", flush=True)
    server.sendto(*server.recvfrom(100))
"""
ASK = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
    client.settimeout(10)
    client.sendto(b"ping", ("127.0.0.1", 15300))
    print(client.recv(10).decode())
"""
FETCH = """
import sys, urllib.request
sys.stdout.write(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())
"""
NAMES = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
    server.bind(("127.0.0.1", 53))
    print("ready", flush=True)
    while True:
        question, sender = server.recvfrom(512)
        end = question.index(b"\\0", 12) + 5
        answer = b"\\xc0\\x0c\\0\\x01\\0\\x01\\0\\0\\0\\x3c\\0\\x04\\xc0\\0\\x02\\x4d"
        head = question[:2] + b"\\x81\\x80\\0\\x01\\0\\x01\\0\\0\\0\\0"
        server.sendto(head + question[12:end] + answer, sender)
"""
WEB = "mkdir /w; echo hello >/w/index.html; exec httpd -f -h /w -p 80"


@pytest.fixture(scope="module")
def host(busybox_archive: Path) -> Iterator[RootlessHost]:
    """Yield a user with an image, whose first command has started the engine."""
    with RootlessHost() as made:
        made.load(busybox_archive)
        yield made


@pytest.fixture
def bare() -> Iterator[RootlessHost]:
    """Yield a user who has run no command yet."""
    with RootlessHost() as made:
        yield made


@pytest.fixture
def sleeper(host: RootlessHost) -> Iterator[str]:
    host.jaula("run", "-d", "--name", "sleeper", "busybox", "sleep", "1000")
    yield "sleeper"
    host.jaula("rm", "-f", "sleeper")


@contextlib.contextmanager
def listening(host: RootlessHost, address: str, port: int) -> Iterator[None]:
    """Yield a server of the host that sends a greeting to each client."""
    words = host.enter([sys.executable, "-c", SERVER, address, str(port)])
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            yield
        finally:
            server.kill()


def fetch(host: RootlessHost, address: str, port: int) -> str:
    """Return the response of a web server to a program of the host."""
    words = host.enter([sys.executable, "-c", FETCH, f"http://{address}:{port}/"])
    return subprocess.run(words, capture_output=True, text=True).stdout


# -- the engine


def test_the_first_command_starts_the_engine_of_the_user(bare: RootlessHost) -> None:
    info = bare.jaula("info").stdout
    assert "rootless" in info
    assert f"Root Dir: {bare.home}/.local/share/jaula" in info
    facts = bare.path(bare.socket).stat()
    assert (facts.st_uid, facts.st_mode & 0o777) == (bare.uid, 0o600)


def test_a_user_without_subordinate_ids_gets_a_hint() -> None:
    with RootlessHost(with_ids=False) as host:
        done = host.jaula("ps", expect=1)
        assert "tester has no range of ids in /etc/subuid" in done.stderr
        assert "usermod --add-subuids" in done.stderr
        assert host.processes() == []


def test_a_runtime_directory_of_another_user_is_refused(bare: RootlessHost) -> None:
    environment = bare.environment() | {"XDG_RUNTIME_DIR": "/run/user"}
    done = bare.jaula("ps", expect=1, env=environment)
    assert "/run/user/jaula" in done.stderr
    assert "XDG_RUNTIME_DIR" in done.stderr


def test_a_directory_below_tmp_of_another_user_is_not_trusted(bare: RootlessHost) -> None:
    environment = bare.environment()
    del environment["XDG_RUNTIME_DIR"]
    made = Path(f"/tmp/jaula-{bare.uid}")
    bare.path(bare.state).rmdir()
    made.mkdir(0o777)
    try:
        done = bare.jaula("ps", expect=1, env=environment)
    finally:
        shutil.rmtree(made)
    assert f"{made} is not owned by this user alone" in done.stderr


def test_without_a_runtime_directory_a_private_one_is_used(bare: RootlessHost) -> None:
    environment = bare.environment()
    del environment["XDG_RUNTIME_DIR"]
    environment["TMPDIR"] = "/nonexistent"
    assert "CONTAINER ID" in bare.jaula("ps", env=environment).stdout


def test_two_first_commands_start_one_engine(bare: RootlessHost) -> None:
    words = bare.as_user(f"{bare.tree}/jaula", "ps")
    both = [
        subprocess.Popen(words, env=bare.environment(), stdout=subprocess.DEVNULL) for _ in range(2)
    ]
    assert [each.wait(SLOW) for each in both] == [0, 0]
    assert bare.engine()


def test_no_process_remains_after_engine_and_containers_exited(
    bare: RootlessHost, busybox_archive: Path
) -> None:
    bare.load(busybox_archive)
    bare.jaula("run", "--rm", "busybox", "true")
    os.kill(bare.engine(), signal.SIGTERM)
    until(lambda: not bare.processes(), "the keeper and the helper end")


def test_doctor_reports_no_obstacle(host: RootlessHost) -> None:
    found = json.loads(host.jaula("doctor", "--format", "json").stdout)
    assert {row["subject"] for row in found} >= {"subuid", "subgid", "newuidmap", "pasta"}
    assert not [row for row in found if row["state"] == "hinders"]


def test_doctor_reports_obstacles() -> None:
    with RootlessHost(with_ids=False) as host:
        done = host.jaula("doctor", expect=1)
        assert "hinders  subuid: tester has no range in /etc/subuid" in done.stdout
        assert "usermod --add-subuids 100000-165535 tester" in done.stdout


# -- containers


def test_run_returns_streams_and_exit_status(host: RootlessHost) -> None:
    script = "cat; echo err >&2; exit 4"
    done = host.jaula("run", "--rm", "-i", "busybox", "sh", "-c", script, input="in\n", expect=4)
    assert (done.stdout, done.stderr) == ("in\n", "err\n")


def test_run_has_a_terminal(host: RootlessHost) -> None:
    with host.terminal("run", "--rm", "-it", "busybox", "sh") as terminal:
        has_terminal(terminal)
        terminal.send("exit 7\n")
        assert terminal.wait() == 7


@pytest.mark.needs("docker")
def test_the_docker_command_works_on_the_socket(host: RootlessHost) -> None:
    assert host.docker("run", "--rm", "busybox", "echo", "hi").stdout == "hi\n"
    assert "rootless" in host.docker("info", "-f", "{{.SecurityOptions}}").stdout


def test_root_is_mapped_to_the_user(host: RootlessHost, sleeper: str) -> None:
    pid = host.jaula("inspect", "-f", "{{.State.Pid}}", sleeper).stdout.strip()
    assert Path(f"/proc/{pid}").stat().st_uid == host.uid
    rows = [line.split() for line in Path(f"/proc/{pid}/uid_map").read_text().splitlines()]
    assert host.ids is not None
    first, number = map(str, host.ids)
    assert rows == [["0", str(host.uid), "1"], ["1", first, number]]


def test_a_container_has_a_user_namespace_of_its_own(host: RootlessHost, sleeper: str) -> None:
    pid = host.jaula("inspect", "-f", "{{.State.Pid}}", sleeper).stdout.strip()
    own, engines = (os.readlink(f"/proc/{p}/ns/user") for p in (pid, host.engine()))
    assert own != engines


def test_other_users_are_mapped_to_subordinate_ids(host: RootlessHost) -> None:
    shared = host.home / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    host.jaula("run", "--rm", "-u", "33", "-v", f"{shared}:/s", "busybox", "touch", "/s/made")
    assert host.ids is not None
    assert (shared / "made").stat().st_uid == host.ids[0] + 32


def test_files_of_root_in_a_bind_mount_belong_to_the_user(host: RootlessHost) -> None:
    host.jaula("run", "--rm", "-v", f"{host.home}:/h", "busybox", "touch", "/h/made")
    assert (host.home / "made").stat().st_uid == host.uid


def test_exec_logs_and_top_work(host: RootlessHost, sleeper: str) -> None:
    assert host.jaula("exec", sleeper, "id", "-u").stdout == "0\n"
    assert "sleep 1000" in host.jaula("top", sleeper).stdout
    host.jaula("run", "--name", "talker", "busybox", "echo", "said")
    assert host.jaula("logs", "talker").stdout == "said\n"
    host.jaula("rm", "talker")


def test_a_container_keeps_its_changes_and_diff_lists_them(host: RootlessHost) -> None:
    host.jaula("run", "--name", "kept", "busybox", "sh", "-c", "rm /bin/ls; echo x >/etc/new")
    assert {"C /bin", "D /bin/ls", "A /etc/new"} <= set(
        host.jaula("diff", "kept").stdout.splitlines()
    )
    host.jaula("rm", "kept")


def test_a_recreated_directory_hides_the_content_of_the_image(host: RootlessHost) -> None:
    archive = str(host.home / "x.tar")
    host.jaula("run", "--name", "one", "busybox", "sh", "-c", "mkdir /d; touch /d/old")
    host.jaula("export", "-o", archive, "one")
    host.jaula("import", archive, "imported:1")
    script = "rm -r /d; mkdir /d; touch /d/new"
    host.jaula("run", "--name", "two", "imported:1", "sh", "-c", script)
    changes = host.jaula("diff", "two").stdout.splitlines()
    assert {"A /d/new", "D /d/old"} <= set(changes)
    host.jaula("start", "-a", "two")
    host.jaula("export", "-o", archive, "two")
    host.jaula("import", archive, "imported:2")
    assert host.jaula("run", "--rm", "imported:2", "ls", "/d").stdout == "new\n"
    host.jaula("rm", "one", "two")
    host.jaula("rmi", "imported:1", "imported:2")


def test_files_are_copied_in_and_out_and_committed(host: RootlessHost) -> None:
    (host.home / "in").write_text("text")
    host.jaula("run", "-d", "--name", "copied", "busybox", "sleep", "1000")
    host.jaula("cp", str(host.home / "in"), "copied:/root/in")
    assert host.jaula("exec", "copied", "stat", "-c", "%u", "/root/in").stdout == "0\n"
    host.jaula("stop", "-t", "0", "copied")
    host.jaula("cp", "copied:/root/in", str(host.home / "out"))
    assert (host.home / "out").read_text() == "text"
    assert (host.home / "out").stat().st_uid == host.uid
    host.jaula("commit", "copied", "mine:1")
    assert host.jaula("run", "--rm", "mine:1", "cat", "/root/in").stdout == "text"
    host.jaula("rm", "copied")
    host.jaula("rmi", "mine:1")


def test_volumes_persist_after_their_containers(host: RootlessHost) -> None:
    host.jaula("run", "--rm", "-v", "kept:/v", "busybox", "sh", "-c", "echo x >/v/f")
    assert host.jaula("run", "--rm", "-v", "kept:/v", "busybox", "cat", "/v/f").stdout == "x\n"
    host.jaula("volume", "rm", "kept")


def test_device_nodes_are_binds_of_the_host_and_mknod_is_refused(host: RootlessHost) -> None:
    script = "echo x >/dev/null; head -c 4 /dev/zero | wc -c; mknod /dev/mine c 1 3"
    done = host.jaula("run", "--rm", "busybox", "sh", "-c", script, expect=1)
    assert done.stdout == "4\n"
    assert "Operation not permitted" in done.stderr


def test_privileged_grants_no_rights_on_the_host(host: RootlessHost) -> None:
    script = "mount -t tmpfs x /tmp && ! mknod /tmp/sda b 8 0 2>/dev/null && ls /dev"
    output = host.jaula("run", "--rm", "--privileged", "busybox", "sh", "-c", script).stdout
    assert "null" in output
    assert "mem" not in output.split()


@pytest.mark.skipif(
    not Path("/sys/fs/cgroup/pids").is_dir(), reason="cgroup v2 could be delegated on this host"
)
def test_limits_without_a_delegated_cgroup_are_refused(host: RootlessHost, sleeper: str) -> None:
    for flags in (("--memory", "64m"), ("--pids-limit", "50"), ("--cpus", "1")):
        done = host.jaula("run", "--rm", *flags, "busybox", "true", expect=125)
        assert "cannot limit" in done.stderr
        assert "cgroup v1 cannot be delegated to users" in done.stderr
    assert "no cgroup" in host.jaula("pause", sleeper, expect=1).stderr
    assert "containers have no cgroup, so no limits" in host.jaula("info").stdout + (
        host.jaula("info").stderr
    )


# -- the network


def test_published_ports_reach_the_container(host: RootlessHost) -> None:
    host.jaula("run", "-d", "--name", "web", "-p", "18080:80", "busybox", "sh", "-c", WEB)
    until(lambda: fetch(host, "127.0.0.1", 18080) == "hello\n", "the server answers")
    assert fetch(host, "[::1]", 18080) == "hello\n", "in both families"
    assert fetch(host, UPLINK, 18080) == "hello\n"
    inside = host.jaula("run", "--rm", "busybox", "wget", "-qO-", f"http://{UPLINK}:18080/")
    assert inside.stdout == "hello\n"
    host.jaula("rm", "-f", "web")
    assert fetch(host, "127.0.0.1", 18080) == ""


def test_published_udp_ports_are_answered(host: RootlessHost) -> None:
    port = "127.0.0.1:15300:53/udp"
    host.jaula("run", "-d", "--name", "names", "-p", port, "busybox", "sleep", "1000")
    pid = host.jaula("inspect", "-f", "{{.State.Pid}}", "names").stdout.strip()
    words = ["nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, "-c", ECHO]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        done = subprocess.run(
            host.enter([sys.executable, "-c", ASK]), capture_output=True, text=True
        )
        server.kill()
    assert done.stdout == "ping\n", done.stderr
    host.jaula("rm", "-f", "names")


def test_a_port_in_use_by_a_program_is_refused(host: RootlessHost) -> None:
    with listening(host, UPLINK, 19000):
        done = host.jaula("run", "--rm", "-p", "19000:80", "busybox", "true", expect=125)
    assert "bind: address already in use" in done.stderr


def test_a_privileged_port_is_refused_with_a_hint(host: RootlessHost) -> None:
    done = host.jaula("run", "--rm", "-p", "81:80", "busybox", "true", expect=None)
    assert done.returncode in (125, 126)
    assert "ip_unprivileged_port_start=81" in done.stderr


@pytest.mark.needs("pasta")
@pytest.mark.needs("/dev/net/tun")
def test_an_egress_list_is_enforced_in_the_users_network(host: RootlessHost) -> None:
    words = f"nc -w 5 {UPLINK} 19011 </dev/null; nc -w 5 {UPLINK} 19012 </dev/null"
    flags = ("--egress", f"tcp:{UPLINK}:19011")
    with listening(host, UPLINK, 19011), listening(host, UPLINK, 19012):
        done = host.jaula("run", "--rm", *flags, "busybox", "sh", "-c", words, expect=1)
    assert done.stdout == "from the host"


def test_containers_reach_outside_but_not_the_loopback_of_the_host(host: RootlessHost) -> None:
    read = "nc -w 5 {} {} </dev/null"
    with listening(host, UPLINK, 19001), listening(host, "127.0.0.1", 19002):
        output = host.jaula("run", "--rm", "busybox", "sh", "-c", read.format(UPLINK, 19001))
        assert output.stdout == "from the host"
        for address in ("10.0.2.2", "172.30.0.1", "127.0.0.1"):
            words = ("sh", "-c", read.format(address, 19002))
            assert "from the host" not in host.jaula("run", "--rm", "busybox", *words,
                                                     expect=None).stdout  # fmt: skip


def test_a_user_defined_network_works(host: RootlessHost) -> None:
    host.jaula("network", "create", "near")
    words = ("--network", "near", "-p", "18083:80", "busybox", "sh", "-c", WEB)
    host.jaula("run", "-d", "--name", "named", *words)
    script = "until wget -qO- http://named/; do sleep 0.1; done"
    found = host.jaula("run", "--rm", "--network", "near", "busybox", "sh", "-c", script)
    assert found.stdout == "hello\n"
    assert fetch(host, "127.0.0.1", 18083) == "hello\n"
    host.jaula("rm", "-f", "named")
    host.jaula("network", "rm", "near")


@pytest.mark.needs("pasta")
@pytest.mark.needs("/dev/net/tun")
def test_a_name_server_on_the_loopback_of_the_host_answers_containers(
    bare: RootlessHost, busybox_archive: Path
) -> None:
    bare.namespaces.bind_file("/etc/resolv.conf", "nameserver 127.0.0.1\n")
    words = bare.enter([sys.executable, "-c", NAMES])
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            bare.load(busybox_archive)
            output = bare.jaula("run", "--rm", "busybox", "cat", "/etc/resolv.conf").stdout
            assert "nameserver 10.0.2.3" in output
            found = bare.jaula("run", "--rm", "busybox", "nslookup", "-type=a", "some.name.").stdout
        finally:
            server.kill()
    assert "192.0.2.77" in found


@pytest.mark.needs("pasta")
@pytest.mark.needs("/dev/net/tun")
def test_the_next_engine_restarts_a_killed_network_helper(
    bare: RootlessHost, busybox_archive: Path
) -> None:
    bare.load(busybox_archive)
    bare.jaula("run", "-d", "busybox", "sleep", "1000")
    (helper,) = bare.processes("pasta")
    os.kill(helper, signal.SIGKILL)
    os.kill(bare.engine(), signal.SIGTERM)
    until(lambda: not bare.engines(), "the engine ends")
    with listening(bare, UPLINK, 19004):
        words = ("sh", "-c", f"nc -w 5 {UPLINK} 19004 </dev/null")
        assert bare.jaula("run", "--rm", "busybox", *words).stdout == "from the host"


def test_containers_reach_each_other(host: RootlessHost) -> None:
    host.jaula("run", "-d", "--name", "near", "busybox", "sh", "-c", WEB)
    format_ = "{{.NetworkSettings.IPAddress}}"
    address = host.jaula("inspect", "-f", format_, "near").stdout.strip()
    script = f"until wget -qO- http://{address}/; do sleep 0.1; done"
    assert host.jaula("run", "--rm", "busybox", "sh", "-c", script).stdout == "hello\n"
    host.jaula("rm", "-f", "near")


def test_without_a_tun_device_containers_run_and_info_warns(
    busybox_archive: Path,
) -> None:
    with RootlessHost(tun=False) as host:
        closed = Path("/dev/net/tun")
        if closed.exists() and closed.stat().st_mode & 0o006:
            pytest.skip("/dev/net/tun is open to every user on this host")
        host.load(busybox_archive)
        assert host.jaula("run", "--rm", "busybox", "echo", "hi").stdout == "hi\n"
        done = host.jaula("info")
        assert "containers do not reach outside: /dev/net/tun" in done.stdout + done.stderr


# -- when the engine ends


def test_containers_and_ports_survive_a_killed_engine(host: RootlessHost) -> None:
    host.jaula("run", "-d", "--name", "on", "-p", "18081:80", "busybox", "sh", "-c", WEB)
    until(lambda: fetch(host, "127.0.0.1", 18081) == "hello\n", "the server answers")
    os.kill(host.engine(), signal.SIGKILL)
    assert fetch(host, "127.0.0.1", 18081) == "hello\n"
    assert "Up" in host.jaula("ps", "--filter", "name=on").stdout
    assert host.jaula("exec", "on", "cat", "/w/index.html").stdout == "hello\n"
    assert fetch(host, "127.0.0.1", 18081) == "hello\n"
    host.jaula("rm", "-f", "on")
    assert fetch(host, "127.0.0.1", 18081) == ""


def test_a_restarted_engine_restores_its_containers(host: RootlessHost) -> None:
    host.jaula("run", "-d", "--name", "again", "-v", "data:/v", "busybox", "sleep", "1000")
    os.kill(host.engine(), signal.SIGTERM)
    until(lambda: not host.engines(), "the engine ends")
    assert host.jaula("exec", "again", "echo", "hi").stdout == "hi\n"
    host.jaula("stop", "-t", "0", "again")
    host.jaula("start", "again")
    assert host.jaula("exec", "again", "echo", "hi").stdout == "hi\n"
    host.jaula("rm", "-f", "-v", "again")
    host.jaula("volume", "rm", "data")


def test_a_killed_namespace_holder_is_replaced_and_old_containers_can_be_removed(
    bare: RootlessHost, busybox_archive: Path
) -> None:
    bare.load(busybox_archive)
    bare.jaula("run", "-d", "--name", "before", "busybox", "sleep", "1000")
    os.kill(bare.engine(), signal.SIGKILL)
    (keeper,) = bare.processes("jaula-keeper")
    os.kill(keeper, signal.SIGKILL)
    until(lambda: not bare.processes("jaula-keeper"), "the keeper is gone")
    assert bare.jaula("run", "--rm", "busybox", "echo", "hi").stdout == "hi\n"
    bare.jaula("rm", "-f", "before")
    assert not bare.processes("sleep 1000")


def test_ports_of_a_container_that_exited_without_an_engine_are_released(
    host: RootlessHost,
) -> None:
    host.jaula("run", "-d", "--name", "short", "-p", "18082:80", "busybox", "sleep", "1000")
    pid = int(host.jaula("inspect", "-f", "{{.State.Pid}}", "short").stdout)
    os.kill(host.engine(), signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{pid}").exists(), "the container ends")
    host.jaula("ps")

    def free() -> bool:
        script = "import socket; socket.create_server(('127.0.0.1', 18082)).close()"
        words = host.enter([sys.executable, "-c", script])
        return subprocess.run(words, capture_output=True).returncode == 0

    until(free, "the port is given back")
    host.jaula("rm", "-f", "short")


# -- proofs


def test_probe_attempts_fail_in_a_twin(host: RootlessHost, sleeper: str) -> None:
    """A container of the same user has the same ids; every other attempt is refused."""
    found = json.loads(host.jaula("verify", "--probe", "--format", "json", sleeper).stdout)
    tried = {row["id"]: row for row in found if row["id"].startswith("tried: ")}
    assert {"tried: network", "tried: ceilings"} <= set(tried)
    weaker = {name: row["requested"] for name, row in tried.items() if row["verdict"] != "holds"}
    assert set(weaker) == {"tried: others"}
    assert "without root" in weaker["tried: others"]


def test_verify_passes_and_lists_relaxations(host: RootlessHost, sleeper: str) -> None:
    rows = json.loads(host.jaula("verify", "--format", "json", sleeper).stdout)
    text = json.dumps(rows)
    assert "FAILS" not in text
    assert "unknown" not in [row.get("verdict") for row in _rows(rows)]
    relaxed = {row["id"] for row in _rows(rows) if row["verdict"] == "relaxed"}
    assert {"uid_map", "gid_map", "host user", "device rules"} <= relaxed


def _rows(found: Any) -> list[dict[str, Any]]:
    """Return every row of a report, at any depth."""
    if isinstance(found, dict):
        return [found] if "verdict" in found else [r for v in found.values() for r in _rows(v)]
    return [row for each in found for row in _rows(each)] if isinstance(found, list) else []


# -- where something is missing


@pytest.mark.needs("slirp4netns")
@pytest.mark.needs("/dev/net/tun")
def test_slirp4netns_is_used_without_pasta(bare: RootlessHost, busybox_archive: Path) -> None:
    if shutil.which("pasta") is not None:
        hidden = bare.namespaces.base / "hidden"
        hidden.touch(0o644)
        bare.namespaces.bind(hidden, os.path.realpath(str(shutil.which("pasta"))))
    bare.load(busybox_archive)
    assert bare.processes("slirp4netns")
    with listening(bare, UPLINK, 19003):
        words = ("sh", "-c", f"nc -w 5 {UPLINK} 19003 </dev/null")
        assert bare.jaula("run", "--rm", "busybox", *words).stdout == "from the host"
    os.kill(bare.engine(), signal.SIGTERM)
    until(lambda: not bare.processes(), "the helper ends with the keeper")


def test_settings_belong_to_the_user_and_vfs_needs_no_overlay(
    bare: RootlessHost, busybox_archive: Path
) -> None:
    settings = bare.home / ".config/jaula"
    settings.mkdir(parents=True)
    (settings / "daemon.json").write_text('{"storage-driver": "vfs"}')
    bare.load(busybox_archive)
    assert "Storage Driver: vfs" in bare.jaula("info").stdout
    bare.jaula("run", "--name", "kept", "busybox", "sh", "-c", "id -u; echo x >/new")
    assert "A /new" in bare.jaula("diff", "kept").stdout
    bare.jaula("rm", "kept")


def test_an_owner_outside_the_ids_of_the_user_is_refused(host: RootlessHost) -> None:
    archive = host.home / "strange.tar"
    with tarfile.open(archive, "w") as made:
        entry = tarfile.TarInfo("file")
        entry.uid = 4_000_000
        made.addfile(entry)
    done = host.jaula("import", str(archive), "strange:1", expect=1)
    assert "4000000" in done.stderr
    assert "/etc/subuid" in done.stderr
