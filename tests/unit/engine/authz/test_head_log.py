"""Heads of the audit logs are sent outside the engine."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaula.engine.authz.head_log import HeadLog, log_driver
from jaula.errors import InvalidRequest
from jaula.state.audit_log import Head

HEADS = (Head(42, "a" * 64), Head(7, "b" * 64))


@pytest.fixture
def place() -> Iterator[Path]:
    path = Path(f"/tmp/jlt-head-{os.getpid()}.sock")
    yield path
    path.unlink(missing_ok=True)


def test_a_head_is_sent_when_it_has_changed(place: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(place))
        server.settimeout(5)
        sender = HeadLog(f"unixgram://{place}", "0123456789abcdef")
        sender.send(HEADS)
        sender.send(HEADS)
        text = server.recv(4096).decode()
        assert "jaula-audit[" in text
        assert text.startswith("<86>")  # authpriv, info
        assert text.endswith(f": engine 0123456789ab audit head 42:{'a' * 64} refused:7:{'b' * 64}")
        sender.send((Head(43, "c" * 64), HEADS[1]))
        assert f"head 43:{'c' * 64}" in server.recv(4096).decode()
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.recv(1)


def test_a_failure_is_logged_and_tried_again(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    sender = HeadLog(f"unixgram://{place}", "0123456789abcdef")
    with caplog.at_level(logging.ERROR, "jaula.engine"):
        sender.send(HEADS)
    assert "the head of the audit log cannot be sent to unixgram://" in caplog.text
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(place))
        server.settimeout(5)
        sender.send(HEADS)
        assert b"audit head 42:" in server.recv(4096)


@pytest.mark.parametrize("target", ["journal", "/dev/log", "http://x", "tcp://x:0"])
def test_an_invalid_target_is_rejected(target: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid audit-head"):
        HeadLog(target, "0")


def test_targets_are_log_drivers() -> None:
    assert log_driver("journald") == ("journald", {"tag": "jaula-audit"})
    assert "syslog-address" not in log_driver("syslog")[1]
    assert log_driver("tcp+tls://h:6514")[1]["syslog-address"] == "tcp+tls://h:6514"
