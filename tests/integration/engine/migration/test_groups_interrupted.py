"""SIGKILL of an engine around the commit of a pod, and of containers that share a network.

All of the group run at one end afterwards, and nothing of it is left at the other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import containers
from harness.migration import IMAGE, NETWORK, SUBNET, Site, Sites, sites
from harness.moved_pod import POD, PORT, Pod, PodEngine, pods_of, remove_pods
from integration.engine.migration.test_migration_interrupted import MigrationEngine, restart
from jaula.features.kubernetes.cri.proto import api_pb2

pytestmark = [
    pytest.mark.criu,
    pytest.mark.needs("gcc", "ip", "openssl", "nsenter", "/usr/lib/cni/bridge"),
]

ADDRESS = f"{SUBNET}.80"
NAMES = ("owner", "member")
CASES = [
    ("a", "held", "a"),
    ("a", "recorded given", "a"),
    ("a", "sent Commit", "b"),
    ("b", "received Commit", "a"),
]
"""The site whose engine is killed, the step, and the site at which all run afterwards."""


class FaultyPodEngine(MigrationEngine, PodEngine):
    """An engine with CRI and the steps of :mod:`harness.migration_faults`."""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    with sites(tmp_path_factory.mktemp("sites"), 14, kind=FaultyPodEngine) as made:
        yield made


def migrate(two: Sites, killed: str, step: str, member: str, *words: str) -> None:
    """Migrate, with an engine killed at a step, start the next one, and ask how that ended."""
    site: Site = getattr(two, killed)
    engine = site.engine
    assert isinstance(engine, MigrationEngine)
    done = Path(f"{engine.fault}.done")
    done.unlink(missing_ok=True)
    engine.fault.write_text(f"{step}:engine")
    two.a.engine.cli("jaula", "container", "migrate", *words, "--to", two.b.target)
    engine.fault.unlink(missing_ok=True)
    assert done.exists(), "the step was not reached"
    assert engine.process is not None
    engine.process.wait(10)
    restart(site)
    two.a.engine.cli("jaula", "container", "migrate", "--resume", member)


def answers(two: Sites, address: str) -> bool:
    """Return whether the relay answers a client."""
    with contextlib.suppress(AssertionError), two.counting(address, PORT) as client:
        return client.finish()["failure"] == ""
    return False


@pytest.mark.parametrize(("killed", "step", "expected"), [*CASES, ("b", "recorded received", "b")])
def test_a_pod_runs_at_one_end(
    two: Sites, tmp_path: Path, killed: str, step: str, expected: str
) -> None:
    pod = Pod(two.a, tmp_path / "logs")
    winner, loser = (two.a, two.b) if expected == "a" else (two.b, two.a)
    try:
        migrate(two, killed, step, f"k8s_relay_{POD}_default_uid-{POD}_0", "--pod", POD)
        containers.eventually(lambda: bool(pods_of(winner)) and pod.runs(winner), "the pod runs")
        if loser is two.a:
            containers.eventually(
                lambda: pod.status(two.a).state == api_pb2.SANDBOX_NOTREADY, "the pod has exited"
            )
        else:
            containers.eventually(lambda: pods_of(loser) == [], "the pod is removed")
        containers.eventually(lambda: answers(two, pod.address), "the pod answers")
    finally:
        for site in (two.a, two.b):
            restart(site)
            remove_pods(site)


@pytest.mark.parametrize(("killed", "step", "expected"), CASES)
def test_containers_of_one_network_run_at_one_end(
    two: Sites, killed: str, step: str, expected: str
) -> None:
    network = ("--network", NETWORK, "--ip", ADDRESS)
    two.a.jaula("run", "-d", "--name", NAMES[0], *network, IMAGE, "/server")
    two.a.jaula("run", "-d", "--name", NAMES[1], "--network", f"container:{NAMES[0]}",
                IMAGE, "/relay", "127.0.0.1", "7000", str(PORT))  # fmt: skip
    winner, loser = (two.a, two.b) if expected == "a" else (two.b, two.a)
    try:
        migrate(two, killed, step, NAMES[1], *NAMES)
        containers.eventually(lambda: all(map(winner.runs, NAMES)), "both run")
        containers.eventually(lambda: not any(map(loser.runs, NAMES)), "none runs at the other end")
        containers.eventually(lambda: answers(two, ADDRESS), "they answer")
    finally:
        for site in (two.a, two.b):
            restart(site)
            site.engine.cli("jaula", "rm", "-f", "-v", *NAMES)
