"""One caller's share of images: their number and their bytes, by who brought them."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from conftest import engine_with_policy, open_to_all
from harness import builds, containers, layers
from harness.api_user import ApiUser
from harness.engine import PrivateEngine, Reply
from harness.scripted_registry import Request, ScriptedRegistry, config_of, layer

SIZED, PLENTY, NAMED = 54500, 54501, 54502  # groups
POLICY = f"""
[default]
access = "run"
max-images = 2

[group.{SIZED}]
access = "run"
max-image-size = "1m"

[group.{PLENTY}]
access = "run"

[group.{NAMED}]
access = "run"
max-image-names = 4
"""
REFUSED_NUMBER = "may not have more than 2 images"
REFUSED_NAMES = "may not have more than 4 names of images"
REFUSED_SIZE = "may not have more than 1MiB of images"
_uids = itertools.count(54510)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("policy") / "policy.toml"
    file.write_text(POLICY)
    return file


@pytest.fixture(scope="module")
def guarded(worker_index: int, policy: Path) -> Iterator[PrivateEngine]:
    with engine_with_policy(worker_index + 43, policy) as private:
        yield private


@pytest.fixture
def user(guarded: PrivateEngine) -> Callable[..., ApiUser]:
    """Return a function that returns a user without images, in these groups."""

    def make(*groups: int) -> ApiUser:
        uid = next(_uids)
        return ApiUser(guarded, uid, uid, groups)

    return make


def archive(name: str, size: int = 0) -> bytes:
    """Return an image that no other name of a test has."""
    data = layers.layer([("etc/note", name), ("big", b"x" * size)])
    return layers.image(name, (data, layers.digest(data)))


def load(user: ApiUser, name: str, size: int = 0) -> Reply:
    return user.request("POST", "/images/load", archive(name, size))


def pull(user: ApiUser, name: str) -> Reply:
    return user.request("POST", f"/images/create?fromImage={name}&tag=1")


def import_(user: ApiUser, name: str) -> Reply:
    data = layers.layer([("etc/note", name)])
    return user.request("POST", f"/images/create?fromSrc=-&repo={name}", data)


def build(user: ApiUser, name: str, **files: str) -> Reply:
    return user.request("POST", f"/build?t={name}", builds.context(files))


def remove(user: ApiUser, name: str) -> None:
    assert user.request("DELETE", f"/images/{name}").status == 200


def done(reply: Reply) -> bool:
    """Return whether a request has succeeded, from its status and the errors in its stream."""
    return reply.status < 300 and b'"error"' not in reply.body


def refusal(reply: Reply) -> str:
    """Return the error of a request that was refused before its answer began."""
    assert reply.status == 403, reply
    return str(reply.json()["message"])


def owned(engine: PrivateEngine, owner: ApiUser) -> set[str]:
    """Return the images of a user, each by a name or its id."""
    found = set()
    for image in engine.request("GET", "/images/json").json():
        shown = engine.request("GET", f"/images/{image['Id']}/json").json()
        if shown["Owner"] == str(owner.uid):
            found.add((shown["RepoTags"] or [shown["Id"]])[0])
    return found


def stored(engine: PrivateEngine) -> set[str]:
    tops = (engine.root / "lib" / top for top in ("images/blobs/sha256", "layers"))
    return {path.name for top in tops for path in top.iterdir()}


def exists(engine: PrivateEngine, name: str) -> bool:
    return engine.request("GET", f"/images/{name}/json").status == 200


# -- each way that an image arrives ------------------------------------------------------------


def test_a_load_is_refused_before_its_archive_is_received(
    guarded: PrivateEngine, user: Callable[..., ApiUser]
) -> None:
    caller = user()
    assert done(load(caller, "load-1:1"))
    assert done(load(caller, "load-2:1"))
    head = b"POST /images/load HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-tar\r\n"
    status, body = caller.raw(head + b"Content-Length: 1000000\r\n\r\n")
    assert status == 403
    text = json.loads(body)["message"]
    assert REFUSED_NUMBER in text
    assert "remove some of yours, or ask the operator to raise max-images" in text
    assert "\n" not in text
    assert owned(guarded, caller) == {"load-1:1", "load-2:1"}
    remove(caller, "load-1:1")
    assert done(load(caller, "load-3:1"))


def test_an_archive_with_more_images_than_are_free_is_refused_as_a_whole(
    guarded: PrivateEngine, user: Callable[..., ApiUser]
) -> None:
    caller = user()
    assert done(load(caller, "several-0:1"))
    before = stored(guarded)
    parts: list[layers.Member] = []
    entries = []
    for number in range(2):
        data = layers.layer([("etc/note", f"several {number}")])
        config = config_of(data)
        parts += [(f"{number}.tar", data), (f"{number}.json", config)]
        names, files = [f"several-{number + 1}:1"], [f"{number}.tar"]
        entries.append({"Config": f"{number}.json", "RepoTags": names, "Layers": files})
    parts.append(("manifest.json", json.dumps(entries)))
    reply = caller.request("POST", "/images/load", layers.layer(parts))
    assert not done(reply)
    assert REFUSED_NUMBER in reply.body.decode()
    assert owned(guarded, caller) == {"several-0:1"}
    assert stored(guarded) == before


def test_an_import_is_counted(guarded: PrivateEngine, user: Callable[..., ApiUser]) -> None:
    caller = user()
    assert done(import_(caller, "import-1"))
    assert done(import_(caller, "import-2"))
    assert REFUSED_NUMBER in refusal(import_(caller, "import-3"))
    assert not exists(guarded, "import-3")
    remove(caller, "import-1")
    assert done(import_(caller, "import-3"))
    assert owned(guarded, caller) == {"import-2:latest", "import-3:latest"}


def test_a_commit_is_counted(guarded: PrivateEngine, user: Callable[..., ApiUser]) -> None:
    caller, sized = user(), user(SIZED)
    name = containers.unique("commit")
    for owner in (caller, sized):
        assert owner.create("busybox", f"{name}-{owner.uid}").status == 201
    commit = f"/commit?container={name}-{caller.uid}&repo="
    try:
        replies = [caller.request("POST", f"{commit}commit-{n}") for n in range(3)]
        assert [reply.status for reply in replies] == [201, 201, 403], replies
        assert REFUSED_NUMBER in refusal(replies[2])
        assert owned(guarded, caller) == {"commit-0:latest", "commit-1:latest"}
        path = f"/containers/{name}-{sized.uid}/archive?path=/"
        big = layers.layer([("big", b"x" * (1 << 20))])
        assert sized.request("PUT", path, big).status == 200
        before = stored(guarded)
        reply = sized.request("POST", f"/commit?container={name}-{sized.uid}&repo=commit-big")
        assert REFUSED_SIZE in refusal(reply)
        assert stored(guarded) == before
    finally:
        for owner in (caller, sized):
            owner.request("DELETE", f"/containers/{name}-{owner.uid}?force=1")


def test_a_build_is_counted_with_the_base_image_that_it_pulls(
    guarded: PrivateEngine, user: Callable[..., ApiUser]
) -> None:
    caller = user()
    with ScriptedRegistry(layer("base of a build")) as registry:
        base = f"FROM {registry.name}/box:1\n"
        assert done(build(caller, "built-1", Dockerfile=base + "LABEL a=1\n"))
        assert owned(guarded, caller) == {f"{registry.name}/box:1", "built-1:latest"}
        text = refusal(build(caller, "built-2", Dockerfile=base + "LABEL a=2\n"))
        assert REFUSED_NUMBER in text
        remove(caller, f"{registry.name}/box:1")
        remove(caller, "built-1")
        # The base image takes the last one of the share: the result of the build has none.
        assert done(load(caller, "built-0:1"))
        reply = build(caller, "built-2", Dockerfile=base + "LABEL a=2\n")
        assert reply.status == 200
        assert REFUSED_NUMBER in reply.body.decode()
        assert not exists(guarded, "built-2")


def test_an_image_that_is_built_again_costs_nothing(
    guarded: PrivateEngine, user: Callable[..., ApiUser]
) -> None:
    caller = user()
    files = {"Dockerfile": "FROM busybox\nCOPY note /note\n", "note": "the same"}
    for name in ("again-1", "again-1", "again-2"):
        assert done(build(caller, name, **files))
    assert len(owned(guarded, caller)) == 1
    tag = "/images/again-1/tag?repo=again-3&tag=1"
    assert caller.request("POST", tag).status == 201
    assert done(load(caller, "again-4:1"))
    assert len(owned(guarded, caller)) == 2


def test_a_pull_is_refused_before_its_layers_are_fetched(
    guarded: PrivateEngine, user: Callable[..., ApiUser]
) -> None:
    caller, other = user(), user()
    with ScriptedRegistry(layer("pulled 1")) as one, ScriptedRegistry(layer("pulled 2")) as two:
        assert done(pull(caller, f"{one.name}/box"))
        assert done(pull(caller, f"{one.name}/box"))  # up to date
        assert done(load(caller, "pull-1:1"))
        assert REFUSED_NUMBER in refusal(pull(caller, f"{two.name}/box"))
        assert not two.asked("/blobs/")
        # An image that exists costs nothing, also above the share.
        assert done(pull(other, f"{two.name}/box"))
        assert done(pull(caller, f"{two.name}/box"))
        assert done(pull(other, f"{one.name}/box"))
        assert owned(guarded, caller) == {f"{one.name}/box:1", "pull-1:1"}
        assert owned(guarded, other) == {f"{two.name}/box:1"}


# -- bytes -------------------------------------------------------------------------------------


def test_a_pull_above_the_bytes_is_refused_before_its_layers_are_fetched(
    guarded: PrivateEngine, user: Callable[..., ApiUser]
) -> None:
    sized = user(SIZED)
    with ScriptedRegistry(layer("big", 2 << 20)) as registry:
        text = refusal(pull(sized, f"{registry.name}/box"))
        assert REFUSED_SIZE in text
        assert "raise max-image-size" in text
        assert not registry.asked("/blobs/")


def test_a_layer_that_grows_when_it_is_unpacked_is_refused_before_the_image_is_named(
    guarded: PrivateEngine, user: Callable[..., ApiUser]
) -> None:
    sized, before = user(SIZED), stored(guarded)
    plain = layer("grows", 2 << 20)
    packed = gzip.compress(plain)
    assert len(packed) < 1 << 16
    kind = "application/vnd.oci.image.layer.v1.tar+gzip"
    with ScriptedRegistry(packed, layer_type=kind, config=config_of(plain)) as registry:
        reply = pull(sized, f"{registry.name}/box")
        assert reply.status == 200  # the answer has begun
        error = json.loads(reply.body.splitlines()[-1])["error"]
        assert REFUSED_SIZE in error
        assert not exists(guarded, f"{registry.name}/box:1")
    assert stored(guarded) == before


@pytest.mark.parametrize("send", [load, import_])
def test_what_was_received_above_the_bytes_is_removed(
    guarded: PrivateEngine, user: Callable[..., ApiUser], send: Callable[..., Reply]
) -> None:
    sized, before = user(SIZED), stored(guarded)
    assert done(load(sized, "bytes-1:1", 400 << 10))  # received and unpacked: 800 KiB
    kept = stored(guarded)
    if send is load:
        reply = load(sized, "bytes-2:1", 400 << 10)
    else:
        data = layers.layer([("big", b"y" * (400 << 10))])
        reply = sized.request("POST", "/images/create?fromSrc=-&repo=bytes-2&tag=1", data)
    assert not done(reply)
    assert REFUSED_SIZE in reply.body.decode()
    assert stored(guarded) == kept
    assert not exists(guarded, "bytes-2:1")
    assert done(load(sized, "bytes-3:1", 40 << 10))
    remove(sized, "bytes-1:1")
    assert done(load(sized, "bytes-2:1", 400 << 10))
    remove(sized, "bytes-2:1")
    remove(sized, "bytes-3:1")
    assert stored(guarded) == before


# -- who is charged ----------------------------------------------------------------------------


def test_another_caller_is_charged_nothing_for_an_image_that_exists(
    guarded: PrivateEngine, user: Callable[..., ApiUser]
) -> None:
    first, second = user(), user()
    data = archive("shared-1:1")
    assert done(first.request("POST", "/images/load", data))
    assert done(second.request("POST", "/images/load", data))
    assert done(load(second, "shared-2:1"))
    assert done(load(second, "shared-3:1"))
    assert owned(guarded, first) == {"shared-1:1"}
    assert owned(guarded, second) == {"shared-2:1", "shared-3:1"}
    remove(first, "shared-1:1")
    assert owned(guarded, first) == set()


def test_the_operator_is_not_limited(guarded: PrivateEngine, user: Callable[..., ApiUser]) -> None:
    root = ApiUser(guarded, 0, 0)
    for number in range(4):
        assert done(load(root, f"root-{number}:1"))
    caller = user(PLENTY)
    for number in range(4):
        assert done(load(caller, f"plenty-{number}:1"))
        assert done(load(caller, f"root-{number}:1"))
    assert len(owned(guarded, caller)) == 4


# -- at the same time --------------------------------------------------------------------------


def test_loads_at_the_same_time_do_not_exceed_the_share(
    guarded: PrivateEngine, user: Callable[..., ApiUser]
) -> None:
    caller = user()
    requests = [(caller.connect(), archive(f"together-{number}:1", 1 << 16)) for number in range(5)]
    with ThreadPoolExecutor(len(requests)) as threads:
        replies = list(
            threads.map(lambda r: caller.request_over(r[0], "POST", "/images/load", r[1]), requests)
        )
    assert sum(map(done, replies)) == len(owned(guarded, caller)) == 2
    assert all(REFUSED_NUMBER in reply.body.decode() for reply in replies if not done(reply))


def test_of_pulls_that_end_at_the_same_time_no_more_are_named_than_allowed(
    guarded: PrivateEngine, user: Callable[..., ApiUser]
) -> None:
    caller, before = user(), stored(guarded)
    assert done(load(caller, "pulls-1:1"))
    data = [layer(f"one of two {number}") for number in range(2)]
    asked = threading.Barrier(2)  # both are admitted before one of them is named

    def wait(request: Request) -> None:
        asked.wait(20)
        del request.server.registry.scripts[request.path]
        request.server.registry.honest(request)

    with ScriptedRegistry(data[0]) as one, ScriptedRegistry(data[1]) as two:
        registries = (one, two)
        for registry, content in zip(registries, data, strict=True):
            registry.scripts[registry.blob_path(content)] = wait
        requests = [
            (caller.connect(), f"/images/create?fromImage={registry.name}/box&tag=1")
            for registry in registries
        ]
        with ThreadPoolExecutor(2) as threads:
            replies = list(threads.map(lambda r: caller.request_over(r[0], "POST", r[1]), requests))
    assert sorted(map(done, replies)) == [False, True], replies
    assert [REFUSED_NUMBER in reply.body.decode() for reply in replies] == [
        not done(reply) for reply in replies
    ]
    names = owned(guarded, caller)
    assert len(names) == 2
    for name in names:
        remove(caller, name)
    assert stored(guarded) == before


# -- the engine ends, and its policy changes -----------------------------------------------------


def test_the_owner_survives_the_engine(
    guarded: PrivateEngine, user: Callable[..., ApiUser]
) -> None:
    caller = user()
    assert done(load(caller, "survives-1:1"))
    assert done(build(caller, "survives-2", Dockerfile="FROM busybox\nLABEL survives=2\n"))
    before = owned(guarded, caller)
    assert len(before) == 2
    guarded.kill()
    guarded.start()
    open_to_all(guarded)
    assert owned(guarded, caller) == before
    assert REFUSED_NUMBER in refusal(load(caller, "survives-3:1"))
    remove(caller, "survives-1:1")
    guarded.kill()
    guarded.start()
    open_to_all(guarded)
    assert owned(guarded, caller) == {"survives-2:latest"}
    assert done(load(caller, "survives-3:1"))
    assert REFUSED_NUMBER in refusal(load(caller, "survives-4:1"))


def test_a_reload_applies_another_share(
    guarded: PrivateEngine, policy: Path, user: Callable[..., ApiUser]
) -> None:
    caller = user()
    for number in range(2):
        assert done(load(caller, f"reload-{number}:1"))
    assert REFUSED_NUMBER in refusal(load(caller, "reload-2:1"))

    def apply(text: str) -> None:
        assert guarded.process is not None
        policy.write_text(text)
        log = guarded.log_tail(1 << 20).count("the settings are reloaded")
        os.kill(guarded.process.pid, signal.SIGHUP)
        containers.eventually(
            lambda: guarded.log_tail(1 << 20).count("the settings are reloaded") > log, "a reload"
        )

    try:
        apply(POLICY.replace("max-images = 2", "max-images = 3"))
        assert done(load(caller, "reload-2:1"))
        apply(POLICY.replace("max-images = 2", "max-images = 1"))
        assert exists(guarded, "reload-2:1")  # what exists stays
        assert "more than 1 images" in refusal(load(caller, "reload-3:1"))
    finally:
        apply(POLICY)


# -- names ---------------------------------------------------------------------------------------


def tag(user: ApiUser, image: str, name: str) -> Reply:
    return user.request("POST", f"/images/{image}/tag?repo={name}&tag=1")


def names(engine: PrivateEngine, image: str) -> set[str]:
    return set(engine.request("GET", f"/images/{image}/json").json()["RepoTags"])


def test_names_are_counted_by_who_has_set_them(
    guarded: PrivateEngine, user: Callable[..., ApiUser]
) -> None:
    caller, other = user(NAMED), user(NAMED)
    assert done(load(caller, "named:1"))
    for number in range(3):
        assert done(tag(caller, "named:1", f"named-{number}"))
    before = names(guarded, "named:1")
    text = refusal(tag(caller, "named:1", "named-3"))
    assert REFUSED_NAMES in text
    assert "remove some of yours, or ask the operator to raise max-image-names" in text
    assert names(guarded, "named:1") == before
    assert done(tag(other, "named:1", "named-of-another"))
    assert done(load(caller, "named:1"))  # no more names than before
    assert done(tag(caller, "named:1", "named-2"))
    remove(caller, "named-0:1")
    assert done(tag(caller, "named:1", "named-3"))


def test_an_image_whose_name_is_too_many_is_refused_before_it_is_received(
    guarded: PrivateEngine, user: Callable[..., ApiUser]
) -> None:
    caller = user(NAMED)
    assert done(load(caller, "crowded:1"))
    for number in range(3):
        assert done(tag(caller, "crowded:1", f"crowded-{number}"))
    before = stored(guarded)
    created = caller.request("POST", "/containers/create", {"Image": "crowded:1", "Cmd": ["a"]})
    container = created.json()["Id"]
    commit = caller.request("POST", f"/commit?container={container}&repo=crowded-commit")
    assert REFUSED_NAMES in refusal(commit)
    caller.request("DELETE", f"/containers/{container}")
    assert REFUSED_NAMES in refusal(import_(caller, "crowded-import"))
    assert REFUSED_NAMES in refusal(build(caller, "crowded-build", Dockerfile="FROM busybox\n"))
    late = load(caller, "crowded-load:1")
    assert REFUSED_NAMES in late.body.decode()
    for name in ("crowded-commit", "crowded-import", "crowded-build", "crowded-load:1"):
        assert not exists(guarded, name)
    assert stored(guarded) == before
    assert done(import_(caller, "crowded-0:1"))  # its own name moves


def test_an_archive_with_more_names_than_are_free_is_refused_as_a_whole(
    guarded: PrivateEngine, user: Callable[..., ApiUser]
) -> None:
    caller = user(NAMED)
    before = stored(guarded)
    parts: list[layers.Member] = []
    entries = []
    for number in range(2):
        data = layers.layer([("etc/note", f"archived {number}")])
        listed, files = [f"archived-{number}-{n}:1" for n in range(3)], [f"{number}.tar"]
        parts += [(f"{number}.tar", data), (f"{number}.json", config_of(data))]
        entries.append({"Config": f"{number}.json", "RepoTags": listed, "Layers": files})
    parts.append(("manifest.json", json.dumps(entries)))
    reply = caller.request("POST", "/images/load", layers.layer(parts))
    assert REFUSED_NAMES in reply.body.decode()
    assert owned(guarded, caller) == set()
    assert stored(guarded) == before
