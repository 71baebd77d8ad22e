"""Long answers: framing, early heads, backpressure, readers that leave."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest

from jaula.api.http import api_server
from jaula.errors import Unavailable
from jaula.spec.api_params import LogOptions, WaitResult
from unit.api.client import Client, Served, eventually, served
from unit.event_loop import idle


async def _container(server: Served, *, tty: bool = False) -> Client:
    client = await server.client()
    await client.ask("POST", "/containers/create?name=a", {"Image": "x", "Tty": tty})
    return client


def test_wait_answers_its_head_before_the_container_ends() -> None:
    async def test(server: Served) -> None:
        client = await _container(server)
        client.send("POST", "/v1.45/containers/a/wait?condition=removed")
        head = await client.head()
        assert head.status == 200
        assert head.headers["transfer-encoding"] == "chunked"
        server.engine.containers.waiters[0].set_result(WaitResult(3))
        assert await client.chunk() == b'{"StatusCode":3}\n'
        assert await client.chunk() == b""
        assert (await client.ask("GET", "/version")).status == 200
        unknown = await client.ask("POST", "/containers/nosuch/wait")
        assert unknown.status == 404
        invalid = await client.ask("POST", "/containers/a/wait?condition=tired")
        assert invalid.status == 400

    served(test)


def test_each_answer_waits_for_the_disk() -> None:
    async def test(server: Served) -> None:
        client = await _container(server)
        created = server.engine.syncs
        assert created > 0
        client.send("POST", "/containers/a/wait")
        await client.head()
        server.engine.sync_error = Unavailable("cannot write")
        server.engine.containers.waiters[0].set_result(WaitResult(3))
        assert await client.reader.read() == b""  # the connection is cut
        assert server.engine.syncs > created

    served(test)


def test_a_change_that_is_not_on_the_disk_is_an_error() -> None:
    async def test(server: Served) -> None:
        client = await _container(server)
        server.engine.sync_error = Unavailable("cannot write")
        answer = await client.ask("POST", "/containers/create?name=b", {"Image": "x"})
        assert (answer.status, answer.message) == (503, "cannot write")

    served(test)


@pytest.mark.parametrize(
    "path", ["/containers/json", "/containers/a/json", "/info", "/containers/a/export", "/_ping"]
)
def test_a_read_does_not_wait_for_the_changes_of_others(path: str) -> None:
    async def test(server: Served) -> None:
        client = await _container(server)
        server.engine.sync_error = Unavailable("cannot write")
        before = server.engine.syncs
        assert (await client.ask("GET", path)).status == 200
        assert server.engine.syncs == before

    served(test)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/containers/a/stop?t=0"),
        ("POST", "/containers/a/kill"),
        ("DELETE", "/containers/a?force=1"),
    ],
)
def test_a_disk_that_fails_does_not_keep_a_container_from_its_end(method: str, path: str) -> None:
    async def test(server: Served) -> None:
        client = await _container(server)
        server.engine.sync_error = Unavailable("cannot write")
        before = server.engine.syncs
        assert (await client.ask(method, path)).status == 204
        assert server.engine.syncs == before + 1

    served(test)


def test_a_client_that_leaves_ends_its_wait() -> None:
    async def test(server: Served) -> None:
        client = await _container(server)
        client.send("POST", "/containers/a/wait")
        await client.head()
        client.close()
        await eventually(server.engine.containers.waiters[0].cancelled)

    served(test)


@pytest.mark.parametrize(
    ("version", "tty", "media", "body"),
    [
        (
            "v1.45",
            False,
            "multiplexed-stream",
            b"\x01\0\0\0\0\0\0\x02o\n\x02\0\0\0\0\0\0\x02e\n",
        ),
        ("v1.41", False, "raw-stream", b"\x01\0\0\0\0\0\0\x02o\n\x02\0\0\0\0\0\0\x02e\n"),
        ("v1.45", True, "raw-stream", b"o\ne\n"),
    ],
)
def test_logs_are_framed_unless_there_is_a_terminal(
    version: str, tty: bool, media: str, body: bytes
) -> None:
    async def test(server: Served) -> None:
        client = await _container(server, tty=tty)
        server.engine.containers.records = [("stdout", b"o\n"), ("stderr", b"e\n")]
        path = f"/{version}/containers/a/logs?stdout=1&stderr=1&tail=3&since=12.5&timestamps=true"
        answer = await client.ask("GET", path)
        assert answer.headers["content-type"] == f"application/vnd.docker.{media}"
        assert answer.body == body
        assert server.engine.containers.calls[-1] == (
            "logs",
            LogOptions(stdout=True, stderr=True, since=12_500_000_000, tail=3, timestamps=True),
        )
        assert (await client.ask("GET", "/containers/a/logs")).status == 400
        assert (await client.ask("GET", "/containers/nosuch/logs?stdout=1")).status == 404

    served(test)


def test_a_followed_log_sends_its_head_at_once_and_each_record_as_it_comes() -> None:
    async def test(server: Served) -> None:
        client = await _container(server, tty=True)
        client.send("GET", "/containers/a/logs?stdout=1&follow=1")
        assert (await client.head()).status == 200
        server.engine.containers.released.set()
        assert await client.chunk() == b"released\n"
        assert await client.chunk() == b""
        assert await client.until_closed() == b""

    served(test)


def test_a_followed_log_is_not_chunked_for_http_1_0() -> None:
    async def test(server: Served) -> None:
        client = await _container(server)
        client.writer.write(b"GET /containers/a/logs?stdout=1&follow=1 HTTP/1.0\r\n\r\n")
        assert (await client.head()).status == 200
        server.engine.containers.released.set()
        assert await client.until_closed() == b"released\n"

    served(test)


def test_a_followed_log_that_breaks_off_has_no_end_and_its_connection_counts_meanwhile() -> None:
    async def test(server: Served) -> None:
        client = await _container(server)
        client.send("GET", "/containers/a/logs?stdout=1&follow=1")
        await client.head()
        assert len(server.server._connections) == 1
        server.engine.containers.broken = True
        server.engine.containers.released.set()
        assert await client.until_closed() == b""  # no last chunk
        await eventually(lambda: not server.server._connections)

    served(test)


def test_a_reader_that_leaves_ends_a_followed_log() -> None:
    async def test(server: Served) -> None:
        client = await _container(server)
        client.send("GET", "/containers/a/logs?stdout=1&follow=1")
        await client.head()
        client.close()
        await eventually(lambda: server.engine.containers.closed)
        await eventually(lambda: not server.server._tasks)

    served(test)


def test_a_half_closed_reader_keeps_reading_until_it_leaves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(api_server, "SWEEP_SECONDS", 0.001)
    sweeps = 0
    sweep = api_server.Server._sweep

    def counted(server: api_server.Server) -> None:
        nonlocal sweeps
        sweeps += 1
        sweep(server)

    monkeypatch.setattr(api_server.Server, "_sweep", counted)

    async def test(server: Served) -> None:
        client = await _container(server)
        client.send("GET", "/events")
        await client.head()
        client.half_close()
        await idle()
        before = sweeps
        await eventually(lambda: sweeps >= before + 3)
        server.engine.system.happened.put_nowait({"Action": "start"})
        assert await client.chunk() == b'{"Action":"start"}\n'
        client.close()
        await eventually(lambda: server.engine.system.watchers == 0)

    served(test)


def test_a_reader_that_does_not_read_stops_the_producer() -> None:
    async def test(server: Served) -> None:
        client = await _container(server)
        containers = server.engine.containers
        containers.flood_size = 32 * 1024 * 1024
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send("GET", "/containers/a/logs?stdout=1")
        await idle()
        assert 0 < containers.produced < 4 * 1024 * 1024
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        answer = await client.answer()
        assert len(answer.body) == containers.flood_size // 65536 * (65536 + 8)

    served(test)


def test_many_small_records_go_out_together() -> None:
    async def test(server: Served) -> None:
        client = await _container(server, tty=True)
        server.engine.containers.records = [("stdout", b"line\n")] * 10_000
        client.send("GET", "/containers/a/logs?stdout=1")
        await client.head()
        chunks = 0
        size = 0
        while chunk := await client.chunk():
            chunks += 1
            size += len(chunk)
        assert size == 50_000
        assert chunks <= 3

    served(test)


def test_an_error_before_the_first_chunk_has_its_status_and_one_after_cuts_the_answer() -> None:
    async def test(server: Served) -> None:
        client = await server.client()
        assert (await client.ask("GET", "/containers/nosuch/export")).status == 404
        assert (await client.ask("GET", "/images/get?names=absent")).status == 404
        await client.ask("POST", "/containers/create?name=broken", {})
        client.send("GET", "/containers/broken/export")
        assert (await client.head()).status == 200
        assert not (await client.until_closed()).endswith(b"0\r\n\r\n")

    served(test)


def test_an_archive_has_the_stat_of_the_path_in_a_header() -> None:
    async def test(server: Served) -> None:
        client = await _container(server)
        for method in ("HEAD", "GET"):
            client.send(method, "/containers/a/archive?path=/etc")
            answer = await client.head()
            assert answer.status == 200
            told = json.loads(base64.b64decode(answer.headers["x-docker-container-path-stat"]))
            assert told["name"] == "/etc"
            assert told["linkTarget"] == ""

    served(test)


def test_an_uploaded_archive_is_streamed_with_its_options() -> None:
    async def test(server: Served) -> None:
        client = await _container(server)
        path = "/containers/a/archive?path=/d&noOverwriteDirNonDir=true"
        client.send("PUT", path, b"tar")
        assert (await client.head()).status == 200
        call = server.engine.containers.calls[-1]
        assert call == ("copy in", "a", "/d", b"tar", True, False)

    served(test)


def test_stats_are_one_document_or_many() -> None:
    async def test(server: Served) -> None:
        client = await _container(server)
        assert (await client.ask("GET", "/containers/a/stats?stream=0")).json() == {"read": 1}
        both = await client.ask("GET", "/containers/a/stats?one-shot=1")
        assert both.status == 400
        client.send("GET", "/containers/a/stats")
        await client.head()
        assert await client.chunk() == b'{"read":1}\n'
        assert await client.chunk() == b'{"read":2}\n'

    served(test)


def test_an_upload_is_streamed_with_any_framing() -> None:
    async def test(server: Served) -> None:
        client = await server.client()
        whole = await client.ask("POST", "/images/load?quiet=1", b"t" * 1_000_000)
        assert whole.json() == {"stream": "1000000 bytes"}
        client.send("POST", "/images/load", headers={"Transfer-Encoding": "chunked"})
        for _ in range(10):
            client.writer.write(b"3e8\r\n" + b"t" * 1000 + b"\r\n")
            await asyncio.sleep(0)
        client.writer.write(b"0\r\n\r\n")
        assert (await client.answer()).json() == {"stream": "1010000 bytes"}

    served(test)


def test_100_continue_is_sent_when_the_body_is_read() -> None:
    async def test(server: Served) -> None:
        client = await server.client()
        headers = {"Content-Length": "3", "Expect": "100-continue"}
        client.send("POST", "/images/load", headers=headers)
        assert (await client.head()).status == 100
        client.writer.write(b"tar")
        assert (await client.answer()).json() == {"stream": "3 bytes"}
        client.send("POST", "/nothing", headers=headers)
        answer = await client.answer()
        assert answer.status == 404
        assert answer.headers["connection"] == "close"

    served(test)


def test_an_upload_that_is_rejected_early_is_answered() -> None:
    async def test(server: Served) -> None:
        server.engine.images.refuse_after = 1000
        client = await server.client()
        answer = await client.ask("POST", "/images/load", b"t" * 8_000_000)
        assert (answer.status, answer.message) == (400, "not an archive")
        assert (await client.ask("GET", "/version")).status == 200

    served(test)


def test_an_incomplete_upload_is_an_error_for_the_engine() -> None:
    async def test(server: Served) -> None:
        client = await server.client()
        client.send("POST", "/images/load", headers={"Content-Length": "1000"})
        client.writer.write(b"t" * 10)
        await eventually(lambda: server.engine.images.received)
        client.close()
        await eventually(lambda: server.engine.images.error)
        assert "went away" in str(server.engine.images.error)

    served(test)


def test_a_failed_pull_is_an_http_error_or_the_last_line_of_its_progress() -> None:
    async def test(server: Served) -> None:
        client = await server.client()
        # {"username":"u"} in URL-safe base 64 without padding
        auth = {"X-Registry-Auth": "eyJ1c2VybmFtZSI6InUifQ"}
        early = await client.ask("POST", "/images/create?fromImage=a&tag=1", headers=auth)
        assert (early.status, early.message) == (404, "no registry answers for a")
        assert server.engine.images.calls[-1][3].username == "u"
        late = await client.ask("POST", "/images/create?fromImage=a&tag=late")
        assert late.status == 200
        assert late.body.splitlines() == [
            b'{"status":"Pulling"}',
            b'{"errorDetail":{"message":"the layer is gone"},"error":"the layer is gone"}',
        ]
        for malformed in ("!!", "bnVsbA==", "e30="):  # not base64, null, {}
            headers = {"X-Registry-Auth": malformed}
            await client.ask("POST", "/images/create?fromImage=a&tag=1", headers=headers)
            auth_seen = server.engine.images.calls[-1][3]
            assert auth_seen is None or auth_seen.username == ""

    served(test)
