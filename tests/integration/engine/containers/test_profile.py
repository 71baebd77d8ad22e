"""Documents of profiles and egress lists in a running container, through the engine."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import load_image
from harness import containers, elf_files
from harness.containers import running, unique
from harness.engine import PrivateEngine
from jaula.network.dns import message
from jaula.network.firewall import bridge_rules

DOCUMENT = """
version = 1
name = "shell"
capabilities = ["CHOWN"]

[process]
user = "1000:1000"

[seccomp.syscalls]
x86_64 = [
    "access", "arch_prctl", "brk", "chdir", "clock_nanosleep", "clone", "close", "connect", "dup2",
    "execve", "exit_group", "fcntl", "fork", "fstat", "futex", "getcwd", "getdents64", "getegid",
    "geteuid", "getgid", "getgroups", "getpid", "getppid", "getrandom", "getuid", "ioctl", "kill",
    "lseek", "lstat", "mmap", "mprotect", "munmap", "nanosleep", "newfstatat", "open", "openat",
    "pipe", "pipe2", "poll", "pread64", "prctl", "prlimit64", "read", "readlink", "recvfrom",
    "rseq", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigsuspend", "sendfile", "sendto",
    "set_robust_list", "set_tid_address", "setpgid", "setsid", "socket", "stat", "statx", "uname",
    "unlink", "utimensat", "vfork", "wait4", "write", "writev",
]

[files]
read = ["/etc/passwd", "/bin/", "/lib/", "/lib64/"]
execute = ["/bin/", "/lib/", "/lib64/"]
write = ["/run/app.pid", "/tmp/"]

[files.tmpfs]
"/tmp" = "mode=1777,size=8m"
"/run" = "mode=1777,size=1m"

[network]
egress = ["tcp:192.0.2.1:443"]

[limits]
pids = 20
memory = 67108864
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "shell.toml"
    path.write_text(DOCUMENT)
    return str(path)


def verified(engine: PrivateEngine, name: str) -> dict[str, str]:
    """Return what is in effect by row; no row fails."""
    done = engine.cli("jaula", "verify", "--format", "json", name)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(done.stdout)
    assert not [row for row in rows if row["verdict"] in ("FAILS", "unknown")]
    return {row["id"]: row["effective"] for row in rows}


def test_a_document_is_in_effect(engine: PrivateEngine, busybox: str, file: str) -> None:
    with running(engine, busybox, flags=("--profile", file)) as name:
        inside = engine.cli("jaula", "exec", name, "sh", "-c", (
            "id -u; touch /tmp/x /run/app.pid; cat /etc/passwd | head -c 4; echo;"
            "cat /etc/group; ls /; cp /bin/busybox /tmp/b; chmod +x /tmp/b; touch /etc/x"
        ))  # fmt: skip
        assert inside.stdout.split() == ["1000", "root"]
        errors = inside.stderr
        assert "can't open '/etc/group': Permission denied" in errors
        assert "can't open '/': Permission denied" in errors
        assert "/tmp/b: Operation not permitted" in errors  # no chmod in the list
        assert "/etc/x: Read-only file system" in errors
        document = containers.inspect(engine, name)
        assert document["HostConfig"]["ProfileName"] == "shell"
        assert document["HostConfig"]["ProfileDigest"].startswith("sha256:")
        assert document["HostConfig"]["Egress"] == ["tcp:192.0.2.1:443"]
        assert document["Relaxations"] == []
        facts = containers.status(containers.pid(engine, name))
        assert (int(facts["CapBnd"], 16), facts["NoNewPrivs"]) == (1, "1")
        rows = verified(engine, name)
        assert rows["relaxations"] == "none"
        assert rows["egress"] == "1 destination"


def test_escape_attempts_are_refused_under_a_document(
    engine: PrivateEngine, busybox: str, file: str
) -> None:
    with running(engine, busybox, flags=("--profile", file)) as name:
        done = engine.cli("jaula", "verify", "--probe", "--format", "json", name, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        rows = json.loads(done.stdout)
        assert not [row for row in rows if row["verdict"] in ("FAILS", "unknown")]
        assert any(row["id"] == "tried: network" for row in rows)


def test_a_request_from_inspect_is_the_same_container(
    engine: PrivateEngine, busybox: str, file: str
) -> None:
    with running(engine, busybox, flags=("--profile", file)) as name:
        document = containers.inspect(engine, name)
    body = {**document["Config"], "HostConfig": document["HostConfig"]}
    again = unique()
    reply = engine.request("POST", f"/containers/create?name={again}", body)
    try:
        assert reply.status == 201, reply
        assert not reply.json()["Warnings"]
        second = containers.inspect(engine, again)["HostConfig"]
        assert second == document["HostConfig"]
    finally:
        engine.request("DELETE", f"/containers/{again}?force=1&v=1")


# i386's getpid by int 0x80; the status is 0 if it fails with EPERM, otherwise 1:
# mov eax,20; int 0x80; cmp eax,-1; setne dil; movzx edi,dil; mov eax,60; syscall
I386 = bytes.fromhex("b814000000 cd80 83f8ff 400f95c7 400fb6ff b83c000000 0f05")
CALLS = """name = "calls"
[seccomp.syscalls]
x86_64 = ["access", "arch_prctl", "brk", "close", "exit", "getpid", "mmap", "prctl", "read"]
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the i386 ABI is of x86")
@pytest.mark.parametrize(("more", "status"), [("", 0), ('x86 = ["getpid"]\n', 1)])
def test_a_call_of_one_architecture_is_refused_on_another(
    engine: PrivateEngine, busybox: str, tmp_path: Path, more: str, status: int
) -> None:
    program, document = tmp_path / "i386", tmp_path / "calls.toml"
    program.write_bytes(elf_files.executable(I386))
    program.chmod(0o755)
    document.write_text(CALLS + more)
    done = engine.cli(
        *("jaula", "run", "--rm", "--profile", str(document)),
        *("-v", f"{program}:/i386:ro", busybox, "/i386"),
    )
    assert (done.returncode, done.stderr) == (status, "")


def test_explicit_options_win_with_a_warning(
    engine: PrivateEngine, busybox: str, file: str
) -> None:
    name = unique()
    done = engine.cli(
        *("jaula", "run", "-d", "--name", name, "--profile", file),
        *("--cap-add", "NET_RAW", "--security-opt", "seccomp=unconfined", busybox, "sleep", "60"),
    )
    try:
        assert done.returncode == 0, done.stderr
        assert "weaken the profile shell: cap-add=NET_RAW, other seccomp filter" in done.stderr
        assert verified(engine, name)["relaxations"].startswith("cap-add=NET_RAW, other seccomp")
    finally:
        engine.request("DELETE", f"/containers/{name}?force=1&v=1")


def test_docker_sends_a_document_as_an_annotation(engine: PrivateEngine, busybox: str) -> None:
    done = engine.cli(
        *("docker", "run", "--rm", "--annotation", f"io.jaula.profile={DOCUMENT}", busybox),
        *("sh", "-c", "id -u; cat /etc/group"),
    )
    assert done.stdout == "1000\n"
    assert "Permission denied" in done.stderr


@pytest.mark.skipif(not shutil.which("docker-compose"), reason="docker-compose is not installed")
def test_compose_sends_a_document_as_an_annotation(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    text = "".join(f"          {line}\n" for line in DOCUMENT.splitlines())
    (tmp_path / "compose.yaml").write_text(
        f"services:\n  shell:\n    image: {busybox}\n    network_mode: none\n"
        '    command: ["sh", "-c", "id -u; cat /etc/group"]\n'
        f"    annotations:\n        io.jaula.profile: |\n{text}"
    )
    compose = ("docker-compose", "-p", unique("p"))
    try:
        done = engine.cli(*compose, "up", "--no-log-prefix", cwd=tmp_path, timeout=120)
        assert done.returncode == 0, done.stderr
        assert "1000\n" in done.stdout
        assert "Permission denied" in done.stdout + done.stderr
    finally:
        engine.cli(*compose, "down", "-t", "0", cwd=tmp_path)


@pytest.mark.parametrize("client", ["jaula", "docker"])
def test_a_packaged_profile_is_named(engine: PrivateEngine, busybox: str, client: str) -> None:
    flag = ("--profile", "nginx")
    if client == "docker":
        flag = ("--annotation", "io.jaula.profile=nginx")
    name = unique()
    done = engine.cli(client, "create", "--name", name, *flag, busybox, "true")
    try:
        assert done.returncode == 0, done.stderr
        host = containers.inspect(engine, name)["HostConfig"]
        assert host["ProfileName"] == "nginx"
        assert host["Listen"] == ["tcp:80"]
        assert host["Egress"] == []
    finally:
        engine.request("DELETE", f"/containers/{name}?force=1&v=1")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('name = "x"\nread = []\n', "unknown field `read`"),
        ("name = ", "Invalid value"),
        ('name = "x"\ncapabilities = ["NET_RAWW"]\n', "did you mean NET_RAW"),
        ('name = "x"\n[network]\negress = ["tcp:a"]\n', "invalid item 'tcp:a'"),
        ('name = "x"\n[files]\nread = ["/a/../b"]\n', "not a normalised absolute path"),
        ('name = "x"\n[seccomp.syscalls]\nx86_64 = ["re ad"]\n', "not the name of a system call"),
        ('name = "x"\n[files]\ntmpfs = {"/tmp" = "sise=1"}\n', "sise"),
        ('name = "x"\n[seccomp.syscalls]\naarch64 = ["read"]\n', "architecture of this host"),
        ("", "not a TOML document"),
    ],
)
def test_a_document_that_is_not_valid_creates_nothing(
    engine: PrivateEngine, busybox: str, tmp_path: Path, text: str, words: str
) -> None:
    path, name = tmp_path / "bad.toml", unique()
    path.write_text(text)
    done = engine.cli("jaula", "run", "--name", name, "--profile", str(path), busybox, "true")
    assert done.returncode == 125
    assert words in done.stderr
    assert engine.request("GET", f"/containers/{name}/json").status == 404


@pytest.mark.parametrize("flags", [("--network", "host"), ("--network", "container:{peer}")])
def test_a_list_needs_a_network_of_its_own(
    engine: PrivateEngine, busybox: str, flags: tuple[str, ...]
) -> None:
    with running(engine, busybox) as peer:
        words = [word.format(peer=peer) for word in flags]
        done = engine.cli("jaula", "run", "--rm", *words, "--egress", "none", busybox, "true")
    assert done.returncode == 125
    assert "conflicting options: an egress list and the network of" in done.stderr


# -- egress ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def name_server(address: str, answers: dict[str, str]) -> Iterator[None]:
    """Serve DNS on the host, at an address of the engine's bridge."""
    ended = threading.Event()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((address, 53))
        sock.settimeout(0.2)

        def serve() -> None:
            while not ended.is_set():
                try:
                    data, source = sock.recvfrom(4096)
                except TimeoutError:
                    continue
                query = message.parse(data)
                known = answers.get(query.name)
                reply = (
                    message.answer(query, [known])
                    if known
                    else message.failure(query, message.NXDOMAIN)
                )
                sock.sendto(reply, source)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def connects(engine: PrivateEngine, name: str, target: str) -> bool:
    command = ("wget", "-T", "3", "-q", "-O", "-", f"http://{target}")
    return engine.cli("jaula", "exec", name, *command).returncode == 0


@pytest.mark.parametrize("network", ["bridge", "own"])
def test_a_name_is_reachable_after_its_answer_and_other_names_are_not(
    engine: PrivateEngine, busybox: str, network: str
) -> None:
    made = unique("n") if network == "own" else ""
    subnet = f"10.198.{engine.index}"
    if made:
        config = {"Name": made, "IPAM": {"Config": [{"Subnet": f"{subnet}.0/24"}]}}
        assert engine.request("POST", "/networks/create", config).status == 201
    serve = ("httpd", "-f", "-p", "80", "-h", "/etc")
    place = ("--network", made) if made else ()
    try:
        with running(engine, busybox, *serve, flags=place) as web:
            address = containers.address(engine, web, made or "bridge")
            gateway = containers.inspect(engine, web)["NetworkSettings"]["Networks"][
                made or "bridge"
            ]["Gateway"]
            lists = ("--egress", "tcp:web.example:80", "--egress", f"tcp:{address}:9")
            flags = (*place, "--dns", gateway, *lists)  # a container's address is internal
            answers = {"web.example": address, "other.example": address}
            with name_server(gateway, answers), running(engine, busybox, flags=flags) as name:
                assert not connects(engine, name, f"{address}/passwd")
                assert not connects(engine, name, "other.example/passwd")
                assert connects(engine, name, "web.example/passwd")
                assert connects(engine, name, f"{address}/passwd")
                refused = containers.inspect(engine, name)["EgressRefused"]
                assert [row["Destination"] for row in refused] == [f"tcp:{address}:80"]
    finally:
        if made:
            engine.request("DELETE", f"/networks/{made}")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("delete element inet {table} chains4 {{ {address} }}", "{address} is missing in inet"),
        ("delete element bridge {table} chains {{ {port} }}", "{port} is missing in bridge"),
        ("insert rule inet {table} {chain} accept", "not the engine's: inet a rule of {chain}"),
        ("flush chain inet {table} {chain}", "missing in inet a rule of {chain}"),
        ("flush chain bridge {table} forward", "missing in bridge a rule of forward"),
    ],
)
def test_a_removed_rule_is_found(
    engine: PrivateEngine, busybox: str, command: str, words: str
) -> None:
    with running(engine, busybox, flags=("--egress", "tcp:192.0.2.1:443")) as name:
        assert verified(engine, name)["egress"] == "1 destination"
        endpoint = containers.inspect(engine, name)["NetworkSettings"]["Networks"]["bridge"]
        identity = endpoint["EndpointID"]
        facts = {
            "table": f"{bridge_rules.table_name(engine.bridge)}_egress",
            "address": endpoint["IPAddress"],
            "port": f"jl{identity[:10]}",
            "chain": f"c_{identity[:16]}",
        }
        subprocess.run(("nft", command.format(**facts)), check=True)
        done = engine.cli("jaula", "verify", "--format", "json", name)
        row = next(row for row in json.loads(done.stdout) if row["id"] == "egress")
        assert row["verdict"] == "FAILS"
        assert words.format(**facts) in row["effective"]


def test_the_name_of_a_container_is_a_destination(engine: PrivateEngine, busybox: str) -> None:
    made = unique("n")
    assert engine.request("POST", "/networks/create", {"Name": made}).status == 201
    serve = ("httpd", "-f", "-p", "80", "-h", "/etc")
    try:
        with (
            running(engine, busybox, *serve, flags=("--network", made)) as one,
            running(engine, busybox, *serve, flags=("--network", made)) as two,
            running(
                engine, busybox, flags=("--network", made, "--egress", f"tcp:{one}:80")
            ) as name,
        ):
            assert connects(engine, name, f"{one}/passwd")
            assert not connects(engine, name, f"{two}/passwd")
    finally:
        engine.request("DELETE", f"/networks/{made}")


def test_a_killed_engine_leaves_the_list_in_effect(
    new_engine: Callable[..., PrivateEngine],
) -> None:
    engine = new_engine()
    busybox = load_image(engine, "busybox")
    serve = ("httpd", "-f", "-p", "80", "-h", "/etc")
    with running(engine, busybox, *serve) as web, running(engine, busybox, *serve) as other:
        allowed, refused = (containers.address(engine, one) for one in (web, other))
        for address in (allowed, refused):  # the servers have started
            containers.eventually(
                lambda a=address: connects(engine, web, f"{a}/passwd"), "a server"
            )
        with running(engine, busybox, flags=("--egress", f"tcp:{allowed}:80")) as name:
            for _ in range(2):
                assert connects(engine, name, f"{allowed}/passwd")
                assert not connects(engine, name, f"{refused}/passwd")
                engine.kill()
                engine.start()
            assert engine.cli("jaula", "restart", "-t", "0", name).returncode == 0
            assert connects(engine, name, f"{allowed}/passwd")
            assert not connects(engine, name, f"{refused}/passwd")
            made = unique("n")
            assert engine.request("POST", "/networks/create", {"Name": made}).status == 201
            joined = engine.request("POST", f"/networks/{made}/connect", {"Container": name})
            assert joined.status == 200
            gateway = containers.inspect(engine, name)["NetworkSettings"]["Networks"][made][
                "Gateway"
            ]
            assert not connects(engine, name, gateway)
            assert verified(engine, name)["egress"] == "1 destination"


# -- listen ----------------------------------------------------------------------------------------


def test_a_program_is_reachable_at_the_listed_port_only(
    engine: PrivateEngine, busybox: str
) -> None:
    serve = ("sh", "-c", "httpd -p 80 -h /etc; exec httpd -f -p 81 -h /etc")
    with running(engine, busybox, *serve, flags=("--listen", "tcp:80")) as name:
        address = containers.address(engine, name)
        assert verified(engine, name)["listen"] == "1 port"
        with running(engine, busybox) as peer:
            assert connects(engine, peer, f"{address}/passwd")
            assert not connects(engine, peer, f"{address}:81/passwd")
            assert connects(engine, name, "127.0.0.1:81/passwd")
        socket.create_connection((address, 80), 3).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address, 81), 3)
        endpoint = containers.inspect(engine, name)["NetworkSettings"]["Networks"]["bridge"]
        chain = f"c_{endpoint['EndpointID'][:16]}"
        table = f"{bridge_rules.table_name(engine.bridge)}_listen"
        subprocess.run(("nft", f"flush chain inet {table} {chain}"), check=True)
        done = engine.cli("jaula", "verify", "--format", "json", name)
        row = next(row for row in json.loads(done.stdout) if row["id"] == "listen")
        assert row["verdict"] == "FAILS"
        assert f"missing in inet a rule of {chain}" in row["effective"]


def test_a_profile_refuses_to_bind_other_ports_for_exec_too(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    document = tmp_path / "web.toml"
    document.write_text('name = "web"\n[network]\nlisten = ["tcp:80"]\n')
    serve = ("httpd", "-f", "-p", "80", "-h", "/etc")
    with running(engine, busybox, *serve, flags=("--profile", str(document))) as name:
        address = containers.address(engine, name)
        inside = engine.cli("jaula", "exec", name, "httpd", "-f", "-p", "81")
        assert "Permission denied" in inside.stderr
        assert connects(engine, name, f"{address}/passwd")  # a client binds as before
        rows = verified(engine, name)
        assert "tcp-bind 0 80" in rows["landlock"]
        assert rows["listen"] == "1 port"
        assert rows["relaxations"] == "none"
        engine.cli("jaula", "exec", "-d", name, "nc", "-u", "-l", "-p", "53")
    done = engine.cli(
        *("jaula", "run", "--rm", "--profile", str(document), "--security-opt", "landlock=off"),
        *("-p", "127.0.0.1::81", busybox, "true"),
    )
    assert done.returncode == 0
    assert "published ports that the listen list lacks are refused: 81/tcp" in done.stderr
    assert "--listen tcp:80,tcp:81 allows them" in done.stderr


def test_a_listen_list_needs_a_network_of_its_own(engine: PrivateEngine, busybox: str) -> None:
    command = ("jaula", "run", "--rm", "--network", "host", "--listen", "none", busybox, "true")
    done = engine.cli(*command)
    assert done.returncode == 125
    assert "conflicting options: a listen list and the network of the host" in done.stderr
    done = engine.cli("jaula", "run", "--rm", "--listen", "tcp:99999", busybox, "true")
    assert done.returncode == 125
    assert "listen list: invalid item 'tcp:99999'" in done.stderr
