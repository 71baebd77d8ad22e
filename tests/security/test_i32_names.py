"""I32: a name is moved or removed only by its owner or an administrator.

Root and users set names that others use: a tag that another user moves is a program that root runs
next. The users are ids without an account, without a policy file: members of the socket's group.
"""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import sqlite3
import urllib.parse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from conftest import engine_with_policy, open_to_all
from harness import builds, containers, layers
from harness.api_user import ApiUser
from harness.engine import PrivateEngine, Reply
from harness.foreign_checkpoints import ForeignCheckpoints
from harness.registry import PROGRAM, Registry
from harness.scripted_registry import (
    CONFIG,
    INDEX,
    LAYER,
    MANIFEST,
    Request,
    ScriptedRegistry,
    config_of,
    described,
    layer,
)
from jaula.features.trust import signing_keys

GROUP = 54700
ALICE, BOB, CONTROLLER, ADMIN, MOVER = range(54701, 54706)
POLICY = f"""
[group.{GROUP}]
access = "run"

[user.{CONTROLLER}]
access = "run"
others = "control"

[user.{ADMIN}]
access = "all"

[user.{MOVER}]
access = "read"
remove = ["label=expendable"]

[checkpoints]
"docker.io" = {{ signed-by = ["team.pub"] }}
"""
KEY = signing_keys.generate()
_numbers = itertools.count()


@pytest.fixture(scope="module")
def guarded(worker_index: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateEngine]:
    policy = tmp_path_factory.mktemp("policy") / "policy.toml"
    policy.with_name("team.pub").write_bytes(KEY.public.pem)
    policy.write_text(POLICY)
    with engine_with_policy(worker_index + 91, policy) as private:
        yield private


@pytest.fixture(scope="module")
def root(guarded: PrivateEngine) -> ApiUser:
    return ApiUser(guarded, 0, 0)


@pytest.fixture(scope="module")
def alice(guarded: PrivateEngine) -> ApiUser:
    return ApiUser(guarded, ALICE, ALICE, (GROUP,))


@pytest.fixture(scope="module")
def bob(guarded: PrivateEngine) -> ApiUser:
    return ApiUser(guarded, BOB, BOB, (GROUP,))


def archive(name: str, text: str = "") -> bytes:
    data = layers.layer([("etc/note", text or f"{name} {next(_numbers)}")])
    return layers.image(name, (data, layers.digest(data)))


def load(user: ApiUser, name: str, text: str = "") -> Reply:
    return user.request("POST", "/images/load", archive(name, text))


def done(reply: Reply) -> bool:
    return reply.status < 300 and b'"error"' not in reply.body


def shown(user: ApiUser, name: str) -> dict[str, Any]:
    reply = user.request("GET", f"/images/{name}/json")
    assert reply.status == 200, reply
    document: dict[str, Any] = reply.json()
    return document


def identity(user: ApiUser, name: str) -> str:
    return str(shown(user, name)["Id"])


def owner(user: ApiUser, name: str) -> str:
    return str(shown(user, name)["NameOwners"][name])


def unique() -> str:
    return f"{containers.unique('name')}:1"


def text_of(reply: Reply) -> str:
    """Return the error of a request, from its answer or from the stream."""
    if reply.status >= 400:
        return str(reply.json()["message"])
    errors = [json.loads(line) for line in reply.body.splitlines() if b'"error"' in line]
    assert errors, reply
    return str(errors[-1]["error"])


def publish(registry: ScriptedRegistry, text: str) -> bytes:
    """Let a registry serve another image under the same name; return its layer."""
    data = layer(text)
    config = config_of(data)
    registry.blobs |= {layers.digest(config): config, layers.digest(data): data}
    registry.manifest_document |= {
        "config": described(config, CONFIG),
        "layers": [described(data, LAYER)],
    }
    return data


# -- a name of an image ------------------------------------------------------------------------


def by_tag(user: ApiUser, name: str) -> Reply:
    own = unique()
    assert done(load(user, own))
    repository, _, tag = name.rpartition(":")
    return user.request("POST", f"/images/{own}/tag?repo={repository}&tag={tag}")


def by_load(user: ApiUser, name: str) -> Reply:
    return load(user, name)


def by_index(user: ApiUser, name: str) -> Reply:
    """Load an archive that has another image before it."""
    own, parts, entries = unique(), [], []
    for number, each in enumerate((own, name)):
        data = layers.layer([("etc/note", f"{each} {next(_numbers)}")])
        parts += [(f"{number}.tar", data), (f"{number}.json", config_of(data))]
        entries.append(
            {"Config": f"{number}.json", "RepoTags": [each], "Layers": [f"{number}.tar"]}
        )
    parts.append(("manifest.json", json.dumps(entries).encode()))
    reply = user.request("POST", "/images/load", layers.layer(parts))
    if not done(reply):  # refused as a whole
        assert user.request("GET", f"/images/{own}/json").status == 404
    return reply


def by_import(user: ApiUser, name: str) -> Reply:
    repository, _, tag = name.rpartition(":")
    data = layers.layer([("etc/note", f"{name} {next(_numbers)}")])
    return user.request("POST", f"/images/create?fromSrc=-&repo={repository}&tag={tag}", data)


def by_build(user: ApiUser, name: str) -> Reply:
    dockerfile = f"FROM scratch\nLABEL made={next(_numbers)}\n"
    return user.request("POST", f"/build?t={name}", builds.context({"Dockerfile": dockerfile}))


def by_second_name_of_a_build(user: ApiUser, name: str) -> Reply:
    dockerfile = f"FROM scratch\nLABEL made={next(_numbers)}\n"
    context = builds.context({"Dockerfile": dockerfile})
    return user.request("POST", f"/build?t={unique()}&t={name}", context)


def by_commit(user: ApiUser, name: str) -> Reply:
    container = containers.unique("commit")
    assert user.create("busybox", container).status == 201
    repository, _, tag = name.rpartition(":")
    try:
        return user.request("POST", f"/commit?container={container}&repo={repository}&tag={tag}")
    finally:
        assert user.request("DELETE", f"/containers/{container}?force=1").status == 204


WAYS = [by_tag, by_load, by_index, by_import, by_build, by_second_name_of_a_build, by_commit]


@pytest.mark.parametrize("way", WAYS)
def test_another_caller_moves_no_tag(
    root: ApiUser, alice: ApiUser, way: Callable[[ApiUser, str], Reply]
) -> None:
    name = unique()
    assert done(load(root, name))
    before = identity(root, name)
    reply = way(alice, name)
    assert not done(reply)
    text = text_of(reply)
    assert f"may not move the name {name} of uid 0" in text
    assert "by its digest, or use a name of your own" in text
    if reply.status >= 400:
        assert reply.status == 403
    assert (identity(root, name), owner(root, name)) == (before, "0")
    assert done(way(root, name))  # the owner itself may
    assert identity(root, name) != before


@pytest.mark.parametrize("way", WAYS)
def test_a_user_moves_and_removes_its_own_tags(
    alice: ApiUser, way: Callable[[ApiUser, str], Reply]
) -> None:
    name, seen = unique(), set()
    for _ in range(2):
        assert done(way(alice, name))
        seen.add(identity(alice, name))
        assert owner(alice, name) == str(ALICE)
    assert len(seen) == 2
    assert alice.request("DELETE", f"/images/{name}").status == 200
    assert alice.request("GET", f"/images/{name}/json").status == 404


@pytest.mark.parametrize("uid", [0, ADMIN, CONTROLLER])
def test_an_administrator_moves_a_tag_and_owns_it_then(
    guarded: PrivateEngine, alice: ApiUser, uid: int
) -> None:
    name, administrator = unique(), ApiUser(guarded, uid, uid)
    assert done(load(alice, name))
    assert done(load(administrator, name))
    assert owner(alice, name) == str(uid)
    assert not done(load(alice, name))


def test_root_takes_over_a_tag_that_it_sets_to_the_same_image(
    root: ApiUser, alice: ApiUser
) -> None:
    """A user may have set a well-known name first, to the true image."""
    name = unique()
    data = archive(name)
    assert done(alice.request("POST", "/images/load", data))
    assert done(root.request("POST", "/images/load", data))
    assert owner(root, name) == "0"
    assert not done(load(alice, name))


def test_setting_a_tag_to_the_same_image_is_no_move(root: ApiUser, alice: ApiUser) -> None:
    name = unique()
    data = archive(name)
    assert done(root.request("POST", "/images/load", data))
    assert done(alice.request("POST", "/images/load", data))
    repository, _, tag = name.rpartition(":")
    assert alice.request("POST", f"/images/{name}/tag?repo={repository}&tag={tag}").status == 201
    assert owner(root, name) == "0"


def test_a_pull_moves_no_tag_of_another_caller(root: ApiUser, alice: ApiUser) -> None:
    with ScriptedRegistry(layer("of the first day")) as first:
        host = first.name
        name = f"{host}/box:1"
        pull = f"/images/create?fromImage={host}/box&tag=1"
        assert done(root.request("POST", pull))
        before = identity(root, name)
        asked = len(first.asked("/blobs/"))
        assert done(alice.request("POST", pull))  # the same image
        assert owner(root, name) == "0"
        publish(first, "of the second day")
        changed = layers.digest(first.manifest)
        reply = alice.request("POST", pull)
        assert reply.status == 403, reply
        assert f"pull {host}/box@{changed}" in text_of(reply)
        assert identity(root, name) == before
        assert len(first.asked("/blobs/")) == asked  # refused before anything is fetched
        by_digest = f"/images/create?fromImage={host}/box&tag={changed}"
        assert done(alice.request("POST", by_digest))
        assert identity(root, name) == before
        own = unique()
        repository, _, tag = own.rpartition(":")
        path = f"/images/{host}/box@{changed}/tag?repo={repository}&tag={tag}"
        assert alice.request("POST", path).status == 201
        assert identity(alice, own) != before
        assert done(root.request("POST", pull))
        assert identity(root, name) == identity(alice, own)


@pytest.mark.skipif(not shutil.which(PROGRAM), reason=f"{PROGRAM} is not installed")
def test_a_push_of_anothers_image_leaves_its_names(
    root: ApiUser, alice: ApiUser, tmp_path: Path
) -> None:
    """The engine compresses the image, which gives its names another manifest."""
    with Registry(tmp_path) as registry:
        name, own = unique(), f"{registry.name}/pushed"
        assert done(load(root, name))
        id = identity(root, name)
        assert alice.request("POST", f"/images/{name}/tag?repo={own}&tag=1").status == 201
        assert done(alice.request("POST", f"/images/{own}/push?tag=1"))
        assert identity(root, name) == id
        owners = shown(root, name)["NameOwners"]
        digests = [each for each in owners if "@" in each]
        assert owners == {name: "0", f"{own}:1": str(ALICE)} | dict.fromkeys(digests, str(ALICE))
        assert len(digests) == 1
        assert not done(load(alice, name))
        assert alice.request("DELETE", f"/images/{own}:1").status == 200
        assert shown(root, name)["NameOwners"] == {name: "0"}


def test_a_second_platform_moves_no_name(root: ApiUser, alice: ApiUser) -> None:
    """Another caller may bring an image that an index of root lists, and does not own its name."""
    with ScriptedRegistry(layer("amd64")) as registry:
        other = layer("arm64")
        config = config_of(other, architecture="arm64")
        manifests = []
        for architecture, blobs in (("amd64", None), ("arm64", (config, other))):
            if blobs is not None:
                registry.blobs |= {layers.digest(data): data for data in blobs}
                registry.manifest_document |= {
                    "config": described(config, CONFIG),
                    "layers": [described(other, LAYER)],
                }
            data = registry.manifest
            platform = {"os": "linux", "architecture": architecture}
            manifests.append(described(data, MANIFEST, platform=platform))
            path = f"/v2/box/manifests/{layers.digest(data)}"
            registry.scripts[path] = partial(_send, data)
        index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests})
        registry.send_manifest(index.encode(), INDEX)
        name = f"{registry.name}/box:1"
        pull = f"/images/create?fromImage={registry.name}/box&tag=1&platform=linux/"
        assert done(root.request("POST", pull + "amd64"))
        assert done(alice.request("POST", pull + "arm64"))
        assert owner(root, name) == "0"
        assert alice.request("DELETE", f"/images/{name}").status == 403
        platforms = urllib.parse.quote('{"os":"linux","architecture":"amd64"}')
        reply = alice.request("DELETE", f"/images/{name}?platforms={platforms}")
        assert reply.status == 403, reply
        assert not done(load(alice, name))
        assert root.request("DELETE", f"/images/{name}").status == 200


def _send(data: bytes, request: Request) -> None:
    request.answer(200, data, MANIFEST)


def test_a_build_pulls_a_newer_base_and_moves_no_tag(root: ApiUser, alice: ApiUser) -> None:
    with ScriptedRegistry(layer("an old base")) as registry:
        name = f"{registry.name}/box:1"
        assert done(root.request("POST", f"/images/create?fromImage={name}"))
        before = identity(root, name)
        newer = publish(registry, "a new base")
        own = unique()
        context = builds.context({"Dockerfile": f"FROM {name}\nLABEL a=1\n"})
        assert done(alice.request("POST", f"/build?t={own}&pull=1", context))
        assert shown(alice, own)["RootFS"]["Layers"] == [layers.digest(newer)]
        assert (identity(root, name), owner(root, name)) == (before, "0")


@pytest.mark.parametrize("query", ["", "?force=1", "?noprune=1"])
def test_another_caller_removes_no_name(root: ApiUser, alice: ApiUser, query: str) -> None:
    name, own = unique(), unique()
    assert done(load(root, name))
    id = identity(root, name)
    for ref in (name, id, id.removeprefix("sha256:")[:12]):
        reply = alice.request("DELETE", f"/images/{ref}{query}")
        assert reply.status == 403, reply
        assert f"may not remove the name {name} of uid 0" in text_of(reply)
    repository, _, tag = own.rpartition(":")
    assert alice.request("POST", f"/images/{name}/tag?repo={repository}&tag={tag}").status == 201
    assert alice.request("DELETE", f"/images/{id}?force=1").status == 403
    assert alice.request("DELETE", f"/images/{own}{query}").status == 200
    assert shown(root, name)["RepoTags"] == [name]


def test_an_image_of_another_owner_stays_without_its_last_name(
    root: ApiUser, alice: ApiUser
) -> None:
    name, own = unique(), unique()
    assert done(load(root, name))
    id = identity(root, name)
    repository, _, tag = own.rpartition(":")
    assert root.request("POST", f"/images/{name}/tag?repo=other&tag={tag}{next(_numbers)}")
    assert alice.request("POST", f"/images/{id}/tag?repo={repository}&tag={tag}").status == 201
    for each in shown(root, id)["RepoTags"]:
        if each != own:
            assert root.request("DELETE", f"/images/{each}").status == 200
    reply = alice.request("DELETE", f"/images/{own}?force=1")
    assert (reply.status, reply.json()) == (200, [{"Untagged": own}])
    assert shown(root, id)["RepoTags"] == []
    assert alice.request("DELETE", f"/images/{id}?force=1").status == 403
    pruned = alice.request("POST", "/images/prune").json()
    assert {"Deleted": id} not in (pruned["ImagesDeleted"] or [])
    assert root.request("DELETE", f"/images/{id}").status == 200


def test_a_prune_skips_what_is_not_the_callers(root: ApiUser, alice: ApiUser) -> None:
    theirs, own = unique(), unique()
    assert done(load(root, theirs))
    assert done(load(alice, own))
    filters = '{"dangling":["false"]}'
    reply = alice.request("POST", f"/images/prune?filters={filters}")
    assert reply.status == 200
    steps = reply.json()["ImagesDeleted"]
    assert {"Untagged": own} in steps
    assert {"Untagged": theirs} not in steps
    assert shown(root, theirs)["RepoTags"] == [theirs]
    assert alice.request("GET", f"/images/{own}/json").status == 404


def test_a_rule_may_allow_the_removal_of_labelled_images(
    guarded: PrivateEngine, alice: ApiUser
) -> None:
    name = unique()
    dockerfile = f"FROM scratch\nLABEL expendable={next(_numbers)}\n"
    context = builds.context({"Dockerfile": dockerfile})
    assert done(alice.request("POST", f"/build?t={name}", context))
    mover = ApiUser(guarded, MOVER, MOVER)
    assert mover.request("DELETE", f"/images/{name}").status == 200


def test_no_name_is_the_short_id_of_anothers_image(root: ApiUser, alice: ApiUser) -> None:
    name, own = unique(), unique()
    assert done(load(root, name))
    assert done(load(alice, own))
    id = identity(root, name).removeprefix("sha256:")
    for text in (id[:12], id[:20]):
        reply = alice.request("POST", f"/images/{own}/tag?repo={text}")
        assert reply.status == 403, reply
        assert identity(root, text) == f"sha256:{id}"
    mine = identity(alice, own).removeprefix("sha256:")[:12]
    assert alice.request("POST", f"/images/{own}/tag?repo={mine}").status == 201


# -- every other shared object -------------------------------------------------------------------

Change = tuple[str, str, Any]
"""Method, path and body of a request that changes an object. ``{}`` is its name or id."""


def new_container(user: ApiUser, name: str) -> str:
    assert user.create("busybox", name).status == 201
    return name


def new_volume(user: ApiUser, name: str) -> str:
    assert user.request("POST", "/volumes/create", {"Name": name}).status == 201
    return name


def new_network(user: ApiUser, name: str) -> str:
    assert user.request("POST", "/networks/create", {"Name": name}).status == 201
    return name


def new_secret(user: ApiUser, name: str, kind: str = "secrets") -> str:
    body = {"Name": name, "Data": base64.b64encode(b"x").decode()}
    reply = user.request("POST", f"/{kind}/create", body)
    assert reply.status == 201, reply
    return str(reply.json()["ID"])


def new_config(user: ApiUser, name: str) -> str:
    return new_secret(user, name, "configs")


LABELS = {"Labels": {"a": "b"}}
OBJECTS: dict[str, tuple[Callable[[ApiUser, str], str], str, list[Change]]] = {
    "container": (
        new_container,
        "/containers/{}/json",
        [
            ("POST", "/containers/{}/rename?name=taken", None),
            ("POST", "/containers/{}/update", {"Memory": 1 << 26}),
            ("POST", "/containers/{}/checkpoints", {"CheckpointID": "one"}),
            ("POST", "/containers/{}/start", None),
            ("DELETE", "/containers/{}?force=1", None),
            ("DELETE", "/containers/{}?v=1&force=1", None),
        ],
    ),
    "volume": (
        new_volume,
        "/volumes/{}",
        [("DELETE", "/volumes/{}", None), ("DELETE", "/volumes/{}?force=1", None)],
    ),
    "network": (new_network, "/networks/{}", [("DELETE", "/networks/{}", None)]),
    "secret": (
        new_secret,
        "/secrets/{}",
        [
            ("POST", "/secrets/{}/update?version=1", {"Name": "x", **LABELS}),
            ("DELETE", "/secrets/{}", None),
        ],
    ),
    "config": (
        new_config,
        "/configs/{}",
        [
            ("POST", "/configs/{}/update?version=1", {"Name": "x", **LABELS}),
            ("DELETE", "/configs/{}", None),
        ],
    ),
}


@pytest.mark.parametrize("kind", OBJECTS)
def test_an_object_is_changed_by_its_owner_and_administrators(
    guarded: PrivateEngine, root: ApiUser, alice: ApiUser, bob: ApiUser, kind: str
) -> None:
    new, path, changes = OBJECTS[kind]
    for owner, others in ((root, (alice, bob)), (alice, (bob,))):
        ref = new(owner, containers.unique(kind))
        before = root.request("GET", path.format(ref)).json()
        for other in others:
            for method, change, body in changes:
                reply = other.request(method, change.format(ref), body)
                assert reply.status == 403, (kind, change, reply)
        assert root.request("GET", path.format(ref)).json() == before
        method, change, body = changes[-1]
        assert owner.request(method, change.format(ref), body).status < 300
    for uid in (0, ADMIN, CONTROLLER):
        ref = new(alice, containers.unique(kind))
        administrator = ApiUser(guarded, uid, uid)
        assert administrator.request(method, change.format(ref), body).status < 300


def test_a_name_that_exists_is_not_taken_over(root: ApiUser, alice: ApiUser) -> None:
    name = containers.unique("taken")
    new_container(root, name)
    new_volume(root, name)
    new_network(root, name)
    new_secret(root, name)
    new_config(root, name)
    try:
        assert alice.create("busybox", name).status == 409
        assert alice.request("POST", "/volumes/create", {"Name": name}).status == 201  # as Docker
        assert alice.request("GET", f"/volumes/{name}").json()["Owner"] == "0"
        assert alice.request("DELETE", f"/volumes/{name}").status == 403
        assert alice.request("POST", "/networks/create", {"Name": name}).status == 409
        body = {"Name": name, "Data": "eA=="}
        for kind in ("secrets", "configs"):
            assert alice.request("POST", f"/{kind}/create", body).status == 409
    finally:
        for path in ("containers", "volumes", "networks", "secrets", "configs"):
            assert root.request("DELETE", f"/{path}/{name}").status < 300


def test_a_prune_leaves_objects_of_others(root: ApiUser, alice: ApiUser) -> None:
    made = {}
    for user in (root, alice):
        name = containers.unique("pruned")
        made[user.uid] = name, new_container(user, name)
        new_volume(user, name)
        new_network(user, name)
    for kind in ("containers", "volumes", "networks"):
        reply = alice.request("POST", f'/{kind}/prune?filters={{"all":["true"]}}')
        if reply.status == 400:  # a filter of volumes only
            reply = alice.request("POST", f"/{kind}/prune")
        assert reply.status == 200, reply
    for kind in ("containers", "volumes", "networks"):
        suffix = "/json" if kind == "containers" else ""
        assert root.request("GET", f"/{kind}/{made[0][0]}{suffix}").status == 200
        assert root.request("GET", f"/{kind}/{made[ALICE][0]}{suffix}").status == 404
        query = "?force=1" if kind == "containers" else ""
        assert root.request("DELETE", f"/{kind}/{made[0][0]}{query}").status < 300


def test_a_checkpoint_is_removed_and_used_by_the_owner_of_its_container(
    guarded: PrivateEngine, root: ApiUser, alice: ApiUser, tmp_path: Path
) -> None:
    name = containers.unique("checkpoint")
    assert root.create("docker.io/library/busybox", name).status == 201
    id = str(root.request("GET", f"/containers/{name}/json").json()["Id"])
    archive = ForeignCheckpoints(guarded, tmp_path, KEY).make(id, "docker.io/library/busybox")
    assert alice.request("POST", "/jaula/checkpoints", archive).status == 403
    assert root.request("POST", "/jaula/checkpoints", archive).status == 201
    requests: list[Change] = [
        ("DELETE", f"/containers/{name}/checkpoints/one", None),
        ("POST", f"/containers/{name}/start?checkpoint=one", None),
        ("POST", f"/jaula/containers/{name}/rollback/one", None),
        ("POST", f"/jaula/containers/{name}/clone/one", {"Name": containers.unique("clone")}),
        ("GET", f"/jaula/containers/{name}/checkpoint-archive/one", None),
    ]
    try:
        for method, path, body in requests:
            reply = alice.request(method, path, body)
            assert reply.status == 403, (path, reply)
        names = root.request("GET", f"/containers/{name}/checkpoints").json()
        assert [each["Name"] for each in names] == ["one"]
        assert root.request("DELETE", f"/containers/{name}/checkpoints/one").status == 204
    finally:
        assert root.request("DELETE", f"/containers/{name}?force=1").status == 204


def cached(engine: PrivateEngine) -> set[str]:
    entries = engine.request("GET", "/v1.51/system/df").json()["BuildCache"]
    return {entry["ID"] for entry in entries}


def cached_build(user: ApiUser) -> None:
    word = containers.unique("step")
    text = f"FROM busybox\nCOPY file /{word}\nLABEL a={word}\n"
    context = builds.context({"Dockerfile": text, "file": word})
    assert done(user.request("POST", "/build", context))


def test_the_build_cache_is_pruned_by_its_owner(
    guarded: PrivateEngine, root: ApiUser, alice: ApiUser, bob: ApiUser
) -> None:
    before = cached(guarded)
    cached_build(root)
    of_root = cached(guarded) - before
    cached_build(alice)
    of_alice = cached(guarded) - before - of_root
    assert of_root
    assert of_alice
    gone = bob.request("POST", "/build/prune?all=1").json()["CachesDeleted"]
    assert not (of_root | of_alice) & set(gone or ())
    gone = alice.request("POST", "/build/prune?all=1").json()["CachesDeleted"]
    assert of_alice <= set(gone)
    assert of_root <= cached(guarded)
    assert of_root <= set(root.request("POST", "/build/prune?all=1").json()["CachesDeleted"])


@pytest.mark.parametrize("kind", ["container", "network", "secret", "config"])
def test_no_new_name_is_the_short_id_of_anothers_object(
    root: ApiUser, alice: ApiUser, kind: str
) -> None:
    new, path, changes = OBJECTS[kind]
    ref = new(root, containers.unique(kind))
    found = root.request("GET", path.format(ref)).json()
    id = str(found.get("Id") or found["ID"])[:12]
    bodies = {
        "container": (f"/containers/create?name={id}", {"Image": "busybox", "Cmd": ["x"]}),
        "network": ("/networks/create", {"Name": id}),
        "secret": ("/secrets/create", {"Name": id, "Data": "eA=="}),
        "config": ("/configs/create", {"Name": id, "Data": "eA=="}),
    }
    reply = alice.request("POST", *bodies[kind])
    assert reply.status == 403, reply
    assert f"may not take the short id {id}" in text_of(reply)
    if kind == "container":
        own = new_container(alice, containers.unique("own"))
        assert alice.request("POST", f"/containers/{own}/rename?name={id}").status == 403
        assert alice.request("DELETE", f"/containers/{own}?force=1").status == 204
    method, change, body = changes[-1]
    assert root.request(method, change.format(ref), body).status < 300


# -- records of an older engine ------------------------------------------------------------------


def test_after_an_upgrade_a_user_works_as_before(
    new_engine: Callable[..., PrivateEngine], tmp_path: Path
) -> None:
    """Names, networks and volumes have no owner, and images have the one who brought them."""
    policy = tmp_path / "policy.toml"
    policy.write_text(f'[group.{GROUP}]\naccess = "run"\n')
    engine = new_engine("--policy", str(policy))
    open_to_all(engine)
    root, alice = ApiUser(engine, 0, 0), ApiUser(engine, ALICE, ALICE, (GROUP,))
    theirs, own, alias, volume, network = (containers.unique("older") for _ in range(5))
    assert done(load(root, f"{theirs}:1"))
    assert done(load(alice, f"{own}:1"))
    assert alice.request("POST", f"/images/{own}:1/tag?repo={alias}&tag=1").status == 201
    new_volume(alice, volume)
    new_network(alice, network)
    engine.stop()
    index = engine.root / "lib/images/index.json"
    document = json.loads(index.read_bytes())
    for descriptor in document["manifests"]:
        descriptor.get("annotations", {}).pop("io.jaula.name-owner", None)
    index.write_text(json.dumps(document))
    with sqlite3.connect(engine.root / "lib/jaula.db") as database:
        for id, data in database.execute("SELECT id, document FROM networks").fetchall():
            record = json.loads(data)
            record.pop("owner", None)
            row = (json.dumps(record).encode(), id)
            database.execute("UPDATE networks SET document = ? WHERE id = ?", row)
    database.close()
    engine.start()
    open_to_all(engine)
    assert (owner(root, f"{theirs}:1"), owner(root, f"{own}:1")) == ("0", str(ALICE))
    assert not done(load(alice, f"{theirs}:1"))
    assert done(load(alice, f"{own}:1"))
    assert done(load(alice, f"{alias}:1"))
    assert alice.request("DELETE", f"/images/{own}:1").status == 200
    container = containers.unique("older")
    body = {"Image": f"{alias}:1", "Cmd": ["x"], "HostConfig": {"NetworkMode": network}}
    assert alice.request("POST", f"/containers/create?name={container}", body).status == 201
    assert alice.request("DELETE", f"/containers/{container}").status == 204
    assert alice.request("DELETE", f"/networks/{network}").status == 403
    assert root.request("DELETE", f"/networks/{network}").status == 204
    assert alice.request("DELETE", f"/volumes/{volume}").status == 204
