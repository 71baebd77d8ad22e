"""Failures in the middle of a pull, remote and local: one error, and no partial files."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.puller import Puller
from harness.scripted_registry import Request, ScriptedRegistry, digest, layer
from jaula.errors import JaulaError, Unavailable

DENIED = (
    "pull access denied for NAME, repository does not exist or may require 'docker login': "
    "denied: not you"
)
BIG = layer("big", 6 << 20)
HUGE = layer("huge", 40 << 20)


@pytest.fixture
def puller(tmp_path: Path) -> Puller:
    return Puller(tmp_path)


def error(code: str, message: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()


@pytest.mark.parametrize(
    ("status", "body", "told", "answered"),
    [
        (401, error("UNAUTHORIZED", "who is there"), "unauthorized: who is there", 401),
        (403, error("DENIED", "not you"), DENIED, 404),
        (404, error("MANIFEST_UNKNOWN", "manifest unknown"),
         "manifest for NAME:1 not found: manifest unknown: manifest unknown", 404),
        (404, error("NAME_UNKNOWN", "nobody"), "repository NAME not found: name unknown: nobody",
         404),
        (404, b"<html>", "manifest for NAME:1 not found: manifest unknown: manifest unknown", 404),
        (429, error("TOOMANYREQUESTS", "slow down"), "toomanyrequests: slow down", 429),
        (500, b"oops", "received unexpected HTTP status: 500 Internal Server Error", 500),
        (418, b"", "received unexpected HTTP status: 418", 500),
    ],
)  # fmt: skip
def test_each_refusal_is_one_clear_error(
    puller: Puller, status: int, body: bytes, told: str, answered: int
) -> None:
    with ScriptedRegistry() as registry:
        registry.scripts[registry.manifest_path] = lambda r: r.answer(status, body)
        with pytest.raises(JaulaError) as caught:
            puller.pull(f"{registry.name}/box:1")
        expected = told.replace("NAME", f"{registry.name}/box")
        assert caught.value.message.removesuffix(" I'm a Teapot") == expected
        assert caught.value.status == answered
    assert puller.left() == []
    assert puller.messages == []


def test_a_token_that_expires_in_the_middle_is_replaced(puller: Puller) -> None:
    passed: list[str] = []

    def token(request: Request) -> None:
        passed.append(f"t{len(passed) + 1}")
        request.answer(200, json.dumps({"token": passed[-1], "expires_in": 300}).encode())

    with ScriptedRegistry(BIG) as registry:
        challenge = f'Bearer realm="{registry.url}/token",service="s"'
        expired: set[str] = set()
        honest = registry.honest

        def guarded(request: Request) -> None:
            path = request.path.partition("?")[0]
            held = request.headers.get("Authorization", "").removeprefix("Bearer ")
            if path == "/v2/" or not held or held in expired:
                request.answer(401, error("UNAUTHORIZED", "again"), WWW_Authenticate=challenge)
                return
            if "/manifests/" in path:
                expired.add(held)  # from now on
            honest(request)

        registry.honest = guarded  # type: ignore[method-assign]
        registry.scripts["/token"] = token
        puller.pull(f"{registry.name}/box:1")
    assert passed == ["t1", "t2"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with space for the compressed layer, but not for the unpacked one too."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_in_the_middle_of_a_layer_leaves_no_files(small_disk: Path) -> None:
    puller = Puller(small_disk)
    with (
        ScriptedRegistry(HUGE) as registry,
        pytest.raises(Unavailable, match="No space left on device"),
    ):
        puller.pull(f"{registry.name}/box:1")
    assert puller.left() == []
    deadline = time.monotonic() + 10
    while os.statvfs(small_disk).f_bavail * 4096 < 79 << 20:  # until the last thread has ended
        assert time.monotonic() < deadline, "the space of what was begun is not given back"
        time.sleep(0.01)
    with ScriptedRegistry(layer("small")) as registry:
        puller.pull(f"{registry.name}/box:1")  # and continues


def test_a_missing_layer_is_one_error(puller: Puller) -> None:
    with ScriptedRegistry(BIG, layer("other")) as registry:
        path = f"/v2/box/blobs/{digest(BIG)}"
        registry.scripts[path] = lambda r: r.answer(404, error("BLOB_UNKNOWN", "blob unknown"))
        with pytest.raises(JaulaError, match=r"^blob unknown: blob unknown$"):
            puller.pull(f"{registry.name}/box:1")
    assert puller.left() == []
