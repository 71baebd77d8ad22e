"""An image policy that requires signatures, and images that are not whole.

An image that was pulled lazily before the rule is refused. A pull under the rule ends when each
layer has the digests of the manifest, also if another pull has mounted it before.
"""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.containers import eventually
from harness.engine import PrivateEngine
from harness.indexed_layers import zstd_chunked
from harness.scripted_registry import MANIFEST, digest
from harness.slow_registry import SlowRegistry
from jaula.features.trust import cosign_manifest, signing_keys, simple_signing
from jaula.features.trust.signature import Signature

from .test_lazy_pull import base_tar, content, sha256

KEY = signing_keys.generate()
HELD_BACK = 4.0  # seconds in which a command that waits does not end

Engines = Callable[..., PrivateEngine]


class Signed(SlowRegistry):
    """A registry whose image has a signature, and the policy of an engine about it."""

    def __init__(self, directory: Path) -> None:
        super().__init__(zstd_chunked(base_tar(), chunk_size=256 << 10))
        self.policy = directory / "policy.toml"
        (directory / "team.pub").write_bytes(KEY.public.pem)
        self._sign()

    def _sign(self) -> None:
        claim = simple_signing.SimpleSigning(digest(self.manifest), f"{self.name}/box")
        text = simple_signing.write(claim)
        signature = Signature(text, KEY.sign(text))
        config = cosign_manifest.config_with(signature, None)
        manifest = cosign_manifest.manifest_with(signature, config, None)
        self.blobs[digest(text)] = text
        tag = cosign_manifest.signature_tag(digest(self.manifest))
        self.scripts[f"GET /v2/box/manifests/{tag}"] = lambda request: request.answer(
            200, manifest, MANIFEST
        )

    def rule(self, text: str) -> None:
        self.policy.write_text(f'[images]\n"{self.name}" = {text}\n')
        self.policy.chmod(0o600)

    def require_signature(self) -> None:
        self.rule('{ signed-by = "team.pub" }')


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Signed]:
    with Signed(tmp_path) as server:
        server.rule('"accept"')
        yield server


@pytest.fixture
def engine(new_engine: Engines, registry: Signed) -> PrivateEngine:
    return new_engine("--pull-mode", "lazy", "--policy", str(registry.policy))


def pull_early(engine: PrivateEngine, registry: Signed) -> None:
    """Mount the image while the registry holds its layer back, and require a signature then."""
    registry.gate.clear()
    pulled = engine.cli("jaula", "pull", registry.image)
    assert pulled.returncode == 0, pulled.stderr
    assert "Mounted, download continues" in pulled.stdout
    registry.require_signature()


def run(engine: PrivateEngine, registry: Signed) -> subprocess.CompletedProcess[str]:
    words = ("run", "--rm", "--network", "none", "--pull", "never", registry.image)
    return engine.cli("jaula", *words, "sha256sum", "/data/second")


def build(
    engine: PrivateEngine, registry: Signed, directory: Path
) -> subprocess.CompletedProcess[str]:
    context = directory / "context"
    context.mkdir(exist_ok=True)
    text = f"FROM {registry.image}\nRUN sha256sum /data/second >/sum\n"
    (context / "Dockerfile").write_text(text)
    return engine.cli("jaula", "build", "-t", "built", str(context))


def save(engine: PrivateEngine, registry: Signed) -> subprocess.CompletedProcess[str]:
    return engine.cli("jaula", "save", "-o", str(engine.root / "saved.tar"), registry.image)


def push(engine: PrivateEngine, registry: Signed) -> subprocess.CompletedProcess[str]:
    return engine.cli("jaula", "push", registry.image)


def waits(engine: PrivateEngine, *words: str) -> bool:
    """Return whether a command is still running after some seconds; its client goes away then."""
    try:
        engine.cli("jaula", *words, timeout=HELD_BACK)
    except subprocess.TimeoutExpired:
        return True
    return False


def works(engine: PrivateEngine, registry: Signed, directory: Path) -> None:
    """Run the whole image, build on it and save it."""
    ran = run(engine, registry)
    assert ran.stdout.split()[:1] == [sha256(content("second"))], ran.stderr
    built = build(engine, registry, directory)
    assert built.returncode == 0, built.stderr
    saved = save(engine, registry)
    assert saved.returncode == 0, saved.stderr
    with tarfile.open(engine.root / "saved.tar") as archive:
        assert archive.getnames()


@pytest.mark.slow
def test_an_incomplete_image_without_a_stored_signature_is_refused(
    engine: PrivateEngine, registry: Signed, tmp_path: Path
) -> None:
    pull_early(engine, registry)
    for done in (run(engine, registry), build(engine, registry, tmp_path)):
        assert done.returncode != 0
        assert "no signatures of it are stored; pull it again" in done.stderr
    assert waits(engine, "save", "-o", str(engine.root / "saved.tar"), registry.image)
    assert waits(engine, "push", registry.image)
    registry.gate.set()
    for done in (run(engine, registry), build(engine, registry, tmp_path)):
        assert "no signatures of it are stored" in done.stderr  # whole is not signed
    assert save(engine, registry).returncode == 0
    assert engine.cli("jaula", "pull", registry.image).returncode == 0
    works(engine, registry, tmp_path)


def test_a_pull_under_the_rule_ends_with_the_whole_image(
    engine: PrivateEngine, registry: Signed, tmp_path: Path
) -> None:
    pull_early(engine, registry)
    with ThreadPoolExecutor(1) as pool:
        pulling = pool.submit(engine.cli, "jaula", "pull", registry.image)
        assert waits(engine, "pull", registry.image)
        assert not pulling.done()
        for done in (run(engine, registry), build(engine, registry, tmp_path)):
            assert done.returncode != 0
            assert "no signatures of it are stored" in done.stderr
        registry.gate.set()
        pulled = pulling.result()
    assert pulled.returncode == 0, pulled.stderr
    works(engine, registry, tmp_path)


@pytest.mark.slow
def test_an_image_that_gets_whole_with_wrong_bytes_is_never_used(
    engine: PrivateEngine, registry: Signed, tmp_path: Path
) -> None:
    pull_early(engine, registry)
    registry.corrupt = True
    registry.gate.set()
    pulled = engine.cli("jaula", "pull", registry.image)
    assert pulled.returncode != 0
    eventually(lambda: "cannot get whole" in engine.log_tail(), "the lazy layer has failed")
    for done in (run(engine, registry), build(engine, registry, tmp_path)):
        assert done.returncode != 0
        assert sha256(content("second")) not in done.stdout
    for command in (save, push):
        assert command(engine, registry).returncode != 0
    registry.corrupt = False
    pulled = engine.cli("jaula", "pull", registry.image)
    assert pulled.returncode == 0, pulled.stderr
    works(engine, registry, tmp_path)


@pytest.mark.slow
def test_an_incomplete_image_with_a_stored_signature_is_refused_until_it_is_whole(
    engine: PrivateEngine, registry: Signed, tmp_path: Path
) -> None:
    """The engine has the signature of a pull before."""
    registry.require_signature()
    assert engine.cli("jaula", "pull", registry.image).returncode == 0
    stored = engine.root / "lib" / "trust"
    shutil.copytree(stored, tmp_path / "trust")
    assert engine.cli("jaula", "rmi", registry.image).returncode == 0
    registry.rule('"accept"')
    pull_early(engine, registry)
    shutil.copytree(tmp_path / "trust", stored, dirs_exist_ok=True)
    for done in (run(engine, registry), build(engine, registry, tmp_path)):
        assert done.returncode != 0
        assert "its layers are not verified yet" in done.stderr
    assert waits(engine, "save", "-o", str(engine.root / "saved.tar"), registry.image)
    registry.gate.set()
    eventually(lambda: run(engine, registry).returncode == 0, "it is whole")
    works(engine, registry, tmp_path)
