"""Attach and exec: the connection leaves HTTP without losing a byte."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from jaula.api.http import http_session
from unit.api.client import Client, Served, eventually, served

UPGRADE = {"Connection": "Upgrade", "Upgrade": "tcp"}


async def _container(server: Served, name: str = "a", *, tty: bool = False) -> Client:
    client = await server.client()
    await client.ask("POST", f"/containers/create?name={name}", {"Image": "x", "Tty": tty})
    return client


@pytest.mark.parametrize(
    ("version", "tty", "headers", "status", "media"),
    [
        ("v1.45", False, UPGRADE, 101, "multiplexed-stream"),
        ("v1.45", True, UPGRADE, 101, "raw-stream"),
        ("v1.41", False, UPGRADE, 101, "raw-stream"),
        ("v1.45", False, {}, 200, "raw-stream"),
    ],
)
def test_the_head_depends_on_upgrade_version_and_terminal(
    version: str, tty: bool, headers: dict[str, str], status: int, media: str
) -> None:
    async def test(server: Served) -> None:
        client = await _container(server, tty=tty)
        path = f"/{version}/containers/a/attach?stream=1&stdin=1&stdout=1&detachKeys=ctrl-a,b"
        client.send("POST", path, headers=headers)
        head = await client.head()
        assert head.status == status
        assert head.headers["content-type"] == f"application/vnd.docker.{media}"
        assert head.headers.get("upgrade") == ("tcp" if status == 101 else None)
        assert head.headers["api-version"] == "1.55"
        await eventually(lambda: server.engine.containers.attached)
        descriptor, options = server.engine.containers.attached[0]
        os.close(descriptor)
        assert (options.stream, options.stdin, options.stdout, options.stderr) == (
            True,
            True,
            True,
            False,
        )
        assert options.detach_keys == b"\x01b"
        assert await client.until_closed() == b""

    served(test)


def test_early_bytes_later_bytes_and_the_half_close_arrive() -> None:
    async def test(server: Served) -> None:
        client = await _container(server)
        client.send("POST", "/containers/a/attach?stream=1&stdin=1", b"", UPGRADE)
        client.writer.write(b"early ")
        await client.head()
        client.writer.write(b"late")
        client.half_close()
        await eventually(lambda: server.engine.containers.attached)
        descriptor, options = server.engine.containers.attached[0]
        with socket.socket(fileno=descriptor) as stream:
            stream.setblocking(True)
            received = options.early
            while piece := await asyncio.to_thread(stream.recv, 100):
                received += piece
            assert received == b"early late"
            stream.sendall(b"answer")
        assert await client.until_closed() == b"answer"

    served(test)


def test_the_engine_may_answer_long_after_the_server_has_closed() -> None:
    async def test(server: Served) -> None:
        client = await _container(server)
        client.send("POST", "/containers/a/attach?stream=1&stdout=1", headers=UPGRADE)
        await client.head()
        await eventually(lambda: server.engine.containers.attached)
        await server.server.close()
        with socket.socket(fileno=server.engine.containers.attached[0][0]) as stream:
            stream.sendall(b"still here")
        assert await client.until_closed() == b"still here"

    served(test)


def test_an_unknown_container_or_bad_keys_are_http_errors_on_an_open_connection() -> None:
    async def test(server: Served) -> None:
        client = await _container(server)
        unknown = await client.ask("POST", "/containers/nosuch/attach?stream=1", headers=UPGRADE)
        assert unknown.status == 404
        keys = await client.ask(
            "POST", "/containers/a/attach?detachKeys=ctrl-%C3%A9", headers=UPGRADE
        )
        assert keys.status == 400
        assert (await client.ask("GET", "/version")).status == 200

    served(test)


@pytest.mark.parametrize("tty", [False, True])
def test_an_error_after_the_head_is_a_line_on_the_stream(tty: bool) -> None:
    async def test(server: Served) -> None:
        client = await _container(server, "refuses", tty=tty)
        client.send("POST", "/containers/refuses/attach?stream=1", headers=UPGRADE)
        assert (await client.head()).status == 101
        line = b"the container is paused\r\n"
        frame = b"\x02\0\0\0\0\0\0" + bytes([len(line)])
        assert await client.until_closed() == (line if tty else frame + line)

    served(test)


def test_exec_reads_its_document_first_and_the_stream_after_it() -> None:
    async def test(server: Served) -> None:
        client = await _container(server)
        created = await client.ask(
            "POST", "/containers/a/exec", {"Cmd": ["cat"], "AttachStdin": True}
        )
        assert (created.status, created.json()) == (201, {"Id": "e1"})
        headers = UPGRADE | {"Content-Type": "application/json"}
        client.send("POST", "/exec/e1/start", b'{"Tty":false,"ConsoleSize":[4,5]}', headers)
        client.writer.write(b"typed ahead")
        assert (await client.head()).status == 101
        assert await client.until_closed() == b"echo:typed ahead"
        assert server.engine.execs.started == [("e1", b"typed ahead", False, False, (4, 5))]

    served(test)


def test_a_detached_exec_is_an_ordinary_answer() -> None:
    async def test(server: Served) -> None:
        client = await _container(server)
        await client.ask("POST", "/containers/a/exec", {"Cmd": ["true"]})
        assert (await client.ask("POST", "/exec/e1/start", {"Detach": True})).status == 200
        assert (await client.ask("GET", "/exec/e1/json")).json() == {"ID": "e1"}
        assert (await client.ask("POST", "/exec/nosuch/start", {})).status == 404

    served(test)


def test_an_exec_that_cannot_start_writes_the_error_to_its_stream() -> None:
    async def test(server: Served) -> None:
        client = await _container(server)
        await client.ask("POST", "/containers/a/exec", {"Cmd": ["missing"], "Tty": True})
        headers = UPGRADE | {"Content-Type": "application/json"}
        client.send("POST", "/exec/e1/start", b'{"Tty":true}', headers)
        await client.head()
        assert await client.until_closed() == b"program not found\r\n"

    served(test)


def test_no_descriptor_is_leaked() -> None:
    async def test(server: Served) -> None:
        await (await server.client()).ask("GET", "/version")
        before = set(os.listdir("/proc/self/fd"))
        for _ in range(20):
            client = await _container(server, "refuses")
            client.send("POST", "/containers/refuses/attach?stream=1", headers=UPGRADE)
            await client.until_closed()
            client.close()
            await client.writer.wait_closed()
        await eventually(lambda: len(server.server._connections) == 1)
        await eventually(lambda: set(os.listdir("/proc/self/fd")) <= before)

    served(test)


@pytest.mark.parametrize(
    ("agent", "buffers"),
    [(b"docker-sdk-python/7.1.0", True), (b"Docker-Client/26.1.5 (linux)", False), (b"", False)],
)
def test_only_dockers_python_sdk_buffers_the_head(agent: bytes, buffers: bool) -> None:
    assert http_session.buffers_head([(b"host", b"x"), (b"user-agent", agent)]) is buffers


def test_the_wait_ends_when_the_peer_has_read_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_session, "_POLL_INTERVAL", 0)
    ours, theirs = socket.socketpair()
    with ours, theirs:

        async def test() -> None:
            ours.sendall(b"head")
            waiting = asyncio.ensure_future(http_session.wait_until_read(ours.fileno()))
            for _ in range(http_session._HEAD_POLLS // 2):
                await asyncio.sleep(0)
            assert not waiting.done()
            assert theirs.recv(100) == b"head"
            assert await waiting

        asyncio.run(test())


def test_the_wait_for_the_head_ends_after_a_tenth_of_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert (http_session._HEAD_POLLS, http_session._POLL_INTERVAL) == (100, 0.001)
    monkeypatch.setattr(http_session, "_POLL_INTERVAL", 0)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"head")
        assert asyncio.run(http_session.wait_until_read(ours.fileno())) is False


# -- users of the web view -------------------------------------------------------------------------


def test_a_request_for_a_user_of_the_web_view_is_served_as_that_user_and_no_other_one_is() -> None:
    async def test(server: Served) -> None:
        client = await server.client()
        await client.ask("POST", "/containers/create?name=own", {"Image": "x"})
        client.send("GET", "/containers/json?all=1", headers={"Jaula-Web-User": "alice"})
        assert (await client.answer()).json() == []
        client.send("GET", "/containers/json?all=1")
        assert len((await client.answer()).json()) == 1
        assert set(server.engine.users) == {"alice"}

    served(test)


def test_a_sender_who_may_not_speak_for_a_user_is_refused_before_the_body_is_read() -> None:
    async def test(server: Served) -> None:
        client = await server.client()
        headers = {"Jaula-Web-User": "refused", "Content-Length": "1000"}
        client.send("POST", "/containers/create", headers=headers)
        answer = await client.answer()
        assert answer.status == 403
        assert "may not speak for" in answer.message

    served(test)
