"""Config-only networks, and networks made from them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import containers
from harness.containers import running, unique
from harness.engine import PrivateEngine

from .test_network_drivers import wire
from .test_networks import create, endpoints, inside, inspect, load

__all__ = ["wire"]

MTU = "com.docker.network.driver.mtu"


@pytest.fixture
def plan(engine: PrivateEngine) -> Iterator[Callable[..., str]]:
    """Make settings of a test's own; their names. A network from them is named after them."""
    made: list[str] = []

    def make(**fields: object) -> str:
        name = unique("plan")
        reply = create(engine, name, ConfigOnly=True, **fields)
        assert reply.status == 201, reply
        made.append(name)
        return name

    yield make
    for name in made:
        for each in (f"{name}-net", name):
            reply = engine.request("DELETE", f"/networks/{each}")
            assert reply.status in (204, 404), reply


def subnet(engine: PrivateEngine) -> str:
    return f"10.196.{engine.index}.0/24"


def links() -> set[str]:
    done = subprocess.run(["ip", "-o", "link"], check=True, capture_output=True, text=True)
    return {line.split(": ")[1].partition("@")[0] for line in done.stdout.splitlines()}


def has_ipvlan(wire: str) -> bool:
    add = ["ip", "link", "add", "jltipvl", "link", wire, "type", "ipvlan"]
    if subprocess.run(add, capture_output=True, check=False).returncode != 0:
        return False
    subprocess.run(["ip", "link", "delete", "jltipvl"], check=True)
    return True


@pytest.mark.parametrize("program", ["jaula", "docker"])
def test_a_config_only_network_creates_nothing_and_others_take_its_settings(
    engine: PrivateEngine, busybox: str, plan: Callable[..., str], program: str
) -> None:
    name = unique("plan")
    network = f"{name}-net"
    words = (program, "network", "create")
    flags = ("--subnet", subnet(engine), "--label", "a=b", "-o", f"{MTU}=1400")
    made = engine.cli(*words, "--config-only", *flags, name)
    assert made.returncode == 0, made.stderr
    assert f"br-{inspect(engine, name)['Id'][:12]}" not in links()
    try:
        made = engine.cli(*words, "--config-from", name, network)
        assert made.returncode == 0, made.stderr
        found = inspect(engine, network)
        assert (found["ConfigFrom"], found["ConfigOnly"]) == ({"Network": name}, False)
        assert (found["Labels"], found["Options"]) == ({"a": "b"}, {MTU: "1400"})
        assert found["IPAM"]["Config"][0]["Subnet"] == subnet(engine)
        with running(engine, busybox, flags=("--network", network)) as name_of_one:
            mtu = inside(engine, name_of_one, "cat", "/sys/class/net/eth0/mtu")
            assert mtu.strip() == "1400"
            address = endpoints(engine, name_of_one)[network]["IPAddress"]
            assert address.startswith(subnet(engine)[:-4])
        refused = engine.cli(program, "network", "rm", name)
        assert f'configuration network "{name}" is in use' in refused.stderr
    finally:
        gone = engine.cli(program, "network", "rm", network, name)
    assert (gone.returncode, gone.stdout) == (0, f"{network}\n{name}\n"), gone.stderr


@pytest.mark.parametrize("driver", ["macvlan", "ipvlan"])
def test_macvlan_networks_take_config_only_settings(
    engine: PrivateEngine, busybox: str, wire: str, plan: Callable[..., str], driver: str
) -> None:
    name = plan(
        IPAM={"Config": [{"Subnet": subnet(engine), "Gateway": f"10.196.{engine.index}.77"}]},
        Options={"parent": wire},
    )
    reply = create(engine, f"{name}-net", Driver=driver, ConfigFrom={"Network": name})
    assert reply.status == 201, reply
    found = inspect(engine, f"{name}-net")
    assert (found["Driver"], found["Options"]) == (driver, {"parent": wire})
    if driver == "ipvlan" and not has_ipvlan(wire):
        return
    with running(engine, busybox, flags=("--network", f"{name}-net")) as one:
        route = inside(engine, one, "ip", "route")
        assert f"default via 10.196.{engine.index}.77" in route


def test_no_container_is_on_settings(
    engine: PrivateEngine, busybox: str, plan: Callable[..., str]
) -> None:
    name = plan()
    words = "cannot create endpoint on configuration-only network"
    with running(engine, busybox) as one:
        refused = engine.request("POST", f"/networks/{name}/connect", {"Container": one})
        assert (refused.status, refused.json()["message"]) == (403, words)
        assert list(endpoints(engine, one)) == ["bridge"]
    body = {"Image": busybox, "HostConfig": {"NetworkMode": name}}
    refused = engine.request("POST", "/containers/create", body)
    assert (refused.status, refused.json()["message"]) == (403, words)


def test_a_network_that_has_become_settings_is_refused_at_the_start(
    engine: PrivateEngine, busybox: str
) -> None:
    network = unique("n")
    assert create(engine, network).status == 201
    with running(engine, busybox, flags=("--network", network)) as one:
        engine.cli("jaula", "kill", one)
        engine.request("DELETE", f"/networks/{network}")
        assert create(engine, network, ConfigOnly=True).status == 201
        refused = engine.cli("jaula", "start", one)
        assert "cannot create endpoint on configuration-only network" in refused.stderr
    assert engine.request("DELETE", f"/networks/{network}").status == 204
    containers.assert_clean(engine)


def test_a_failed_create_does_not_use_the_config_only_network(
    engine: PrivateEngine, plan: Callable[..., str]
) -> None:
    bridge = unique("jltb")[:15]
    name = plan(Options={MTU: "nonsense", "com.docker.network.bridge.name": bridge})
    refused = create(engine, f"{name}-net", ConfigFrom={"Network": name})
    assert refused.status == 400, refused
    assert bridge not in links()
    assert engine.request("DELETE", f"/networks/{name}").status == 204


def test_settings_survive_prunes_and_a_killed_engine(
    new_engine: Callable[..., PrivateEngine], busybox_archive: Path
) -> None:
    engine = new_engine()
    busybox = load(engine, busybox_archive)
    pool = {"IPAM": {"Config": [{"Subnet": subnet(engine)}]}}
    assert create(engine, "plan", ConfigOnly=True, **pool).status == 201
    assert create(engine, "none", ConfigOnly=True).status == 403  # a predefined name
    assert create(engine, "empty", ConfigOnly=True).status == 201
    assert create(engine, "shop", ConfigFrom={"Network": "plan"}).status == 201
    before = [inspect(engine, name) for name in ("plan", "empty", "shop")]
    engine.kill()
    engine.start()
    assert [inspect(engine, name) for name in ("plan", "empty", "shop")] == before
    assert "does not work" not in engine.log_tail()
    checked = engine.cli("jaula", "system", "check")
    assert checked.returncode == 0, checked.stdout
    with running(engine, busybox, flags=("--network", "shop")):
        assert engine.request("DELETE", "/networks/plan").status == 403
        pruned = engine.request("POST", "/networks/prune").json()
        assert pruned["NetworksDeleted"] is None
    assert engine.request("POST", "/networks/prune").json()["NetworksDeleted"] == ["shop"]
    for name in ("plan", "empty"):
        assert engine.request("DELETE", f"/networks/{name}").status == 204
