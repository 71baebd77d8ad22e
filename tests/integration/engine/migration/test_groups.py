"""Groups that move as one: connections between the members go on, or all run on at the source."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import containers
from harness.migration import IMAGE, NETWORK, SUBNET, Site, Sites, ip, move_interrupted, sites

pytestmark = [pytest.mark.criu, pytest.mark.needs("gcc", "ip", "openssl", "nsenter")]

ADDRESS = f"{SUBNET}.60"
INNER = "10.78.4"
SHOP = "shop"
SERVICES = ("web", "app", "db")
NAMES = tuple(f"{SHOP}-{service}-1" for service in SERVICES)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    with sites(tmp_path_factory.mktemp("sites"), 4) as made:
        yield made


@pytest.fixture
def shop(two: Sites) -> Iterator[Sites]:
    """Run three services at ``a``: web asks app, which asks db, on a network of their own."""
    create_network(two.a)
    run(two.a, "db", f"{INNER}.10", "/server", volume=True)
    run(two.a, "app", f"{INNER}.11", "/relay", f"{INNER}.10", "7000", "7000", needs="db")
    run(two.a, "web", f"{INNER}.12", "/relay", f"{INNER}.11", "7000", "7000", needs="app")
    two.a.jaula("network", "connect", "--ip", ADDRESS, NETWORK, NAMES[0])
    ip("neigh", "flush", "all", netns=two.client)  # an earlier container had another MAC address
    yield two
    for site in (two.a, two.b):
        for name in NAMES:
            site.engine.cli("jaula", "rm", "-f", "-v", name)
        site.engine.cli("jaula", "network", "rm", f"{SHOP}_default")
        site.engine.cli("jaula", "volume", "rm", f"{SHOP}_data")


def create_network(site: Site, *flags: str, subnet: str = f"{INNER}.0/24") -> None:
    site.jaula(
        *("network", "create", "--subnet", subnet, "--label", f"com.docker.compose.project={SHOP}"),
        *flags,
        f"{SHOP}_default",
    )


def run(
    site: Site, service: str, address: str, *command: str, needs: str = "", volume: bool = False
) -> None:
    labels = {"project": SHOP, "service": service}
    if needs:
        labels["depends_on"] = f"{needs}:service_started:false"
    words = [word for key, value in labels.items()
             for word in ("--label", f"com.docker.compose.{key}={value}")]  # fmt: skip
    if volume:
        words += ["-v", f"{SHOP}_data:/data"]
    network = ("--network", f"{SHOP}_default", "--ip", address)
    site.jaula("run", "-d", "--name", f"{SHOP}-{service}-1", *network, *words, IMAGE, *command)


def migrate(two: Sites, *flags: str) -> str:
    return two.a.jaula("container", "migrate", *flags, "--to", two.b.target)


def wait_ready(two: Sites) -> None:
    """Wait until the chain of connections answers."""
    time.sleep(0.5)


def test_connections_between_the_members_of_a_project_go_on(shop: Sites) -> None:
    wait_ready(shop)
    with shop.counting(ADDRESS) as client:
        ids = migrate(shop, "--project", SHOP).split()
        time.sleep(0.5)
        result = client.finish()
    assert result["failure"] == ""
    assert result["answers"] == result["last"]
    assert len(ids) == len(NAMES)
    for name in NAMES:
        assert shop.b.runs(name)
        assert not shop.a.runs(name)
    document = shop.b.jaula("network", "inspect", f"{SHOP}_default")
    assert f"{INNER}.0/24" in document
    assert f'"com.docker.compose.project": "{SHOP}"' in document


def test_no_member_moves_if_one_check_fails(shop: Sites) -> None:
    shop.a.jaula("exec", "-d", NAMES[2], "sleep", "600")
    create_network(shop.b, subnet="10.78.5.0/24")
    before = shop.b.jaula("ps", "-aq")
    text = shop.a.refused("container", "migrate", *NAMES, "--to", shop.b.target)
    assert f"{NAMES[2]}: container: 1 exec'd processes would be lost" in text
    assert f"network: {SHOP}_default exists with subnet 10.78.5.0/24 at the target" in text
    assert shop.b.jaula("ps", "-aq") == before
    assert all(shop.a.runs(name) for name in NAMES)


def test_all_run_on_if_one_member_fails_at_the_target(shop: Sites) -> None:
    wait_ready(shop)
    with shop.counting(ADDRESS) as client:
        text = move_interrupted(
            shop.a,
            shop.b,
            NAMES,
            rf"^{NAMES[0]}: (stopped|restoring)",
            lambda: shop.b.engine.request("DELETE", f"/containers/{NAMES[1]}?force=1"),
        )
        result = client.finish()
    assert "all containers of the group run on here" in text
    assert result["failure"] == ""
    assert all(shop.a.runs(name) for name in NAMES)
    for words in (("ps", "-aq"), ("network", "ls", "-qf", f"name={SHOP}"), ("volume", "ls", "-q")):
        containers.eventually(
            lambda words=words: shop.b.jaula(*words) == "",  # type: ignore[misc]
            f"the target has undone it: {words}",
        )


COMPOSE = f"""
name: {SHOP}
services:
  db:
    image: {IMAGE}
    command: ["/server"]
    volumes: ["data:/data"]
  web:
    image: {IMAGE}
    command: ["sh", "-c", "while true; do ping -c 1 -W 1 db && sleep 0.1; done"]
    depends_on: [db]
networks:
  default:
    ipam:
      config: [{{subnet: {INNER}.0/24}}]
volumes:
  data:
"""


@pytest.mark.needs("docker")
def test_compose_goes_on_with_its_project_at_the_target(two: Sites, tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(COMPOSE)

    def compose(site: Site, *words: str) -> str:
        done = site.engine.cli("docker", "compose", "-f", str(file), *words)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    try:
        compose(two.a, "up", "-d", "--pull", "never")
        ids = migrate(two, "--project", SHOP).split()
        text = compose(two.b, "up", "-d", "--pull", "never")
        assert "Recreate" not in text
        assert "Creat" not in text
        assert sorted(ids) == sorted(two.b.jaula("ps", "-q", "--no-trunc").split())
        name = f"{SHOP}-web-1"
        before = two.b.jaula("logs", name).count("bytes from")
        containers.eventually(
            lambda: two.b.jaula("logs", name).count("bytes from") > before, "db has its name"
        )
    finally:
        for site in (two.a, two.b):
            compose(site, "down", "-v", "-t", "1")
