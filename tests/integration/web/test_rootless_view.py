"""The web view of an ordinary user beside a rootless engine."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.rootless import NAME, RootlessHost
from harness.web_view import Browser, RootlessView

pytestmark = [pytest.mark.xdist_group("rootless")]


@pytest.fixture(scope="module")
def host() -> Iterator[RootlessHost]:
    """Yield a user who has run no command yet."""
    with RootlessHost() as made:
        yield made


@pytest.fixture(scope="module")
def view(
    host: RootlessHost, busybox_archive: Path, third_party_files: None
) -> Iterator[RootlessView]:
    """Yield a view whose start has started the engine."""
    running = RootlessView(host)
    try:
        running.start()
        host.load(busybox_archive)
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def browser(view: RootlessView) -> Browser:
    return view.log_in()


def test_the_user_of_the_host_is_logged_in_with_all_rights(browser: Browser) -> None:
    assert browser.request("GET", "/session").json()["user"] == NAME
    caller = browser.api("GET", "/jaula/web/whoami").json()
    assert (caller["Caller"], caller["Admin"]) == ("0", True)  # in the engine's user namespace


def test_a_container_runs_is_verified_and_ends(browser: Browser) -> None:
    body = {"Image": "busybox", "Cmd": ["sleep", "600"]}
    assert browser.api("POST", "/containers/create?name=own", body).status == 201
    assert browser.api("POST", "/containers/own/start").status == 204
    report = browser.api("GET", "/jaula/containers/own/verify").json()
    assert {layer["Layer"] for layer in report["Layers"]} >= {"users", "seccomp", "capabilities"}
    assert not [row for row in report["Rows"] if row["Verdict"] == "fails"]
    with browser.socket("/terminal") as terminal:
        terminal.send({"container": "own", "kind": "exec", "cmd": ["id"], "rows": 9, "cols": 80})
        assert b"uid=0(root)" in terminal.receive_until(lambda m: isinstance(m, bytes))
    assert browser.api("DELETE", "/containers/own?force=1").status == 204


def test_the_observer_reports_containers_of_the_user(browser: Browser) -> None:
    body = {"Image": "busybox", "Cmd": ["sleep", "600"]}
    key = browser.api("POST", "/containers/create?name=seen", body).json()["Id"]
    browser.api("POST", "/containers/seen/start")
    with browser.socket("/stream") as stream:
        stream.send({"open": 1, "path": "/jaula/observe"})
        assert stream.receive() == {"id": 1, "status": 200}
        data = b""
        while not any(key in line for line in _isolation(data)):
            message = stream.receive()
            assert isinstance(message, bytes), message
            assert message[:4] == struct.pack("!I", 1)
            data += message[4:]
    browser.api("DELETE", "/containers/seen?force=1")


def _isolation(data: bytes) -> list[str]:
    documents = [json.loads(line) for line in data.split(b"\n")[:-1] if line.strip()]
    return [each["Id"] for each in documents if each["Type"] == "isolation"]


def test_sessions_are_in_a_directory_of_the_user(host: RootlessHost, view: RootlessView) -> None:
    (file,) = host.path(host.socket).parent.glob("*.sessions")
    assert (file.stat().st_uid, file.stat().st_mode & 0o777) == (host.uid, 0o600)


def test_the_engine_refuses_a_view_in_its_own_network(host: RootlessHost) -> None:
    refused = host.jaula("daemon", "--web", "127.0.0.1:8321", expect=125)
    assert "run jaula web beside it" in refused.stderr
