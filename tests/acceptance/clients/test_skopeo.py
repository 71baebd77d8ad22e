"""skopeo with images of the engine: its transport ``docker-daemon:``."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.engine import PrivateEngine

pytestmark = [pytest.mark.client(name="skopeo"), pytest.mark.needs("skopeo")]

NAMES = ("sk/oci:1", "sk/docker:1", "sk/copy:1")
Skopeo = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def skopeo(engine: PrivateEngine) -> Iterator[Skopeo]:
    """Run the command, and remove its images at the end."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return engine.cli("skopeo", "--insecure-policy", *words, timeout=120)

    yield run
    for name in NAMES:
        engine.request("DELETE", f"/images/{name}")


def config(engine: PrivateEngine, name: str) -> object:
    reply = engine.request("GET", f"/images/{name}/json")
    assert reply.status == 200, reply
    return reply.json()["Config"]


def test_an_image_is_inspected(engine: PrivateEngine, busybox: str, skopeo: Skopeo) -> None:
    done = skopeo("inspect", "--daemon-host", engine.host, f"docker-daemon:{busybox}:latest")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["Name"], document["Os"]) == ("docker.io/library/busybox", "linux")
    assert (
        document["Layers"]
        == engine.request("GET", f"/images/{busybox}/json").json()["RootFS"]["Layers"]
    )


@pytest.mark.parametrize(("kind", "name"), [("oci", "sk/oci:1"), ("docker-archive", "sk/docker:1")])
def test_an_image_goes_out_and_comes_back(
    engine: PrivateEngine, busybox: str, skopeo: Skopeo, tmp_path: Path, kind: str, name: str
) -> None:
    place = f"{kind}:{tmp_path / 'image'}:{busybox}:latest"
    source = f"docker-daemon:{busybox}:latest"
    out = skopeo("copy", "--src-daemon-host", engine.host, source, place)
    assert out.returncode == 0, out.stderr
    back = skopeo("copy", "--dest-daemon-host", engine.host, place, f"docker-daemon:{name}")
    assert back.returncode == 0, back.stderr
    assert config(engine, name) == config(engine, busybox)
    assert engine.cli("docker", "run", "--rm", name, "echo", "runs").stdout == "runs\n"


def test_an_image_is_copied_within_the_engine(
    engine: PrivateEngine, busybox: str, skopeo: Skopeo
) -> None:
    ends = ("--src-daemon-host", engine.host, "--dest-daemon-host", engine.host)
    done = skopeo("copy", *ends, f"docker-daemon:{busybox}:latest", "docker-daemon:sk/copy:1")
    assert done.returncode == 0, done.stderr
    ids = [engine.request("GET", f"/images/{n}/json").json()["Id"] for n in (busybox, "sk/copy:1")]
    assert ids[0] == ids[1]


def test_a_missing_image_is_an_error(engine: PrivateEngine, skopeo: Skopeo, tmp_path: Path) -> None:
    for words in (
        ("inspect", "--daemon-host", engine.host, "docker-daemon:sk/absent:1"),
        ("copy", "--src-daemon-host", engine.host, "docker-daemon:sk/absent:1", f"dir:{tmp_path}"),
    ):
        done = skopeo(*words)
        assert done.returncode == 1
        assert "Error response from daemon: No such image: sk/absent:1" in done.stderr
