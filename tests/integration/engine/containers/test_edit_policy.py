"""Edits and debug sessions of other users: authorized as a create request with the same fields."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import engine_with_policy
from harness.api_user import ApiUser
from harness.containers import inspect, pid
from harness.engine import PrivateEngine, Reply

MEMBER, MOUNTER, CONTROLLER, READER = range(54101, 54105)
POLICY = """
[user.54101]
access = "run"
max-memory = "64m"

[user.54102]
access = "run"
host-mounts = ["{open}"]

[user.54103]
access = "run"
others = "control"
host-mounts = ["{open}"]

[user.54104]
access = "read"
others = "read"
"""


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("ground")
    for name, owner in (("open", 0), ("open/own", MOUNTER), ("host", 0)):
        (base / name).mkdir()
        os.chown(base / name, owner, owner)
    (base / "open/link").symlink_to(base / "host")
    return base


@pytest.fixture(scope="module")
def guarded(worker_index: int, ground: Path) -> Iterator[PrivateEngine]:
    policy = ground / "policy.toml"
    policy.write_text(POLICY.format(open=ground / "open"))
    with engine_with_policy(worker_index + 71, policy) as private:
        yield private


def user(engine: PrivateEngine, uid: int) -> ApiUser:
    return ApiUser(engine, uid, uid)


@pytest.fixture(scope="module")
def containers(guarded: PrivateEngine) -> Iterator[dict[int, str]]:
    """Yield a running container of each user who may have one."""
    names = {}
    for uid in (MEMBER, MOUNTER):
        names[uid] = f"of-{uid}"
        body = {"Image": "busybox", "Cmd": ["sleep", "600"], "HostConfig": {"Memory": 32 << 20}}
        reply = user(guarded, uid).request("POST", f"/containers/create?name=of-{uid}", body)
        assert reply.status == 201, reply
        assert user(guarded, uid).request("POST", f"/containers/of-{uid}/start").status == 204
    yield names
    guarded.remove_containers()


def edit(engine: PrivateEngine, uid: int, name: str, **body: Any) -> Reply:
    return user(engine, uid).request("POST", f"/jaula/containers/{name}/edit", body)


def bind(source: Path) -> list[dict[str, Any]]:
    return [{"Type": "bind", "Source": str(source), "Target": "/host"}]


def test_each_field_needs_what_a_create_request_needs(
    guarded: PrivateEngine, containers: dict[int, str], ground: Path
) -> None:
    own = containers[MEMBER]
    before = inspect(guarded, own)
    for body, words in (
        ({"Mounts": bind(ground / "open")}, "host-mount="),
        ({"Publish": {"80/tcp": [{"HostPort": "80"}]}}, "host-port=80"),
        ({"Update": {"Memory": 128 << 20, "MemorySwap": -1}}, "memory"),
        ({"Update": {"Devices": [{"PathOnHost": "/dev/kmsg"}]}}, "device=/dev/kmsg"),
    ):
        reply = edit(guarded, MEMBER, own, **body)
        assert reply.status == 403, (body, reply)
        assert words in reply.json()["message"], reply
    assert inspect(guarded, own) == before
    assert edit(guarded, MEMBER, own, Labels={"a": "b"}).status == 200


def test_another_users_container_is_refused(
    guarded: PrivateEngine, containers: dict[int, str], ground: Path
) -> None:
    own = containers[MEMBER]
    assert edit(guarded, MOUNTER, own, Labels={"a": "b"}).status == 403
    assert edit(guarded, READER, own, Labels={"a": "b"}).status == 403
    path = f"/jaula/containers/{own}/debug"
    for uid in (MOUNTER, READER):
        assert user(guarded, uid).request("POST", path, {"Cmd": ["true"]}).status == 403
    assert user(guarded, READER).request("GET", f"/jaula/containers/{own}/edit").status == 200
    assert user(guarded, MEMBER).request("POST", path, {"Cmd": ["true"]}).status == 201
    assert edit(guarded, CONTROLLER, own, Labels={"by": "controller"}).status == 200
    reply = edit(guarded, CONTROLLER, own, Mounts=bind(ground / "open"))
    assert reply.status == 403
    assert "its owner may" in reply.json()["message"]


def test_a_mount_of_a_user_has_that_users_rights_and_follows_no_link(
    guarded: PrivateEngine, containers: dict[int, str], ground: Path
) -> None:
    own = containers[MOUNTER]
    reply = edit(guarded, MOUNTER, own, Mounts=bind(ground / "open/link"))
    assert (reply.status, "symbolic link" in reply.json()["message"]) == (400, True), reply
    assert edit(guarded, MOUNTER, own, Mounts=bind(ground / "host")).status == 403
    assert edit(guarded, MOUNTER, own, Mounts=bind(ground / "open/own")).status == 200
    guarded.cli("jaula", "exec", own, "sh", "-c", "echo x > /host/file")
    assert (ground / "open/own/file").stat().st_uid == MOUNTER
    for _ in range(2):  # now, and after the next start
        table = Path(f"/proc/{pid(guarded, own)}/mountinfo").read_text()
        assert " /host " in table
        guarded.cli("jaula", "restart", "-t", "0", own)


def test_refusals_are_in_the_audit_log(
    guarded: PrivateEngine, containers: dict[int, str], ground: Path
) -> None:
    edit(guarded, MEMBER, containers[MEMBER], Mounts=bind(ground / "open"))
    files = (guarded.root / "lib/audit/refused").iterdir()
    text = "".join(file.read_text(errors="replace") for file in sorted(files) if file.is_file())
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    expected = (MEMBER, "container edit", 403, [f"mount bind {ground / 'open'} at /host"])
    assert expected in [
        (line.get("uid"), line.get("action"), line["status"], line.get("argv")) for line in lines
    ]


def test_files_of_a_container_are_copied_for_its_owner_only(guarded: PrivateEngine) -> None:
    body = {"Image": "busybox", "Cmd": ["true"]}
    reply = user(guarded, MOUNTER).request("POST", "/containers/create?name=copied", body)
    assert reply.status == 201
    try:
        for uid in (MEMBER, READER):
            path = "/jaula/debug-copies?from=copied"
            refused = user(guarded, uid).request("POST", path, {"Cmd": ["true"]})
            assert refused.status == 403, refused
        path = "/jaula/debug-copies?from=busybox"
        assert user(guarded, READER).request("POST", path, {"Cmd": ["true"]}).status == 403
        wrong = user(guarded, MOUNTER).request("POST", "/jaula/debug-copies?from=copied",
                                               {"Privileged": True})  # fmt: skip
        assert wrong.status == 400
        listed = guarded.request("GET", "/containers/json?all=1").json()
        assert not [each for each in listed if "jaula.debug" in (each["Labels"] or {})]
    finally:
        assert guarded.request("DELETE", "/containers/copied").status == 204


def test_a_removed_limit_and_a_bind_are_authorized(
    guarded: PrivateEngine, containers: dict[int, str], ground: Path
) -> None:
    refused = edit(guarded, MEMBER, containers[MEMBER], RemoveLimits=["Memory"])
    assert refused.status == 403, refused
    assert inspect(guarded, containers[MEMBER])["HostConfig"]["Memory"] == 32 << 20
    name = containers[MOUNTER]
    refused = edit(guarded, MOUNTER, name, Binds=[f"{ground}/host:/bound:z"])
    assert refused.status == 403, refused
    assert edit(guarded, MOUNTER, name, Binds=[f"{ground}/open/own:/bound"]).status == 200
    assert edit(guarded, MOUNTER, name, Unmount=["/bound"]).status == 200
