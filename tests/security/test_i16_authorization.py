"""I16: the control socket checks its peer; policy and action use one parse of a request.

There are no abstract sockets. The users are ids without an account: the ids of the peer decide.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest

from conftest import engine_with_policy, load_image
from harness import containers
from harness.api_user import ApiUser
from harness.container_records import change_records
from harness.engine import PROJECT, PrivateEngine

MEMBER, RESTRICTED, READER, STRANGER, OTHER, BOUNDED, SHARED, LATE_READER = range(54001, 54009)
CONTROLLER, RECORDER = 54009, 54010
GROUP, MOUNTERS = 54100, 54101

POLICY = """
[group.54100]
access = "run"

[group.54101]
access = "run"
host-mounts = ["{open}", "{shut}:ro"]
host-namespaces = ["network"]
devices = ["/dev/null"]
log-addresses = ["unix://{open}/granted.sock"]
capabilities = ["net_admin"]
security-options = ["landlock=off"]

[user.54003]
access = "read"

[user.54008]
access = "read"

[user.54009]
access = "run"
others = "control"

[user.54006]
access = "run"
max-memory = "64m"
max-pids = 100
max-shm-size = "32m"
ulimits = ["nofile=1000"]
host-ports = ["8000-8010"]

[user.54007]
access = "run"
max-containers = 3
max-networks = 2
max-volumes = 2

[user.54010]
access = "run"
max-secrets = 3
max-record-size = "1m"

[user.54002]
access = "run"
images = false
volumes = false
"""


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("ground")
    (base / "open").mkdir()
    (base / "shut").mkdir()
    (base / "host").mkdir()
    (base / "host" / "secret").write_text("of the host")
    (base / "open" / "plain").mkdir()
    os.chown(base / "open" / "plain", OTHER, OTHER)
    (base / "open" / "link").symlink_to(base / "host")
    return base


@pytest.fixture(scope="module")
def guarded(worker_index: int, ground: Path) -> Iterator[PrivateEngine]:
    policy = ground / "policy.toml"
    policy.write_text(POLICY.format(open=ground / "open", shut=ground / "shut"))
    with engine_with_policy(worker_index + 67, policy) as private:
        yield private


@pytest.fixture(scope="module")
def member(guarded: PrivateEngine) -> ApiUser:
    return ApiUser(guarded, MEMBER, MEMBER, (GROUP,))


@pytest.fixture(scope="module")
def mounter(guarded: PrivateEngine) -> ApiUser:
    return ApiUser(guarded, OTHER, OTHER, (MOUNTERS,))


def message(reply: Any) -> str:
    return str(reply.json()["message"])


POWERS: list[tuple[str, dict[str, Any]]] = [
    ("privileged", {"Privileged": True}),
    ("host-mount=/etc", {"Binds": ["/etc:/host"]}),
    ("host-mount=/", {"Mounts": [{"Type": "bind", "Source": "/", "Target": "/host"}]}),
    ("host-namespace=pid", {"PidMode": "host"}),
    ("host-namespace=network", {"NetworkMode": "host"}),
    ("host-namespace=ipc", {"IpcMode": "host"}),
    ("host-namespace=uts", {"UTSMode": "host"}),
    ("host-namespace=user", {"UsernsMode": "host"}),
    ("host-namespace=cgroup", {"CgroupnsMode": "host"}),
    ("device=/dev/kmsg", {"Devices": [{"PathOnHost": "/dev/kmsg"}]}),
    ("device=b *:* rwm", {"DeviceCgroupRules": ["b *:* rwm"]}),
    ("capability=SYS_ADMIN", {"CapAdd": ["SYS_ADMIN"]}),
    ("capability=ALL", {"CapAdd": ["all"]}),
    ("security-option=seccomp=unconfined", {"SecurityOpt": ["seccomp=unconfined"]}),
    ("security-option=seccomp=profile", {"SecurityOpt": ['seccomp={"defaultAction":"x"}']}),
    ("security-option=apparmor=unconfined", {"SecurityOpt": ["apparmor:unconfined"]}),
    ("security-option=label=disable", {"SecurityOpt": ["label=disable"]}),
    ("security-option=landlock=off", {"SecurityOpt": ["landlock=off"]}),
    ("security-option=systempaths=unconfined", {"MaskedPaths": []}),
    ("security-option=systempaths=unconfined", {"ReadonlyPaths": ["/proc/bus"]}),
    ("cgroup-parent=/", {"CgroupParent": "/"}),
    ("oom-score-adj=-1000", {"OomScoreAdj": -1000}),
    ("oom-kill-disable", {"OomKillDisable": True, "Memory": 1 << 26}),
    ("ulimit=rtprio=99", {"Ulimits": [{"Name": "rtprio", "Soft": 1, "Hard": 99}]}),
    ("ulimit=nice=unlimited", {"Ulimits": [{"Name": "NICE", "Soft": -1, "Hard": -1}]}),
    ("host-port=80", {"PortBindings": {"80/tcp": [{"HostPort": "80"}]}}),
    ("host-port=1000-1100", {"PortBindings": {"80/tcp": [{"HostPort": "1000-1100"}]}}),
    ("annotation=org.systemd.property.X", {"Annotations": {"org.systemd.property.X": "1"}}),
]


@pytest.mark.parametrize(("ask", "host_config"), POWERS)
def test_a_member_of_a_plain_group_gets_no_privileges_on_the_host(
    member: ApiUser, ask: str, host_config: dict[str, Any]
) -> None:
    reply = member.create("busybox", **host_config)
    assert reply.status == 403, reply
    text = message(reply)
    assert ask in text
    assert f"uid {MEMBER}" in text
    assert f"[group.{GROUP}]" in text
    assert "\n" not in text


WITHIN: dict[str, Any] = {"Memory": 1 << 26, "PidsLimit": 100, "ShmSize": 1 << 25}


@pytest.mark.parametrize(
    ("demand", "host_config"),
    [
        ("memory=unlimited", {"Memory": 0}),
        ("memory=64.06MiB", {"Memory": (1 << 26) + (1 << 16)}),
        ("memory-swap=unlimited", {"MemorySwap": -1}),
        ("pids-limit=4096", {"PidsLimit": None}),
        ("pids-limit=unlimited", {"PidsLimit": -1}),
        ("shm-size=64MiB", {"ShmSize": 0}),
        ("ulimit=nofile=1001", {"Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 1001}]}),
        ("host-port=8011", {"PortBindings": {"80/tcp": [{"HostPort": "8011"}]}}),
        ("host-port=49153-65535", {"PortBindings": {"80/tcp": []}}),
    ],
)
def test_a_rule_bounds_what_a_container_asks_for(
    guarded: PrivateEngine, demand: str, host_config: dict[str, Any]
) -> None:
    bounded = ApiUser(guarded, BOUNDED, BOUNDED)
    refused = bounded.create("busybox", **(WITHIN | host_config))
    assert refused.status == 403, refused
    assert f"may not ask for {demand}: rule [user.{BOUNDED}]" in message(refused)


def test_an_update_stays_below_the_ceilings(guarded: PrivateEngine) -> None:
    bounded = ApiUser(guarded, BOUNDED, BOUNDED)
    ports = {"80/tcp": [{"HostPort": "8010"}]}
    files = [{"Name": "nofile", "Soft": 1, "Hard": 1000}]
    made = bounded.create("busybox", **WITHIN, PortBindings=ports, Ulimits=files)
    assert made.status == 201, made
    path = f"/containers/{made.json()['Id']}"
    try:
        assert bounded.request("POST", f"{path}/update", {"PidsLimit": 50}).status == 200
        for body in ({"PidsLimit": 101}, {"PidsLimit": -1}, {"Memory": 1 << 27, "MemorySwap": -1}):
            assert bounded.request("POST", f"{path}/update", body).status == 403
        assert guarded.request("POST", f"{path}/update", {"PidsLimit": 500}).status == 200
        refused = bounded.request("POST", f"{path}/start")  # as the stored request is judged
        assert refused.status == 403
        assert "pids-limit=500" in message(refused)
    finally:
        guarded.request("DELETE", path)


def test_a_caller_has_a_share_of_everything_that_is_finite(
    guarded: PrivateEngine, member: ApiUser
) -> None:
    shared = ApiUser(guarded, SHARED, SHARED)
    refused: dict[str, str] = {}

    def take(kind: str, most: int, make: Callable[[ApiUser, int], Any]) -> list[Any]:
        replies = [make(shared, number) for number in range(most + 1)]
        assert [reply.status for reply in replies] == [201] * most + [403], (kind, replies)
        refused[kind] = message(replies[-1])
        assert make(member, most + 1).status == 201  # the share of another caller
        assert make(ApiUser(guarded, 0, 0), most + 2).status == 201
        return replies

    def container(user: ApiUser, number: int) -> Any:
        return user.create("busybox", f"share-{number}", NetworkMode="none")

    def network(user: ApiUser, number: int) -> Any:
        return user.request("POST", "/networks/create", {"Name": f"share-{number}"})

    def volume(user: ApiUser, number: int) -> Any:
        return user.request("POST", "/volumes/create", {"Name": f"share-{number}"})

    try:
        take("containers", 3, container)
        take("networks", 2, network)
        take("volumes", 2, volume)
        for kind, text in refused.items():
            assert f"may not have more than {2 + (kind == 'containers')} {kind}" in text
            assert f"max-{kind}" in text
        assert volume(shared, 0).status == 201  # it exists: nothing is created
        assert guarded.request("DELETE", "/containers/share-0").status == 204
        assert shared.create("busybox", "share-0", Binds=["new-share:/v"]).status == 403
        assert guarded.request("DELETE", "/volumes/share-1").status == 204
        assert shared.create("busybox", "share-0", Binds=["new-share:/v"]).status == 201
        assert shared.create("busybox", "share-9").status == 403
    finally:
        for number in range(7):
            guarded.request("DELETE", f"/containers/share-{number}?v=1&force=1")
            guarded.request("DELETE", f"/networks/share-{number}")
            guarded.request("DELETE", f"/volumes/share-{number}")
        guarded.request("DELETE", "/volumes/new-share")


LARGE = {"large": "x" * 700_000}
TEXT = "A=" + "x" * 700_000
ROOM: dict[str, tuple[str, dict[str, Any]]] = {
    "labels": ("/containers/create?name=room", {"Image": "busybox", "Labels": LARGE}),
    "variables": ("/containers/create?name=room", {"Image": "busybox", "Env": [TEXT]}),
    "a command": ("/containers/create?name=room", {"Image": "busybox", "Cmd": [TEXT[:400_000]]}),
    "a health check": (
        "/containers/create?name=room",
        {"Image": "busybox", "Healthcheck": {"Test": ["CMD", TEXT]}},
    ),
    "a new volume": (
        "/containers/create?name=room",
        {
            "Image": "busybox",
            "HostConfig": {
                "Mounts": [
                    {
                        "Type": "volume",
                        "Target": "/v",
                        "VolumeOptions": {"Labels": {"large": "x" * 300_000}},
                    }
                ]
            },
        },
    ),
    "a network": ("/networks/create", {"Name": "room", "Labels": LARGE}),
    "a volume": ("/volumes/create", {"Name": "room", "Labels": LARGE}),
    "a secret": ("/secrets/create", {"Name": "room", "Data": "eA==", "Labels": LARGE}),
    "a config": ("/configs/create", {"Name": "room", "Data": "eHh4" * 170_000}),
    "an exec": ("/containers/first-room/exec", {"Cmd": ["true", TEXT]}),
}


@pytest.fixture
def recorder(guarded: PrivateEngine) -> Iterator[ApiUser]:
    """A user who may have 1 MiB of records, and has a small container that runs."""
    user = ApiUser(guarded, RECORDER, RECORDER)
    assert user.create("busybox", "first-room", Cmd=["sleep", "600"]).status == 201
    assert user.request("POST", "/containers/first-room/start").status == 204
    yield user
    for path in ("containers/first-room", "containers/room", "containers/room-2"):
        guarded.request("DELETE", f"/{path}?force=1&v=1")
    for kind in ("networks", "volumes", "secrets", "configs"):
        guarded.request("DELETE", f"/{kind}/room")


@pytest.mark.parametrize("what", ROOM)
def test_the_records_of_a_caller_have_a_share_of_the_memory(
    guarded: PrivateEngine, recorder: ApiUser, member: ApiUser, what: str
) -> None:
    path, body = ROOM[what]
    made = recorder.request("POST", path, body)
    assert made.status == 201, made
    more = {"Image": "busybox", "Labels": {"large": "x" * 500_000}}
    refused = recorder.request("POST", "/containers/create?name=room-2", more)
    assert refused.status == 403, refused
    assert "may not have more than 1MiB of records of containers, execs" in message(refused)
    assert "ask the operator to raise max-record-size" in message(refused)
    for user in (member, ApiUser(guarded, 0, 0)):  # the share of another caller
        assert user.request("POST", "/containers/create?name=room-2", more).status == 201
        assert guarded.request("DELETE", "/containers/room-2").status == 204
    if what == "an exec":
        assert recorder.request("POST", "/containers/first-room/kill").status == 204
        assert recorder.request("POST", "/containers/first-room/wait").status == 200
    else:
        kind = path.split("/")[1]
        assert recorder.request("DELETE", f"/{kind}/room?v=1").status == 204
    assert recorder.request("POST", "/containers/create?name=room-2", more).status == 201


def test_a_change_of_a_record_takes_from_the_share(
    guarded: PrivateEngine, recorder: ApiUser
) -> None:
    body = {"Image": "busybox", "Labels": {"large": "x" * 900_000}}
    assert recorder.request("POST", "/containers/create?name=room", body).status == 201
    version = recorder.request("GET", "/jaula/containers/room/edit").json()["Version"]
    labels = {"Version": version, "Labels": {"large": "y" * 200_000}}
    bindings = {"Version": version, "Labels": {str(i): "y" * 90 for i in range(1500)}}
    for path, change in (
        ("/jaula/containers/room/edit", labels),
        ("/jaula/containers/room/edit", bindings),
        ("/containers/room/update", {"CpusetCpus": "0," * 50_000 + "0"}),
        ("/secrets/create", {"Name": "room", "Data": "eA==", "Labels": {"a": "x" * 200_000}}),
    ):
        refused = recorder.request("POST", path, change)
        assert refused.status == 403, (path, refused)
        assert "max-record-size" in message(refused)
    connect = {"Container": "room", "EndpointConfig": {"Aliases": ["a" * 60] * 2000}}
    made = recorder.request("POST", "/networks/create", {"Name": "room"})
    assert made.status == 201
    refused = recorder.request("POST", "/networks/room/connect", connect)
    assert refused.status == 403, refused
    assert recorder.request("POST", "/containers/room/rename?name=room-2").status == 204
    small = recorder.request("POST", "/containers/room-2/update", {"PidsLimit": 50})
    assert small.status == 200, small
    controller = ApiUser(guarded, CONTROLLER, CONTROLLER)  # whose own share is larger
    assert controller.request("POST", "/containers/room-2/update", {"PidsLimit": 51}).status == 200
    assert recorder.request("DELETE", "/containers/room-2").status == 204


def test_a_caller_has_a_number_of_secrets_and_configs(
    guarded: PrivateEngine, recorder: ApiUser
) -> None:
    made = [(kind, f"room-{n}") for n, kind in enumerate(("secrets", "configs", "secrets"))]
    try:
        for kind, name in made:
            body = {"Name": name, "Data": "eA=="}
            assert recorder.request("POST", f"/{kind}/create", body).status == 201
        for kind in ("secrets", "configs"):
            refused = recorder.request("POST", f"/{kind}/create", {"Name": "r", "Data": "eA=="})
            assert refused.status == 403
            assert "may not have more than 3 secrets and configs" in message(refused)
    finally:
        for kind, name in made:
            guarded.request("DELETE", f"/{kind}/{name}")


def test_creates_at_the_same_time_do_not_exceed_the_share_together(
    guarded: PrivateEngine, recorder: ApiUser
) -> None:
    body = {"Image": "busybox", "Labels": {"large": "x" * 300_000}}

    def create(number: int) -> int:
        path = f"/containers/create?name=room-at-once-{number}"
        return recorder.request_over(connections[number], "POST", path, body).status

    connections = [recorder.connect() for _ in range(12)]  # a thread has no ids of its own
    try:
        with ThreadPoolExecutor(12) as pool:
            statuses = list(pool.map(create, range(12)))
        assert sorted(set(statuses)) == [201, 403]
        assert statuses.count(201) in (1, 2, 3)
    finally:
        for number in range(12):
            guarded.request("DELETE", f"/containers/room-at-once-{number}")


def test_a_member_of_a_plain_group_takes_no_addresses_of_the_host(member: ApiUser) -> None:
    body = {"Name": "taken", "IPAM": {"Config": [{"Subnet": "198.51.100.0/24"}]}}
    reply = member.request("POST", "/networks/create", body)
    assert reply.status == 403, reply
    assert "network-option=subnet=198.51.100.0/24" in message(reply)


def test_a_member_runs_containers_with_the_defaults(
    guarded: PrivateEngine, member: ApiUser
) -> None:
    name = containers.unique("own")
    assert member.create("busybox", name).status == 201
    assert member.request("POST", f"/containers/{name}/start").status == 204
    assert guarded.request("GET", f"/containers/{name}/json").json()["Owner"] == str(MEMBER)
    assert member.request("DELETE", f"/containers/{name}?force=1").status == 204


def test_settings_taken_from_another_container_are_authorized(
    guarded: PrivateEngine, member: ApiUser
) -> None:
    body = {"IPAM": {"Config": [{"Subnet": "198.51.100.0/24"}]}, "Options": {"parent": "lo"}}
    plan = {"Name": "plan", "ConfigOnly": True}
    assert member.request("POST", "/networks/create", plan | body).status == 403
    assert guarded.request("POST", "/networks/create", plan | body).status == 201
    for driver in ("bridge", "macvlan"):
        requested = {"Name": "taken", "Driver": driver, "ConfigFrom": {"Network": "plan"}}
        refused = member.request("POST", "/networks/create", requested)
        assert refused.status == 403, refused
        assert "network-option=subnet=198.51.100.0/24" in message(refused)
    assert guarded.request("DELETE", "/networks/plan").status == 204


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/containers/{}/exec", {"Cmd": ["id"]}),
        ("POST", "/containers/{}/attach?stream=1&stdin=1", None),
        ("POST", "/containers/{}/kill", None),
        ("POST", "/containers/{}/stop", None),
        ("POST", "/containers/{}/restart", None),
        ("POST", "/containers/{}/rename?name=mine", None),
        ("POST", "/containers/{}/update", {"Memory": 1 << 30}),
        ("DELETE", "/containers/{}?force=1", None),
        ("GET", "/containers/{}/export", None),
        ("GET", "/containers/{}/logs?stdout=1", None),
        ("GET", "/containers/{}/top", None),
        ("GET", "/jaula/containers/{}/spec", None),
        ("POST", "/containers/{}/checkpoints", {"CheckpointID": "one"}),
        ("DELETE", "/containers/{}/checkpoints/one", None),
        ("POST", "/containers/{}/start?checkpoint=one", None),
        ("GET", "/jaula/containers/{}/checkpoints/one", None),
        ("GET", "/jaula/containers/{}/checkpoint-manifest/one", None),
        ("GET", "/jaula/containers/{}/checkpoint-archive/one", None),
        ("POST", "/jaula/containers/{}/rollback/one", None),
        ("POST", "/jaula/containers/{}/clone/one", {"Name": "mine"}),
    ],
)
def test_containers_of_another_user_cannot_be_accessed(
    guarded: PrivateEngine, member: ApiUser, method: str, path: str, body: Any
) -> None:
    with containers.running(guarded, "busybox", flags=("-e", "PASSWORD=of-root")) as name:
        reply = member.request(method, path.format(name), body)
        assert reply.status == 403, reply
        seen = member.request("GET", f"/containers/{name}/json")
        assert seen.status == 200
        assert b"of-root" not in seen.body


def test_a_directory_of_checkpoints_needs_a_grant(member: ApiUser) -> None:
    created = member.create("busybox")
    assert created.status == 201, created
    path = f"/containers/{created.json()['Id']}"
    for method, action, body in (
        ("POST", "/checkpoints", {"CheckpointID": "one", "CheckpointDir": "/srv/x"}),
        ("POST", "/start?checkpoint=one&checkpoint-dir=/srv/x", None),
        ("GET", "/checkpoints?dir=/srv/x", None),
        ("DELETE", "/checkpoints/one?dir=/srv/x", None),
        ("GET", "jaula/checkpoints/one?dir=/srv/x", None),
        ("POST", "jaula/rollback/one?dir=/srv/x", None),
        ("POST", "jaula/clone/one?dir=/srv/x", {}),
        ("GET", "jaula/checkpoint-manifest/one?dir=/srv/x", None),
        ("GET", "jaula/checkpoint-archive/one?dir=/srv/x", None),
    ):
        own = action.startswith("jaula/")
        where = f"/jaula{path}{action.removeprefix('jaula')}" if own else path + action
        reply = member.request(method, where, body)
        assert reply.status == 403, reply
        assert 'checkpoint-directories = ["/srv/x"]' in message(reply)
    assert member.request("DELETE", path).status == 204


def test_an_archive_of_a_checkpoint_that_is_not_trusted_is_refused(member: ApiUser) -> None:
    reply = member.request("POST", "/jaula/checkpoints", bytes(10240))
    assert reply.status == 400, reply


def test_a_link_needs_access_to_the_linked_container(
    guarded: PrivateEngine, member: ApiUser
) -> None:
    made = member.create("busybox", "links-store")
    assert made.status == 201
    with containers.running(guarded, "busybox") as name:
        of_root = guarded.request
        body = {"Image": "busybox", "HostConfig": {"Links": ["links-store:db", f"{name}:own"]}}
        assert of_root("POST", "/containers/create?name=links-web", body).status == 201
        for alias in ("db", "own"):  # for any owner of the other container
            refused = member.request("DELETE", f"/containers/links-web/{alias}?link=1")
            assert refused.status == 403, refused
        assert of_root("DELETE", "/containers/links-web/db?link=1").status == 204
        assert of_root("DELETE", "/containers/links-web").status == 204
    assert member.request("DELETE", "/containers/links-store").status == 204


@pytest.mark.parametrize("mode", ["NetworkMode", "PidMode", "VolumesFrom"])
def test_namespaces_of_another_user_cannot_be_joined(
    guarded: PrivateEngine, member: ApiUser, mode: str
) -> None:
    with containers.running(guarded, "busybox") as name:
        expected: Any = [name] if mode == "VolumesFrom" else f"container:{name}"
        reply = member.create("busybox", **{mode: expected})
        assert reply.status == 403, reply
        assert "share with" in message(reply)


def test_an_exec_has_only_the_granted_privileges(member: ApiUser) -> None:
    name = containers.unique("own")
    member.create("busybox", name)
    member.request("POST", f"/containers/{name}/start")
    plain = member.request("POST", f"/containers/{name}/exec", {"Cmd": ["id"]})
    mighty = member.request("POST", f"/containers/{name}/exec", {"Cmd": ["id"], "Privileged": True})
    member.request("DELETE", f"/containers/{name}?force=1")
    assert plain.status == 201
    assert mighty.status == 403


def test_an_exec_of_another_user_cannot_be_started_by_its_id(
    guarded: PrivateEngine, member: ApiUser
) -> None:
    with containers.running(guarded, "busybox") as name:
        made = guarded.request("POST", f"/containers/{name}/exec", {"Cmd": ["id"]}).json()
        reply = member.request("POST", f"/exec/{made['Id']}/start", {"Detach": True})
        assert reply.status == 403


def test_a_reader_may_read_and_change_nothing(guarded: PrivateEngine) -> None:
    reader = ApiUser(guarded, READER, READER, (GROUP,))
    assert reader.request("GET", "/containers/json").status == 200
    assert reader.request("GET", "/images/json").status == 200
    assert reader.create("busybox").status == 403
    assert reader.request("POST", "/images/busybox/tag?repo=x&tag=y").status == 403
    assert reader.request("POST", "/volumes/create", {}).status == 403


@pytest.mark.parametrize(
    "path",
    [
        "/distribution/{}/x/json",
        "/images/search?term={}/x",
        "/jaula/manifests/{}/x",
        "/jaula/signatures/{}/x",
    ],
)
@pytest.mark.parametrize("uid", [READER, RESTRICTED])
def test_a_user_without_the_images_grant_reaches_no_service_through_the_engine(
    guarded: PrivateEngine, uid: int, path: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        refused = ApiUser(guarded, uid, uid).request("GET", path.format(address))
        assert refused.status == 403, refused
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_a_user_without_a_rule_is_refused_before_its_body(guarded: PrivateEngine) -> None:
    stranger = ApiUser(guarded, STRANGER, STRANGER)
    for path in ("/_ping", "/version", "/info", "/containers/json", "/events?until=1", "/metrics"):
        assert stranger.request("GET", path).status == 403, path
    status, body = stranger.raw(
        b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    )
    assert status == 403
    assert f"uid {STRANGER} may not use this engine".encode() in body


def test_users_who_open_every_connection_they_get_do_not_lock_others_out(
    guarded: PrivateEngine,
) -> None:
    """Unfinished requests of two users, as many as the engine takes from them."""
    held: list[socket.socket] = []
    try:
        for user in (
            ApiUser(guarded, STRANGER, STRANGER),
            ApiUser(guarded, OTHER, OTHER, (GROUP,)),
        ):
            for _ in range(600):
                held.append(user.connect())
                with contextlib.suppress(BrokenPipeError):  # refused already
                    held[-1].send(b"GET /_ping HT")
        late = ApiUser(guarded, MEMBER, MEMBER, (GROUP,))
        assert late.request("GET", "/_ping").status == 200
        assert guarded.request("GET", "/containers/json").status == 200
    finally:
        for sock in held:
            sock.close()


def test_a_reader_is_refused_before_its_body_and_the_audit_log_has_it(
    guarded: PrivateEngine,
) -> None:
    reader = ApiUser(guarded, LATE_READER, LATE_READER)
    for method, path in (
        ("POST", "/containers/create"),
        ("POST", "/images/load"),
        ("PUT", "/containers/x/archive"),
    ):
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
        status, body = reader.raw(head.encode())
        assert status == 403, body
    files = sorted((guarded.root / "lib" / "audit" / "refused").glob("*.log"))
    entries = [json.loads(line) for path in files for line in path.read_bytes().splitlines()]
    (first,) = [entry for entry in entries if entry["uid"] == LATE_READER]  # the others are counted
    assert first["status"] == 403
    assert (first["action"], first["object"]) == ("request", "POST /containers/create")


def test_half_bodies_of_one_user_take_a_share_of_the_memory(
    guarded: PrivateEngine, member: ApiUser
) -> None:
    head = b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n"
    held: list[socket.socket] = []
    try:
        for _ in range(20):  # 60 MB
            held.append(member.connect())
            held[-1].sendall(head + b" " * 3_000_000)
        refused = wait(held, 30)
        assert refused
        assert isinstance(refused[0], socket.socket)
        assert refused[0].recv(4096).startswith(b"HTTP/1.1 503 ")
        other = ApiUser(guarded, OTHER, OTHER, (GROUP,))
        assert other.create("busybox", "beside").status == 201
        assert guarded.request("DELETE", "/containers/beside").status == 204
    finally:
        for sock in held:
            sock.close()


def test_images_and_volumes_can_be_denied_to_a_user(guarded: PrivateEngine) -> None:
    restricted = ApiUser(guarded, RESTRICTED, RESTRICTED)
    assert restricted.request("POST", "/images/busybox/tag?repo=x&tag=y").status == 403
    assert restricted.request("DELETE", "/images/busybox").status == 403
    assert restricted.request("POST", "/volumes/create", {"Name": "v"}).status == 403


def test_files_with_owners_of_the_host_are_roots_to_import(
    guarded: PrivateEngine, member: ApiUser
) -> None:
    """Neither a volume nor a container gets files with any owner from a user."""
    reply = member.request("POST", "/jaula/volumes/import?name=imported", bytes(1024))
    assert reply.status == 403
    assert "import volumes" in reply.json()["message"]
    assert guarded.request("GET", "/volumes/imported").status == 404
    assert member.create("busybox", "importing").status == 201
    reply = member.request("POST", "/jaula/containers/importing/import?name=other", bytes(1024))
    assert reply.status == 403
    assert guarded.request("DELETE", "/containers/importing").status == 204


MAKES_A_VOLUME: list[dict[str, Any]] = [
    {"HostConfig": {"Binds": ["made-by-bind:/v"]}},
    {"HostConfig": {"Binds": ["/v"]}},
    {"HostConfig": {"Mounts": [{"Type": "volume", "Source": "made-by-mount", "Target": "/v"}]}},
    {"HostConfig": {"Mounts": [{"Type": "volume", "Target": "/v"}]}},
    {"Volumes": {"/v": {}}},  # as an image's VOLUME
]


@pytest.mark.parametrize("fields", MAKES_A_VOLUME)
def test_a_container_makes_no_volume_for_a_user_who_may_make_none(
    guarded: PrivateEngine, member: ApiUser, fields: dict[str, Any]
) -> None:
    restricted = ApiUser(guarded, RESTRICTED, RESTRICTED)
    before = guarded.request("GET", "/volumes").json()["Volumes"]
    body = {"Image": "busybox", "Cmd": ["true"]} | fields
    refused = restricted.request("POST", "/containers/create", body)
    assert refused.status == 403, refused
    assert "may not create volume" in message(refused)
    assert guarded.request("GET", "/volumes").json()["Volumes"] == before
    made = member.request("POST", "/containers/create", body)
    assert made.status == 201
    member.request("DELETE", f"/containers/{made.json()['Id']}?v=1")
    member.request("POST", '/volumes/prune?filters={"all":["1"]}')


def test_volumes_that_exist_may_be_used_by_a_user_who_may_make_none(guarded: PrivateEngine) -> None:
    restricted = ApiUser(guarded, RESTRICTED, RESTRICTED)
    shared = {"Name": "there", "Labels": {"io.jaula.shared": ""}}
    assert guarded.request("POST", "/volumes/create", shared).status == 201
    made = restricted.create("busybox", Binds=["there:/v"])
    assert made.status == 201
    body = {
        "Image": "busybox",
        "Volumes": {"/v": {}},
        "HostConfig": {"VolumesFrom": [made.json()["Id"]]},
    }
    inherits = restricted.request("POST", "/containers/create", body)
    assert inherits.status == 201, inherits
    for reply in (inherits, made):
        removed = restricted.request("DELETE", f"/containers/{reply.json()['Id']}")
        assert removed.status == 204, removed
    removed = guarded.request("DELETE", "/volumes/there")
    assert removed.status == 204, removed


# -- networks and volumes of other users ---------------------------------------------------------


@contextlib.contextmanager
def belongings(owner: ApiUser, *labels: str) -> Iterator[tuple[str, str]]:
    """Make a volume and a network of a user; yield their name and the id of the network."""
    name = containers.unique("owned")
    body = {"Name": name, "Labels": dict.fromkeys(labels, "")}
    assert owner.request("POST", "/volumes/create", body).status == 201
    network = owner.request("POST", "/networks/create", body)
    assert network.status == 201, network
    try:
        yield name, network.json()["Id"]
    finally:
        for kind in ("volumes", "networks"):
            assert owner.request("DELETE", f"/{kind}/{name}").status in (204, 404)


def uses(name: str, network: str) -> list[dict[str, Any]]:
    """Return the bodies of containers that use a volume or a network."""
    mount = {"Type": "volume", "Source": name, "Target": "/v"}
    return [
        {"HostConfig": {"Binds": [f"{name}:/v"]}},
        {"HostConfig": {"Binds": [f"{name}:/v:ro"]}},
        {"HostConfig": {"Mounts": [mount]}},
        {"HostConfig": {"NetworkMode": name}},
        {"HostConfig": {"NetworkMode": network[:12]}},
        {"NetworkingConfig": {"EndpointsConfig": {name: {}}}},
        {
            "HostConfig": {"NetworkMode": "bridge"},
            "NetworkingConfig": {"EndpointsConfig": {"bridge": {}, network: {}}},
        },
    ]


@pytest.mark.parametrize("owner", [OTHER, 0])
def test_networks_and_volumes_of_another_user_cannot_be_used(
    guarded: PrivateEngine, member: ApiUser, owner: int
) -> None:
    with belongings(ApiUser(guarded, owner, owner, (GROUP,))) as (name, network):
        own = member.create("busybox").json()["Id"]
        connect = {"Container": own}
        refused = [
            member.request("POST", "/containers/create", {"Image": "busybox"} | fields)
            for fields in uses(name, network)
        ]
        refused += [
            member.request("POST", f"/networks/{name}/connect", connect),
            member.request("POST", f"/networks/{network[:12]}/connect", connect),
            member.request("DELETE", f"/networks/{name}"),
            member.request("DELETE", f"/networks/{network}"),
            member.request("DELETE", f"/volumes/{name}"),
            member.request("DELETE", f"/volumes/{name}?force=1"),
        ]
        for reply in refused:
            assert reply.status == 403, reply
            assert f"{name} of uid {owner}" in message(reply)
            assert 'others = "control"' in message(reply)
        assert guarded.request("POST", f"/networks/{name}/connect", connect).status == 200
        left = member.request("POST", f"/networks/{name}/disconnect", connect)
        assert left.status == 200  # the container is the member's
        assert member.request("DELETE", f"/containers/{own}").status == 204
        assert member.request("DELETE", "/volumes/absent").status == 404
        assert member.request("DELETE", "/networks/absent").status == 404


@pytest.mark.parametrize(
    ("uid", "label", "removes"), [(CONTROLLER, "other", True), (MEMBER, "io.jaula.shared", False)]
)
def test_networks_and_volumes_may_be_used_with_a_grant_or_if_shared(
    guarded: PrivateEngine, uid: int, label: str, removes: bool
) -> None:
    user = ApiUser(guarded, uid, uid, (GROUP,))
    with belongings(ApiUser(guarded, OTHER, OTHER, (GROUP,)), label) as (name, network):
        for fields in uses(name, network):
            body = {"Image": "busybox", "Cmd": ["true"]} | fields
            made = user.request("POST", "/containers/create", body)
            assert made.status == 201, made
            path = f"/containers/{made.json()['Id']}"
            assert user.request("POST", f"{path}/start").status == 204
            assert user.request("DELETE", f"{path}?force=1").status == 204
        for kind in ("volumes", "networks"):
            reply = user.request("DELETE", f"/{kind}/{name}")
            assert reply.status == (204 if removes else 403), reply


def test_a_prune_removes_what_the_user_may_remove(guarded: PrivateEngine, member: ApiUser) -> None:
    other, controller = (ApiUser(guarded, uid, uid, (GROUP,)) for uid in (OTHER, CONTROLLER))

    def prune(user: ApiUser) -> list[str]:
        networks = user.request("POST", "/networks/prune").json()["NetworksDeleted"] or []
        query = urllib.parse.quote('{"all":["1"]}')
        reply = user.request("POST", f"/volumes/prune?filters={query}")
        return networks + (reply.json()["VolumesDeleted"] or [])

    with belongings(other, "io.jaula.shared") as (others, _), belongings(member) as (own, _):
        pruned = prune(member)
        assert (pruned.count(own), pruned.count(others)) == (2, 0)
        assert prune(controller).count(others) == 2


# -- one parse -----------------------------------------------------------------------------------


def bodies() -> list[tuple[str, bytes]]:
    """Return requests that a second parser could read as another request."""
    mighty = b'{"Image":"busybox","Cmd":["true"],"HostConfig":{"Privileged":true}}'
    harmless = b'{"Image":"busybox","Cmd":["true"],"HostConfig":{"Privileged":false}}'
    json_type = b"Content-Type: application/json\r\n"
    head = b"POST /containers/create HTTP/1.1\r\nHost: d\r\n" + json_type

    def sized(body: bytes) -> bytes:
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body

    def chunked(body: bytes, size: int) -> bytes:
        pieces = [body[i : i + size] for i in range(0, len(body), size)]
        framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        return head + b"Transfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n"

    twice = (
        b'{"Image":"busybox","HostConfig":{"Privileged":false},"HostConfig":{"Privileged":true}}'
    )
    return [
        ("plain", sized(mighty)),
        ("the member twice", sized(twice)),
        ("chunked", chunked(mighty, 7)),
        ("a byte a chunk", chunked(mighty, 1)),
        ("padded beyond a megabyte", sized(b" " * (1 << 20) + mighty)),
        ("padded behind", sized(mighty + b" " * (2 << 20))),
        ("chunked and padded", chunked(b"\n" * (3 << 20) + mighty, 1 << 16)),
        ("escaped name", sized(mighty.replace(b"Privileged", rb"\u0050rivileged"))),
        ("two documents", sized(harmless + mighty)),
        ("no length", head + b"Content-Length: 0\r\n\r\n" + mighty),
        ("two lengths", head + b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n" % len(mighty)),
        (
            "length and chunks",
            head + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + mighty,
        ),
        ("too large", sized(b" " * (5 << 20) + mighty)),
    ]


@pytest.mark.parametrize("cve", ["CVE-2024-41110", "CVE-2026-34040"])
@pytest.mark.parametrize(("trick", "request_bytes"), bodies(), ids=[t for t, _ in bodies()])
def test_the_authorized_request_is_the_executed_one(
    guarded: PrivateEngine, member: ApiUser, trick: str, request_bytes: bytes, cve: str
) -> None:
    before = len(guarded.request("GET", "/containers/json?all=1").json())
    status, _ = member.raw(request_bytes)
    assert status in (400, 403, 413), (trick, status)
    assert len(guarded.request("GET", "/containers/json?all=1").json()) == before


def test_a_container_is_authorized_again_at_start(
    guarded: PrivateEngine, ground: Path, member: ApiUser
) -> None:
    """A container that root created for the id of a member belongs to root."""
    name = containers.unique("root")
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"Privileged": True}}
    guarded.request("POST", f"/containers/create?name={name}", body)
    assert member.request("POST", f"/containers/{name}/start").status == 403
    guarded.request("DELETE", f"/containers/{name}")


@pytest.mark.parametrize("cve", ["CVE-2024-41110"])
def test_a_start_authorizes_the_resolved_request_and_not_the_stored_body(
    new_engine: Callable[..., PrivateEngine], tmp_path: Path, cve: str
) -> None:
    """The stored body looks harmless: the request resolved at create is authorized and used.

    A device needs no decision: the body has the only value, which is authorized and used.
    """
    policy = tmp_path / "policy.toml"
    policy.write_text(f'[user.{MEMBER}]\naccess = "run"\n')
    engine = new_engine("--policy", str(policy))
    load_image(engine, "busybox")
    powers = {
        "privileged": ("--privileged",),
        "host-mount": ("-v", f"{tmp_path}:/host"),
        "host-namespace=pid": ("--pid", "host"),
        "device=/dev/null": ("--device", "/dev/null"),
        "use volume vault": ("-v", "vault:/v"),
        "use network inner": ("--network", "inner"),
    }
    assert engine.request("POST", "/networks/create", {"Name": "inner"}).status == 201
    for number, flags in enumerate(powers.values()):
        made = engine.cli("jaula", "create", "--name", f"c{number}", *flags, "busybox", "true")
        assert made.returncode == 0, made.stderr
    engine.stop()

    def disguise(record: dict[str, Any]) -> None:
        record["owner"], record["owner_gid"] = str(MEMBER), MEMBER
        harmless = {"Privileged": False, "Binds": [], "PidMode": ""}
        record["body"]["HostConfig"] |= harmless

    change_records(engine, disguise)
    engine.start()
    engine.run.chmod(0o711)
    engine.socket.chmod(0o666)
    member = ApiUser(engine, MEMBER, MEMBER)
    for number, ask in enumerate(powers):
        for act in ("start", "restart"):
            reply = member.request("POST", f"/containers/c{number}/{act}")
            assert reply.status == 403, reply
            assert ask in message(reply)
    volume = list(powers).index("use volume vault")
    for method, path in (("GET", "/v"), ("HEAD", "/v"), ("PUT", "/")):
        copy = member.request(method, f"/containers/c{volume}/archive?path={path}")
        assert copy.status == 403, copy


# -- directories of the host ---------------------------------------------------------------------


def run(visitor: ApiUser, bind: str, *words: str) -> tuple[int, str]:
    """Return exit status or HTTP status, and output or message."""
    made = visitor.request(
        "POST",
        "/containers/create",
        {"Image": "busybox", "Cmd": list(words), "HostConfig": {"Binds": [bind]}},
    )
    if made.status != 201:
        return made.status, message(made)
    name = made.json()["Id"]
    try:
        started = visitor.request("POST", f"/containers/{name}/start")
        if started.status != 204:
            return started.status, message(started)
        code = visitor.request("POST", f"/containers/{name}/wait").json()["StatusCode"]
        return code, visitor.request("GET", f"/containers/{name}/logs?stdout=1").body.decode()
    finally:
        visitor.request("DELETE", f"/containers/{name}?force=1")


def test_a_granted_directory_can_be_mounted(mounter: ApiUser, ground: Path) -> None:
    assert run(mounter, f"{ground}/open/plain:/m", "touch", "/m/made")[0] == 0
    assert (ground / "open" / "plain" / "made").exists()
    assert run(mounter, f"{ground}/shut:/m:ro", "ls", "/m")[0] == 0
    status, text = run(mounter, f"{ground}/shut:/m", "ls", "/m")
    assert status == 403
    assert f"{ground}/shut:ro" in text


@pytest.mark.parametrize("source", ["host", "open/../host", "openx", "open/../../../../etc"])
def test_no_directory_outside_the_grant_is_mounted(
    mounter: ApiUser, ground: Path, source: str
) -> None:
    assert run(mounter, f"{ground}/{source}:/m", "ls", "/m")[0] == 403


@pytest.mark.parametrize("source", ["open/link", "open/link/secret"])
def test_no_link_leaves_a_granted_directory(mounter: ApiUser, ground: Path, source: str) -> None:
    status, text = run(mounter, f"{ground}/{source}:/m", "ls", "/m")
    assert status == 500, text
    assert "symbolic link below" in text


def test_no_directory_is_created_behind_a_link(mounter: ApiUser, ground: Path) -> None:
    assert run(mounter, f"{ground}/open/link/made:/m", "true")[0] == 400
    assert not (ground / "host" / "made").exists()


def test_swapping_a_directory_for_a_link_gains_nothing(mounter: ApiUser, ground: Path) -> None:
    place, target = ground / "open" / "swapped", ground / "host"
    swap = (
        "import os, sys; place, target = sys.argv[1:]\n"
        "while True: os.mkdir(place); os.rmdir(place); os.symlink(target, place); os.unlink(place)"
    )
    with subprocess.Popen([sys.executable, "-c", swap, str(place), str(target)]) as swapper:
        try:
            for _ in range(25):
                _, text = run(mounter, f"{place}:/m", "ls", "/m")
                assert "secret\n" not in text
            assert swapper.poll() is None
        finally:
            swapper.kill()


def test_root_in_a_container_has_the_rights_of_the_user_and_leaves_no_file_of_root(
    mounter: ApiUser, ground: Path
) -> None:
    """Otherwise a writable directory would allow a set-user-ID shell of the host's root."""
    place = ground / "open" / "plain"
    (place / "of-root").write_text("of the host")
    (place / "of-root").chmod(0o600)
    script = (
        "cp /bin/busybox /m/shell && chmod 4755 /m/shell; stat -c %u /m/shell;"
        " cat /m/of-root; chown 1 /m/shell; chmod 777 /m/of-root"
    )
    run(mounter, f"{place}:/m", "sh", "-c", script)
    result = {path.name: path.stat() for path in place.iterdir()}
    assert result["shell"].st_uid == OTHER
    assert result["shell"].st_gid == OTHER
    assert result["of-root"].st_mode & 0o777 == 0o600
    assert {facts.st_uid for facts in result.values()} <= {0, OTHER}
    assert not [n for n, facts in result.items() if facts.st_uid == 0 and n != "of-root"]
    _, text = run(mounter, f"{place}:/m", "cat", "/m/of-root")
    assert "of the host" not in text


def test_volumes_from_keeps_the_limits_of_mounts(
    guarded: PrivateEngine, mounter: ApiUser, ground: Path
) -> None:
    first = mounter.create("busybox", Binds=[f"{ground}/open/plain:/m"]).json()["Id"]
    second = mounter.request(
        "POST",
        "/containers/create",
        {
            "Image": "busybox",
            "Cmd": ["sh", "-c", "cp /bin/busybox /m/second; chmod 4755 /m/second"],
            "HostConfig": {"VolumesFrom": [first]},
        },
    ).json()["Id"]
    mounter.request("POST", f"/containers/{second}/start")
    mounter.request("POST", f"/containers/{second}/wait")
    assert (ground / "open" / "plain" / "second").stat().st_uid == OTHER
    for name in (first, second):
        mounter.request("DELETE", f"/containers/{name}?force=1")


def test_copying_into_a_stopped_container_grants_no_rights_of_root(
    mounter: ApiUser, ground: Path
) -> None:
    name = mounter.create("busybox", Binds=[f"{ground}/open/plain:/m"]).json()["Id"]
    for method in ("GET", "PUT"):
        reply = mounter.request(method, f"/containers/{name}/archive?path=/m")
        assert reply.status == 403, reply
    mounter.request("DELETE", f"/containers/{name}?force=1")


def test_a_grant_allows_exactly_its_privilege(mounter: ApiUser) -> None:
    assert mounter.create("busybox", CapAdd=["NET_ADMIN"]).status == 201
    assert mounter.create("busybox", CapAdd=["NET_ADMIN", "SYS_PTRACE"]).status == 403
    assert mounter.create("busybox", NetworkMode="host").status == 201
    assert mounter.create("busybox", PidMode="host").status == 403
    assert mounter.create("busybox", SecurityOpt=["landlock=off"]).status == 201
    assert mounter.create("busybox", Devices=[{"PathOnHost": "/dev/null"}]).status == 201
    assert mounter.create("busybox", Devices=[{"PathOnHost": "/dev/zero"}]).status == 403


# -- the socket ----------------------------------------------------------------------------------


@pytest.mark.parametrize("cve", ["CVE-2020-15257"])
@pytest.mark.parametrize("kind", ["abstract", "unbound", "tcp", "datagram"])
def test_no_socket_of_the_engine_accepts_every_user(tmp_path: Path, kind: str, cve: str) -> None:
    family = socket.AF_INET if kind == "tcp" else socket.AF_UNIX
    sort = socket.SOCK_DGRAM if kind == "datagram" else socket.SOCK_STREAM
    passed = socket.socket(family, sort)
    if kind == "abstract":
        passed.bind(f"\0jaula-test-{os.getpid()}")
    elif kind == "tcp":
        passed.bind(("127.0.0.1", 0))
    elif kind == "datagram":
        passed.bind(str(tmp_path / "sock"))
    program = (
        "import os, sys; fd = int(sys.argv[1]); os.dup2(fd, 3); os.set_inheritable(3, True);"
        "os.environ['LISTEN_PID'] = str(os.getpid()); os.environ['LISTEN_FDS'] = '1';"
        "os.execv(sys.executable, [sys.executable, '-m', 'jaula', 'daemon', *sys.argv[2:]])"
    )
    flags = ("--config-file", "/dev/null", "--root", f"{tmp_path}/r", "--run", f"{tmp_path}/u")
    with passed:
        done = subprocess.run(
            [sys.executable, "-c", program, str(passed.fileno()), *flags],
            pass_fds=(passed.fileno(),),
            env={**os.environ, "PYTHONPATH": str(PROJECT / "src")},
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=30,
            text=True,
        )
    assert done.returncode == 125
    assert "the inherited socket" in done.stderr


def test_the_socket_is_for_root_only_unless_a_group_is_configured(engine: PrivateEngine) -> None:
    facts = engine.socket.stat()
    assert facts.st_mode & 0o777 == 0o600
    assert facts.st_uid == 0


def test_without_a_policy_the_group_of_the_socket_has_no_privileges_on_the_host(
    new_engine: Callable[..., PrivateEngine],
) -> None:
    import grp

    group = next(g for g in grp.getgrall() if g.gr_gid not in (0, 65534))
    private = new_engine("--socket-group", group.gr_name)
    private.run.chmod(0o711)
    facts = private.socket.stat()
    assert (facts.st_mode & 0o777, facts.st_gid) == (0o660, group.gr_gid)
    load_image(private, "busybox")
    grouped = ApiUser(private, MEMBER, MEMBER, (group.gr_gid,))
    reply = grouped.create("busybox", Binds=["/:/host"])
    assert reply.status == 403
    assert "(built in)" in message(reply)
    assert grouped.create("busybox").status == 201


@pytest.mark.parametrize(
    ("content", "mode"),
    [("[user.0]\naccess = 'everything'\n", 0o600), ("", 0o666), ("[nobody]\n", 0o600)],
)
def test_an_untrusted_or_unreadable_policy_stops_the_start(
    tmp_path: Path, content: str, mode: int
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(content)
    policy.chmod(mode)
    flags = ("--config-file", "/dev/null", "--root", f"{tmp_path}/r", "--run", f"{tmp_path}/u")
    done = subprocess.run(
        [sys.executable, "-m", "jaula", "daemon", *flags, "--policy", str(policy)],
        env={**os.environ, "PYTHONPATH": str(PROJECT / "src")},
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=30,
        text=True,
    )
    assert done.returncode == 125
    assert str(policy) in done.stderr


def test_events_of_other_users_show_no_more_than_their_life_cycle(
    guarded: PrivateEngine, member: ApiUser
) -> None:
    with containers.running(guarded, "busybox") as name:
        guarded.cli("jaula", "exec", name, "echo", "a-secret-argument")
        reply = member.request("GET", f"/events?since=1&until={time.time()}")
        output = [json.loads(line) for line in reply.body.splitlines()]
    assert b"a-secret-argument" not in reply.body
    of_container = [e for e in output if e["Type"] == "container"]
    own = [e["Action"] for e in of_container if e["Actor"]["Attributes"]["name"] == name]
    assert own == ["create", "start"]


def test_a_secret_belongs_to_its_owner(guarded: PrivateEngine) -> None:
    member, other = ApiUser(guarded, MEMBER, GROUP), ApiUser(guarded, OTHER, GROUP)
    made = member.request("POST", "/secrets/create", {"Name": "hers", "Data": "aHVudGVyMg=="})
    config = member.request("POST", "/configs/create", {"Name": "hers", "Data": "aHVudGVyMg=="})
    assert (made.status, config.status) == (201, 201)
    try:
        body = {"Image": "busybox", "HostConfig": {"Secrets": [{"Source": "hers"}]}}
        new = {"Name": "hers", "Data": "eA=="}
        for reply in (
            other.request("POST", f"/secrets/create?replace={made.json()['ID']}", new),
            other.request("POST", "/containers/create", body),
            other.request("DELETE", "/secrets/hers"),
            other.request("POST", "/secrets/hers/update?version=1", {"Labels": {}}),
            other.request("DELETE", "/configs/hers"),
        ):
            assert reply.status == 403
            assert "use " in reply.json()["message"]
        assert "Data" not in other.request("GET", "/configs/hers").json()["Spec"]
        assert "Data" in member.request("GET", "/configs/hers").json()["Spec"]
        by_id = {"Image": "busybox", "HostConfig": {"Secrets": [{"Source": made.json()["ID"][:6]}]}}
        assert other.request("POST", "/containers/create", by_id).status == 403
        created = member.request("POST", "/containers/create", body)
        assert created.status == 201
        member.request("DELETE", f"/containers/{created.json()['Id']}")
    finally:
        assert member.request("DELETE", "/secrets/hers").status == 204
        assert member.request("DELETE", "/configs/hers").status == 204


def test_a_volume_of_a_host_device_needs_the_device_privilege(guarded: PrivateEngine) -> None:
    bind = {"type": "none", "device": "/etc", "o": "bind"}
    inline = {"Type": "volume", "Source": "sly", "Target": "/m"}
    inline |= {"VolumeOptions": {"DriverConfig": {"Name": "local", "Options": bind}}}
    body = {"Image": "busybox", "HostConfig": {"Mounts": [inline]}}
    for person in (ApiUser(guarded, MEMBER, GROUP), ApiUser(guarded, OTHER, MOUNTERS)):
        for path, request in (
            ("/volumes/create", {"Name": "sly", "DriverOpts": bind}),
            ("/volumes/create", {"Name": "sly", "DriverOpts": bind | {"type": "tmpfs"}}),
            ("/containers/create", body),
        ):
            reply = person.request("POST", path, request)
            assert reply.status == 403
            assert "may not ask for device=/etc" in reply.json()["message"]
        assert person.request("GET", "/volumes/sly").status == 404
    memory = {"Name": "memory", "DriverOpts": {"type": "tmpfs", "device": "tmpfs"}}
    member = ApiUser(guarded, MEMBER, GROUP)
    assert member.request("POST", "/volumes/create", memory).status == 201
    assert member.request("DELETE", "/volumes/memory").status == 204


@pytest.mark.parametrize(
    ("driver_opts", "ask"),
    [
        ({"type": "overlay", "o": "lowerdir=/etc:/root"}, "overlay /dev/null lowerdir=/etc:/root"),
        ({"type": "proc"}, "proc /dev/null"),
        ({"type": "debugfs", "o": "ro"}, "debugfs /dev/null"),
        ({"type": "ext4", "o": "journal_path=/dev/sda"}, "journal_path=/dev/sda"),
        ({"type": "ext4", "o": "journal_dev=2049"}, "journal_dev=2049"),
        ({"type": "nfs", "o": "addr=127.0.0.1"}, "addr=127.0.0.1"),
        ({"type": "cifs", "o": "ip=127.0.0.1,unc=//127.0.0.1/c"}, "ip=127.0.0.1"),
    ],
)
def test_a_granted_device_of_a_volume_opens_nothing_else(
    mounter: ApiUser, driver_opts: dict[str, str], ask: str
) -> None:
    """The device is granted, but the file system ignores it, or its options name another one."""
    options = {"device": "/dev/null"} | driver_opts
    inline = {"Type": "volume", "Source": "sly", "Target": "/m"}
    inline |= {"VolumeOptions": {"DriverConfig": {"Name": "local", "Options": options}}}
    for path, request in (
        ("/volumes/create", {"Name": "sly", "DriverOpts": options}),
        ("/containers/create", {"Image": "busybox", "HostConfig": {"Mounts": [inline]}}),
    ):
        reply = mounter.request("POST", path, request)
        assert reply.status == 403, reply
        assert f"may not ask for device={ask}: rule" in message(reply)
    assert mounter.request("GET", "/volumes/sly").status == 404
    plain = {"Name": "plain", "DriverOpts": {"device": "/dev/null", "type": "ext4", "o": "ro"}}
    assert mounter.request("POST", "/volumes/create", plain).status == 201
    assert mounter.request("DELETE", "/volumes/plain").status == 204


def test_a_file_of_the_host_for_a_log_driver_needs_the_mount_privilege(
    guarded: PrivateEngine,
) -> None:
    options = {"syslog-address": "tcp+tls://127.0.0.1:1", "syslog-tls-ca-cert": "/etc/shadow"}
    log = {"Type": "syslog", "Config": options}
    body = {"Image": "busybox", "HostConfig": {"LogConfig": log}}
    reply = ApiUser(guarded, MEMBER, GROUP).request("POST", "/containers/create", body)
    assert reply.status == 403
    assert "may not ask for host-mount=/etc/shadow:ro" in reply.json()["message"]


def test_a_log_driver_does_not_connect_to_the_host_for_a_user_without_the_grant(
    guarded: PrivateEngine, ground: Path, member: ApiUser, mounter: ApiUser
) -> None:
    """Root would connect: to sockets that the user cannot open, and to the host's loopback."""
    private = ground / "private"
    private.mkdir(mode=0o700)
    paths = (private / "log.sock", ground / "open" / "granted.sock")
    with (
        socket.socket(socket.AF_UNIX) as shut,
        socket.socket(socket.AF_UNIX) as granted,
        socket.create_server(("127.0.0.1", 0)) as loopback,
    ):
        for listener, path in zip((shut, granted), paths, strict=True):
            listener.bind(str(path))
            listener.listen()
        port = loopback.getsockname()[1]

        def logging_to(person: ApiUser, address: str) -> tuple[int, str]:
            log = {"Type": "syslog", "Config": {"syslog-address": address}}
            made = person.create("busybox", LogConfig=log)
            if made.status != 201:
                return made.status, message(made)
            name = made.json()["Id"]
            started = person.request("POST", f"/containers/{name}/start")
            person.request("DELETE", f"/containers/{name}?force=1")
            return started.status, "" if started.status == 204 else message(started)

        for address in (f"unix://{paths[0]}", f"tcp://127.0.0.1:{port}", f"tcp://localhost:{port}"):
            for person in (member, mounter):
                status, text = logging_to(person, address)
                assert status == 403, text
                assert f"may not ask for log-address={address}" in text
        status, text = logging_to(member, f"tcp://127.1:{port}")  # only resolved in the shim
        assert status in (400, 500)
        assert "an address of the host itself" in text
        for listener in (shut, loopback):
            listener.setblocking(False)
            with pytest.raises(BlockingIOError):
                listener.accept()
        assert logging_to(mounter, f"unix://{paths[1]}")[0] == 204
        granted.accept()[0].close()
        of_root = ApiUser(guarded, 0, 0)
        assert logging_to(of_root, f"tcp://127.1:{port}")[0] == 204
        loopback.setblocking(True)
        loopback.accept()[0].close()
