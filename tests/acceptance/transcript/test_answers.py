"""Requests that the docker command does not send: the same status, type and body as dockerd's."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from harness.callers.dockerd import BridgedDockerd
from harness.engine import PrivateEngine
from harness.transcript import Step, masked

pytestmark = [
    pytest.mark.client(name="docker command"),
    pytest.mark.needs("dockerd"),
    pytest.mark.xdist_group("transcript"),
]


@dataclass(frozen=True)
class Ask:
    """One request. ``body`` is sent as JSON unless it is text.

    ``but`` are masks with the reason for the difference.
    """

    method: str
    path: str
    body: Any = None
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/json"),)
    but: tuple[tuple[str, str, str], ...] = ()

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.body!r} {dict(self.headers)}"


ID = ((r'"Warnings":(null|\[.*?\])', "", "warnings may be an empty list"),)


def container(version: str = "1.45", but: Any = (), **body: Any) -> Ask:
    """Return a request that creates ``ans-2``, which is removed after it."""
    path = f"/v{version}/containers/create?name=ans-2"
    return Ask("POST", path, {"Image": "busybox"} | body, but=(*ID, *but))


def host(version: str = "1.45", but: Any = (), **fields: Any) -> Ask:
    return container(version, but, HostConfig=fields)


def endpoints(version: str, **settings: Any) -> Ask:
    names = {"EndpointsConfig": settings}
    mode = {"NetworkMode": next(iter(settings))}
    but = ((r"bridge, ans-net", "ans-net, bridge", "the order of a map in Go"),)
    return container(version, but, HostConfig=mode, NetworkingConfig=names)


ADDRESS = {"IPAMConfig": {"IPv4Address": "10.231.6.7"}}
JOINED = {"NetworkMode": "container:ans-1"}

CONTAINERS = (
    host(Annotations={"": "x"}),
    container(Cmd=[""]),
    container(MacAddress="02:42:ac:11:00:05", HostConfig=JOINED, version="1.43"),
    container(ExposedPorts={"80": {}}, HostConfig=JOINED, Image="absent"),
    host(NetworkMode="container:ans-1", Links=["a:b"]),
    host(NetworkMode="host", Links=["a:b"]),
    endpoints("1.43", **{"ans-net": {}, "bridge": {}}),
    endpoints("1.44", **{"ans-net": {}, "bridge": {}}),
    endpoints("1.44", **{"ans-net": ADDRESS}),
    endpoints("1.44", host=ADDRESS),
    endpoints("1.44", none=ADDRESS),
    endpoints("1.44", bridge={"Aliases": ["x"]}),
    endpoints("1.44", **{"ans-net": {"MacAddress": "x"}}),
    *(
        Ask("POST", "/v1.45/containers/ans-1/update", body, but=ID)
        for body in (
            {"CpuQuota": 5000},
            {"CpuPeriod": 5000},
            {"NanoCpus": 500_000_000, "CpuQuota": 40_000},
            {"NanoCpus": -1},
            {"PidsLimit": 50},
        )
    ),
)


GO_TYPES = (
    (
        r"cannot unmarshal (\w+)[^\"]* into Go [^\"]*",
        r"cannot unmarshal \1 into ...",
        "names of Go's structures",
    ),
)
HINT = ((r' \((?:write|add) (?:[^"\\]|\\.)*\)', "", "the engine's own words after Docker's"),)
SWARM = ((r'manager\. (?:[^"\\]|\\.)*', "manager.", "what to use instead"),)
BROKEN = (
    *("{", "[", "[1,]", "tru", "trux", '{"a" 1}', '{"a":1 "b":2}', '{"a":-x}', '{"a":01}', ","),
    *('{"a":1.x}', '{"a":"\\q"}', '{"a":"\\u12x4"}', '{"a":[1 2]}', "{5:1}", '{"Name":"x"} {}'),
)
CREATE, NETWORK = "/v1.45/containers/create", "/v1.45/networks/create"


def typed(kind: str, path: str = CREATE) -> Ask:
    """Return a request with a body of another media type, none if it is empty."""
    headers = (("Content-Type", kind),) if kind else ()
    return Ask("POST", path, {"Image": "absent", "Name": "x"}, headers)


API = (
    *(Ask("POST", NETWORK, text) for text in BROKEN),
    *(
        Ask("POST", CREATE, body, but=GO_TYPES)
        for body in (
            *([], '"x"', {"Image": 5}, {"HostConfig": {"Memory": "x"}}, {"HostConfig": []}),
            *({"Env": "x"}, {"Labels": ["x"]}, {"HostConfig": {"Memory": 1.5}}, {}, "null"),
        )
    ),
    *(typed(kind) for kind in ("", "text/plain", "application/json;;", "application/json;")),
    *(typed("text/plain", path) for path in (NETWORK, "/v1.45/volumes/create")),
    *(
        Ask("POST", f"/v1.45/{path}", headers=())
        for path in (
            *("containers/create", "containers/absent/exec", "exec/absent/start"),
            *("networks/create", "networks/absent/connect", "networks/absent/disconnect"),
            *("containers/absent/update", "commit?container=absent"),
        )
    ),
    *(Ask("OPTIONS", path, headers=()) for path in ("/", "/v1.45/containers/json", "/any")),
    *(
        Ask("GET", f"/v1.45/{path}", headers=(), but=(*HINT, *SWARM))
        for path in (
            *("nonesuch", "swarm", "services", "services/x", "nodes", "tasks", "plugins"),
            *("plugins/x/json", "events?since=5&until=3"),
            *("containers/json?filters=x", 'containers/json?filters={"status":5}'),
            *(f'{kind}?filters={{"dangling":["x"]}}' for kind in ("images/json", "networks")),
        )
    ),
    Ask("POST", '/v1.45/images/prune?filters={"dangling":["x"]}', headers=()),
    Ask("DELETE", "/v1.45/plugins/x", headers=()),
    Ask("POST", "/v1.45/swarm/leave", headers=()),
    Ask("POST", "/v1.45/commit", headers=(), but=HINT),
)


class Engines:
    """Both engines, with the container ``ans-1`` and the network ``ans-net``."""

    def __init__(self, own: PrivateEngine, dockerd: BridgedDockerd) -> None:
        address = dockerd.address.removeprefix("unix://")
        self.sockets = {"own": str(own.socket), "dockerd": str(dockerd.namespaces.path(address))}
        self._commands: dict[str, Callable[..., Any]] = {
            self.sockets["own"]: lambda *words: own.cli("docker", *words, check=True),
            self.sockets["dockerd"]: dockerd,
        }

    def docker(self, *words: str) -> None:
        """Run the docker command against both engines."""
        for path in self._commands:
            self.docker_of(path, *words)

    def docker_of(self, path: str, *words: str) -> None:
        """Run the docker command against the engine at a socket."""
        self._commands[path](*words)

    def ask(self, ask: Ask) -> dict[str, str]:
        """Return the masked answer of each engine; a container that it created is removed."""
        return {name: self._ask(path, ask) for name, path in self.sockets.items()}

    def _ask(self, path: str, ask: Ask) -> str:
        status, kind, body = self.send(path, ask)
        if status == 201 and "/containers/create" in ask.path:
            self.send(path, Ask("DELETE", "/v1.45/containers/ans-2?force=1&v=1"))
        return masked(f"{status} {kind}\n{body}", Step((), but=ask.but))

    def exec_instance(self, path: str, ref: str, *cmd: str, **body: object) -> str:
        """Create an exec that attaches both outputs, and return its id."""
        outputs = {"AttachStdout": True, "AttachStderr": True}
        ask = Ask("POST", f"/v1.45/containers/{ref}/exec", {"Cmd": cmd} | outputs | body)
        return str(json.loads(self.send(path, ask)[2])["Id"])

    def hijack(self, path: str, target: str, body: object = None) -> tuple[str, bytes]:
        """Return the media type and the whole stream of an upgraded request."""
        data = json.dumps(body or {}).encode()
        head = f"POST /v1.45{target} HTTP/1.1\r\nHost: docker\r\nContent-Length: {len(data)}\r\n"
        upgrade = "Content-Type: application/json\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(path)
            client.sendall((head + upgrade).encode() + data)
            stream = b""
            while chunk := client.recv(65536):
                stream += chunk
        answer, _, output = stream.partition(b"\r\n\r\n")
        kind = next(line for line in answer.split(b"\r\n") if line.startswith(b"Content-Type:"))
        return kind.decode(), output

    def send(self, path: str, ask: Ask) -> tuple[int, str, str]:
        connection = http.client.HTTPConnection("docker", timeout=30)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(30)
        try:
            connection.sock.connect(path)
            text = ask.body if ask.body is None or isinstance(ask.body, str | bytes) else None
            data = json.dumps(ask.body) if text is None and ask.body is not None else text
            connection.request(ask.method, ask.path, data, dict(ask.headers))
            answer = connection.getresponse()
            kind = answer.getheader("Content-Type", "")
            return answer.status, kind, answer.read().decode(errors="replace")
        finally:
            connection.close()


@pytest.fixture(scope="module")
def engines(own: PrivateEngine, dockerd: BridgedDockerd) -> Iterator[Engines]:
    both = Engines(own, dockerd)
    both.docker("network", "create", "ans-net")
    flags = ("--name", "ans-1", "--cpus", "0.5", "--stop-timeout", "0")
    both.docker("run", "-d", "--init", *flags, "busybox", "sleep", "300")
    yield both
    both.docker("rm", "-f", "ans-1")
    both.docker("network", "rm", "ans-net")


def _compare(engines: Engines, asks: tuple[Ask, ...]) -> None:
    different = []
    for ask in asks:
        answers = engines.ask(ask)
        if answers["own"] != answers["dockerd"]:
            rows = (f"  {name}: {text!r}" for name, text in answers.items())
            different.append("\n".join((str(ask), *rows)))
    assert not different, "\n".join(different)


def test_requests_for_containers_have_the_same_answer(engines: Engines) -> None:
    _compare(engines, CONTAINERS)


def test_other_requests_have_the_same_answer(engines: Engines) -> None:
    _compare(engines, API)


def test_limits_of_old_bodies_are_read(engines: Engines) -> None:
    old = {"Memory": 33554432, "MemorySwap": 67108864, "CpuShares": 512, "Cpuset": "0"}
    create = Ask("POST", "/v1.24/containers/create?name=ans-3", {"Image": "busybox"} | old)
    for path in engines.sockets.values():
        status, _, text = engines.send(path, create)
        assert status == 201, text
        limits = json.loads(engines.send(path, Ask("GET", "/v1.24/containers/ans-3/json"))[2])
        engines.send(path, Ask("DELETE", "/v1.24/containers/ans-3"))
        found = {name: limits["HostConfig"][name] for name in ("Memory", "MemorySwap", "CpuShares")}
        assert found | {"Cpuset": limits["HostConfig"]["CpusetCpus"]} == old


@pytest.mark.parametrize("start_tty", [True, False])
@pytest.mark.parametrize("tty", [True, False])
def test_the_stream_of_an_exec_follows_its_start(
    engines: Engines, tty: bool, start_tty: bool
) -> None:
    results = []
    for path in engines.sockets.values():
        line = "echo out; sleep 0.2; echo err >&2"
        exec_id = engines.exec_instance(path, "ans-1", "sh", "-c", line, Tty=tty)
        head, stream = engines.hijack(path, f"/exec/{exec_id}/start", {"Tty": start_tty})
        results.append((head, _joined(stream) if "multiplexed" in head else stream))
    assert results[0] == results[1]


def _joined(stream: bytes) -> list[tuple[int, bytes]]:
    """Return the frames, neighbours of one kind as one: a read of a terminal ends anywhere."""
    frames: list[tuple[int, bytes]] = []
    while stream:
        kind, end = stream[0], 8 + int.from_bytes(stream[4:8], "big")
        data, stream = stream[8:end], stream[end:]
        if frames and frames[-1][0] == kind:
            data = frames.pop()[1] + data
        frames.append((kind, data))
    return frames


def test_an_exec_ends_with_its_container(engines: Engines) -> None:
    def life(path: str) -> Iterator[object]:
        def ask(method: str, target: str, body: object = None) -> tuple[int, str, Any]:
            status, kind, text = engines.send(path, Ask(method, f"/v1.45{target}", body))
            return status, kind, json.loads(text) if text.startswith("{") else text

        def state(exec_id: str) -> object:
            status, _, document = ask("GET", f"/exec/{exec_id}/json")
            keys = ("Running", "ExitCode", "CanRemove", "message")
            found = {key: document.get(key) for key in keys}
            return status, str(found).replace(exec_id, "ID"), document.get("Pid", 0) > 0

        engines.docker_of(path, "run", "-d", "--init", "--name", "ans-3", "busybox", "sleep", "99")
        ended = engines.exec_instance(path, "ans-3", "sh", "-c", "exit 3")
        yield state(ended)
        yield engines.hijack(path, f"/exec/{ended}/start")
        yield state(ended)
        running, created = (engines.exec_instance(path, "ans-3", "sleep", "99") for _ in range(2))
        yield ask("POST", f"/exec/{running}/start", {"Detach": True})
        yield state(running)
        ask("POST", "/containers/ans-3/kill")
        ask("POST", "/containers/ans-3/wait")
        for again in (False, True):
            if again:
                ask("POST", "/containers/ans-3/start")
            for exec_id in (ended, running, created):
                yield state(exec_id)
            for exec_id in (ended, created):
                status, kind, document = ask("POST", f"/exec/{exec_id}/start", {"Detach": True})
                yield status, kind, masked(str(document), Step(()))
        engines.docker_of(path, "rm", "-f", "ans-3")

    first, second = (list(life(path)) for path in engines.sockets.values())
    assert first == second


def test_outputs_that_do_not_exist_are_the_same(engines: Engines) -> None:
    engines.docker("run", "--name", "ans-4", "--log-driver", "none", "busybox", "true")
    flags = ("-d", "-t", "--init", "--name", "ans-3")
    engines.docker("run", *flags, "busybox", "sh", "-c", "echo out; sleep 99")
    try:
        _compare(
            engines,
            tuple(
                Ask("GET", f"/v1.45/containers/{target}")
                for target in (
                    *("ans-4/logs?stdout=1", "absent/attach/ws?stream=1"),
                    *("ans-1/logs", "absent/logs?stdout=1"),
                )
            ),
        )
        streams = [
            engines.hijack(path, "/containers/ans-3/attach?logs=1&stderr=1")
            for path in engines.sockets.values()
        ]
        assert streams[0] == streams[1]
    finally:
        engines.docker("rm", "-f", "ans-3", "ans-4")
