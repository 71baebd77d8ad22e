"""The profiles of the package let their images do their work, and nothing else."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from harness.engine import PROJECT, PrivateEngine
from harness.packaged_images import EXERCISES, Service, build
from jaula.spec import confinement_profile

Run = Callable[..., "subprocess.CompletedProcess[str]"]
PROFILES = PROJECT / "src/jaula/spec/profiles"

pytestmark = [pytest.mark.packages, pytest.mark.timeout(900)]


@contextmanager
def running(engine: PrivateEngine, image: str, name: str) -> Iterator[Service]:
    container = f"{name}-{uuid.uuid4().hex[:8]}"
    done = engine.cli("jaula", "run", "-d", "--profile", name, "--name", container, image)
    assert done.returncode == 0, done.stderr
    try:
        yield Service(engine, container)
    finally:
        engine.cli("jaula", "rm", "-fv", container)


@pytest.mark.parametrize("name", sorted(EXERCISES))
def test_an_image_serves_under_its_profile(
    engine: PrivateEngine, busybox: str, debian: str, name: str
) -> None:
    image = build(engine, name)
    with running(engine, image, name) as service:
        EXERCISES[name](service)
        refused = engine.cli("jaula", "exec", service.name, "/bin/ls", "/")
        assert refused.returncode == 126, refused
        state = engine.cli("jaula", "inspect", "-f", "{{.State.Running}}", service.name)
        assert state.stdout == "true\n"
        engine.cli("jaula", "stop", "-t", "5", service.name)


@pytest.mark.parametrize("name", sorted(EXERCISES))
def test_a_profile_of_the_package_restricts_everything(name: str) -> None:
    document = confinement_profile.load((PROFILES / f"{name}.toml").read_bytes(), name)
    assert document.sources[0].start_recorded
    assert document.sources[0].losses == {}
    assert document.files.read_only_root
    assert document.files.execute
    assert document.process.no_new_privileges
    assert document.network.egress == ()
    assert "SYS_ADMIN" not in document.capabilities
    assert not {"mount", "ptrace", "bpf", "unshare"} & set(document.seccomp.syscalls["x86_64"])
