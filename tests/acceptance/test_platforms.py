"""Images of several platforms: load, run, list, save, push, pull and remove, as with Docker 29."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import containers
from harness.engine import PrivateEngine
from harness.images import archive, busybox_entries, file
from harness.index_layouts import PREDICATE_TYPE, index_layout
from harness.registry import Registry

HOST, OTHER, ABSENT = "linux/amd64", "linux/arm64/v8", "linux/s390x"
ARM = json.dumps({"os": "linux", "architecture": "arm64"})


def must(engine: PrivateEngine, program: str, *words: str, **more: Any) -> str:
    done = engine.cli(program, *words, **more)
    assert done.returncode == 0, done.stdout + done.stderr + engine.log_tail()
    return done.stdout


def refused(engine: PrivateEngine, *words: str) -> str:
    done = engine.cli("jaula", *words)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return a layout with images for two platforms, whose programs are all this machine's.

    Each has a file with the name of its platform. The index lists a third one.
    """
    layers = {
        platform: archive([*busybox_entries(), file("platform", platform.encode())])
        for platform in (OTHER, HOST, ABSENT)
    }
    config = {"Cmd": ["cat", "/platform"], "Env": ["PATH=/bin"]}
    return index_layout(layers, None, (ABSENT,), {"config": config})


@pytest.fixture
def packed(layout: dict[str, bytes], tmp_path: Path) -> tuple[str, Path]:
    """Return the name of an image, and an archive of it."""
    name = f"{containers.unique('multi')}:1"
    index = json.loads(layout["index.json"])
    index["manifests"][0]["annotations"] = {"org.opencontainers.image.ref.name": name}
    files = layout | {"index.json": json.dumps(index).encode()}
    path = tmp_path / "multi.tar"
    path.write_bytes(archive([file(member, data) for member, data in files.items()]))
    return name, path


@pytest.fixture
def multi(engine: PrivateEngine, packed: tuple[str, Path]) -> Iterator[str]:
    name, path = packed
    assert must(engine, "jaula", "load", "-i", str(path)) == f"Loaded image: {name}\n"
    yield name
    engine.cli("jaula", "rmi", "-f", name)


def inspect(engine: PrivateEngine, name: str, *words: str) -> Any:
    return json.loads(must(engine, "jaula", "image", "inspect", *words, name))[0]


def manifests(engine: PrivateEngine, name: str) -> list[dict[str, Any]]:
    document = engine.request("GET", f"/images/{name}/json?manifests=1").json()
    listed: list[dict[str, Any]] = document["Manifests"]
    return listed


def platform(manifest: dict[str, Any]) -> str:
    data = manifest["ImageData"]["Platform"]
    return "/".join(data[key] for key in ("os", "architecture", "variant") if key in data)


def test_the_image_for_this_machine_runs_and_another_one_on_request(
    engine: PrivateEngine, multi: str
) -> None:
    for program in ("jaula", "docker"):
        assert must(engine, program, "run", "--rm", multi) == HOST
        assert must(engine, program, "run", "--rm", "--platform", "linux/arm64", multi) == OTHER
    done = engine.cli("jaula", "create", "--pull", "never", "--platform", ABSENT, multi)
    assert done.returncode == 1
    assert f"does not provide the specified platform ({ABSENT})" in done.stderr
    assert inspect(engine, multi)["Architecture"] == "amd64"
    arm = inspect(engine, multi, "--platform", "linux/arm64")
    assert (arm["Architecture"], arm["Variant"]) == ("arm64", "v8")
    assert arm["RepoTags"] == [multi]
    history = must(engine, "jaula", "history", "--no-trunc", "--platform", OTHER, multi)
    assert f"build for {OTHER}" in history
    assert f"build for {HOST}" in must(engine, "docker", "history", "--no-trunc", multi)


def test_the_manifests_and_the_tree_show_what_is_stored_and_used(
    engine: PrivateEngine, multi: str
) -> None:
    container = must(engine, "jaula", "create", "--platform", OTHER, multi).strip()
    try:
        by_kind: dict[str, list[dict[str, Any]]] = {}
        for manifest in manifests(engine, multi):
            by_kind.setdefault(manifest["Kind"], []).append(manifest)
        images = {platform(manifest): manifest for manifest in by_kind["image"]}
        assert list(images) == [OTHER, HOST, ABSENT]
        assert [images[p]["Available"] for p in images] == [True, True, False]
        assert images[OTHER]["ImageData"]["Containers"] == [container]
        assert images[HOST]["ImageData"]["Containers"] == []
        size = images[HOST]["Size"]
        assert size["Total"] == size["Content"] + images[HOST]["ImageData"]["Size"]["Unpacked"]
        assert images[ABSENT]["Size"] == {"Content": 0, "Total": 0}
        subjects = [m["AttestationData"]["For"] for m in by_kind["attestation"]]
        assert subjects == [manifest["ID"] for manifest in by_kind["image"]]
        lines = must(engine, "jaula", "images", "--tree", multi).splitlines()
        assert lines[0].split() == ["IMAGE", "ID", "DISK", "USAGE", "CONTENT", "SIZE", "EXTRA"]
        rows = [line.split() for line in lines[1:]]
        assert [row[:2] for row in rows[1:4]] == [["├─", OTHER], ["├─", HOST], ["└─", ABSENT]]
        assert rows[0][0] == multi
        assert [row[-1] == "U" for row in rows[:4]] == [True, True, False, False]
        assert rows[4] == []
        assert "not yet supported with --tree" in refused(engine, "images", "--tree", "-q")
        assert must(engine, "jaula", "ps", "-a", "--format", "{{.Image}}").split().count(multi) == 1
        assert "is using it" in refused(engine, "rmi", "--platform", OTHER, multi)
    finally:
        must(engine, "jaula", "rm", container)
    listed = must(engine, "jaula", "images", "-q", multi).split()
    assert len(listed) == 1


def test_an_image_for_another_machine_is_used_with_a_warning(
    engine: PrivateEngine, packed: tuple[str, Path]
) -> None:
    name, path = packed
    must(engine, "jaula", "load", "-i", str(path), "--platform", "linux/arm64")
    done = engine.cli("jaula", "create", name)
    assert done.returncode == 0
    assert "platform (linux/arm64/v8) does not match the detected host platform" in done.stderr
    requested = engine.cli("jaula", "create", "--platform", "linux/arm64", name)
    assert (requested.returncode, requested.stderr) == (0, "")
    must(engine, "jaula", "rm", done.stdout.strip(), requested.stdout.strip())
    must(engine, "jaula", "rmi", name)


def test_the_engine_verifies_and_repairs_all_platforms(engine: PrivateEngine, multi: str) -> None:
    arm = inspect(engine, multi, "--platform", "linux/arm64")
    container = must(engine, "jaula", "run", "-d", multi, "sleep", "100").strip()
    try:
        verified = engine.cli("jaula", "verify", "--contents", container)
        rows = [row for row in verified.stdout.splitlines() if "image" in row.lower()]
        assert rows, verified.stdout
        assert not [row for row in rows if "FAIL" in row.upper() or "manifest names it" in row]
    finally:
        must(engine, "jaula", "rm", "-f", container)
    digits = arm["RootFS"]["Layers"][0].removeprefix("sha256:")
    program = engine.root / "lib" / "layers" / digits / "fs" / "platform"
    program.write_bytes(b"changed")
    assert engine.cli("jaula", "image", "verify", multi).returncode == 1
    repaired = engine.cli("jaula", "system", "check", "--contents", "--repair")
    assert digits[:12] in repaired.stdout, repaired.stdout + repaired.stderr
    assert program.read_bytes() == OTHER.encode()
    must(engine, "jaula", "image", "verify", multi)


def test_one_platform_is_removed_from_the_index(engine: PrivateEngine, multi: str) -> None:
    before = {platform(m): m for m in manifests(engine, multi) if m["Kind"] == "image"}
    removed = must(engine, "jaula", "image", "rm", "--platform", "linux/arm64", multi)
    assert f"Deleted: {before[OTHER]['ID']}" in removed
    after = {platform(m): m["Available"] for m in manifests(engine, multi) if m["Kind"] == "image"}
    assert after == {OTHER: False, HOST: True, ABSENT: False}
    assert must(engine, "jaula", "run", "--rm", multi) == HOST
    assert "does not provide" in refused(engine, "rmi", "--platform", "linux/arm64", multi)
    assert "no image left" in refused(engine, "rmi", "--platform", HOST, multi)
    assert must(engine, "jaula", "image", "verify", multi)
    must(engine, "jaula", "rmi", multi)


def test_the_default_platform_of_the_environment_is_used(engine: PrivateEngine, multi: str) -> None:
    env = engine.environment() | {"DOCKER_DEFAULT_PLATFORM": "linux/arm64"}
    assert must(engine, "jaula", "run", "--rm", multi, env=env) == OTHER
    words = ("run", "--rm", "--platform", HOST, multi)
    assert must(engine, "jaula", *words, env=env) == HOST
    assert inspect(engine, multi)["Architecture"] == "amd64"


def test_a_build_is_based_on_the_platform_of_its_from(
    engine: PrivateEngine, multi: str, tmp_path: Path
) -> None:
    steps = f"FROM --platform=linux/arm64 {multi}\nRUN cat /platform > /built\n"
    (tmp_path / "Dockerfile").write_text(steps + 'CMD ["cat", "/built"]\n')
    built = containers.unique("built")
    must(engine, "jaula", "build", "-q", "-t", built, str(tmp_path))
    try:
        assert inspect(engine, built)["Architecture"] == "arm64"
        assert must(engine, "jaula", "run", "--rm", "--platform", "linux/arm64", built) == OTHER
        arm = inspect(engine, multi, "--platform", "linux/arm64")
        assert inspect(engine, built)["RootFS"]["Layers"][0] == arm["RootFS"]["Layers"][0]
    finally:
        must(engine, "jaula", "rmi", built)


@pytest.mark.parametrize("program", ["jaula", "docker"])
def test_an_index_survives_save_and_load(
    engine: PrivateEngine, multi: str, program: str, tmp_path: Path
) -> None:
    path, before = str(tmp_path / "saved.tar"), manifests(engine, multi)
    must(engine, program, "save", "-o", path, multi)
    must(engine, program, "rmi", multi)
    assert multi in must(engine, program, "load", "-i", path)
    assert manifests(engine, multi) == before
    target = f"oci:{tmp_path}/copy"
    subprocess.run(("skopeo", "copy", "-q", f"oci-archive:{path}", target), check=True)
    subprocess.run(
        ("skopeo", "copy", "-q", f"docker-archive:{path}", f"dir:{tmp_path}/dir"), check=True
    )


def test_requested_platforms_are_saved_and_loaded(
    engine: PrivateEngine, packed: tuple[str, Path], tmp_path: Path
) -> None:
    name, path = packed
    assert "does not provide" in refused(engine, "load", "-i", str(path), "--platform", ABSENT)
    must(engine, "jaula", "load", "-i", str(path), "--platform", "linux/arm64")
    assert must(engine, "jaula", "run", "--rm", name) == OTHER
    one = str(tmp_path / "one.tar")
    assert "does not provide" in refused(engine, "save", "--platform", HOST, "-o", one, name)
    must(engine, "jaula", "load", "-i", str(path), "--platform", f"{OTHER},{HOST}")
    assert must(engine, "jaula", "run", "--rm", name) == HOST
    must(engine, "jaula", "save", "--platform", OTHER, "-o", one, name)
    must(engine, "jaula", "rmi", name)
    must(engine, "docker", "load", "-i", one)
    assert must(engine, "jaula", "run", "--rm", name) == OTHER
    assert [manifest["Kind"] for manifest in manifests(engine, name)] == ["image"]
    must(engine, "jaula", "rmi", name)
    done = engine.cli("jaula", "load", "-i", str(path), "--platform", "a/b/c/d")
    assert "invalid platform" in done.stderr


def test_attestations_are_listed_with_their_statements(engine: PrivateEngine, multi: str) -> None:
    path = f"/images/{multi}/attestations"
    (listed,) = engine.request("GET", path).json()
    assert listed["PredicateType"] == PREDICATE_TYPE
    assert "Statement" not in listed
    (arm,) = engine.request("GET", f"{path}?statement=1&platform={quote(ARM)}").json()
    assert arm["Statement"] == {"predicateType": PREDICATE_TYPE, "subject": OTHER}
    assert engine.request("GET", f"{path}?type=other").json() == []
    assert engine.request("GET", f"{path}?type={PREDICATE_TYPE}").json() == [listed]
    assert engine.request("GET", f"{path}?platform={quote(ARM)}&platform=x").status == 400
    assert engine.request("GET", "/images/none:1/attestations").status == 404
    conflict = engine.request("GET", f"/images/{multi}/json?manifests=1&platform={quote(ARM)}")
    assert (conflict.status, "conflicting options" in conflict.json()["message"]) == (400, True)
    assert engine.request("GET", f"/images/{multi}/json?platform=[").status == 400


@pytest.mark.needs("docker-registry")
def test_an_index_is_pushed_and_its_platforms_are_pulled_one_by_one(
    engine: PrivateEngine, layout: dict[str, bytes], tmp_path: Path
) -> None:
    layers = {
        requested: archive([*busybox_entries(), file("platform", requested.encode())])
        for requested in (OTHER, HOST)
    }
    files = index_layout(layers, None, (), {"config": {"Cmd": ["cat", "/platform"]}})
    with Registry(tmp_path / "registry") as registry:
        path = containers.unique("multi")
        name = f"{registry.name}/{path}:1"
        index = json.loads(files["index.json"])
        target = index["manifests"][0]["digest"]
        index["manifests"][0]["annotations"] = {"org.opencontainers.image.ref.name": name}
        files["index.json"] = json.dumps(index).encode()
        data = archive([file(member, content) for member, content in files.items()])
        tar = tmp_path / "all.tar"
        tar.write_bytes(data)
        must(engine, "jaula", "load", "-i", str(tar))
        before = manifests(engine, name)
        pushed = must(engine, "jaula", "push", name)
        assert f"1: digest: {target} size: " in pushed
        assert "Not all multiplatform-content" not in pushed
        assert registry.manifest(path, "1")[0] == target

        other = f"{registry.name}/{path}:indexed"
        must(engine, "jaula", "tag", name, other)
        noted = must(engine, "jaula", "push", "--compression", "zstd:chunked", other)
        assert "attestations of the index are about other manifests" in noted
        listed = registry.manifest(path, "indexed")[1]["manifests"]
        platforms = [entry["platform"] for entry in listed]
        assert [f"{each['os']}/{each['architecture']}" for each in platforms] == [
            "/".join(requested.split("/")[:2]) for requested in (OTHER, HOST)
        ]
        for entry in listed:
            (blob,) = registry.manifest(path, entry["digest"])[1]["layers"]
            assert "io.github.containers.zstd-chunked.manifest-checksum" in blob["annotations"]
        must(engine, "jaula", "push", "--platform", OTHER, "--compression", "estargz", other)
        assert "layers" in registry.manifest(path, "indexed")[1]
        assert manifests(engine, name) == before
        must(engine, "jaula", "rmi", other)

        must(engine, "jaula", "rmi", name)

        assert f"Digest: {target}" in must(engine, "jaula", "pull", name)
        assert f"{registry.name}/{path}@{target}" in inspect(engine, name)["RepoDigests"]
        assert "up to date" in must(engine, "docker", "pull", name)
        assert [m["Available"] for m in manifests(engine, name)] == [False, False, True, True]
        (statement,) = engine.request("GET", f"/images/{name}/attestations?statement=1").json()
        assert statement["Statement"]["subject"] == HOST
        must(engine, "jaula", "tag", name, f"{registry.name}/{path}:part")
        partly = must(engine, "jaula", "push", f"{registry.name}/{path}:part")
        assert "Not all multiplatform-content is present" in partly
        assert f"{target} -> {before[2]['ID']}" in partly
        newer = must(engine, "jaula", "pull", "--platform", "linux/arm64", name)
        assert "Downloaded newer image" in newer
        assert manifests(engine, name) == before
        assert must(engine, "jaula", "run", "--rm", name) == HOST
        assert must(engine, "jaula", "run", "--rm", "--platform", OTHER, name) == OTHER
        assert target in must(engine, "docker", "push", name)
        one = must(engine, "jaula", "push", "--platform", OTHER, name)
        assert "Using --platform pushes only the specified platform manifest" in one
        assert registry.manifest(path, "1")[0] == before[0]["ID"]
        must(engine, "jaula", "rmi", "-f", inspect(engine, name)["Id"])


def quote(text: str) -> str:
    from urllib.parse import quote as quoted

    return quoted(text)
