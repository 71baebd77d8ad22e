"""A real docker is taken over: images, volumes, networks, containers, and a compose project."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.docker_root import listing
from harness.engine import PrivateEngine
from harness.foreign_dockerd import ForeignDockerd
from jaula.features.migrate_from.docker_root import DockerRoot
from jaula.features.migrate_from.docker_source import Docker
from jaula.features.migrate_from.inventory import Inventory
from jaula.features.migrate_from.source_api import SourceApi

pytestmark = [
    pytest.mark.takeover,
    pytest.mark.needs("dockerd", "docker", "runc"),
    pytest.mark.xdist_group("foreign-dockerd"),
]

COMPOSE = """
services:
  db:
    image: made:1
    command: sleep 1000
    volumes: [files:/var/lib/db]
    environment: {PASSWORD: x}
    healthcheck: {test: [CMD, "true"], interval: 1s}
  web:
    image: busybox
    command: sleep 1000
    env_file: [web.env]
    depends_on: [db]
    networks: {default: {aliases: [www]}, edge: {ipv4_address: 172.31.240.5}}
volumes: {files: {}}
networks:
  edge: {ipam: {config: [{subnet: 172.31.240.0/24}]}}
"""
FLAGS = (
    "--name web --network front --ip 172.31.241.10 --network-alias www -v data:/data -v /etc:/h:ro"
    " -e A=1 --restart unless-stopped -m 64m --cap-add NET_ADMIN --cap-drop CHOWN --user 0:0 "
    "--workdir /tmp --label own=1 --ulimit nofile=100:200 --tmpfs /t:size=1m --dns 9.9.9.9 "
    "--add-host a:1.2.3.4 --stop-timeout 3 --stop-signal USR1 --shm-size 1m "
    "--security-opt no-new-privileges --pids-limit 77 --cpus 0.5 --expose 81 --hostname name "
    "--log-opt max-size=1m --init --group-add 5 --oom-score-adj 5"
)
CHECKED = (
    "--log-driver none --health-cmd true --health-interval 5s --health-retries 7 "
    "--health-start-period 2s --restart on-failure:3 --volume-driver local -v kept:/kept"
)
SCRIPT = (  # writes at its first start only: files are read while it starts again
    "[ -e /data/d/h ] || { rm -rf /app/old; echo new > /app/new; mkdir /data/d; echo x > /data/f;"
    " ln /data/f /data/d/h; }"
)
CHANGED = (  # members of `inspect` that differ, with the reason
    "Id", "Created", "Image", "State", "Driver", "GraphDriver", "Mounts", "NetworkSettings",
    "HostnamePath", "HostsPath", "LogPath", "ResolvConfPath", "Platform",
    # jaula's own
    "Landlock", "Owner", "PauseRequested", "Refusals", "Relaxations", "RequestSeal", "Warnings",
    "EngineSocket",
)  # fmt: skip
CHANGED_HOST = (
    "CgroupnsMode",  # docker's default depends on the host
    "MaskedPaths", "ReadonlyPaths",  # jaula masks more
    "Runtime", "UsernsMode", "Profile", "LogConfig", "Init",
    "Binds",  # anonymous volumes are named
)  # fmt: skip


@pytest.fixture(scope="module")
def dockerd(busybox_archive: Path, tmp_path_factory: Any) -> Iterator[ForeignDockerd]:
    with ForeignDockerd(busybox_archive) as docker:
        project = docker.base / "shop"
        project.mkdir()
        (project / "compose.yaml").write_text(COMPOSE)
        (project / "web.env").write_text("FILE=1\n")
        docker("run", "--name", "maker", "busybox", "sh", "-c", "mkdir /app; echo o > /app/old")
        docker("commit", "-c", "VOLUME /vol", "-c", "ENV FOO=bar", "maker", "made:1")
        docker("tag", "made:1", "registry.example:5000/team/made:1")
        docker("rm", "maker")
        docker("volume", "create", "--label", "k=v", "data")
        docker("network", "create", "--subnet", "172.31.241.0/24", "--label", "n=1", "front")
        docker("network", "create", "--ipv6", "--subnet", "fd00:31::/64", "back")
        docker("run", "-d", *FLAGS.split(), "made:1", "sh", "-c", f"{SCRIPT}; sleep 1000")
        docker("network", "connect", "--alias", "b", "back", "web")
        docker("create", "--name", "side", "--network", "container:web", "busybox", "sleep", "9")
        docker("create", "--name", "store", *CHECKED.split(), "busybox", "sleep", "9")
        docker("create", "--name", "linked", "--link", "store:alias", "busybox", "sleep", "9")
        docker("compose", "-f", str(project / "compose.yaml"), "up", "-d")
        docker("stop", "-t", "0", "web", "shop-web-1", "shop-db-1")
        yield docker


@pytest.fixture
def target(new_engine: Any) -> PrivateEngine:
    engine: PrivateEngine = new_engine()
    return engine


def inspect(docker: Any, kind: str, name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(docker(kind, "inspect", name).stdout)[0]
    return document


def without(document: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Return the members that are compared; null and empty are one."""
    return {name: value for name, value in document.items() if name not in names and value}


def test_docker_is_taken_over_and_compose_recreates_nothing(
    dockerd: ForeignDockerd, target: PrivateEngine
) -> None:
    before = _settled(dockerd.base / "data")
    done = target.cli("jaula", "migrate-from", "docker", "--host", dockerd.address, "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    after = listing(dockerd.base / "data")
    assert sorted(set(before.splitlines()) ^ set(after.splitlines())) == []

    def docker(*words: str) -> subprocess.CompletedProcess[str]:
        done = target.cli("docker", *words)
        assert done.returncode == 0, done.stderr
        return done

    for name in ("busybox", "made:1", "registry.example:5000/team/made:1"):
        one, other = inspect(dockerd, "image", name), inspect(docker, "image", name)
        assert (one["Id"], one["RootFS"], one["RepoTags"]) == (
            other["Id"], other["RootFS"], other["RepoTags"],
        )  # fmt: skip
    for name in ("web", "side", "shop-web-1", "shop-db-1", "store", "linked"):
        _compare_containers(dockerd, docker, name)
    assert inspect(docker, "container", "store")["HostConfig"]["LogConfig"]["Type"] == "none"
    assert inspect(docker, "container", "linked")["HostConfig"]["Links"] == ["/store:/linked/alias"]
    for name in ("front", "back", "shop_edge"):
        one, other = inspect(dockerd, "network", name), inspect(docker, "network", name)
        assert set(one["Labels"].items()) <= set(other["Labels"].items())
        assert {p["Subnet"] for p in one["IPAM"]["Config"]} == {
            p["Subnet"] for p in other["IPAM"]["Config"]
        }
    assert docker("diff", "web").stdout.split("\n").count("D /app/old") == 1
    assert inspect(docker, "volume", "data")["Labels"]["k"] == "v"

    compose = ("compose", "-f", str(dockerd.base / "shop/compose.yaml"), "up", "-d")
    done = docker(*compose)
    assert "Started" in done.stderr
    assert "creat" not in done.stderr.lower(), done.stderr
    docker("compose", "-f", str(dockerd.base / "shop/compose.yaml"), "down", "-t", "0")
    docker("start", "web")
    assert docker("exec", "web", "cat", "/app/new", "/data/d/h").stdout == "new\nx\n"
    docker("kill", "web")


def _settled(path: Path) -> str:
    """Return the listing of a directory when its daemon has written the ends of its containers."""
    before = ""
    while before != (before := listing(path)):
        time.sleep(2)
    return before


def _compare_containers(dockerd: Any, docker: Any, name: str) -> None:
    one, other = inspect(dockerd, "container", name), inspect(docker, "container", name)
    host, other_host = one.pop("HostConfig"), other.pop("HostConfig")
    config, other_config = one.pop("Config"), other.pop("Config")
    assert without(one, CHANGED) == without(other, CHANGED)
    assert one["Created"].rstrip("0Z") == other["Created"].rstrip("0Z")  # of the fraction
    origin = other_config["Labels"].pop("io.jaula.migrated-from")
    assert origin.endswith(f"/container/{one['Id']}")
    if host["NetworkMode"].startswith("container:"):
        host["NetworkMode"] = other_host["NetworkMode"] = ""
        config["Hostname"] = other_config["Hostname"] = ""
    assert without(config, ()) == without(other_config, ())
    changed = CHANGED_HOST + (() if host["PidsLimit"] else ("PidsLimit",))
    for mount in (*(host.get("Mounts") or ()), *(other_host.get("Mounts") or ())):
        mount["VolumeOptions"] = {name: v for name, v in mount["VolumeOptions"].items() if v}
    assert without(host, changed) == without(other_host, changed)
    for network, settings in one["NetworkSettings"]["Networks"].items():
        new = other["NetworkSettings"]["Networks"][network]
        for member in ("IPAMConfig", "Aliases", "Links"):
            assert (settings[member] or None) == (new[member] or None), (name, network, member)


def test_the_api_and_the_disk_say_the_same(dockerd: ForeignDockerd) -> None:
    def described(inventory: Inventory) -> dict[str, object]:
        """Return the members of all objects by their paths."""
        document: dict[str, Any] = msgspec.to_builtins(inventory)
        flat: dict[str, object] = {}
        for kind in ("images", "volumes", "networks", "containers"):
            for each in document[kind]:
                key = each.get("name") or each.get("source_id") or each["id"]
                _flatten(f"{kind} {key}", each, flat)
        return {
            path: value
            for path, value in flat.items()
            if not path.endswith((".size", ".IPAM.Options"))  # the API counts other bytes
        }

    by_api, by_disk = Docker(SourceApi(dockerd.address)), DockerRoot(str(dockerd.base / "data"))
    try:
        one, other = described(by_api.inventory()), described(by_disk.inventory())
        assert sorted(one.items() ^ other.items()) == []
    finally:
        by_api.close()
        by_disk.close()


def _flatten(path: str, value: object, flat: dict[str, object]) -> None:
    if isinstance(value, dict) and value:
        for name, each in value.items():
            _flatten(f"{path}.{name}", each, flat)
    elif isinstance(value, list | tuple):
        flat[path] = str(sorted(map(str, value)))
    else:
        flat[path] = str(value or "")


def test_files_of_running_containers_need_a_flag(
    dockerd: ForeignDockerd, target: PrivateEngine
) -> None:
    dockerd("start", "web")
    words = ("migrate-from", "docker", "--host", dockerd.address, "--filter", "name=web")
    done = target.cli("jaula", *words, "--dry-run")
    assert done.returncode == 1
    assert "web runs: stop it, or use --allow-running" in done.stdout
    done = target.cli("jaula", *words, "--yes", "--allow-running", "--api-only", "--start")
    dockerd("stop", "-t", "0", "web")
    assert done.returncode == 0, done.stderr
    assert target.cli("docker", "exec", "web", "cat", "/app/new").stdout == "new\n"
