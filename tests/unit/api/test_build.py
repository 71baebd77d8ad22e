"""``/build``: parsing of its query, and its errors."""

from __future__ import annotations

import base64
import json

import pytest

from jaula.errors import InvalidRequest, StepFailed
from jaula.features.build.build_options import BuildOptions
from unit.api.client import Served, served


async def _asked(server: Served, query: str, headers: dict[str, str] | None = None) -> BuildOptions:
    client = await server.client()
    client.send("POST", f"/v1.45/build?{query}", b"context", headers or {})
    assert (await client.head()).status == 200
    await client.chunk()
    return server.engine.builds.asked[-1]


def test_the_query_of_the_docker_command_is_parsed() -> None:
    query = (
        "buildargs=%7B%22A%22%3A%22b%22%2C%22C%22%3Anull%7D&cachefrom=%5B%22x%22%5D&cgroupparent="
        "&cpuperiod=0&cpuquota=0&cpusetcpus=0&cpusetmems=&cpushares=5&dockerfile=D&labels=%7B%7D"
        "&memory=4096&memswap=-1&networkmode=none&rm=1&shmsize=64&t=a&t=b%3A1&target=T&ulimits=null"
        "&version=1&nocache=1&pull=1&q=1&platform=Linux/ARM64&extrahosts=h%3A1.2.3.4"
    )

    async def test(server: Served) -> None:
        options = await _asked(server, query)
        assert options.names == ("a", "b:1")
        assert options.build_args == {"A": "b", "C": None}
        assert options.cache_from == ("x",)
        assert (options.dockerfile, options.target) == ("D", "T")
        assert options.no_cache and options.pull and options.quiet and not options.steps
        assert options.platform == "linux/arm64"
        host = options.host
        assert (host.memory, host.memory_swap, host.cpu_shares) == (4096, -1, 5)
        assert (host.network_mode, host.shm_size) == ("none", 64)
        assert host.extra_hosts == ("h:1.2.3.4",)
        assert server.engine.builds.context == b"context"

    served(test)


def test_credentials_are_parsed_by_registry() -> None:
    document = {"a:5000": {"username": "u", "password": "p", "serveraddress": "a:5000"}}
    header = base64.urlsafe_b64encode(json.dumps(document).encode()).decode()

    async def test(server: Served) -> None:
        options = await _asked(server, "", {"X-Registry-Config": header})
        assert options.auths["a:5000"].username == "u"
        assert "p" not in repr(options.auths["a:5000"]).replace("a:5000", "").split("(")[1]

    served(test)


@pytest.mark.parametrize(
    "query",
    [
        "version=2",
        "buildargs=x",
        "labels=[]",
        "ulimits={}",
        "memory=x",
        "&".join(["t=a"] * 200),
    ],
)
def test_an_invalid_query_is_rejected(query: str) -> None:
    async def test(server: Served) -> None:
        client = await server.client()
        answer = await client.ask("POST", f"/build?{query}")
        assert answer.status == 400
        assert answer.message

    served(test)


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (StepFailed("it failed", 7), {"message": "it failed", "code": 7}),
        (InvalidRequest("it cannot be"), {"message": "it cannot be"}),
    ],
)
def test_a_failure_is_the_last_message(error: Exception, detail: dict[str, object]) -> None:
    async def test(server: Served) -> None:
        server.engine.builds.error = error
        client = await server.client()
        client.send("POST", "/build", b"")
        assert (await client.head()).status == 200
        body = b""
        while chunk := await client.chunk():
            body += chunk
        last = json.loads(body.splitlines()[-1])
        assert last == {"errorDetail": detail, "error": detail["message"]}

    served(test)


def test_a_build_session_leaves_http() -> None:
    async def test(server: Served) -> None:
        client = await server.client()
        refused = await client.ask("POST", "/build/session?session=1")
        assert refused.status == 400
        headers = {"Connection": "Upgrade", "Upgrade": "jaula-build"}
        client.send("POST", "/build/session?session=ab", b"", headers)
        head = await client.head()
        assert head.status == 101
        assert head.headers["upgrade"] == "jaula-build"
        assert (await client.until_closed()).startswith(b"session ab ")

    served(test)


def test_the_build_cache_is_pruned_with_the_requested_options() -> None:
    async def test(server: Served) -> None:
        client = await server.client()
        assert (await client.ask("POST", "/build/prune?all=1&keep-storage=5")).status == 200
        options = server.engine.builds.pruned[-1]
        assert (options.all, options.reserved) == (True, 5)
        query = "reserved-space=6&max-used-space=7&min-free-space=8"
        assert (await client.ask("POST", f"/build/prune?{query}")).status == 200
        options = server.engine.builds.pruned[-1]
        assert (options.all, options.reserved, options.maximum, options.free) == (False, 6, 7, 8)
        assert (await client.ask("POST", "/build/cancel")).status == 400
        assert (await client.ask("POST", "/build/cancel?id=x")).status == 404

    served(test)
