"""The documents of the API against dockerd's: the same keys with values of the same type."""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from harness.callers.dockerd import BridgedDockerd
from harness.engine import PrivateEngine

pytestmark = [
    pytest.mark.client(name="docker command"),
    pytest.mark.needs("dockerd"),
    pytest.mark.xdist_group("transcript"),
]

Ask = Callable[[str], Any]

DOCUMENTS = {
    "container that runs": "/containers/doc-1/json?size=1",
    "container that ended": "/containers/doc-2/json",
    "list of containers": "/containers/json?all=1&size=1",
    "statistics": "/containers/doc-1/stats?stream=0&one-shot=1",
    "processes": "/containers/doc-1/top",
    "image": "/images/busybox/json",
    "list of images": "/images/json",
    "history": "/images/busybox/history",
    "network": "/networks/doc-net",
    "default network": "/networks/bridge",
    "network of settings": "/networks/doc-conf",
    "network of settings that are none": "/networks/doc-none",
    "network from settings": "/networks/doc-from",
    "volume": "/volumes/doc-vol",
    "list of volumes": "/volumes",
    "version": "/version",
    "info": "/info",
    "disk usage": "/system/df",
}

OPTIONAL = {
    "container": {
        r"\.GraphDriver\.Data\.MergedDir": "nothing is mounted on the host",
        r"\.HostConfig\.LogConfig\.Config\..*": "the default has limits",
        r"\.HostConfig\.(Secrets|Configs|Profile)": "this engine's own",
        r"\.Landlock|\.Owner|\.Relaxations|\.PauseRequested|\.RequestSeal": "this engine's own",
        r"\.Refusals|\.(EgressRefused|NamesRefused)(\[\].*)?": "this engine's own",
        r"\.EngineSocket|\.Mounts\[\]\.IDMapped": "this engine's own",
        r"\.State\.Health\.Log\[\].*": "whether a probe has run yet",
        r"\.ExecIDs\[\]": "whether one runs at the moment",
    },
    "list": {r".*\.DNSNames\[\]": "told in lists as well"},
    "disk": {
        r".*\.DNSNames\[\]": "told in lists as well",
        r"\.LayersReclaimable": "what a prune would free, known here",
    },
    "statistics": {
        r"\.blkio_stats\..*": "whether the container has read anything from a disk",
        r"\.id|\.name": "told in the first sample, too",
        r"\.memory_stats\.(failcnt|stats\..*)": "zeros are told",
        r"\.pids_stats\.limit": "processes are limited by default",
    },
    "info": {
        r"\.Runtimes\.\*\.status.*": "jaula-runtime features tells it",
        r"\.CDISpecDirs\[\]": "experimental in this version of dockerd",
        r"\.Warnings\[\]": "what the kernel lacks: the weight of block devices too",
    },
    "image": {
        r"\.GraphDriver\.Data\..*": "layers are directories that no program should touch",
        r"\.Owner|\.NameOwners(\.\*)?": "this engine's own",
    },
    "network": {r"\.Owner": "this engine's own"},
    "default": {r"\.Owner": "this engine's own"},
    "volume": {r"\.Owner|\.Id": "this engine's own"},
}
"""Keys that only one of them has, by the first word of the title, each with the reason."""

MAPS = (
    *("Labels", "Sysctls", "Volumes", "Networks", "Ports", "Options", "Tmpfs", "Containers"),
    *("Runtimes", "NameOwners"),
)
"""Keys whose value has names of the user's or the host's as keys."""


@pytest.fixture(scope="module")
def theirs(dockerd: BridgedDockerd) -> Iterator[Ask]:
    _furnish(dockerd)
    yield lambda path: _curl(dockerd, path)
    _clear(dockerd)


@pytest.fixture(scope="module")
def ours(own: PrivateEngine) -> Iterator[Ask]:
    _furnish(lambda *words: own.cli("docker", *words, check=True))
    yield lambda path: own.request("GET", path).json()
    _clear(lambda *words: own.cli("docker", *words, check=True))


def _furnish(docker: Callable[..., object]) -> None:
    docker("network", "create", "--label", "a=b", "doc-net")
    pool = ("--subnet", "10.231.6.0/24", "--gateway", "10.231.6.9")
    docker("network", "create", "--config-only", *pool, "doc-conf")
    docker("network", "create", "--config-only", "doc-none")
    docker("network", "create", "--config-from", "doc-conf", "doc-from")
    docker("volume", "create", "--label", "a=b", "doc-vol")
    flags = ("--init", "--network", "doc-net", "-v", "doc-vol:/data", "--tmpfs", "/t", "-l", "a=b")
    limits = ("-m", "64m", "--cpus", "0.5", "--ulimit", "nofile=64:64", "-p", "127.0.0.1::80")
    health = ("--health-cmd", "true", "--health-interval", "1s", "--restart", "on-failure:2")
    docker("run", "-d", "--name", "doc-1", *flags, *limits, *health, "busybox", "sleep", "300")
    docker("run", "--name", "doc-2", "--mount", "type=tmpfs,target=/t", "busybox", "true")


def _clear(docker: Callable[..., object]) -> None:
    docker("rm", "-f", "doc-1", "doc-2")
    docker("network", "rm", "doc-net", "doc-from", "doc-conf", "doc-none")
    docker("volume", "rm", "doc-vol")


def _curl(dockerd: BridgedDockerd, path: str) -> Any:
    connection = http.client.HTTPConnection("docker", timeout=60)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(dockerd.namespaces.path(dockerd.address.removeprefix("unix://"))))
    connection.request("GET", path)
    return json.loads(connection.getresponse().read())


def shape(value: Any, name: str = "", key: str = "") -> Iterator[tuple[str, str]]:
    """Return the path of each key with the type of its value.

    A list has the shapes of its entries.
    """
    match value:
        case dict():
            for inner, content in value.items():
                output = "*" if key in MAPS else inner
                yield from shape(content, f"{name}.{output}", inner)
            yield name, "object"
        case list():
            for content in value:
                yield from shape(content, f"{name}[]", key)
            yield name, "list"
        case bool():
            yield name, "bool"
        case int() | float():
            yield name, "number"
        case str():
            yield name, "text"
        case None:
            yield name, "null"


@pytest.mark.parametrize("version", ["1.24", "1.40", "1.41", "1.43", "1.44", "1.45"])
@pytest.mark.parametrize("title", DOCUMENTS)
def test_has_the_same_keys(title: str, version: str, ours: Ask, theirs: Ask) -> None:
    path = f"/v{version}{DOCUMENTS[title]}"
    mine, other = (set(shape(ask(path))) for ask in (ours, theirs))
    known = {path for path, _ in mine & other}
    keys_of_mine, keys_of_other = ({path for path, _ in result} for result in (mine, other))
    reasons = OPTIONAL.get(title.split()[0], {})

    def unexplained(paths: set[str]) -> list[str]:
        return sorted(p for p in paths if not any(re.fullmatch(pattern, p) for pattern in reasons))

    missing = unexplained(keys_of_other - keys_of_mine)
    further = unexplained(keys_of_mine - keys_of_other)
    kinds = sorted(
        (path, kind, [k for p, k in other if p == path])
        for path, kind in mine - other
        if path in keys_of_other - known
        and kind != "null"
        and "null" not in [k for p, k in other if p == path]
    )
    assert not (missing or further or kinds), f"missing: {missing}\nfurther: {further}\n{kinds}"
