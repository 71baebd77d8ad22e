"""An engine that grants its socket to a program in the role of testcontainers' Ryuk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import load_image
from harness import leaks
from harness.engine import PrivateEngine

FILES = Path(__file__).with_name("testcontainers")
RYUK = "tc/ryuk:1"
POLICY = """
[container."label=org.testcontainers=true"]
access = "read"
remove = ["label=org.testcontainers=true", "label=com.docker.compose.project"]
"""


@pytest.fixture(scope="module")
def ryuk_engine(
    worker_index: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrivateEngine]:
    """Yield an engine with the image of Ryuk, which it grants its socket."""
    place = tmp_path_factory.mktemp("ryuk")
    policy = place / "policy.toml"
    policy.write_text(POLICY)
    made = PrivateEngine((worker_index + 29) % 250 + 1, extra_flags=("--policy", str(policy)))
    with leaks.nothing_left(made) as private:
        for image in ("busybox", "debian"):
            load_image(private, image)
        (place / "Dockerfile").write_text('FROM debian\nCOPY ryuk.pl /\nCMD ["perl", "/ryuk.pl"]\n')
        (place / "ryuk.pl").write_text((FILES / "ryuk.pl").read_text())
        done = private.cli("docker", "build", "-q", "-t", RYUK, str(place))
        assert done.returncode == 0, done.stderr
        yield private


@pytest.fixture
def ryuk(ryuk_engine: PrivateEngine, tmp_path: Path) -> dict[str, str]:
    """Return the variables of a client whose Ryuk is that program."""
    return ryuk_engine.environment() | {
        "RYUK_CONTAINER_IMAGE": RYUK,
        "TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE": str(ryuk_engine.socket),
        "TMPDIR": str(tmp_path),
        "HOME": str(tmp_path),
    }
