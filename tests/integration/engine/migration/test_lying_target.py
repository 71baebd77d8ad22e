"""A target of the same authority that only collects what it is offered, and lies."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import load_image, open_to_all
from harness import criu_program
from harness.certificates import Authority
from harness.engine import PROJECT, PrivateEngine
from jaula.spec.migration import (
    PROTOCOL,
    CheckRow,
    FrameKind,
    FrameParser,
    Offer,
    Verdict,
    decode_message,
    message_frame,
)

pytestmark = pytest.mark.needs("openssl")
IMAGE = "busybox"
USER = 54321  # a uid that the host does not have
HOSTILE = "\x1b[2J\x1b]0;owned\x07\x9b31m\rover"


class LyingTarget:
    """A TLS server that answers each offer with a verdict, and keeps all bytes that it gets."""

    def __init__(self, authority: Authority, rows: tuple[CheckRow, ...]) -> None:
        files = authority.sign("liar", usage="clientAuth,serverAuth", addresses=("127.0.0.1",))
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(files / "cert.pem", files / "key.pem")
        self._rows = rows
        self.received = bytearray()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                raw, _ = self._server.accept()
            except OSError:
                return
            raw.settimeout(60)
            with contextlib.suppress(OSError), self._context.wrap_socket(raw, True) as peer:
                self._talk(peer)

    def _talk(self, peer: ssl.SSLSocket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += peer.recv(4096)
        peer.sendall(
            f"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: {PROTOCOL}\r\n\r\n".encode()
        )
        parser, data = FrameParser(), head.partition(b"\r\n\r\n")[2]
        while True:
            for frame in parser.feed(data):
                if frame.kind is FrameKind.MESSAGE and b'"offer"' in frame.payload:
                    peer.sendall(message_frame(Verdict(self._rows)))
            data = peer.recv(65536)
            self.received += data
            if not data:
                return

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def liar(authority: Authority) -> Iterator[Callable[..., LyingTarget]]:
    made: list[LyingTarget] = []

    def make(*rows: CheckRow) -> LyingTarget:
        made.append(LyingTarget(authority, rows))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def source(
    new_engine: Callable[..., PrivateEngine], authority: Authority, tmp_path: Path
) -> PrivateEngine:
    files = authority.sign("source", usage="clientAuth,serverAuth", addresses=("127.0.0.1",))
    policy = tmp_path / "policy.toml"
    policy.write_text(f'[user.{USER}]\naccess = "run"\nmigrate = true\n')
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    engine = new_engine(
        *("-H", f"tcp://127.0.0.1:{port}", "--tlsverify", "--policy", str(policy)),
        *("--tlscacert", str(authority.file), "--tlscert", str(files / "cert.pem")),
        *("--tlskey", str(files / "key.pem")),
    )
    open_to_all(engine)
    load_image(engine, IMAGE)
    return engine


def as_user(engine: PrivateEngine, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jaula", *words],
        env=engine.environment() | {"PYTHONPATH": str(PROJECT / "src"), "HOME": "/nonexistent"},
        user=USER, group=USER, extra_groups=[], capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def create(engine: PrivateEngine, image: str, name: str) -> list[str]:
    """Create a container with secrets in each text of its request, and return them."""
    words = [secrets.token_hex(12) for _ in range(10)]
    body = {
        "Image": image,
        "Env": [f"PASSWORD={words[0]}"],
        "Cmd": ["serve", "--token", words[1]],
        "Entrypoint": ["env", words[2]],
        "Labels": {"key": words[3]},
        "User": f"0:{int(words[4][:4], 16)}",
        "WorkingDir": f"/{words[5]}",
        "Healthcheck": {"Test": ["CMD", "curl", words[6]]},
        "Hostname": words[7],
        "HostConfig": {
            "Annotations": {"io.example.key": words[8]},
            "ExtraHosts": [f"{words[9]}:192.0.2.1"],
        },
    }
    created = engine.request("POST", f"/containers/create?name={name}", body)
    assert created.status == 201, created
    return [word for number, word in enumerate(words) if number != 4]


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_target_that_has_not_accepted_learns_no_secret(
    source: PrivateEngine, liar: Callable[..., LyingTarget], dry_run: bool
) -> None:
    target = liar(CheckRow("name", dry_run, "is in use"))
    texts = create(source, IMAGE, "moved")
    words = ("container", "migrate", "moved", "--to", f"tcp://{target.address}")
    done = source.cli("jaula", *words, *(("--dry-run",) if dry_run else ()))
    assert done.returncode == (0 if dry_run else 1), done.stderr
    received = bytes(target.received)
    assert b'"moved"' in received  # it was asked
    assert not [text for text in texts if text.encode() in received], received
    assert b"PASSWORD" not in received


def offered(target: LyingTarget) -> Offer:
    """Return the offer that a target has received."""
    frames = FrameParser().feed(bytes(target.received))
    messages = [decode_message(each.payload) for each in frames if each.kind is FrameKind.MESSAGE]
    (offer,) = [each for each in messages if isinstance(each, Offer)]
    return offer


def test_an_offer_lists_the_volumes_and_no_directory_of_the_host(
    source: PrivateEngine, liar: Callable[..., LyingTarget], tmp_path: Path
) -> None:
    """An anonymous volume has another name at the target."""
    target = liar(CheckRow("name", False, "is in use"))
    mounts = ("-v", "/anonymous", "-v", "kept:/kept", "-v", f"{tmp_path}:/secret-place:ro")
    done = source.cli("jaula", "create", "--name", "moved", *mounts, IMAGE, "true")
    assert done.returncode == 0, done.stderr
    words = ("container", "migrate", "moved", "--to", f"tcp://{target.address}")
    assert source.cli("jaula", *words, "--dry-run").returncode == 1
    found = {each.destination: each.name for each in offered(target).volumes}
    assert found == {"/anonymous": "", "/kept": "kept"}
    assert str(tmp_path).encode() not in target.received
    assert b"secret-place" not in target.received


def test_a_dry_run_offers_a_network_without_its_labels(
    source: PrivateEngine, liar: Callable[..., LyingTarget]
) -> None:
    target = liar(CheckRow("name", True, "free"))
    label = secrets.token_hex(12)
    subnet = f"10.196.{source.index}.0/24"
    made = ("network", "create", "--label", f"key={label}", "--subnet", subnet, "apart")
    assert source.cli("jaula", *made).returncode == 0
    try:
        done = source.cli("jaula", "create", "--name", "moved", "--network", "apart", IMAGE, "true")
        assert done.returncode == 0, done.stderr
        to = ("--to", f"tcp://{target.address}", "--dry-run")
        done = source.cli("jaula", "host", "evacuate", *to)
        assert done.returncode == 0, done.stderr
        (network,) = offered(target).networks
        assert network.definition is not None
        assert (network.name, network.definition.labels) == ("apart", {})
        assert label.encode() not in target.received
    finally:
        source.cli("jaula", "rm", "-f", "moved")
        source.cli("jaula", "network", "rm", "apart")


def test_the_rows_of_a_target_are_harmless(
    source: PrivateEngine, liar: Callable[..., LyingTarget]
) -> None:
    row = CheckRow(f"name{HOSTILE}", False, f"detail{HOSTILE}", f"hint{HOSTILE}")
    target = liar(row)
    create(source, IMAGE, "moved")
    for words in (("--dry-run",), ()):
        command = ("container", "migrate", "moved", "--to", f"tcp://{target.address}", *words)
        done = source.cli("jaula", *command)
        text = done.stdout + done.stderr
        assert "owned" in text
        assert not {"\x1b", "\x9b", "\x07", "\r"} & set(text), text
    assert "\x1b" not in source.log_tail()


@pytest.mark.slow
@pytest.mark.parametrize("command", ["migrate", "evacuate", "compare"])
def test_a_caller_moves_containers_to_listed_targets_only(
    source: PrivateEngine,
    liar: Callable[..., LyingTarget],
    tmp_path: Path,
    command: str,
) -> None:
    target = liar(CheckRow("name", True, "free"))
    to = f"tcp://{target.address}"
    words = {
        "migrate": ("container", "migrate", "mine", "--to", to, "--dry-run"),
        "evacuate": ("host", "evacuate", "--to", to, "--dry-run"),
        "compare": ("doctor", "--against", to),
    }[command]
    made = as_user(source, "create", "--name", "mine", IMAGE, "true")
    assert made.returncode == 0, made.stderr
    refused = as_user(source, *words)
    assert refused.returncode != 0
    assert f"may not move containers to {target.address}" in refused.stderr + refused.stdout
    assert f'migrate-to = ["{target.address}"]' in refused.stderr + refused.stdout
    assert not target.received
    policy = tmp_path / "policy.toml"
    policy.write_text(policy.read_text() + f'migrate-to = ["{to}"]\n')
    source.stop()
    source.start()
    open_to_all(source)
    accepted = as_user(source, *words)
    assert "may not" not in accepted.stderr + accepted.stdout
    assert target.received


def test_no_request_of_a_dry_run_is_in_the_events(
    source: PrivateEngine, liar: Callable[..., LyingTarget]
) -> None:
    target = liar(CheckRow("name", True, "free"))
    texts = create(source, IMAGE, "moved")
    path = "/jaula/containers/moved/migrate"
    body = {"To": target.address, "DryRun": True}
    reply = source.request("POST", path, body)
    documents = [json.loads(line) for line in reply.body.splitlines()]
    assert documents[0]["Stage"] == "check"
    assert not [text for text in texts if text.encode() in reply.body]


@pytest.fixture
def criu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program of the version that both engines ask for; a stopped container needs no more."""
    programs = tmp_path / "programs"
    programs.mkdir()
    criu_program.write(programs)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")


def test_a_target_that_accepts_gets_the_whole_request(
    criu: None,
    source: PrivateEngine,
    new_engine: Callable[..., PrivateEngine],
    authority: Authority,
    tmp_path: Path,
) -> None:
    files = authority.sign("target", usage="clientAuth,serverAuth", addresses=("127.0.0.1",))
    policy = tmp_path / "target.toml"
    policy.write_text('[certificate.source]\naccess = "all"\n')
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    target = new_engine(
        *("-H", f"tcp://127.0.0.1:{port}", "--tlsverify", "--policy", str(policy)),
        *("--tlscacert", str(authority.file), "--tlscert", str(files / "cert.pem")),
        *("--tlskey", str(files / "key.pem")),
    )
    texts = create(source, IMAGE, "moved")
    done = source.cli(
        *("jaula", "container", "migrate", "moved", "--to", f"tcp://127.0.0.1:{port}"), timeout=120
    )
    assert done.returncode == 0, done.stderr
    inspected = target.request("GET", "/containers/moved/json").body.decode()
    assert [text for text in texts if text not in inspected] == []
