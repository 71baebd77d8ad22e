"""I32: a name is moved or removed only by its owner or an administrator.

Root and users set names that others use: a tag that another user moves is a program that root runs
next. The users are ids without an account, without a policy file: members of the socket's group.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from conftest import engine_with_policy
from harness import builds, containers, layers
from harness.api_user import ApiUser
from harness.engine import PrivateEngine, Reply
from harness.scripted_registry import CONFIG, LAYER, ScriptedRegistry, config_of, described, layer

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
"""
_numbers = itertools.count()


@pytest.fixture(scope="module")
def guarded(worker_index: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateEngine]:
    policy = tmp_path_factory.mktemp("policy") / "policy.toml"
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
