"""``system df`` and every prune tell bytes that are there, and free the bytes that they tell."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import layers
from harness.engine import PrivateEngine

NewEngine = Callable[..., PrivateEngine]


@pytest.fixture
def filled(new_engine: NewEngine, tmp_path: Path) -> PrivateEngine:
    """Three images: two share a layer, one has no name."""
    engine = new_engine()
    base = layers.layer(
        (
            ("bin/sh", os.urandom(300_001)),
            ("bin/ash", "hard", "bin/sh"),
            ("twice", "x" * 1000),
            ("twice", "y" * 77),
        )
    )
    for name, own in (("one:1", b"1" * 50_001), ("two:1", b"2" * 60_002), ("loose:1", b"3" * 7)):
        data = layers.layer((("own", own),))
        both = [(each, layers.digest(each)) for each in (base, data)]
        load(engine, layers.image(name, *(both if name != "loose:1" else both[1:])), tmp_path)
    engine.cli("jaula", "tag", "one:1", "loose:1")
    return engine


def load(engine: PrivateEngine, archive: bytes, tmp_path: Path) -> None:
    place = tmp_path / "archive.tar"
    place.write_bytes(archive)
    with place.open("rb") as file:
        done = engine.cli("jaula", "load", stdin=file)
    assert done.returncode == 0, done.stderr


def on_disk(*tops: Path) -> int:
    """Bytes of regular files, each inode once."""
    found: dict[int, int] = {}
    for top in tops:
        for folder, _, names in os.walk(top):
            for name in names:
                facts = os.lstat(os.path.join(folder, name))
                if stat.S_ISREG(facts.st_mode):
                    found[facts.st_ino] = facts.st_size
    return sum(found.values())


def images_on_disk(engine: PrivateEngine) -> int:
    lib = engine.root / "lib"
    return on_disk(lib / "images/blobs", *(lib / "layers").glob("*/fs"))


def usage(engine: PrivateEngine) -> dict[str, Any]:
    reply = engine.request("GET", "/v1.45/system/df")
    assert reply.status == 200
    return dict(reply.json())


def unique(image: dict[str, Any]) -> int:
    return int(image["Size"] - image["SharedSize"])


def test_the_size_of_images_is_their_disk_usage(filled: PrivateEngine) -> None:
    found = usage(filled)
    assert found["LayersSize"] == images_on_disk(filled)
    assert found["LayersReclaimable"] == found["LayersSize"]


def test_removing_an_image_frees_its_unshared_size(filled: PrivateEngine) -> None:
    before = images_on_disk(filled)
    two = next(i for i in usage(filled)["Images"] if i["RepoTags"] == ["two:1"])
    assert two["SharedSize"] > 300_000
    filled.cli("jaula", "rmi", "two:1")
    assert before - images_on_disk(filled) == unique(two)


def test_prune_reports_the_freed_size(filled: PrivateEngine) -> None:
    before = images_on_disk(filled)
    reply = filled.request("POST", "/images/prune").json()
    assert reply["SpaceReclaimed"] == before - images_on_disk(filled) > 0
    filled.cli("jaula", "create", "--name", "user", "one:1", "/bin/sh")
    reclaimable = usage(filled)["LayersReclaimable"]
    before = images_on_disk(filled)
    everything = '/images/prune?filters={"dangling":["false"]}'
    reply = filled.request("POST", everything).json()
    assert reply["SpaceReclaimed"] == before - images_on_disk(filled) == reclaimable > 60_000
    assert usage(filled)["LayersReclaimable"] == 0
    assert filled.request("POST", everything).json()["SpaceReclaimed"] == 0


def test_docker_shows_the_same(filled: PrivateEngine) -> None:
    for words in (("system", "df"), ("system", "df", "-v")):
        ours, theirs = filled.cli("jaula", *words), filled.cli("docker", *words)
        assert ours.returncode == theirs.returncode == 0
        assert ours.stdout.split() == theirs.stdout.split()


def test_the_size_of_containers_and_volumes_is_their_disk_usage(
    new_engine: NewEngine, busybox_archive: Path
) -> None:
    engine = new_engine()
    load_archive(engine, busybox_archive)
    write = "head -c 123457 /dev/urandom > /data/f; head -c 7777 /dev/urandom > /g; ln /g /h"
    done = engine.cli(
        "jaula", "run", "--name", "writer", "-v", "/data", "busybox", "sh", "-c", write
    )
    assert done.returncode == 0, done.stderr
    lib = engine.root / "lib"
    found = usage(engine)
    uppers = list((lib / "containers").glob("*/upper"))
    assert [c["SizeRw"] for c in found["Containers"]] == [on_disk(*uppers)] == [7777]
    volumes = [v["UsageData"]["Size"] for v in found["Volumes"]]
    assert volumes == [on_disk(*(lib / "volumes").glob("*/_data"))] == [123457]
    pruned = engine.request("POST", "/containers/prune").json()
    assert pruned["SpaceReclaimed"] == 7777
    pruned = engine.request("POST", "/volumes/prune").json()
    assert pruned["SpaceReclaimed"] == 123457
    assert list((lib / "containers").iterdir()) == list((lib / "volumes").iterdir()) == []


def load_archive(engine: PrivateEngine, archive: Path) -> None:
    with archive.open("rb") as file:
        assert engine.cli("jaula", "load", stdin=file).returncode == 0


def test_the_build_cache_is_counted_and_prune_frees_it(
    new_engine: NewEngine, busybox_archive: Path
) -> None:
    engine = new_engine()
    load_archive(engine, busybox_archive)
    before = images_on_disk(engine)
    text = "FROM busybox\nRUN head -c 54321 /dev/urandom > /f\nRUN echo more > /g\n"
    context = io.BytesIO(layers.layer((("Dockerfile", text),)))
    reply = engine.request(
        "POST", "/build?t=built", context.getvalue(), headers={"Content-Type": "application/x-tar"}
    )
    assert b"Successfully built" in reply.body, reply.body
    found = usage(engine)
    assert all(step["Shared"] for step in found["BuildCache"])
    assert found["LayersSize"] == images_on_disk(engine) > before + 2 * 54321
    engine.cli("jaula", "rmi", "built")
    found = usage(engine)
    cached = sum(step["Size"] for step in found["BuildCache"] if not step["Shared"])
    assert cached == images_on_disk(engine) - before > 2 * 54321
    assert found["LayersSize"] == before
    reply = engine.request("POST", "/build/prune?all=1")
    assert reply.json()["SpaceReclaimed"] == cached
    assert images_on_disk(engine) == before


def test_system_prune_frees_everything_unused(filled: PrivateEngine, busybox_archive: Path) -> None:
    load_archive(filled, busybox_archive)
    text = "FROM busybox\nRUN head -c 54321 /dev/urandom > /f\n"
    context = layers.layer((("Dockerfile", text),))
    reply = filled.request(
        "POST", "/build?t=built", context, headers={"Content-Type": "application/x-tar"}
    )
    assert b"Successfully built" in reply.body, reply.body
    filled.cli("jaula", "create", "--name", "user", "one:1", "/bin/sh")
    filled.cli("jaula", "rm", "user")
    done = filled.cli("jaula", "system", "prune", "-af")
    assert done.returncode == 0, done.stderr
    assert "Deleted Images:" in done.stdout
    assert "Deleted build cache objects:" in done.stdout
    assert images_on_disk(filled) == 0
    asked = filled.cli("jaula", "system", "prune", input="n\n").stdout
    theirs = filled.cli("docker", "system", "prune", input="n\n").stdout
    assert asked.split() == theirs.split()
