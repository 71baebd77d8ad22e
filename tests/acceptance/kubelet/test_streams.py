"""Exec, attach, port-forward and logs by the kubelet's own API, over SPDY and WebSockets."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.parse
from collections.abc import Coroutine
from typing import Any

from harness.kubelet import NODE, PORT, Kubelet, Pending, container, pod, tls_context
from harness.stream_client import SpdyClient, WebSocketClient

ECHO = "echo ready; while read -r line; do echo got $line; done"
SIZE = 20 << 20


def url(call: str, pod_name: str, container_name: str = "", **query: Any) -> str:
    path = "/".join(filter(None, (call, "default", f"{pod_name}-{NODE}", container_name)))
    return f"https://127.0.0.1:{PORT}/{path}?{urllib.parse.urlencode(query, doseq=True)}"


async def spdy(node: Kubelet, address: str, protocol: str = "v4.channel.k8s.io") -> SpdyClient:
    return await SpdyClient.connect(address, protocol, tls_context(), node.connect(PORT))


def within(seconds: float, work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, seconds))


def test_a_command_has_its_streams_and_exit_status(node: Kubelet) -> None:
    node.apply(pod("exec", container("main", "sleep 1000")))
    node.ready("exec")

    async def work() -> None:
        command = ["sh", "-c", "cat; echo err >&2; exit 3"]
        client = await spdy(
            node, url("exec", "exec", "main", command=command, input=1, output=1, error=1)
        )
        ids = await client.open_all("error", "stdin", "stdout", "stderr")
        sent = bytes(SIZE)
        reading = asyncio.ensure_future(
            client.until_ended(ids["error"], ids["stdout"], ids["stderr"])
        )
        await client.send(ids["stdin"], sent, fin=True)
        await reading
        assert len(client.received[ids["stdout"]]) == SIZE
        assert client.received[ids["stderr"]] == b"err\n"
        status = json.loads(client.received[ids["error"]])
        assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]
        client.close()

    within(120, work())


def test_a_command_runs_over_a_websocket(node: Kubelet) -> None:
    node.apply(pod("socket", container("main", "sleep 1000")))
    node.ready("socket")

    async def work() -> None:
        client = await WebSocketClient.connect(
            url("exec", "socket", "main", command=["echo", "hi"], output=1, error=1),
            "v4.channel.k8s.io",
            tls_context(),
            node.connect(PORT),
        )
        messages = await client.messages()
        assert b"".join(m[1:] for m in messages if m[:1] == b"\x01") == b"hi\n"

    within(60, work())


def test_a_client_is_attached_to_the_streams_of_a_container(node: Kubelet) -> None:
    node.apply(pod("attach", container("main", ECHO, stdin=True)))
    node.ready("attach")

    async def work() -> None:
        client = await spdy(node, url("attach", "attach", "main", input=1, output=1))
        ids = await client.open_all("error", "stdin", "stdout")
        await client.send(ids["stdin"], b"one\ntwo\n")
        while b"got two\n" not in client.received[ids["stdout"]]:
            assert await client.frame()
        client.close()

    within(60, work())
    assert "got one\ngot two\n" in node.read_log("attach", "main")


def test_a_port_of_a_pod_is_forwarded(node: Kubelet) -> None:
    command = "mkdir /www; echo hello > /www/file; exec httpd -f -p 8080 -h /www"
    node.apply(pod("forward", container("main", command)))
    node.ready("forward")

    async def work() -> None:
        client = await spdy(node, url("portForward", "forward"), "portforward.k8s.io")
        for number in ("1", "2"):
            headers = {"port": "8080", "requestid": number}
            error = await client.open(streamtype="error", **headers)
            data = await client.open(streamtype="data", **headers)
            await client.send(data, b"GET /file HTTP/1.0\r\n\r\n")
            await client.until_ended(data)
            client.reset(data)
            await client.until_ended(error)
            assert client.received[data].endswith(b"\r\n\r\nhello\n")
            assert client.received[error] == b""
        client.close()

    within(60, work())


def test_logs_are_rotated_by_the_kubelet_and_lose_no_line(node: Kubelet) -> None:
    lines = 20000
    node.apply(
        pod(
            "log",
            container(
                "main",
                f"i=0; while [ $i -lt {lines} ]; do echo line $i; i=$((i+1));"
                " [ $((i % 1000)) != 0 ] || sleep 1; done; while :; do echo end; sleep 1; done",
            ),
        )
    )
    node.ready("log")
    (directory,) = node.logs.glob("default_log-*/main")
    seen: dict[str, None] = {}
    deadline = time.monotonic() + 120
    while f"line {lines - 1}" not in seen:
        assert time.monotonic() < deadline, f"{len(seen)} lines"
        for path in sorted(directory.iterdir(), key=lambda p: p.name == "0.log"):
            if not path.name.endswith((".gz", ".tmp")):
                whole = path.read_text().rpartition("\n")[0]  # the last line may be on its way
                for line in whole.splitlines():
                    seen[line.split(" ", 3)[3]] = None
        time.sleep(0.2)
    assert len(seen.keys() - {"end"}) == lines
    assert 1 < len(list(directory.iterdir())) <= 4

    def tail() -> None:
        if node.read_log("log", "main", "?tailLines=1") != "end\n":
            raise Pending("the log does not go on")

    node.until(tail)
