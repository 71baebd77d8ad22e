"""The web view against a real engine: logins, rights, streams, terminals, an engine's restart."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.certificates import Authority
from harness.engine import PrivateEngine
from harness.web_view import Browser, Rejected, WebView, connect, web_view

ALICE, BOB = 54321, 54322  # uids that the host does not have


def audit_lines(engine: PrivateEngine, *directories: str) -> list[dict[str, Any]]:
    directory = engine.root.joinpath("lib", "audit", *directories)
    return [
        json.loads(line)
        for file in sorted(directory.glob("*.log"))
        for line in file.read_text().splitlines()
    ]


def test_a_link_logs_its_user_in_once(view: WebView) -> None:
    code = view.link().partition("#")[2]
    first, second = Browser(view), Browser(view)
    assert first.begin(first.request("POST", "/login", {"code": code}))["user"] == "root"
    assert second.request("POST", "/login", {"code": code}).status == 403
    assert second.api("GET", "/containers/json").status == 401
    assert first.api("GET", "/containers/json").status == 200


def test_a_login_sets_no_cookie_and_its_answer_is_not_cached(view: WebView) -> None:
    browser = Browser(view)
    code = view.link().partition("#")[2]
    reply = browser.request("POST", "/login", {"code": code})
    assert "set-cookie" not in {name.lower() for name in reply.headers}
    assert reply.headers["cache-control"] == "no-store"


def test_a_page_has_the_strict_headers_and_needs_no_login(view: WebView) -> None:
    reply = Browser(view).request("GET", "/")
    assert reply.status == 200
    assert "unsafe" not in reply.headers["content-security-policy"]
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert b"<script>" not in reply.body
    assert Browser(view).request("GET", "/static/../config.py").status == 404
    assert Browser(view).request("GET", "/static/%2e%2e/config.py").status == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": "Bearer other"}, 401),
        ({"Authorization": "Basic cm9vdDpyb290"}, 401),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": ""}, 403),
        ({"Host": "evil.example"}, 421),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Authorization": ""}, 401),
    ],
)
def test_a_request_that_another_page_could_send_changes_nothing(
    root: Browser, headers: dict[str, str], status: int
) -> None:
    body = {"Name": "forged"}
    assert root.api("POST", "/volumes/create", body, headers=headers).status == status
    assert root.api("GET", "/volumes/forged").status == 404


def test_a_websocket_of_another_page_or_without_a_session_is_refused(root: Browser) -> None:
    for path in ("/stream", "/terminal"):
        with (
            pytest.raises(Rejected, match="403"),
            root.socket(path, {"Origin": "http://evil.example"}),
        ):
            pass
        other = {"session": "x"}
        with root.socket(path, first=other) as closed, pytest.raises(Rejected, match="4401"):
            closed.receive()


@pytest.mark.parametrize("path", ["/jaula/web/logins", "/jaula/web/links", "/session", "/grpc"])
def test_routes_of_the_view_itself_are_not_for_browsers(root: Browser, path: str) -> None:
    assert root.api("POST", path, {"Code": "x"}).status == 400


def test_a_browser_cannot_choose_another_user(root: Browser) -> None:
    headers = {"Jaula-Web-User": json.dumps({"uid": ALICE})}
    assert root.api("GET", "/jaula/web/whoami", headers=headers).json()["Caller"] == "0"


def test_a_logout_ends_the_session_and_its_streams(view: WebView) -> None:
    browser = view.log_in()
    with browser.socket("/stream") as stream:
        stream.send({"open": 1, "path": "/events"})
        assert stream.receive() == {"id": 1, "status": 200}
        assert browser.request("POST", "/logout").status == 204
        with pytest.raises(Rejected, match="4401"):
            stream.receive()
    assert browser.api("GET", "/containers/json").status == 401


def test_too_many_failed_logins_are_refused(engine: PrivateEngine, third_party_files: None) -> None:
    with web_view(engine) as view:
        browser = Browser(view)
        for _ in range(10):
            assert "not valid" in browser.request("POST", "/login", {"code": "x"}).json()["message"]
        reply = browser.request("POST", "/login", {"code": "x"})
        assert (reply.status, "too many logins" in reply.json()["message"]) == (403, True)


def test_actions_are_authorised_and_audited_as_the_user(
    new_engine: Callable[..., PrivateEngine], tmp_path: Path, third_party_files: None
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(f'[user.{ALICE}]\naccess = "run"\n[user.{BOB}]\naccess = "read"\n')
    engine = new_engine("--policy", str(policy))
    os.chmod(engine.run, 0o711)
    os.chmod(engine.socket, 0o666)
    with web_view(engine) as view:
        alice, bob = (view.log_in(user=uid, group=uid, extra_groups=[]) for uid in (ALICE, BOB))
        assert alice.api("GET", "/jaula/web/whoami").json()["Caller"] == str(ALICE)
        assert alice.api("POST", "/volumes/create", {"Name": "hers"}).status == 201
        refused = bob.api("POST", "/volumes/create", {"Name": "his"})
        assert refused.status == 403
        assert "access" in refused.json()["message"]
        assert bob.api("DELETE", "/volumes/hers").status == 403
        assert alice.api("DELETE", "/volumes/hers").status == 204
    (created,) = [e for e in audit_lines(engine) if e["action"] == "volume create"]
    assert (created["uid"], created["via"], created["address"]) == (ALICE, "web", "127.0.0.1")
    assert created["command"] == "jaula-web"
    (denied,) = [e for e in audit_lines(engine, "refused") if e.get("uid") == BOB][:1]
    assert denied["via"] == "web"
    logins = [e["object"] for e in audit_lines(engine) if e["action"] == "web login"]
    assert logins == [str(ALICE), str(BOB)]


def test_a_user_without_rights_gets_no_link_and_cannot_be_the_view(
    new_engine: Callable[..., PrivateEngine], tmp_path: Path, third_party_files: None
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(f'[user.{ALICE}]\naccess = "run"\n')
    engine = new_engine("--policy", str(policy))
    os.chmod(engine.run, 0o711)
    os.chmod(engine.socket, 0o666)
    with web_view(engine) as view:
        done = subprocess.run(
            view.command("--open"), user=BOB, group=BOB, extra_groups=[], capture_output=True,
            text=True, env=view.environment(), timeout=60,
        )  # fmt: skip
        assert done.returncode == 1
        assert "may not use this engine" in done.stderr
    own = WebView(engine)  # a view of an ordinary user is for this user only
    try:
        own.start(user=ALICE, group=ALICE, extra_groups=[])
        browser = Browser(own)
        assert browser.request("POST", "/login", {"code": "x"}).status == 403
        code = own.first_line.strip().partition("#")[2]
        browser.begin(browser.request("POST", "/login", {"code": code}))
        assert browser.api("GET", "/jaula/web/whoami").json()["Caller"] == str(ALICE)
        assert browser.api("POST", "/volumes/create", {"Name": "own"}).status == 201
    finally:
        own.stop()
    (created,) = [e for e in audit_lines(engine) if e["action"] == "volume create"]
    assert (created["uid"], created["via"]) == (ALICE, "web")


def test_events_and_logs_share_one_websocket(root: Browser, busybox: str) -> None:
    body = {"Image": busybox, "Cmd": ["sh", "-c", "echo out; echo err >&2"]}
    created = root.api("POST", "/containers/create?name=talker", body).json()
    try:
        with root.socket("/stream") as stream:
            stream.send({"open": 7, "path": "/events"})
            assert stream.receive() == {"id": 7, "status": 200}
            root.api("POST", f"/containers/{created['Id']}/start")
            event = stream.receive_until(lambda m: isinstance(m, bytes) and b'"die"' in m)
            assert struct.unpack("!I", event[:4]) == (7,)
            stream.send({"open": 8, "path": "/containers/talker/logs?stdout=1&stderr=1"})
            output = b""
            while (message := stream.receive()) != {"id": 8, "end": True}:
                if isinstance(message, bytes) and message[:4] == struct.pack("!I", 8):
                    output += message[4:]
            assert b"out\n" in output
            assert b"err\n" in output
            stream.send({"open": 9, "path": "/containers/absent/logs?stdout=1"})
            refused = stream.receive_until(lambda m: isinstance(m, dict) and m["id"] == 9)
            assert refused["status"] == 404
            stream.send({"open": 10, "path": "/containers/talker/attach"})
            refused = stream.receive_until(lambda m: isinstance(m, dict) and m["id"] == 10)
            assert refused["status"] == 400
    finally:
        root.api("DELETE", "/containers/talker?force=1")


@pytest.mark.parametrize("message", [[], {"open": "x", "path": "/events"}, {"close": []}, {}])
def test_a_message_that_no_page_sends_closes_the_socket(root: Browser, message: Any) -> None:
    with root.socket("/stream") as stream:
        stream.send(message)
        with pytest.raises(Rejected, match="1008"):
            stream.receive()


@pytest.mark.slow
def test_a_connection_without_a_complete_head_is_closed(view: WebView) -> None:
    complete = f"GET /session HTTP/1.1\r\nHost: {view.address}\r\n\r\n".encode()
    with connect(view.port) as silent, connect(view.port) as partial, connect(view.port) as used:
        partial.sendall(complete[:20])
        used.sendall(complete)
        assert used.recv(100).startswith(b"HTTP/1.1 200")
        begun = time.monotonic()
        for opened in (silent, partial):
            opened.settimeout(40)
            assert opened.recv(1) == b""
        assert time.monotonic() - begun > 10


def test_a_terminal_has_a_size_an_input_and_an_exit_code(root: Browser, busybox: str) -> None:
    body = {"Image": busybox, "Cmd": ["sleep", "600"]}
    root.api("POST", "/containers/create?name=host", body)
    root.api("POST", "/containers/host/start")
    try:
        with root.socket("/terminal") as terminal:
            terminal.send(
                {"container": "host", "kind": "exec", "cmd": ["sh"], "rows": 31, "cols": 97}
            )
            terminal.send(b"stty size; exit 3\n")
            output, end = b"", None
            while end is None:
                message = terminal.receive()
                if isinstance(message, bytes):
                    output += message
                    terminal.send({"shown": len(message)})
                else:
                    end = message
            assert b"31 97" in output
            assert end == {"message": "", "code": 3}
        with root.socket("/terminal") as terminal:
            terminal.send(
                {"container": "host", "kind": "exec", "cmd": ["no-such"], "rows": 9, "cols": 9}
            )
            assert "no-such" in str(terminal.receive_until(lambda m: True))
        for bad in ({}, {"container": "host", "cmd": "sh", "rows": 0, "cols": 1}, []):
            with root.socket("/terminal") as terminal:
                terminal.send(bad)
                assert "not " in terminal.receive()["message"]
    finally:
        root.api("DELETE", "/containers/host?force=1")


def test_files_are_listed_sent_and_received(root: Browser, busybox: str) -> None:
    root.api("POST", "/containers/create?name=files", {"Image": busybox})
    try:
        listing = root.api("GET", "/jaula/containers/files/files?path=/").json()
        entries = {entry["Name"]: entry for entry in listing["Entries"]}
        assert entries["etc"]["Mode"] & 1 << 31
        assert not listing["Truncated"]
        assert root.api("GET", "/jaula/containers/files/files?path=/absent").status == 404
        reply = root.request("GET", "/files/files?path=/etc/passwd")
        assert reply.body.startswith(b"root:")
        assert reply.headers["content-disposition"].startswith("attachment")
        assert "sandbox" in reply.headers["content-security-policy"]
        assert root.request("GET", "/files/files?path=/etc").status == 400
        assert root.request("GET", "/files/files?path=/etc&tar=1").status == 200
        assert root.request("GET", "/files/files?path=/absent").status == 404
    finally:
        root.api("DELETE", "/containers/files?force=1")


def test_the_view_is_registered_again_after_a_restart_of_the_engine(
    new_engine: Callable[..., PrivateEngine], third_party_files: None
) -> None:
    engine = new_engine()
    with web_view(engine) as view:
        browser = view.log_in()
        with browser.socket("/stream") as stream:
            stream.send({"open": 1, "path": "/events"})
            assert stream.receive() == {"id": 1, "status": 200}
            engine.stop()
            end = stream.receive_until(lambda m: isinstance(m, dict))
            assert end["end"]
            reply = browser.api("GET", "/containers/json")
            assert (reply.status, "not running" in reply.json()["message"]) == (502, True)
            engine.start()
            assert browser.api("GET", "/containers/json").status == 200
        deadline = time.monotonic() + 20
        while engine.request("POST", "/jaula/web/links").status != 201:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_a_restart_of_the_view_ends_no_session_but_one_of_other_settings_does(
    new_engine: Callable[..., PrivateEngine], third_party_files: None
) -> None:
    with web_view(new_engine()) as view:
        kept, ended = view.log_in(), view.log_in()
        assert ended.request("POST", "/logout").status == 204
        for number in (signal.SIGTERM, signal.SIGKILL):
            view.end(number)
            view.start()
            assert kept.request("GET", "/session").json()["user"] == "root"
            assert kept.api("POST", "/volumes/create", {"Name": f"after-{number}"}).status == 201
        assert ended.api("GET", "/containers/json").status == 401
        view.end()
        view.configure("session-hours = 11.0\n")
        view.start()
        assert kept.api("GET", "/containers/json").status == 401


def test_the_view_ends_with_the_engine_that_started_it(
    new_engine: Callable[..., PrivateEngine], third_party_files: None
) -> None:
    port = WebView(PrivateEngine(0)).port
    engine = new_engine("--web", f"127.0.0.1:{port}")
    deadline = time.monotonic() + 30
    while engine.request("POST", "/jaula/web/links").status != 201:
        assert time.monotonic() < deadline, engine.log_tail()
        time.sleep(0.1)
    engine.kill()
    while _listens(port):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    engine.start()


def _listens(port: int) -> bool:
    line = f":{port:04X} 00000000:0000 0A"
    return line in Path("/proc/net/tcp").read_text()


def test_a_certificate_logs_its_user_in(
    new_engine: Callable[..., PrivateEngine], tmp_path: Path, third_party_files: None
) -> None:
    import ssl

    authority = Authority(tmp_path / "ca")
    server, client = authority.server(), authority.sign("ci")
    policy = tmp_path / "policy.toml"
    policy.write_text('[certificate.ci]\naccess = "run"\n')
    engine = new_engine("--policy", str(policy))
    settings = (
        f'[tls]\ncert = "{server}/cert.pem"\nkey = "{server}/key.pem"\n'
        f'client-ca = "{authority.file}"\n'
    )
    with web_view(engine, settings) as view:
        context = ssl.create_default_context(cafile=str(authority.file))
        context.check_hostname = False
        without = Browser(view, context)
        assert without.request("POST", "/login/certificate").status == 403
        own = ssl.create_default_context(cafile=str(authority.file))
        own.check_hostname = False
        own.load_cert_chain(client / "cert.pem", client / "key.pem")
        browser = Browser(view, own)
        assert browser.request("GET", "/session").json()["methods"]["certificate"]
        reply = browser.request("POST", "/login/certificate")
        assert "set-cookie" not in {name.lower() for name in reply.headers}
        assert browser.begin(reply)["user"] == "ci"
        assert browser.api("POST", "/volumes/create", {"Name": "data"}).status == 201
    (created,) = [e for e in audit_lines(engine) if e["action"] == "volume create"]
    assert (created["certificate"], created["via"]) == ("ci", "web")
    assert "uid" not in created
