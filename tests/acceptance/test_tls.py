"""An engine on the network: docker, docker-py and jaula by mutual TLS, and their permissions."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import docker
import pytest

from harness.certificates import Authority, fingerprint
from harness.engine import PROJECT, PrivateEngine
from harness.terminal import Terminal

# The SDK's own sockets complain when they are collected after their connection.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

Done = CompletedProcess[Any]
CLIENTS = pytest.mark.parametrize("program", ["docker", "jaula"])


class Secured:
    """An engine with a TCP socket, and users with certificates."""

    def __init__(self, directory: Path, make: Callable[..., PrivateEngine]) -> None:
        self.authority = Authority(directory / "authority")
        self.server = self.authority.server()
        self.people = {name: self.authority.sign(name) for name in ("alice", "bob", "carol")}
        self.policy = directory / "policy.toml"
        self.policy.write_text(
            '[certificate.alice]\naccess = "all"\n'
            f'[certificate."{fingerprint(self.people["bob"])}"]\naccess = "run"\n'
        )
        self.port = _free_port()
        self.engine = make(
            *("-H", f"tcp://127.0.0.1:{self.port}", "--tlsverify"),
            *("--tlscacert", str(self.authority.file)),
            *("--tlscert", str(self.server / "cert.pem")),
            *("--tlskey", str(self.server / "key.pem"), "--policy", str(self.policy)),
        )

    @property
    def host(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def environment(self, person: str) -> dict[str, str]:
        passed = {k: v for k, v in self.engine.environment().items() if k != "JAULA_HOST"}
        return passed | {
            "DOCKER_HOST": self.host,
            "DOCKER_TLS_VERIFY": "1",
            "DOCKER_CERT_PATH": str(self.people[person]),
        }

    def cli(self, program: str, *words: str, person: str = "alice", **more: Any) -> Done:
        environment = self.environment(person)
        return self.engine.cli(program, *words, **({"env": environment} | more))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


@pytest.fixture
def secured(
    tmp_path: Path, new_engine: Callable[..., PrivateEngine], busybox_archive: Path
) -> Secured:
    made = Secured(tmp_path, new_engine)
    done = made.engine.cli("jaula", "load", "-q", "-i", str(busybox_archive))
    assert done.returncode == 0, done.stderr
    return made


@CLIENTS
def test_commands_and_streams_work_over_tls(secured: Secured, program: str) -> None:
    cli = secured.cli
    assert cli(program, "run", "--rm", "busybox", "echo", "hi").stdout == "hi\n"
    assert cli(program, "run", "--rm", "busybox", "sh", "-c", "exit 7").returncode == 7
    # Half-close: input ends, output continues.
    output = cli(
        program, "run", "--rm", "-i", "busybox", "sh", "-c", "cat; echo end", input="abc\n"
    )
    assert output.stdout == "abc\nend\n"
    done = cli(program, "run", "-d", "--name", "box", "busybox", "sleep", "60")
    assert done.returncode == 0, done.stderr
    counted = cli(program, "exec", "-i", "box", "wc", "-c", input="x" * 3_000_000)
    assert counted.stdout.strip() == "3000000"
    many = cli(program, "exec", "box", "dd", "if=/dev/zero", "bs=64k", "count=200", text=False)
    assert len(many.stdout) == 200 * 65536
    with Terminal(_words(program, "exec", "-it", "box", "sh"), secured.environment("alice")) as t:
        t.expect("# ")
        t.send("exit 5\n")
        assert t.wait() == 5
    assert cli(program, "rm", "-f", "box").returncode == 0


def _words(program: str, *words: str) -> list[str]:
    return [str(PROJECT / "jaula") if program == "jaula" else program, *words]


@pytest.mark.needs("docker-compose")
def test_compose_works_over_tls(secured: Secured, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(
        "services:\n  box: {image: busybox, init: true, command: sleep 600}\n"
    )

    def compose(*words: str) -> str:
        where = ("--project-directory", str(tmp_path), "-p", "tls")
        done = secured.cli("docker-compose", *where, *words, timeout=120)
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    compose("up", "-d")
    assert compose("exec", "-T", "box", "echo", "hi") == "hi\n"
    assert "box" in compose("ps")
    compose("down", "-t", "1")


def test_the_detach_keys_leave_a_terminal(secured: Secured) -> None:
    secured.cli("docker", "run", "-dit", "--name", "box", "busybox", "sh")
    words = _words("docker", "attach", "--detach-keys", "ctrl-x", "box")
    with Terminal(words, secured.environment("alice")) as terminal:
        terminal.send("echo here-$((40+2))\n")
        terminal.expect("here-42")
        terminal.send("\x18")
        assert terminal.wait() in (0, 1)
    running = secured.cli("docker", "inspect", "-f", "{{.State.Running}}", "box")
    assert running.stdout == "true\n"


def test_docker_py_works_over_tls(secured: Secured, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # they win over what it is given
        monkeypatch.delenv(variable, raising=False)
    place = secured.people["alice"]
    client = docker.DockerClient(
        base_url=secured.host,
        tls=docker.tls.TLSConfig(
            client_cert=(str(place / "cert.pem"), str(place / "key.pem")),
            ca_cert=str(place / "ca.pem"),
            verify=True,
        ),
    )
    try:
        assert client.ping()
        assert client.containers.run("busybox", "echo hi", remove=True) == b"hi\n"
        container = client.containers.run("busybox", "sleep 60", detach=True)
        assert container.exec_run("id -u").output == b"0\n"
        code, streams = container.exec_run(["sh", "-c", "echo o; echo e >&2"], demux=True)
        assert (code, streams) == (0, (b"o\n", b"e\n"))
        assert b"".join(container.get_archive("/etc/passwd")[0])
        container.remove(force=True)
    finally:
        client.close()


def test_the_policy_decides_by_certificate_and_the_audit_log_names_it(secured: Secured) -> None:
    volume = ("run", "--rm", "-v", "/etc:/x:ro", "busybox", "true")
    assert secured.cli("docker", *volume, person="alice").returncode == 0
    refused = secured.cli("docker", *volume, person="bob")
    assert "certificate 'bob' may not ask for host-mount=/etc" in refused.stderr
    assert secured.cli("docker", "run", "--rm", "busybox", "true", person="bob").returncode == 0
    nothing = secured.cli("docker", "ps", person="carol")
    assert "certificate 'carol' may not use this engine" in nothing.stderr
    # Owners are kept apart by their names.
    made = secured.cli("docker", "create", "--name", "hers", "busybox", person="alice")
    assert made.returncode == 0, made.stderr
    assert "may not" in secured.cli("docker", "rm", "hers", person="bob").stderr
    log = secured.engine.root / "lib" / "audit"
    lines = [json.loads(line) for path in log.rglob("*.log") for line in path.open()]
    mine = [line for line in lines if line.get("certificate") == "bob"]
    assert {line["fingerprint"] for line in mine} == {fingerprint(secured.people["bob"])}
    assert any(line["status"] == 403 and line["asks"] == ["host-mount=/etc:ro"] for line in mine)
    assert all(line["address"].startswith("127.0.0.1:") for line in mine)


def test_a_client_without_a_certificate_or_tls_gets_the_reason(
    secured: Secured, tmp_path: Path
) -> None:
    lone = tmp_path / "lone"
    lone.mkdir()
    (lone / "ca.pem").write_bytes(secured.authority.file.read_bytes())
    environment = secured.environment("alice") | {"DOCKER_CERT_PATH": str(lone)}
    plain = secured.environment("alice") | {"DOCKER_TLS_VERIFY": ""}
    for program, word in (("docker", "certificate required"), ("jaula", "certificate required")):
        done = secured.cli(program, "ps", env=environment)
        assert done.returncode == 1
        assert word in done.stderr
        done = secured.cli(program, "ps", env=plain)
        assert "Client sent an HTTP request to an HTTPS server" in done.stderr
    other = Authority(tmp_path / "other").sign("alice")
    done = secured.cli("jaula", "ps", env=environment | {"DOCKER_CERT_PATH": str(other)})
    assert "certificate verify failed" in done.stderr


def test_contexts_connect_over_tls(secured: Secured) -> None:
    place = secured.people["alice"]
    files = f"ca={place}/ca.pem,cert={place}/cert.pem,key={place}/key.pem"
    local = {k: v for k, v in secured.engine.environment().items() if not k.endswith("_HOST")}
    for maker, user in (("jaula", "docker"), ("docker", "jaula")):
        name = f"by-{maker}"
        made = secured.cli(
            maker, "context", "create", name, "--docker", f"host={secured.host},{files}", env=local
        )
        assert made.returncode == 0, made.stderr
        done = secured.cli(
            user, "--context", name, "run", "--rm", "busybox", "echo", "x", env=local
        )
        assert done.stdout == "x\n", done.stderr
    used = secured.cli("jaula", "context", "use", "by-docker", env=local)
    assert used.returncode == 0
    assert secured.cli("docker", "context", "show", env=local).stdout == "by-docker\n"
    done = secured.cli("jaula", "run", "--rm", "busybox", "echo", "y", env=local)
    assert done.stdout == "y\n", done.stderr


def test_sighup_reloads_policy_and_certificates(secured: Secured, tmp_path: Path) -> None:
    assert secured.cli("docker", "ps", person="carol").returncode == 1
    secured.policy.write_text('[certificate."*"]\naccess = "run"\n')
    _reload(secured)
    _until(lambda: secured.cli("docker", "ps", person="carol").returncode == 0)
    # What cannot be read changes nothing.
    secured.policy.write_text("nonsense")
    _reload(secured)
    _until(lambda: "not reloaded" in secured.engine.log_tail())
    assert secured.cli("docker", "ps", person="carol").returncode == 0
    # A new certificate of the engine, by an authority that the people do not know yet.
    secured.policy.write_text('[certificate."*"]\naccess = "run"\n')
    renewed = Authority(tmp_path / "new", "another authority").server()
    for name in ("cert.pem", "key.pem"):
        (secured.server / name).write_bytes((renewed / name).read_bytes())
    _reload(secured)
    _until(lambda: secured.cli("docker", "ps", person="carol").returncode == 1)
    assert "unknown authority" in secured.cli("docker", "ps", person="carol").stderr
    (secured.people["carol"] / "ca.pem").write_bytes((renewed / "ca.pem").read_bytes())
    assert secured.cli("docker", "ps", person="carol").returncode == 0


def _reload(secured: Secured) -> None:
    assert secured.engine.process is not None
    os.kill(secured.engine.process.pid, signal.SIGHUP)


def _until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
