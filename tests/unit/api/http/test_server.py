"""Requests and answers, errors, versions, limits, keep-alive."""

from __future__ import annotations

import asyncio
import json
import os
import random

import pytest

from jaula.api.http import api_server, http_protocol
from unit.api.client import Served, eventually, served
from unit.api.memory_engine import Access
from unit.event_loop import idle


def test_ping_has_the_headers_for_version_negotiation() -> None:
    async def test(server: Served) -> None:
        client = await server.client()
        for method in ("HEAD", "GET"):
            answer = await client.ask(method, "/_ping")
            assert answer.status == 200
            assert answer.body == (b"OK" if method == "GET" else b"")
            assert answer.headers["api-version"] == "1.55"
            assert answer.headers["docker-experimental"] == "true"
            assert answer.headers["ostype"] == "linux"
            assert answer.headers["swarm"] == "inactive"
            assert answer.headers["builder-version"] == "2"
            assert answer.headers["server"].startswith("jaula/")
            assert answer.headers["cache-control"] == "no-cache, no-store, must-revalidate"
        assert answer.headers["content-length"] == "2"

    served(test)


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/v1.24/version", 200, ""),
        ("/v1.45/version", 200, ""),
        ("/version", 200, ""),
        (
            "/v1.56/version",
            400,
            "client version 1.56 is too new. Maximum supported API version is 1.55",
        ),
        (
            "/v1.23/version",
            400,
            (
                "client version 1.23 is too old. Minimum supported API version is 1.24, please "
                "upgrade your client to a newer version"
            ),
        ),
        ("/v9999999999999999.1/version", 404, "page not found"),
        ("/vx/version", 404, "page not found"),
        ("/nothing", 404, "page not found"),
        ("/", 404, "page not found"),
        ("//", 404, "page not found"),
        ("/containers//json", 404, "page not found"),
        ("/containers/a/b/c/json", 404, "page not found"),
        ("/version/%zz", 400, "invalid URL escape '%zz'"),
    ],
)
def test_an_unsupported_version_or_path_gets_dockers_text(
    path: str, status: int, message: str
) -> None:
    async def test(server: Served) -> None:
        answer = await (await server.client()).ask("GET", path)
        assert answer.status == status
        if message:
            assert answer.message == message

    served(test)


def test_a_wrong_method_is_an_unknown_page_as_in_docker() -> None:
    async def test(server: Served) -> None:
        answer = await (await server.client()).ask("DELETE", "/version")
        assert (answer.status, answer.message) == (404, "page not found")

    served(test)


def test_a_connection_serves_one_request_after_the_other() -> None:
    async def test(server: Served) -> None:
        client = await server.client()
        body = {"Image": "busybox", "Cmd": "true"}
        answer = await client.ask("POST", "/v1.45/containers/create?name=a", body)
        assert answer.status == 201
        assert answer.json() == {"Id": "a", "Warnings": ["a warning"]}
        assert (await client.ask("POST", "/containers/a/start")).status == 204
        again = await client.ask("POST", "/containers/a/start")
        assert (again.status, again.body) == (304, b"")
        assert (await client.ask("GET", "/containers/a/json?size=1")).json()["Size"] is True
        conflict = await client.ask("POST", "/containers/create?name=a", body)
        assert (conflict.status, conflict.message) == (
            409,
            "The container name 'a' is in use (remove it)",
        )
        missing = await client.ask("GET", "/containers/nosuch/json")
        assert (missing.status, missing.message) == (404, "No such container: nosuch")
        assert (await client.ask("DELETE", "/containers/a?force=1&v=1")).status == 204
        assert ("remove", "a", True, True) in server.engine.containers.calls

    served(test)


def test_pipelined_requests_are_answered_in_order() -> None:
    async def test(server: Served) -> None:
        client = await server.client()
        client.send("GET", "/version")
        client.send("GET", "/info")
        client.send("HEAD", "/_ping")
        assert (await client.answer()).json() == {"ApiVersion": "1.55"}
        assert (await client.answer()).json()["ID"] == "memory"
        assert (await client.answer("HEAD")).status == 200

    served(test)


def test_a_half_closed_client_still_gets_its_answer() -> None:
    async def test(server: Served) -> None:
        client = await server.client()
        client.send("GET", "/version")
        client.half_close()
        assert (await client.answer()).status == 200
        assert await client.until_closed() == b""

    served(test)


def test_http_1_0_is_answered_and_closed() -> None:
    async def test(server: Served) -> None:
        client = await server.client()
        client.writer.write(b"GET /_ping HTTP/1.0\r\n\r\n")
        assert (await client.answer()).body == b"OK"
        assert await client.until_closed() == b""

    served(test)


def test_a_program_that_is_not_found_is_the_clients_error() -> None:
    async def test(server: Served) -> None:
        client = await server.client()
        await client.ask("POST", "/containers/create?name=a", {"Cmd": ["missing"]})
        answer = await client.ask("POST", "/containers/a/start")
        assert (answer.status, answer.message) == (400, "program not found")

    served(test)


def test_an_unexpected_exception_is_one_line_for_the_client_and_a_traceback_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test(server: Served) -> None:
        client = await server.client()
        answer = await client.ask("POST", "/containers/a/pause")
        assert answer.status == 500
        assert answer.message == "internal error (KeyError), see the log of the engine"
        full = await client.ask("POST", "/containers/a/unpause")
        assert full.status == 503
        assert "No space left on device (free some space and try again)" in full.message
        assert (await client.ask("GET", "/version")).status == 200

    served(test)
    assert "a secret of the inside" in caplog.text


@pytest.mark.parametrize(
    ("body", "needle"),
    [
        (b"{", "invalid JSON"),
        (b"[]", "json: cannot unmarshal array into Go value of type object"),
        (b'{"Cmd": 5}', "cannot unmarshal number into Go struct field Cmd of type array"),
        (
            b'{"HostConfig": {"Memory": "64m"}}',
            "cannot unmarshal string into Go struct field HostConfig.Memory of type int64",
        ),
        (
            b'{"HostConfig": {"Memory": 99999999999999999999}}',
            "cannot unmarshal number into Go struct field HostConfig.Memory of type int64",
        ),
        (b'{"Env": [null]}', "Env[0]"),
        (b'{"Image": "\xff"}', "invalid"),
        (b"{} {}", "unexpected content after JSON"),
        (b'{"a":1,}', "invalid JSON: invalid character '}' looking for beginning of object key"),
        (b'{"a":' * 100_000, "invalid JSON"),
        (b"[" * 100_000 + b"]" * 100_000, "invalid JSON"),
        (b"", "got EOF"),
    ],
)
def test_a_body_that_is_not_a_container_is_rejected(body: bytes, needle: str) -> None:
    async def test(server: Served) -> None:
        client = await server.client()
        answer = await client.ask("POST", "/containers/create", body)
        assert answer.status == 400
        assert needle in answer.message
        assert (await client.ask("GET", "/version")).status == 200

    served(test)


def test_a_document_of_another_media_type_is_rejected() -> None:
    async def test(server: Served) -> None:
        client = await server.client()
        answer = await client.ask(
            "POST", "/containers/create", b"{}", {"Content-Type": "text/plain"}
        )
        assert answer.status == 400
        assert "must be 'application/json'" in answer.message
        for kind, reason in (("", "no media type"), ("application/json;;", "media parameter")):
            answer = await client.ask("POST", "/containers/create", b"{}", {"Content-Type": kind})
            assert (answer.status, reason in answer.message) == (400, True)

    served(test)


def test_a_document_above_the_limit_is_413_with_or_without_content_length() -> None:
    async def test(server: Served) -> None:
        client = await server.client()
        answer = await client.ask("POST", "/containers/create", b" " * (4 * 1024 * 1024 + 1))
        assert answer.status == 413
        client = await server.client()
        client.send("POST", "/containers/create", headers={"Transfer-Encoding": "chunked"})
        piece = b"10000\r\n" + b" " * 65536 + b"\r\n"
        for _ in range(65):
            client.writer.write(piece)
        client.writer.write(b"0\r\n\r\n")
        assert (await client.answer()).status == 413
        assert (await client.ask("GET", "/version")).status == 200  # the rest was skipped

    served(test)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
        (b"GET /_ping HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 20_000, 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET /_ping HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET /_ping HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET /_ping HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"GET /_ping HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (  # two lengths of one body
            (
                b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /_ping HTTP/1.1\r\nHost: x\r\n\r\n"
            ),
            400,
        ),
    ],
)
def test_a_head_that_is_not_http_is_rejected_and_the_connection_ends(
    head: bytes, status: int
) -> None:
    async def test(server: Served) -> None:
        client = await server.client()
        client.writer.write(head)
        answer = await client.answer()
        assert answer.status == status
        assert answer.headers["connection"] == "close"
        assert await client.until_closed() == b""

    served(test)


def test_a_slow_head_and_a_slow_body_are_timed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_server, "SWEEP_SECONDS", 0.02)
    monkeypatch.setattr(http_protocol, "HEAD_SECONDS", 0.1)
    monkeypatch.setattr(http_protocol, "BODY_SECONDS", 0.1)
    monkeypatch.setattr(http_protocol, "IDLE_SECONDS", 0.3)

    async def test(server: Served) -> None:
        slow_head, slow_body, idle = [await server.client() for _ in range(3)]
        slow_head.writer.write(b"GET /_ping HT")
        slow_body.writer.write(
            b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"
        )
        assert (await slow_head.answer()).status == 408
        assert (await slow_body.answer()).status == 408
        assert await idle.until_closed() == b""

    served(test)


def test_connections_above_the_limit_get_503() -> None:
    async def test(server: Served) -> None:
        first, second = [await server.client() for _ in range(2)]
        assert (await first.ask("GET", "/version")).status == 200
        assert (await second.ask("GET", "/version")).status == 200
        third = await server.client()
        answer = await third.ask("GET", "/version")
        assert (answer.status, answer.message) == (503, "too many connections are open")
        assert await third.until_closed() == b""
        first.close()
        await eventually(lambda: len(server.server._connections) == 1)
        assert (await (await server.client()).ask("GET", "/version")).status == 200

    served(test, max_connections=2)


def test_a_caller_has_a_share_of_the_connections_and_root_a_reserve() -> None:
    async def test(server: Served) -> None:
        async def connect(caller: str) -> int:
            server.access = Access(caller)
            return (await (await server.client()).ask("GET", "/version")).status

        assert [await connect("1000") for _ in range(5)] == [200, 200, 200, 200, 503]
        assert [await connect("1001") for _ in range(3)] == [200, 200, 503]
        assert [await connect("1002") for _ in range(2)] == [200, 503]
        assert [await connect("1003") for _ in range(2)] == [503, 503]
        assert [await connect("0") for _ in range(4)] == [200, 200, 200, 503]

    served(test, max_connections=10, root_connections=2)


def test_a_client_without_access_is_refused_before_its_body() -> None:
    async def test(server: Served) -> None:
        server.access = Access("1000", allowed=False)
        client = await server.client()
        client.send("POST", "/containers/create?name=a", headers={"Content-Length": "1000000"})
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (403, "close")
        assert answer.message == ("1000 may not use this engine: POST /containers/create")
        assert await client.until_closed() == b""

    served(test)


def test_clients_without_access_use_no_connection_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(api_server, "MAX_REFUSED", 2)

    async def test(server: Served) -> None:
        server.access = Access("1000", allowed=False)
        silent = [await server.client() for _ in range(8)]
        for client in silent[1:]:  # one may be waited for, the others are answered at once
            answer = await client.answer()
            assert answer.status == 403
            assert await client.until_closed() == b""
        server.access = Access("1001")
        assert (await (await server.client()).ask("GET", "/version")).status == 200

    served(test, max_connections=2)


def test_a_client_without_access_that_sends_nothing_is_closed_soon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(api_server, "SWEEP_SECONDS", 0.01)
    monkeypatch.setattr(api_server, "REFUSED_SECONDS", 0.02)

    async def test(server: Served) -> None:
        server.access = Access("1000", allowed=False)
        silent, slow = await server.client(), await server.client()
        slow.writer.write(b"GET /vers")
        assert await silent.until_closed() == b""
        assert (await slow.answer()).status == 408

    served(test)


def test_a_caller_that_loses_its_access_is_refused_on_an_open_connection() -> None:
    async def test(server: Served) -> None:
        client = await server.client()
        assert (await client.ask("GET", "/version")).status == 200
        server.access.is_allowed = False
        assert (await client.ask("GET", "/version")).status == 403
        assert await client.until_closed() == b""

    served(test)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/containers/create?name=a"),
        ("POST", "/containers/a/exec"),
        ("POST", "/images/load"),
        ("POST", "/images/create?fromSrc=-"),
        ("POST", "/build"),
        ("PUT", "/containers/a/archive?path=/"),
    ],
)
def test_a_client_that_may_not_change_anything_is_refused_before_its_body(
    method: str, path: str
) -> None:
    async def test(server: Served) -> None:
        server.access = Access("1000", bodies=False)
        client = await server.client()
        client.send(method, path, headers={"Content-Length": "1000000"})
        answer = await client.answer()
        assert answer.status == 403
        assert answer.message.endswith(f"anything: {method} {path.partition('?')[0]}")

    served(test)


def test_the_bodies_of_all_requests_have_one_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_server, "MAX_BODIES", 1_000_000)
    monkeypatch.setattr(api_server, "ROOT_BODIES", 200_000)
    whole = json.dumps({"Cmd": ["x" * 150_000]}).encode()

    async def test(server: Served) -> None:
        def held() -> int:
            return server.server._limits.bodies._used

        server.access = Access("1000")
        half = [await server.client() for _ in range(2)]
        for count, client in enumerate(half, 1):
            client.send("POST", "/containers/create?name=h", headers={"Content-Length": "200000"})
            client.writer.write(b" " * 150_000)
            await eventually(lambda count=count: held() == count * 150_000)
        client = await server.client()
        answer = await client.ask("POST", "/containers/create?name=a", whole)
        assert answer.status == 503
        assert "too much memory" in answer.message
        for caller in ("1001", "0"):
            server.access = Access(caller)
            client = await server.client()
            answer = await client.ask("POST", f"/containers/create?name={caller}", whole)
            assert answer.status == 201
        assert held() == 300_000
        for client in half:
            client.close()
        await eventually(lambda: held() == 0)

    served(test)


def test_a_caller_has_a_share_of_the_transfers_until_they_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(api_server, "MAX_TRANSFERS", 4)
    monkeypatch.setattr(api_server, "ROOT_TRANSFERS", 0)

    async def test(server: Served) -> None:
        server.access = Access("1000")
        slow = [await server.client() for _ in range(2)]
        for client in slow:
            client.send("POST", "/images/load", headers={"Content-Length": "9"})
        await eventually(lambda: server.server._limits.transfers._used == 2)
        answer = await (await server.client()).ask("POST", "/images/load", b"archive")
        assert answer.status == 503
        assert "too many transfers" in answer.message
        server.access = Access("1001")
        assert (await (await server.client()).ask("POST", "/images/load", b"archive")).status == 200
        for client in slow:
            client.writer.write(b"123456789")
            assert (await client.answer()).status == 200
        await eventually(lambda: server.server._limits.transfers._used == 0)

    served(test)


def test_input_that_no_route_reads_stays_in_the_kernel() -> None:
    async def test(server: Served) -> None:
        client = await server.client()
        await client.ask("POST", "/containers/create?name=a", {"Cmd": ["slow"]})
        client.send("POST", "/containers/a/start")
        await eventually(lambda: server.engine.containers.held)
        client.send("POST", "/containers/a/kill", b" " * 900_000)
        (connection,) = server.server._connections
        await eventually(lambda: connection._paused)
        unread = len(connection.parser.trailing_data[0])
        assert 0 < unread <= 2 * http_protocol.MAX_UNREAD
        server.engine.containers.released.set()

    served(test)


def test_a_server_that_closes_answers_that_the_engine_is_stopping() -> None:
    async def test(server: Served) -> None:
        working, begun = [await server.client() for _ in range(2)]
        await working.ask("POST", "/containers/create?name=a", {"Cmd": ["slow"]})
        working.send("POST", "/containers/a/start")
        await eventually(lambda: server.engine.containers.held)
        begun.writer.write(b"GET /_ping HT")
        await idle()
        closing = asyncio.ensure_future(server.server.close())
        await idle()
        late = await server.client()
        for client in (begun, late):
            answer = await client.answer()
            assert (answer.status, answer.message) == (503, "the engine is stopping")
        server.engine.containers.released.set()
        assert (await working.answer()).status == 204
        await closing

    served(test)


def test_a_route_continues_when_its_client_has_left() -> None:
    async def test(server: Served) -> None:
        client = await server.client()
        await client.ask("POST", "/containers/create?name=a", {"Cmd": ["slow"]})
        client.send("POST", "/containers/a/start")
        await eventually(lambda: server.engine.containers.held)
        client.close()
        await client.writer.wait_closed()
        await idle()
        assert server.engine.containers.held, "the work ended with its client"
        server.engine.containers.released.set()
        await eventually(lambda: "a" in server.engine.containers.running)
        await eventually(lambda: not server.server._tasks)

    served(test)


def test_close_waits_for_routes_and_ends_streams() -> None:
    async def test(server: Served) -> None:
        worker, idle, watcher = [await server.client() for _ in range(3)]
        await worker.ask("POST", "/containers/create?name=a", {"Cmd": ["slow"]})
        await idle.ask("GET", "/version")
        watcher.send("GET", "/events")
        assert (await watcher.head()).status == 200
        worker.send("POST", "/containers/a/start")
        await eventually(lambda: server.engine.containers.held)
        closing = asyncio.ensure_future(server.server.close())
        assert await idle.until_closed() == b""
        assert await watcher.until_closed() == b""
        server.engine.containers.released.set()
        answer = await worker.answer()
        assert answer.status == 204
        assert answer.headers["connection"] == "close"
        await closing
        assert server.engine.system.watchers == 0
        assert not server.server._tasks

    served(test)


def test_names_that_are_not_utf_8_do_not_break_an_answer() -> None:
    async def test(server: Served) -> None:
        answer = await (await server.client()).ask("GET", "/containers/a/changes")
        assert json.loads(answer.body)[0]["Path"] == "/caf\ufffd"

    served(test)


def test_malformed_requests_do_not_break_the_server(caplog: pytest.LogCaptureFixture) -> None:
    whole = (
        b"POST /v1.45/containers/create?name=a%20b&filters={} HTTP/1.1\r\nHost: x\r\n"
        b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\nUpgrade: tcp\r\n"
        b'Connection: Upgrade\r\n\r\n5\r\n{"a":\r\n2\r\n1}\r\n0\r\n\r\n'
    )

    async def test(server: Served) -> None:
        dice = random.Random(7)
        for _ in range(300):
            text = bytearray(whole)
            for _ in range(dice.randrange(1, 6)):
                at = dice.randrange(len(text))
                action = dice.randrange(3)
                if action == 0:
                    text[at] = dice.randrange(256)
                elif action == 1:
                    del text[at : at + dice.randrange(1, 20)]
                else:
                    text[at:at] = text[: dice.randrange(1, 60)]
            client = await server.client()
            client.writer.write(bytes(text))
            client.half_close()
            await client.until_closed()
            client.close()
        assert (await (await server.client()).ask("GET", "/version")).status == 200
        for descriptor, _ in server.engine.containers.attached:
            os.close(descriptor)

    served(test)
    assert not caplog.records


def test_a_server_is_idle_some_time_after_the_last_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(api_server, "IDLE_SECONDS", 0.2)
    calls: list[float] = []

    async def test(server: Served) -> None:
        loop = asyncio.get_running_loop()
        server.server.on_idle = lambda: calls.append(loop.time())
        await asyncio.sleep(0.3)
        assert calls == []  # nothing was used since the start
        for _ in range(4):
            client = await server.client()
            assert (await client.ask("GET", "/_ping")).status == 200
            await asyncio.sleep(0.1)
            assert calls == []
        client.close()
        closed = loop.time()
        await eventually(lambda: bool(calls))
        assert calls[0] - closed >= 0.15
        await asyncio.sleep(0.5)
        assert len(calls) == 1
        client = await server.client()
        await eventually(lambda: len(calls) == 2)  # an open connection without requests is idle

    served(test)
