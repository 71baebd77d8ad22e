"""Fixtures for every test: a private engine per worker, the clients, its images."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import gc
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from harness import leaks
from harness.attribute_watch import AttributeWatch
from harness.engine import PROJECT, PrivateEngine
from harness.lsm_denials import Denials
from jaula.features.checkpoint.runtime.probe import probe

# A machine that is busy makes an example slow, not wrong.
hypothesis.settings.register_profile("jaula", deadline=None)
hypothesis.settings.load_profile("jaula")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what runs beside it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)

CRIU = os.environ.get("JAULA_TEST_CRIU", "")
if CRIU:  # before an engine of the tests, which finds the program by PATH, starts
    if os.path.basename(CRIU) != "criu" or not os.access(CRIU, os.X_OK):
        raise pytest.UsageError(f"JAULA_TEST_CRIU={CRIU}: must be the path of a program named criu")
    os.environ["PATH"] = f"{os.path.dirname(os.path.abspath(CRIU))}:{os.environ['PATH']}"

gc.disable()  # modules and tests that are collected live to the end; see pytest_collection_finish

NEED_ROOT = ("integration", "security", "acceptance", "chaos", "browser")
TESTS = Path(__file__).parent
IMAGE_CACHE = PROJECT / ".venv" / "test-images"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@functools.cache
def _criu_problem() -> str:
    """Return why CRIU cannot dump a process with a socket here; '' if it can."""
    return probe().problem if os.geteuid() == 0 else "needs root"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add markers by directory. Fail, instead of skipping, if tests need root."""
    for item in items:
        for marker in item.iter_markers("needs"):
            expected = marker.args[0]  # a program, or the path of a file
            if "JAULA_VM" in os.environ and not (shutil.which(expected) or Path(expected).exists()):
                missing = f"no {expected} in this virtual machine"
                item.add_marker(pytest.mark.skip(reason=missing))
        if item.get_closest_marker("criu") and (problem := _criu_problem()):
            item.add_marker(pytest.mark.skip(reason=f"CRIU: {problem}"))
        parts = item.path.relative_to(TESTS).parts if item.path.is_relative_to(TESTS) else ()
        if parts and parts[0] in NEED_ROOT:
            item.add_marker(pytest.mark.root)
    if os.geteuid() != 0:
        chosen = [i for i in items if i.get_closest_marker("root")]
        if chosen and not config.option.collectonly:
            raise pytest.UsageError(
                f"{len(chosen)} of these tests make containers and need root; "
                "without root: ./test tests/unit"
            )


def pytest_collection_finish() -> None:
    """Exempt the million objects of the collection from the collector of cyclic garbage.

    Each full collection would pass over them for half a second, and a forked child, whose
    collections write to the objects' pages, would copy the memory of the worker.
    """
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def null_device_watch(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[AttributeWatch | None]:
    """Yield a watch of the null device; None for an ordinary user, who cannot change it."""
    if os.geteuid() != 0:
        yield None
        return
    report = tmp_path_factory.mktemp("null-device") / "changes"
    with AttributeWatch("/dev/null", report) as watch:
        yield watch


@pytest.fixture(autouse=True)
def null_device(null_device_watch: AttributeWatch | None) -> Iterator[None]:
    """Check that the host's null device has its owner and mode; repair it if not.

    Programs get it for a missing stream, so an operation on the wrong file changes it first. Tests
    that run in parallel may be the cause; the error names the process.
    """
    yield
    if null_device_watch is None:
        return
    result = os.stat("/dev/null")
    if (result.st_uid, result.st_gid, result.st_mode & 0o7777) != (0, 0, 0o666):
        os.chown("/dev/null", 0, 0)
        os.chmod("/dev/null", 0o666)
        changes = null_device_watch.changes_until(os.getpid())
        pytest.fail(
            f"/dev/null was {result.st_uid}:{result.st_gid} {result.st_mode & 0o7777:o}\n{changes}"
        )


@pytest.fixture(autouse=True)
def garbage_collector() -> Iterator[None]:
    """Fail a test that leaves the collector off: the process would keep the garbage of all later.

    A process of a gigabyte forks slowly, and its descriptors are above 1023.
    """
    yield
    if not gc.isenabled():
        gc.enable()
        pytest.fail("the test has left the collector of cyclic garbage off")


@pytest.fixture(scope="session")
def worker_index(worker_id: str) -> int:
    """Return a number that no other engine of a test run on the machine uses."""
    own = int(re.sub(r"\D", "", worker_id) or 0)
    return (os.getppid() * 7 + own) % 250 + 1


@pytest.fixture(scope="session")
def engine(worker_index: int) -> Iterator[PrivateEngine]:
    """Yield the engine of all tests of this worker. It must leave nothing on the host."""
    with leaks.nothing_left(PrivateEngine(worker_index)) as private:
        yield private


@pytest.fixture
def new_engine(worker_index: int) -> Iterator[Callable[..., PrivateEngine]]:
    """Return a function that creates private engines, for tests that kill them; check for leaks."""
    made: list[PrivateEngine] = []

    def make(*flags: str, start: bool = True) -> PrivateEngine:
        index = (worker_index + 101 * (len(made) + 1)) % 250 + 1
        private = PrivateEngine(index, extra_flags=flags)
        made.append(private)
        if start:
            private.start()
        return private

    try:
        yield make
        for private in made:
            private.discard()
            left = leaks.of_engine(private)
            assert not left, f"left behind by the engine: {left}"
    finally:
        for private in made:
            if private.process is not None:
                private.kill()
            leaks.clean_up(private)
            private.delete_directories()


@contextlib.contextmanager
def engine_with_policy(index: int, policy: Path) -> Iterator[PrivateEngine]:
    """Yield an engine with a policy, to which every user may connect; it must leave nothing."""
    flags = ("--policy", str(policy))
    with leaks.nothing_left(PrivateEngine(index % 250 + 1, extra_flags=flags)) as private:
        open_to_all(private)
        load_image(private, "busybox")
        yield private


def open_to_all(engine: PrivateEngine) -> None:
    """Let every user connect to an engine: only the ids decide."""
    engine.run.chmod(0o711)
    engine.socket.chmod(0o666)


@pytest.fixture
def jaula(engine: PrivateEngine) -> Run:
    """Run the jaula command against the engine."""
    return lambda *words, **options: engine.cli("jaula", *words, **options)


@pytest.fixture
def docker(engine: PrivateEngine) -> Run:
    """Run the docker command against the engine."""
    return lambda *words, **options: engine.cli("docker", *words, **options)


def image_archive(name: str) -> Path:
    """Return the archive of ``jaula image bootstrap NAME``, built once for this clone."""
    IMAGE_CACHE.mkdir(parents=True, exist_ok=True)
    archive = IMAGE_CACHE / f"{name.replace(':', '-')}.tar"
    with (IMAGE_CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not archive.exists():
            half = archive.with_suffix(".new")
            subprocess.run(
                [
                    sys.executable,
                    "-c",
                    "import sys; from jaula.images.bootstrap import build; build(*sys.argv[1:])",
                    name,
                    str(half),
                ],
                check=True,
                timeout=600,
                env=os.environ | {"PYTHONPATH": str(PROJECT / "src")},
            )
            half.rename(archive)
    return archive


def load_image(engine: PrivateEngine, name: str) -> str:
    with image_archive(name).open("rb") as archive:
        done = engine.cli("jaula", "load", stdin=archive, timeout=300)
    assert done.returncode == 0, done.stderr + engine.log_tail()
    return name


@pytest.fixture(scope="session")
def busybox(engine: PrivateEngine) -> str:
    """Return the name of a small image in the engine."""
    return load_image(engine, "busybox")


@pytest.fixture(scope="session")
def debian(engine: PrivateEngine) -> str:
    """Return the name of a Debian image in the engine; its first use takes time."""
    return load_image(engine, "debian")


@pytest.fixture
def print_denials() -> Iterator[None]:
    """Print the denials of SELinux and AppArmor during a failed test."""
    denials = Denials()
    yield
    print("\n".join(denials.containing()))


@pytest.fixture(scope="session")
def busybox_archive() -> Path:
    """Return an archive as ``jaula save`` writes it."""
    return image_archive("busybox")


@pytest.fixture(scope="session")
def debian_archive() -> Path:
    """Return the archive of the Debian image."""
    return image_archive("debian")
