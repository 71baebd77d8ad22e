"""The key of an archive must be one for the image of the container that gets the checkpoint.

No checkpoint is restored here, so CRIU is not needed: an archive is believed before its images are.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import load_image
from harness import layers
from harness.engine import PrivateEngine, Reply
from harness.foreign_checkpoints import ForeignCheckpoints
from jaula.features.trust import signing_keys

TEAM, OTHER = signing_keys.generate(), signing_keys.generate()
TEAM_IMAGE, VAULT, UNKNOWN, PLAIN = "r.io/team/app:1", "r.io/vault/key:1", "x.io/y:1", "r.io/o/p:1"
POLICY = """
[checkpoints]
"r.io/team" = { signed-by = ["team.pub"] }
"r.io/vault" = "reject"
"r.io/o" = { signed-by = ["other.pub"] }
"""


@pytest.fixture
def guarded(new_engine: Callable[..., PrivateEngine], tmp_path: Path) -> PrivateEngine:
    (tmp_path / "team.pub").write_bytes(TEAM.public.pem)
    (tmp_path / "other.pub").write_bytes(OTHER.public.pem)
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY)
    engine = new_engine("--policy", str(policy))
    load_image(engine, "busybox")
    for name in (TEAM_IMAGE, VAULT, UNKNOWN, PLAIN):
        data = layers.layer([("etc/note", name)])
        archive = layers.image(name, (data, layers.digest(data)))
        assert engine.request("POST", "/images/load", archive).status == 200
    return engine


@pytest.fixture
def archives(guarded: PrivateEngine, tmp_path: Path) -> ForeignCheckpoints:
    return ForeignCheckpoints(guarded, tmp_path, TEAM)


def create(engine: PrivateEngine, image: str) -> str:
    reply = engine.request("POST", "/containers/create", {"Image": image, "Cmd": ["x"]})
    assert reply.status == 201, reply
    return str(reply.json()["Id"])


def import_(engine: PrivateEngine, archive: bytes, query: str = "") -> Reply:
    return engine.request("POST", f"/jaula/checkpoints{query}", archive)


def checkpoints(engine: PrivateEngine, id: str) -> list[str]:
    reply = engine.request("GET", f"/containers/{id}/checkpoints")
    return [each["Name"] for each in reply.json() or []]


@pytest.mark.parametrize("asked", [VAULT, UNKNOWN, PLAIN, "id of the vault"])
def test_a_key_of_another_image_is_refused_for_a_container(
    guarded: PrivateEngine, archives: ForeignCheckpoints, asked: str
) -> None:
    image = VAULT if asked.startswith("id") else asked
    ref = archives.image(image)["Id"] if asked.startswith("id") else asked
    container = create(guarded, ref)
    reply = import_(guarded, archives.make(container, TEAM_IMAGE, of=image))
    assert reply.status == 403, reply
    assert "the checkpoint is refused" in reply.json()["message"]
    assert checkpoints(guarded, container) == []


def test_a_checkpoint_of_another_image_is_refused_for_a_container(
    guarded: PrivateEngine, archives: ForeignCheckpoints
) -> None:
    container = create(guarded, VAULT)
    reply = import_(guarded, archives.make(container, TEAM_IMAGE))
    assert reply.status in (400, 403), reply
    assert checkpoints(guarded, container) == []
    own = create(guarded, TEAM_IMAGE)
    assert import_(guarded, archives.make(own, TEAM_IMAGE, of=PLAIN)).status in (400, 403)


@pytest.mark.parametrize("query", ["", "?name=cloned"])
def test_a_new_container_is_judged_by_the_image_that_it_gets(
    guarded: PrivateEngine, archives: ForeignCheckpoints, query: str
) -> None:
    before = guarded.request("GET", "/containers/json?all=1").json()
    for of in (VAULT, UNKNOWN, PLAIN):
        reply = import_(guarded, archives.make("c" * 64, TEAM_IMAGE, of=of), query)
        assert reply.status == 403, (of, reply)
    assert guarded.request("GET", "/containers/json?all=1").json() == before


def test_an_image_without_a_name_has_no_key_of_another_one(
    guarded: PrivateEngine, archives: ForeignCheckpoints
) -> None:
    data = layers.layer([("etc/note", "newer")])
    older = archives.image(VAULT)["Id"]
    container = create(guarded, older)
    newer = layers.image(VAULT, (data, layers.digest(data)))
    assert guarded.request("POST", "/images/load", newer).status == 200
    assert archives.image(older)["RepoTags"] == []
    for archive in (
        archives.make(container, TEAM_IMAGE, of=older),
        archives.make("d" * 64, TEAM_IMAGE, of=older),
    ):
        assert import_(guarded, archive).status == 403
    assert checkpoints(guarded, container) == []


def test_the_key_of_the_image_is_accepted(
    guarded: PrivateEngine, archives: ForeignCheckpoints
) -> None:
    id = archives.image(TEAM_IMAGE)["Id"]
    for ref in (TEAM_IMAGE, id):
        container = create(guarded, ref)
        reply = import_(guarded, archives.make(container, TEAM_IMAGE))
        assert reply.status == 201, reply
        assert checkpoints(guarded, container) == ["one"]
        refused = import_(guarded, archives.make(create(guarded, ref), TEAM_IMAGE, key=OTHER))
        assert refused.status == 403
    reply = import_(guarded, archives.make("e" * 64, TEAM_IMAGE))
    assert reply.status == 201, reply
    assert checkpoints(guarded, reply.json()["Id"]) == ["one"]
