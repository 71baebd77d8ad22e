"""What a caller without a line of the policy may take of the machine, and that clients work."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from conftest import engine_with_policy
from harness import builds, containers
from harness.api_user import ApiUser
from harness.engine import PrivateEngine

GROUP, SMALL_CACHE, MEMBER, BUILDER, OTHER = range(54800, 54805)
POLICY = f"""
[group.{GROUP}]
access = "run"

[group.{SMALL_CACHE}]
access = "run"
max-build-cache = "1m"

[user.{OTHER}]
access = "run"
max-pids = "unlimited"
max-shm-size = "unlimited"
max-log-size = "unlimited"
max-storage-size = "unlimited"
ulimits = ["*"]
"""


@pytest.fixture(scope="module")
def guarded(worker_index: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateEngine]:
    policy = tmp_path_factory.mktemp("policy") / "policy.toml"
    policy.write_text(POLICY)
    with engine_with_policy(worker_index + 113, policy) as private:
        yield private


@pytest.fixture(scope="module")
def member(guarded: PrivateEngine) -> ApiUser:
    return ApiUser(guarded, MEMBER, MEMBER, (GROUP,))


def ulimit(name: str, hard: int) -> dict[str, Any]:
    return {"Ulimits": [{"Name": name, "Soft": hard, "Hard": hard}]}


UNBOUNDED = [
    ("pids-limit=unlimited", "max-pids", {"PidsLimit": -1}),
    ("shm-size=", "max-shm-size", {"ShmSize": 1 << 60}),
    ("ulimit=memlock=unlimited", "ulimits", ulimit("memlock", -1)),
    ("ulimit=nofile=unlimited", "ulimits", ulimit("nofile", -1)),
    ("log-size=unlimited", "max-log-size", {"LogConfig": {"Config": {"max-size": "-1"}}}),
    (
        "log-size=unlimited",
        "max-log-size",
        {"LogConfig": {"Type": "local", "Config": {"max-size": "0"}}},
    ),
    ("storage-size=", "max-storage-size", {"StorageOpt": {"size": "900000g"}}),
]


@pytest.mark.parametrize(("asked", "key", "host"), UNBOUNDED)
def test_all_of_the_machine_is_refused(
    guarded: PrivateEngine, member: ApiUser, asked: str, key: str, host: dict[str, Any]
) -> None:
    reply = member.create("busybox", **host)
    assert reply.status == 403, reply
    text = reply.json()["message"]
    assert f"may not ask for {asked}" in text
    assert f"the line {key} = " in text
    if "StorageOpt" in host:
        return  # whether the disk can limit it decides for the others
    for user in (ApiUser(guarded, 0, 0), ApiUser(guarded, OTHER, OTHER)):
        name = containers.unique("whole")
        created = user.create("busybox", name, **host)
        if "ShmSize" in host and created.status == 400:
            continue  # more than the kernel takes
        assert created.status == 201, created
        assert user.request("DELETE", f"/containers/{name}?force=1").status == 204


@pytest.mark.parametrize(
    "host",
    [
        {},
        {"PidsLimit": 0},  # of clients that send every member: the engine's default
        {"PidsLimit": 4096, "ShmSize": 128 << 20},
        ulimit("nofile", 65536),
        ulimit("memlock", 64 << 20),
        {"LogConfig": {"Type": "local"}},
        {"LogConfig": {"Type": "json-file", "Config": {"max-size": "20m", "max-file": "5"}}},
    ],
)
def test_what_clients_ask_for_is_allowed(member: ApiUser, host: dict[str, Any]) -> None:
    name = containers.unique("usual")
    assert member.create("busybox", name, **host).status == 201
    if "Ulimits" not in host:  # the engine of a test may have a lower limit itself
        assert member.request("POST", f"/containers/{name}/start").status == 204
    shown = member.request("GET", f"/containers/{name}/json").json()["HostConfig"]
    assert shown["PidsLimit"] == 4096
    update = member.request("POST", f"/containers/{name}/update", {"PidsLimit": -1})
    assert update.status == 403, update
    assert member.request("DELETE", f"/containers/{name}?force=1").status == 204


def test_the_build_cache_of_a_caller_is_bounded(guarded: PrivateEngine, member: ApiUser) -> None:
    builder = ApiUser(guarded, BUILDER, BUILDER, (SMALL_CACHE,))

    def entries() -> dict[str, int]:
        listed = guarded.request("GET", "/v1.51/system/df").json()["BuildCache"]
        return {entry["ID"]: entry["Size"] for entry in listed}

    def build(user: ApiUser) -> set[str]:
        before = set(entries())
        word = containers.unique("cache")
        text = f"FROM busybox\nCOPY file /{word}\n"
        context = builds.context({"Dockerfile": text, "file": word * 60_000})
        reply = user.request("POST", f"/build?t={word}", context)
        assert reply.status == 200
        assert b'"error"' not in reply.body
        assert user.request("DELETE", f"/images/{word}").status == 200
        return set(entries()) - before

    of_member = build(member)
    assert sum(entries()[id] for id in of_member) > 1 << 19
    made = [build(builder) for _ in range(3)]
    ours = set().union(*made)

    def bounded() -> bool:
        return sum(size for id, size in entries().items() if id in ours) <= 1 << 20

    build(builder)
    containers.eventually(bounded, "the cache of the builder is within its ceiling", 30)
    assert of_member <= set(entries())
