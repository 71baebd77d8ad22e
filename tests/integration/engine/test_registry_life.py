"""An engine with a registry that does not answer, searches, mirrors; other clients meanwhile."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.engine import PROJECT, PrivateEngine
from harness.scripted_registry import Request, ScriptedRegistry, digest, layer

BIG = layer("big", 1 << 20)


class Stalled:
    """A registry whose layer begins and does not go on until ``go_on``."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.registry = ScriptedRegistry(BIG)
        self.registry.scripts[self.registry.blob_path(BIG)] = self._answer
        self.name = f"{self.registry.name}/box:1"

    def _answer(self, request: Request) -> None:
        request.head(200, Content_Length=str(len(BIG)))
        request.wfile.write(BIG[:1000])
        request.wfile.flush()
        self.begun.set()
        self.go_on.wait(60)
        request.wfile.write(BIG[1000:])


@pytest.fixture
def stalled() -> Iterator[Stalled]:
    made = Stalled()
    with made.registry:
        yield made
        made.go_on.set()


def start_pull(engine: PrivateEngine, name: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [str(PROJECT / "jaula"), "pull", name],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=engine.environment(),
    )


def files(engine: PrivateEngine) -> set[str]:
    tops = (engine.root / "lib" / top for top in ("images/blobs/sha256", "layers"))
    return {path.name for top in tops for path in top.iterdir()}


def eventually(condition: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_other_clients_are_served_during_pulls(engine: PrivateEngine, stalled: Stalled) -> None:
    pulls = [start_pull(engine, stalled.name) for _ in range(12)]
    try:
        assert stalled.begun.wait(20)
        for _ in range(5):
            begin = time.monotonic()
            assert engine.request("GET", "/system/df").status == 200  # done in the pool of threads
            assert time.monotonic() - begin < 5
        stalled.go_on.set()
        assert [pull.wait(60) for pull in pulls] == [0] * len(pulls)
        assert len(stalled.registry.asked(stalled.registry.blob_path(BIG))) == 1
    finally:
        for pull in pulls:
            pull.kill()
            pull.wait()
    engine.cli("jaula", "rmi", stalled.name)


def test_a_disconnected_client_cancels_its_pull(engine: PrivateEngine, stalled: Stalled) -> None:
    before = files(engine)
    pull = start_pull(engine, stalled.name)
    assert stalled.begun.wait(20)
    eventually(lambda: bool(files(engine) - before))
    pull.kill()
    pull.wait()
    eventually(lambda: files(engine) == before)
    assert engine.request("GET", f"/images/{stalled.name}/json").status == 404


def test_an_engine_stops_during_a_pull(
    new_engine: Callable[..., PrivateEngine], stalled: Stalled
) -> None:
    engine = new_engine()
    pull = start_pull(engine, stalled.name)
    assert stalled.begun.wait(20)
    begin = time.monotonic()
    assert engine.stop() == 0
    assert time.monotonic() - begin < 15
    pull.wait(20)
    engine.start()
    assert not any(name.startswith("new-") for name in files(engine))


def test_an_engine_that_was_killed_in_a_pull_sweeps(
    new_engine: Callable[..., PrivateEngine], stalled: Stalled
) -> None:
    engine = new_engine()
    pull = start_pull(engine, stalled.name)
    assert stalled.begun.wait(20)
    eventually(lambda: any(name.startswith("new-") for name in files(engine)))
    engine.kill()
    pull.wait(20)
    engine.start()
    assert files(engine) == set()


def test_a_search_is_dockers(engine: PrivateEngine) -> None:
    results = [
        {"name": "a/low", "description": "x\n y\x1b[31m", "star_count": 1, "is_official": False},
        {"name": "high", "description": "d" * 60, "star_count": 9, "is_official": True},
    ]
    with ScriptedRegistry(layer()) as registry:
        registry.scripts["/v1/search"] = lambda request: request.answer(
            200, json.dumps({"results": results, "num_results": 2}).encode()
        )
        for program in ("jaula", "docker"):
            done = engine.cli(program, "search", f"{registry.name}/word")
            assert done.returncode == 0, done.stderr
            rows = done.stdout.splitlines()
            assert rows[0].split() == ["NAME", "DESCRIPTION", "STARS", "OFFICIAL"]
            assert rows[1].split()[0] == "a/low"
            assert rows[2].split()[0] == "high"
            assert rows[2].split()[-2:] == ["9", "[OK]"]
            assert "\x1b" not in done.stdout
            done = engine.cli(
                *(program, "search", "-f", "is-official=true", "--format", "{{.Name}}"),
                f"{registry.name}/word",
            )
            assert done.stdout == "high\n"
            assert registry.seen[-1][1] == "/v1/search?q=word&n=25"
        bad = engine.request("GET", f"/images/search?term={registry.name}/x&limit=101")
        assert bad.json()["message"] == "Limit 101 is outside the range of [1, 100]"


def test_images_of_docker_hub_come_from_a_mirror(
    new_engine: Callable[..., PrivateEngine], tmp_path: Path
) -> None:
    with ScriptedRegistry(layer("mirrored")) as mirror:
        manifest = mirror.manifest
        mirror.scripts["/v2/library/box/manifests/latest"] = lambda request: request.answer(
            200, manifest, "application/vnd.oci.image.manifest.v1+json"
        )
        for blob, content in mirror.blobs.items():
            mirror.scripts[f"/v2/library/box/blobs/{blob}"] = lambda request, content=content: (
                request.answer(200, content)
            )
        file = tmp_path / "daemon.json"
        file.write_text(json.dumps({"registry-mirrors": [mirror.url]}))
        engine = new_engine("--config-file", str(file))
        done = engine.cli("jaula", "pull", "box")
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == "docker.io/library/box:latest"
        image = engine.request("GET", "/images/box/json").json()
        assert image["RepoTags"] == ["box:latest"]
        assert image["RepoDigests"] == [f"box@{digest(manifest)}"]
        described = engine.request("GET", "/distribution/box/json").json()
        assert described["Descriptor"]["digest"] == digest(manifest)
        info = engine.request("GET", "/info").json()
        assert info["RegistryConfig"]["Mirrors"] == [mirror.url]
        assert f"  {mirror.url}" in engine.cli("jaula", "info").stdout.splitlines()


def test_a_registrys_name_in_a_login_is_a_name(engine: PrivateEngine) -> None:
    for address in ("a b", "127.0.0.1:5000\r\nX: y", "user@127.0.0.1:9", "[::1", "x:99999999"):
        body = {"username": "u", "password": "p", "serveraddress": address}
        reply = engine.request("POST", "/auth", body)
        assert reply.status >= 400, address
        assert "Traceback" not in engine.log_tail()
