"""``ssh://``: parsing, the argument list, and a connection through a fake ssh."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from jaula.cli.cli_errors import Unreachable
from jaula.cli.client import ssh
from jaula.cli.client.api_client import Client
from jaula.cli.client.ssh import SshTarget

PROJECT = Path(__file__).resolve().parents[4]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("host", SshTarget("host")),
        ("me@host", SshTarget("host", "me")),
        ("me@host:2222", SshTarget("host", "me", "2222")),
        ("me@[fd00::1]:22", SshTarget("fd00::1", "me", "22")),
        ("[fd00::1]", SshTarget("fd00::1")),
        ("host/run/x.sock", SshTarget("host", "", "", "/run/x.sock")),
        ("host/", SshTarget("host")),
    ],
)
def test_an_address_is_parsed(text: str, place: SshTarget) -> None:
    assert ssh.parse(text) == place


@pytest.mark.parametrize(
    "text", ["", "-oProxyCommand=x", "-x@host", "me:secret@host", "@host", "host:port", "me@", "/x"]
)
def test_an_invalid_address_is_refused(text: str) -> None:
    with pytest.raises(Unreachable, match="is not a valid ssh://"):
        ssh.parse(text)


def test_the_command_line() -> None:
    assert ssh.words(SshTarget("h", "me", "22", "/a'b")) == [
        *("ssh", "-T", "-o", "ConnectTimeout=30", "-l", "me", "-p", "22", "--", "h"),
        *("jaula", "-H", "'unix:///a'\\''b'", "system", "dial-stdio"),
    ]


def test_a_request_is_forwarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s"
    program = tmp_path / "ssh"
    program.write_text(
        '#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done; shift 2\n'
        f'cd {PROJECT} && exec sh -c "./$*"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    output: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            peer, _ = listener.accept()
            with peer:
                output.append(peer.recv(65536))
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

        thread = threading.Thread(target=serve)
        thread.start()
        assert Client(f"ssh://me@host{path}").get("/info") == {}
        thread.join(10)
    assert output[0].startswith(b"GET /v1.48/info HTTP/1.1\r\nHost: jaula\r\n")
