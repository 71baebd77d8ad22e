"""Names of images with a digest: pulled from their registry on request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.docker_root import DockerRoot
from harness.engine import PrivateEngine
from harness.images import busybox_entries
from harness.registry import Registry

pytestmark = pytest.mark.needs("docker-registry")


def migrate(engine: PrivateEngine, root: DockerRoot, *words: str) -> Any:
    flags = ("--root", str(root.path), "--yes", "--only", "images", *words)
    return engine.cli("jaula", "migrate-from", "docker", *flags)


def test_a_name_with_a_digest_is_pulled_on_request(new_engine: Any, tmp_path: Path) -> None:
    root = DockerRoot(tmp_path / "docker")
    id = root.image("digested:1", busybox_entries())
    engine: PrivateEngine = new_engine()
    with Registry(tmp_path / "registry") as registry:
        repository = f"{registry.name}/team/digested"
        assert migrate(engine, root).returncode == 0
        engine.cli("docker", "tag", "digested:1", f"{repository}:1")
        pushed = engine.cli("docker", "push", f"{repository}:1")
        assert pushed.returncode == 0, pushed.stderr
        (name,) = engine.request("GET", f"/images/{repository}:1/json").json()["RepoDigests"]
        assert engine.request("DELETE", f"/images/{id}?force=1").status == 200

        file = root.path / "image/overlay2/repositories.json"
        stored = json.loads(file.read_text())
        gone = f"{repository}@sha256:{'1' * 64}"
        stored["Repositories"]["digested"] |= {name: id}
        file.write_text(json.dumps(stored))
        done = migrate(engine, root)
        assert "--pull-digests gets its manifest" in done.stdout
        assert engine.request("GET", f"/images/{name}/json").status == 404
        assert engine.request("DELETE", f"/images/{id}?force=1").status == 200

        stored["Repositories"]["digested"] |= {gone: id}
        file.write_text(json.dumps(stored))
        done = migrate(engine, root, "--pull-digests")
        assert done.returncode == 0, done.stderr
        assert f"warning: without the name {gone}" in done.stderr
        document = engine.request("GET", f"/images/{name}/json").json()
        assert document["Id"] == id
        assert name in document["RepoDigests"]
