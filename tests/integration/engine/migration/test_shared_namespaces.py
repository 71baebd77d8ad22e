"""Containers that share namespaces move as one: their connections go on, or all run on here."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

import pytest

from harness import containers
from harness.migration import IMAGE, NETWORK, SUBNET, Site, Sites, ip, move_interrupted, sites

pytestmark = [pytest.mark.criu, pytest.mark.needs("gcc", "ip", "openssl", "nsenter")]

ADDRESS = f"{SUBNET}.70"
PORT = 7001
OWNER, MEMBER = "web", "relay"


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    with sites(tmp_path_factory.mktemp("sites"), 5) as made:
        yield made


@pytest.fixture
def pair(two: Sites) -> Iterator[Sites]:
    """Run a server at ``a``, and a relay in its network which asks it over the loopback."""
    two.a.jaula(
        "run", "-d", "--name", OWNER, "--network", NETWORK, "--ip", ADDRESS, IMAGE, "/server"
    )
    join(two.a)
    ip("neigh", "flush", "all", netns=two.client)
    yield two
    remove(two)


def join(site: Site) -> None:
    site.jaula(
        *("run", "-d", "--name", MEMBER, "--network", f"container:{OWNER}"),
        *(IMAGE, "/relay", "127.0.0.1", "7000", str(PORT)),
    )
    time.sleep(0.5)


def remove(two: Sites) -> None:
    for site in (two.a, two.b):
        site.engine.cli("jaula", "rm", "-f", "-v", OWNER, MEMBER)


def migrate(source: Site, target: Site, *words: str) -> str:
    return source.jaula("container", "migrate", *words, "--to", target.target)


def network_of(site: Site, name: str) -> str:
    state = site.state(name)
    assert state is not None
    pid = state["State"]["Pid"]
    done = subprocess.run(
        ["readlink", f"/proc/{pid}/ns/net"], check=True, capture_output=True, text=True
    )
    return done.stdout


def test_connections_of_both_go_on(pair: Sites) -> None:
    with pair.counting(ADDRESS, PORT) as client:
        for source, target in ((pair.a, pair.b), (pair.b, pair.a)):
            time.sleep(0.5)
            migrate(source, target, "--keep-address", "--rm", MEMBER, OWNER)
            assert target.runs(OWNER)
            assert target.runs(MEMBER)
            assert network_of(target, OWNER) == network_of(target, MEMBER)
            assert source.jaula("ps", "-aq") == ""
        time.sleep(0.5)
        result = client.finish()
    assert result["failure"] == ""
    assert result["answers"] == result["last"]


def test_a_group_without_the_owner_or_a_member_is_refused(pair: Sites) -> None:
    text = pair.a.refused("container", "migrate", MEMBER, "--to", pair.b.target)
    assert f"it is in the network namespace of container {OWNER}, which does not move" in text
    assert f"jaula container migrate {OWNER} {MEMBER} --to" in text
    text = pair.a.refused("container", "migrate", OWNER, "--to", pair.b.target)
    assert f"container {MEMBER} is in its network namespace, and does not move" in text
    assert f"jaula container migrate {OWNER} {MEMBER} --to" in text
    assert pair.a.runs(OWNER)
    assert pair.a.runs(MEMBER)
    assert pair.b.jaula("ps", "-aq") == ""


@pytest.mark.parametrize("victim", [OWNER, MEMBER])
def test_both_run_on_if_one_fails_at_the_target(pair: Sites, victim: str) -> None:
    with pair.counting(ADDRESS, PORT) as client:
        text = move_interrupted(
            pair.a,
            pair.b,
            (OWNER, MEMBER),
            rf"^{MEMBER}: (stopped|restoring)",
            lambda: pair.b.engine.request("DELETE", f"/containers/{victim}?force=1"),
        )
        time.sleep(0.5)
        result = client.finish()
    assert "all containers of the group run on here" in text
    assert result["failure"] == ""
    assert result["answers"] == result["last"]
    assert pair.a.runs(OWNER)
    assert pair.a.runs(MEMBER)
    containers.eventually(lambda: pair.b.jaula("ps", "-aq") == "", "the target has undone it")
