"""SIGKILL of engine, shim, helper and CRIU at each step of a migration, at either end.

Whatever is killed: the container never runs twice, and after the next engine has begun it runs at
one of them, unless its own shim was killed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import containers
from harness.faulty_engine import FaultyEngine
from harness.migration import ADDRESS, NAME, Site, Sites, sites, start
from harness.migration_faults import EARLY, HELD, RESTORED, SOURCE, TARGET

pytestmark = [pytest.mark.criu, pytest.mark.needs("gcc", "ip", "openssl", "nsenter")]

GIVEN = ("recorded given", "sent Commit", "received Running", "recorded moved")
COMMIT = ("received Commit", "recorded received", "sent Running")


class MigrationEngine(FaultyEngine):
    """An engine with the steps of :mod:`harness.migration_faults`."""

    script = "migration_faults.py"


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    with sites(tmp_path_factory.mktemp("sites"), 1, kind=MigrationEngine) as made:
        yield made


@pytest.fixture
def web(two: Sites) -> Iterator[Sites]:
    start(two.a)
    yield two
    for site in (two.a, two.b):
        restart(site)
        site.engine.cli("jaula", "rm", "-f", "-v", NAME)
        containers.eventually(lambda site=site: not site.leftovers(), f"{site.leftovers()}")  # type: ignore[misc]


def restart(site: Site) -> None:
    """Start the next engine if this one was killed."""
    assert site.engine.process is not None
    if site.engine.process.poll() is not None:
        site.engine.start()


def interrupt(two: Sites, site: Site, step: str, target: str) -> None:
    """Migrate the container, with a process of ``site`` killed at a step."""
    assert isinstance(site.engine, FaultyEngine)
    done = Path(f"{site.engine.fault}.done")
    done.unlink(missing_ok=True)
    site.engine.fault.write_text(f"{step}:{target}")
    two.a.engine.cli("jaula", "container", "migrate", NAME, "--to", two.b.target)
    site.engine.fault.unlink(missing_ok=True)
    assert done.exists(), "the step was not reached"
    assert "[]" not in done.read_text(), "there was no process to kill"
    assert site.engine.process is not None
    if target == "engine":
        site.engine.process.wait(10)
        restart(site)


def runs_at(two: Sites) -> str:
    """Return the sites at which the container runs."""
    return "".join(
        site.name for site in (two.a, two.b) if site.runs(NAME) and not site.frozen(NAME)
    )


def assert_serves(two: Sites) -> None:
    with two.counting(ADDRESS) as client:
        assert client.finish()["failure"] == ""
    assert two.never_ran_twice()


@pytest.mark.parametrize("step", SOURCE)
def test_the_engine_of_the_source_is_killed(web: Sites, step: str) -> None:
    interrupt(web, web.a, step, "engine")
    place = "b" if step in GIVEN[1:] else "a"
    containers.eventually(lambda: runs_at(web) == place, f"runs at {place}", 40)
    assert_serves(web)


@pytest.mark.parametrize("step", TARGET)
def test_the_engine_of_the_target_is_killed(web: Sites, step: str) -> None:
    interrupt(web, web.b, step, "engine")
    place = "b" if step in COMMIT[1:] else "a"
    with contextlib.suppress(AssertionError):
        containers.eventually(lambda: runs_at(web) == place, f"runs at {place}", 5)
    if runs_at(web) != place:  # the engine of the source gave up before the next one answered
        web.a.engine.cli("jaula", "container", "migrate", "--resume", NAME)
    containers.eventually(lambda: runs_at(web) == place, f"runs at {place}", 40)
    assert_serves(web)


@pytest.mark.parametrize("step", HELD)
@pytest.mark.parametrize("target", ["criu", "helper"])
def test_criu_or_the_helper_is_killed_at_the_source(web: Sites, step: str, target: str) -> None:
    interrupt(web, web.a, step, target)
    containers.eventually(lambda: runs_at(web) in ("a", "b"), "runs at one site", 40)
    if step in GIVEN:
        assert runs_at(web) == "b"
    assert_serves(web)


@pytest.mark.parametrize("step", RESTORED)
@pytest.mark.parametrize("target", ["criu", "helper", "shim"])
def test_a_process_of_the_target_is_killed(web: Sites, step: str, target: str) -> None:
    interrupt(web, web.b, step, target)
    # The source may have given it away before the target noticed: it is restored again there.
    containers.eventually(lambda: runs_at(web) in ("a", "b"), "runs at one site", 40)
    assert_serves(web)


@pytest.mark.parametrize("step", EARLY)
@pytest.mark.parametrize("target", ["criu", "helper", "shim"])
def test_a_process_that_waits_for_the_images_is_killed(web: Sites, step: str, target: str) -> None:
    interrupt(web, web.b, step, target)
    containers.eventually(lambda: runs_at(web) == "a", "runs at the source", 40)
    assert_serves(web)


@pytest.mark.parametrize("step", HELD)
def test_the_shim_of_the_source_is_killed(web: Sites, step: str) -> None:
    interrupt(web, web.a, step, "shim")
    containers.eventually(lambda: not web.a.runs(NAME), "does not run at the source", 40)
    assert runs_at(web) in ("b", "")
    assert web.never_ran_twice()
