"""An engine with the other runtimes of this host; each test is run with each of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import load_image
from harness import leaks
from harness.engine import PROJECT, PrivateEngine

RUNTIMES = {
    "runc": "runc",
    "crun": "crun",
    "jaula-runtime": str(PROJECT / "jaula-runtime"),
}
TIMEOUT = 60 if "JAULA_VM" in os.environ else 10  # seconds


def usable(name: str) -> str | None:
    """Return why a runtime cannot be tested on this host, or None."""
    if shutil.which(RUNTIMES[name]) is None:
        return f"{RUNTIMES[name]} is not there"
    if name == "crun" and not Path("/sys/fs/cgroup/cgroup.controllers").exists():
        return "crun refuses a host with cgroup v1 hierarchies"
    return None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "runtime" in metafunc.fixturenames:
        marked = [
            pytest.param(name, marks=pytest.mark.skipif(bool(why := usable(name)), reason=str(why)))
            for name in RUNTIMES
        ]
        metafunc.parametrize("runtime", marked)


def flags() -> list[str]:
    """Return the flags with which an engine gets these runtimes."""
    result = ["--runtime-timeout", str(TIMEOUT)]
    for name in RUNTIMES:
        if usable(name) is None:
            result += ["--add-runtime", f"{name}={RUNTIMES[name]}"]
    return result


@pytest.fixture(scope="session")
def host(worker_index: int) -> Iterator[PrivateEngine]:
    """An engine for the tests of this directory. Nothing of it may be left at the end."""
    private = PrivateEngine((worker_index + 57) % 250 + 1, extra_flags=tuple(flags()))
    with leaks.nothing_left(private):
        load_image(private, "busybox")
        yield private


@pytest.fixture
def own(new_engine: Callable[..., PrivateEngine]) -> Callable[..., PrivateEngine]:
    """Create private engines with the runtimes and the image."""

    def make(*more: str) -> PrivateEngine:
        private = new_engine(*flags(), *more)
        load_image(private, "busybox")
        return private

    return make
