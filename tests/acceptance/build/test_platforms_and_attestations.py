"""Builds for several platforms, provenance and SBOM, with Docker's own clients."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import platform
import re
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from harness import git_server
from harness.containers import unique
from harness.engine import PrivateEngine
from harness.registry import Registry

PLUGIN = "/usr/libexec/docker/cli-plugins/docker-buildx"
pytestmark = [pytest.mark.needs(PLUGIN), pytest.mark.timeout(240)]

Docker = Callable[..., "CompletedProcess[str]"]

HOST = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
FOREIGN = "s390x"
BOTH = f"linux/{HOST},linux/{FOREIGN}"
PROVENANCE_1, PROVENANCE_02 = "https://slsa.dev/provenance/v1", "https://slsa.dev/provenance/v0.2"
SPDX = "https://spdx.dev/Document"
CROSS = """FROM --platform=$BUILDPLATFORM {base} AS made
ARG TARGETPLATFORM
ARG BUILDPLATFORM
RUN echo "$BUILDPLATFORM $TARGETPLATFORM" > /built
FROM scratch
ARG TARGETARCH
LABEL arch=$TARGETARCH
COPY --from=made /built /
COPY hello /
"""


@pytest.fixture
def docker(engine: PrivateEngine) -> Docker:
    def run(*words: str, **options: object) -> CompletedProcess[str]:
        variables = engine.environment() | options.pop("env", {})  # type: ignore[operator]
        del variables["DOCKER_BUILDKIT"]
        return engine.cli("docker", *words, env=variables, timeout=120, **options)

    return run


@pytest.fixture
def place(busybox: str, tmp_path: Path) -> Path:
    """Return a context with a Dockerfile that needs no emulator for a foreign platform."""
    directory = tmp_path / "context"
    directory.mkdir()
    (directory / "Dockerfile").write_text(CROSS.format(base=busybox))
    (directory / "hello").write_text("hello\n")
    return directory


@pytest.fixture
def name(engine: PrivateEngine) -> Iterator[str]:
    chosen = unique("index")
    yield f"{chosen}:1"
    engine.request("DELETE", f"/images/{chosen}:1?force=1")


def build(docker: Docker, *words: str, **options: object) -> str:
    """Build with buildx, and return the progress."""
    done = docker("buildx", "build", "--progress", "plain", *words, **options)
    assert done.returncode == 0, done.stderr
    return done.stderr


def refused(docker: Docker, *words: str) -> str:
    done = docker("buildx", "build", *words)
    assert done.returncode == 1, done.stderr
    return done.stderr


def manifests(engine: PrivateEngine, name: str) -> list[dict[str, Any]]:
    reply = engine.request("GET", f"/v1.49/images/{name}/json?manifests=1")
    assert reply.status == 200, reply.body
    listed: list[dict[str, Any]] = reply.json()["Manifests"]
    return listed


def statements(engine: PrivateEngine, name: str, architecture: str = HOST) -> dict[str, Any]:
    """Return the statements about an image by their predicate types."""
    requested = json.dumps({"os": "linux", "architecture": architecture})
    path = f"/v1.55/images/{name}/attestations?statement=1&platform={requested}"
    reply = engine.request("GET", path.replace('"', "%22").replace(" ", ""))
    assert reply.status == 200, reply.body
    return {each["PredicateType"]: each["Statement"] for each in reply.json()}


class Archive:
    """An OCI layout in a tar."""

    def __init__(self, path: Path) -> None:
        with tarfile.open(path) as tar:
            self.files = {
                member.name: file.read()
                for member in tar
                if (file := tar.extractfile(member)) is not None
            }
        self.index = json.loads(self.files["index.json"])

    def blob(self, digest: str) -> bytes:
        data = self.files["blobs/sha256/" + digest.removeprefix("sha256:")]
        assert "sha256:" + hashlib.sha256(data).hexdigest() == digest
        return data

    def document(self, descriptor: dict[str, Any]) -> dict[str, Any]:
        data = self.blob(descriptor["digest"])
        assert len(data) == descriptor["size"]
        document: dict[str, Any] = json.loads(data)
        return document


# -- several platforms -----------------------------------------------------------------------------


def test_a_build_for_several_platforms_makes_an_index(
    engine: PrivateEngine, docker: Docker, place: Path, tmp_path: Path, name: str
) -> None:
    metadata = tmp_path / "metadata"
    words = ("--platform", BOTH, "-t", name, "--metadata-file", str(metadata))
    text = build(docker, *words, str(place))
    assert f"[linux/{HOST} made 2/2] RUN echo" in text
    assert f"[linux/{HOST}->{FOREIGN} made 2/2] RUN echo" in text
    assert re.search(rf"\[linux/{FOREIGN} stage-1 \d/3\] COPY hello /", text), text
    assert f"[linux/{FOREIGN} internal]" not in text  # no base image is for it
    document = json.loads(metadata.read_text())
    digest = document["containerimage.digest"]
    assert f"exporting manifest list {digest}" in text
    assert document["containerimage.descriptor"]["digest"] == digest
    assert "index" in document["containerimage.descriptor"]["mediaType"]
    images = [m for m in manifests(engine, name) if m["Kind"] == "image"]
    architectures = [m["ImageData"]["Platform"]["architecture"] for m in images]
    assert architectures == [HOST, FOREIGN]
    assert docker("inspect", digest).returncode == 0
    labels = docker("inspect", "-f", "{{.Config.Labels.arch}}", name).stdout.strip()
    assert labels == HOST
    made = docker("create", "--platform", f"linux/{FOREIGN}", name, "x").stdout.strip()
    copied = docker("cp", f"{made}:/built", "-", text=False)
    docker("rm", made)
    with tarfile.open(fileobj=io.BytesIO(copied.stdout)) as tar:  # type: ignore[arg-type]
        built = tar.extractfile("built")
        assert built is not None
        assert built.read().decode() == f"linux/{HOST} linux/{FOREIGN}\n"
    again = build(docker, *words, str(place))
    assert again.count("CACHED") == 6
    assert json.loads(metadata.read_text())["containerimage.digest"] == digest  # it is kept


def test_steps_that_platforms_share_run_once(docker: Docker, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        f"FROM --platform=$BUILDPLATFORM {busybox} AS tools\n"
        "RUN cat /proc/sys/kernel/random/uuid > /id; sleep 1\n"
        "FROM scratch\nCOPY --from=tools /id /\n"
    )
    for flags in ((), ("--no-cache",)):
        target = tmp_path / f"out{len(flags)}"
        build(docker, *flags, "--platform", BOTH, "-o", str(target), str(tmp_path))
        ids = {file.read_text() for file in target.glob("*/id")}
        assert len(list(target.glob("*/id"))) == 2 and len(ids) == 1


def test_the_image_of_a_cross_build_is_for_the_requested_platform(
    engine: PrivateEngine, docker: Docker, busybox: str, tmp_path: Path, name: str
) -> None:
    (tmp_path / "Dockerfile").write_text(
        f"FROM --platform=$BUILDPLATFORM {busybox}\nCOPY Dockerfile /\n"
    )
    build(docker, "--platform", f"{BOTH},linux/arm/v6", "-t", name, str(tmp_path))
    images = [m for m in manifests(engine, name) if m["Kind"] == "image"]
    platforms = [m["ImageData"]["Platform"] for m in images]
    assert [p["architecture"] for p in platforms] == [HOST, FOREIGN, "arm"]
    assert platforms[2]["variant"] == "v6"
    shown = docker("inspect", "-f", "{{.Architecture}}", images[1]["ID"]).stdout.strip()
    assert shown == FOREIGN


def test_only_a_step_that_runs_needs_an_emulator(
    docker: Docker, busybox: str, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nRUN true\n")
    text = refused(docker, "--platform", BOTH, str(tmp_path))
    assert f"programs for linux/{FOREIGN} cannot run on this machine" in text
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    build(docker, "--platform", BOTH, str(tmp_path))
    many = ",".join(f"linux/a{number}" for number in range(40))
    assert "exceed the limit" in refused(docker, "--platform", many, str(tmp_path))


def test_an_index_is_loaded_pushed_and_exported(
    engine: PrivateEngine, docker: Docker, place: Path, tmp_path: Path, name: str
) -> None:
    build(docker, "--load", "--platform", BOTH, "-t", name, str(place))
    assert len([m for m in manifests(engine, name) if m["Kind"] == "image"]) == 2
    archive = tmp_path / "oci.tar"
    words = ("--platform", BOTH, "-t", name, str(place))
    build(docker, "-o", f"type=oci,dest={archive}", *words)
    layout = Archive(archive)
    index = layout.document(layout.index["manifests"][0])
    platforms = [m["platform"]["architecture"] for m in index["manifests"]]
    assert platforms == [HOST, FOREIGN, "unknown", "unknown"]
    for descriptor in index["manifests"]:
        manifest = layout.document(descriptor)
        for part in (manifest["config"], *manifest["layers"]):
            assert len(layout.blob(part["digest"])) == part["size"]
    assert name in docker("load", "-i", str(archive)).stdout
    with Registry(tmp_path / "registry") as registry:
        pushed = f"{registry.name}/{name}"
        build(docker, "--push", "--platform", BOTH, "-t", pushed, str(place))
        shown = docker("buildx", "imagetools", "inspect", pushed).stdout
        assert f"Platform:    linux/{FOREIGN}" in shown and "attestation-manifest" in shown
        digest = re.search(r"Digest:\s+(sha256:\S+)", shown)
        assert digest is not None
        assert (
            docker("inspect", f"{registry.name}/{name.split(':')[0]}@{digest[1]}").returncode == 0
        )
        docker("rmi", pushed)
    text = docker(
        "buildx", "build", "--platform", BOTH, "-o", f"type=docker,dest={archive}", str(place)
    ).stderr
    assert "exporting manifest lists" in text


def test_files_of_several_platforms_have_a_directory_each(
    docker: Docker, place: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out"
    build(docker, "--platform", BOTH, "-o", str(target), str(place))
    names = sorted(str(path.relative_to(target)) for path in target.glob("*/*"))
    directories = [f"linux_{HOST}", f"linux_{FOREIGN}"]
    assert names == sorted(f"{d}/{file}" for d in directories for file in ("built", "hello"))
    tar = tmp_path / "out.tar"
    build(docker, "--platform", BOTH, "-o", f"type=tar,dest={tar}", str(place))
    with tarfile.open(tar) as archive:
        listed = archive.getnames()
    assert sorted(listed) == sorted([*directories, *names])


def test_bake_uses_the_result_for_the_same_platform(
    engine: PrivateEngine, docker: Docker, place: Path, name: str
) -> None:
    platforms = json.dumps(BOTH.split(","))
    (place / "docker-bake.hcl").write_text(
        f'target "base" {{\n context = "{place}"\n platforms = {platforms}\n}}\n'
        f'target "app" {{\n context = "{place}"\n contexts = {{ b = "target:base" }}\n'
        f' dockerfile-inline = "FROM b\\nCOPY hello /two\\n"\n platforms = {platforms}\n'
        f' tags = ["{name}"]\n}}\n'
    )
    done = docker("buildx", "bake", "-f", str(place / "docker-bake.hcl"), "app")
    assert done.returncode == 0, done.stderr
    for architecture in (HOST, FOREIGN):
        made = docker("create", "--platform", f"linux/{architecture}", name, "x").stdout.strip()
        labels = docker("inspect", "-f", "{{.Config.Labels.arch}}", made).stdout.strip()
        docker("rm", made)
        assert labels == architecture


# -- attestations ----------------------------------------------------------------------------------


def test_a_requested_provenance_is_part_of_the_image(
    engine: PrivateEngine, docker: Docker, place: Path, name: str
) -> None:
    secret = place / "token"
    secret.write_text("never-recorded")
    (place / ".dockerignore").write_text("token\n")
    dockerfile = (place / "Dockerfile").read_text()
    mount = "RUN --mount=type=secret,id=tok cat /run/secrets/tok >/dev/null\n"
    (place / "Dockerfile").write_text(dockerfile.replace("FROM scratch", mount + "FROM scratch"))
    words = ("--secret", f"id=tok,src={secret}", "--build-arg", "TOKEN=abc", "-t", name)
    build(docker, "--provenance=mode=max", *words, str(place))
    statement = statements(engine, name)[PROVENANCE_1]
    kinds = [m["Kind"] for m in manifests(engine, name)]
    assert kinds == ["image", "attestation"]
    image = manifests(engine, name)[0]["ID"].removeprefix("sha256:")
    repository, tag = name.split(":")
    url = f"pkg:docker/{repository}@{tag}?platform=linux%2F{HOST}"
    assert statement["subject"] == [{"name": url, "digest": {"sha256": image}}]
    definition = statement["predicate"]["buildDefinition"]
    request = definition["externalParameters"]["request"]
    assert request["args"]["build-arg:TOKEN"] == "abc"
    assert request["secrets"] == [{"id": "tok", "optional": True}]
    assert "never-recorded" not in json.dumps(statement)
    materials = [m["uri"] for m in definition["resolvedDependencies"]]
    assert materials == [f"pkg:docker/busybox@latest?platform=linux%2F{HOST}"]
    source = statement["predicate"]["runDetails"]["metadata"]["buildkit_metadata"]["source"]
    text = base64.b64decode(source["infos"][0]["data"]).decode()
    assert text == (place / "Dockerfile").read_text()
    build(docker, "--provenance=mode=min,version=v0.2", *words, str(place))
    statement = statements(engine, name)[PROVENANCE_02]
    assert "TOKEN" not in json.dumps(statement) and "tok" not in json.dumps(statement)
    assert statement["predicate"]["builder"] == {"id": ""}


def test_the_packages_of_the_image_are_an_attestation(
    engine: PrivateEngine, docker: Docker, busybox: str, tmp_path: Path, name: str
) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {busybox}\nCOPY status /var/lib/dpkg/status\n")
    (tmp_path / "status").write_text(
        "Package: example\nStatus: install ok installed\nVersion: 1.2-3\nArchitecture: all\n\n"
    )
    build(docker, "--sbom=true", "--provenance=false", "-t", name, str(tmp_path))
    made = statements(engine, name)
    assert list(made) == [SPDX]
    packages = made[SPDX]["predicate"]["packages"]
    assert [(p["name"], p.get("versionInfo")) for p in packages[1:]] == [("example", "1.2-3")]
    target = tmp_path / "out"
    build(docker, "--sbom=true", "--provenance=true", "-o", str(target), str(tmp_path))
    for file in ("sbom.spdx.json", "provenance.json"):
        assert (target / file).stat().st_mode & 0o777 == 0o600
        subjects = json.loads((target / file).read_text())["subject"]
        digest = hashlib.sha256((tmp_path / "status").read_bytes()).hexdigest()
        assert {"name": "var/lib/dpkg/status", "digest": {"sha256": digest}} in subjects


def test_the_default_provenance_makes_no_index_of_a_plain_build(
    engine: PrivateEngine, docker: Docker, place: Path, tmp_path: Path, name: str
) -> None:
    build(docker, "-t", name, str(place))
    first = docker("inspect", "-f", "{{.Id}}", name).stdout
    assert [m["Kind"] for m in manifests(engine, name)] == ["image"]
    build(docker, "-t", name, str(place))
    assert docker("inspect", "-f", "{{.Id}}", name).stdout == first
    with Registry(tmp_path / "registry") as registry:
        pushed = f"{registry.name}/{name}"
        build(docker, "--push", "-t", pushed, str(place))
        inspect = ("buildx", "imagetools", "inspect", pushed, "--format")
        document = json.loads(docker(*inspect, "{{json .Provenance}}").stdout)
        assert document["SLSA"]["buildDefinition"]["externalParameters"]["request"]
        document = json.loads(docker(*inspect, "{{json .}}").stdout)
        kinds = [m["platform"]["architecture"] for m in document["manifest"]["manifests"]]
        assert kinds == [HOST, "unknown"]
        plain = ("--push", "--provenance=false", "-t", pushed)
        build(docker, *plain, str(place))
        shown = docker("buildx", "imagetools", "inspect", pushed).stdout
        assert "manifest.v1+json" in shown and "unknown" not in shown
        assert [m["Kind"] for m in manifests(engine, pushed)] == ["image"]
        identity = docker("inspect", "-f", "{{.Id}}", pushed).stdout.strip()
        listed = docker("images", "-q", "--no-trunc").stdout.split()
        assert listed.count(identity) == 2  # one for each name, and none for the former index
        docker("rmi", pushed)


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        ("--provenance=mode=best", "invalid mode 'best'"),
        ("--provenance=version=v9", "invalid provenance SLSA version: 'v9'"),
        ("--provenance=mode=max,unknown=1", "unknown field 'unknown'"),
        ("--provenance=mode=max,complete-materials=true", "provenance materials are incomplete"),
        ("--attest=type=vsa", "unknown attestation type 'vsa'"),
        ("--sbom=generator=docker.io/docker/scanner", "'docker.io/docker/scanner'"),
        ("--provenance=builder-id=" + "a" * 5000, "the limit is 4096"),
    ],
)
def test_an_attestation_that_is_not_valid_ends_the_build(
    docker: Docker, place: Path, flag: str, text: str
) -> None:
    assert text in refused(docker, flag, str(place))


def test_an_attestation_has_both_forms(docker: Docker, place: Path, tmp_path: Path) -> None:
    for value, kind in (("true", "empty.v1+json"), ("false", "image.config.v1+json")):
        archive = tmp_path / f"{value}.tar"
        words = ("-o", f"type=oci,dest={archive},oci-artifact={value}", str(place))
        build(docker, "--provenance=mode=min", *words)
        layout = Archive(archive)
        index = layout.document(layout.index["manifests"][0])
        manifest = layout.document(index["manifests"][1])
        assert manifest["config"]["mediaType"].endswith(kind)
        assert ("subject" in manifest) == (value == "true")


def test_a_damaged_package_database_ends_the_build_with_an_sbom(
    docker: Docker, busybox: str, tmp_path: Path, name: str
) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {busybox}\nCOPY db /var/lib/rpm/Packages.db\n")
    (tmp_path / "db").write_bytes(b"RpmP" + b"\xff" * 5000)
    text = refused(docker, "--sbom=true", "-t", name, str(tmp_path))
    assert "failed to solve" in text and "Packages.db" in text
    assert docker("inspect", name).returncode == 1


def test_the_commit_and_the_digest_of_remote_sources_are_recorded(
    engine: PrivateEngine, docker: Docker, tmp_path: Path, name: str
) -> None:
    top = tmp_path / "repositories"
    top.mkdir()
    network = ("--network", "host", "--allow", "network.host")
    with git_server.served(top) as url:
        git_server.repository(top, "context", {"Dockerfile": "FROM scratch\nCOPY a /\n", "a": "a"})
        listed = subprocess.check_output(["git", "ls-remote", f"{url}/context.git", "main"])
        context = f"{url}/context.git#main"
        build(docker, "--provenance=mode=min", *network, "-t", name, context)
    predicate = statements(engine, name)[PROVENANCE_1]["predicate"]
    source = predicate["buildDefinition"]["externalParameters"]["configSource"]
    digest = {"sha1": listed.decode().split()[0]}
    assert source == {"uri": context, "digest": digest, "path": "Dockerfile"}
    materials = predicate["buildDefinition"]["resolvedDependencies"]
    assert materials == [{"uri": context, "digest": digest}]
    metadata = predicate["runDetails"]["metadata"]
    assert metadata["buildkit_completeness"]["resolvedDependencies"] is True
    assert metadata["buildkit_hermetic"] is True
