"""Legacy links of running containers: they follow an address and can be removed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest

from harness import containers
from harness.containers import running, unique
from harness.engine import PrivateEngine

OWN = "10.9.9.9\tmine\n10.9.9.8\tdb.mine\n"


@pytest.fixture
def pair(engine: PrivateEngine, busybox: str) -> Iterator[tuple[str, str]]:
    """A container, and one that is linked to it as ``db`` and by its name."""
    with running(engine, busybox, flags=("--init",)) as store:
        flags = ("--init", "--link", f"{store}:db", "--link", store)
        with running(engine, busybox, flags=flags) as web:
            yield store, web


def hosts(engine: PrivateEngine, name: str) -> str:
    done = engine.cli("jaula", "exec", name, "cat", "/etc/hosts")
    assert done.returncode == 0, done.stderr
    return done.stdout


def address(engine: PrivateEngine, name: str) -> str:
    return containers.address(engine, name)


def inode(engine: PrivateEngine, name: str) -> str:
    return engine.cli("jaula", "exec", name, "stat", "-c", "%i", "/etc/hosts").stdout


@contextlib.contextmanager
def at_another_address(engine: PrivateEngine, busybox: str, name: str) -> Iterator[str]:
    """Restart a container while another one has its address; the new one."""
    before = address(engine, name)
    engine.cli("jaula", "kill", name)
    with running(engine, busybox, flags=("--ip", before)):
        again = engine.cli("jaula", "start", name)
        assert again.returncode == 0, again.stderr
        assert address(engine, name) != before
        yield address(engine, name)


def test_a_link_is_one_line_with_the_host_name_and_the_name(
    engine: PrivateEngine, pair: tuple[str, str]
) -> None:
    store, web = pair
    short = containers.inspect(engine, store)["Config"]["Hostname"]
    text = hosts(engine, web)
    assert f"{address(engine, store)}\tdb {short} {store}\n" in text
    assert f"{address(engine, store)}\t{store} {short}\n" in text


def test_linked_containers_get_a_new_address_and_nothing_else_changes(
    engine: PrivateEngine, busybox: str, pair: tuple[str, str]
) -> None:
    store, web = pair
    engine.cli("jaula", "exec", web, "sh", "-c", f"printf '{OWN}' >> /etc/hosts")
    before, file, old = hosts(engine, web), inode(engine, web), address(engine, store)
    engine.cli("jaula", "kill", store)
    assert hosts(engine, web) == before
    engine.cli("jaula", "start", store)
    with at_another_address(engine, busybox, store) as new:
        assert hosts(engine, web) == before.replace(f"{old}\t", f"{new}\t")
        assert inode(engine, web) == file
        ping = engine.cli("jaula", "exec", web, "ping", "-c1", "-W2", "db")
        assert f"({new})" in ping.stdout


def test_a_file_that_the_container_has_filled_is_left_alone(
    engine: PrivateEngine, busybox: str, pair: tuple[str, str]
) -> None:
    store, web = pair
    fill = "yes '10.9.9.9 mine' | head -c 1100000 >> /etc/hosts; cksum < /etc/hosts"
    summed = engine.cli("jaula", "exec", web, "sh", "-c", fill).stdout
    with at_another_address(engine, busybox, store):
        now = engine.cli("jaula", "exec", web, "sh", "-c", "cksum < /etc/hosts").stdout
    assert now == summed
    assert "hosts file is too large" in engine.log_tail()


@pytest.mark.parametrize("program", ["jaula", "docker"])
def test_a_link_is_removed_and_both_containers_stay(
    engine: PrivateEngine, pair: tuple[str, str], program: str
) -> None:
    store, web = pair
    engine.cli("jaula", "exec", web, "sh", "-c", f"printf '{OWN}' >> /etc/hosts")
    before = hosts(engine, web)
    done = engine.cli(program, "rm", "--link", f"/{web}/db")
    assert (done.returncode, done.stderr) == (0, "")
    lines = before.splitlines(keepends=True)
    left = [line for line in lines if f"\tdb {host_name(engine, store)}" not in line]
    assert len(left) == len(lines) - 1
    assert hosts(engine, web) == "".join(left)
    assert containers.inspect(engine, web)["HostConfig"]["Links"] == [f"/{store}:/{web}/{store}"]
    for name in pair:
        assert containers.inspect(engine, name)["State"]["Running"]
    assert engine.cli(program, "rm", "-f", "--link", f"{web}/{store}").returncode == 0
    assert containers.inspect(engine, web)["HostConfig"]["Links"] is None
    engine.cli("jaula", "kill", web)
    engine.cli("jaula", "kill", store)
    started = engine.cli("jaula", "start", web)  # nothing that it is linked to has to run now
    assert started.returncode == 0, started.stderr
    assert store not in hosts(engine, web)


def host_name(engine: PrivateEngine, name: str) -> str:
    return str(containers.inspect(engine, name)["Config"]["Hostname"])


def test_a_link_to_a_removed_container_can_be_removed(engine: PrivateEngine, busybox: str) -> None:
    with running(engine, busybox) as store:
        flags = ("--link", f"{store}:db")
        with running(engine, busybox, flags=flags) as web:
            engine.cli("jaula", "rm", "-f", store)
            assert engine.request("DELETE", f"/containers/{web}/db?link=1").status == 204
            assert "db" not in hosts(engine, web).split()


def test_an_unknown_link_has_dockerds_message(
    engine: PrivateEngine, busybox: str, pair: tuple[str, str]
) -> None:
    store, web = pair
    own = engine.request("DELETE", f"/containers/{store}?link=1")
    words = "Conflict, cannot remove the default link name of the container"
    assert (own.status, own.json()["message"]) == (500, words)
    for name in ("absent", "absent/db", f"{web}/absent", f"{store}/db", f"{web}/db/db"):
        refused = engine.request("DELETE", f"/containers/{name}?link=1")
        found = (refused.status, refused.json()["message"])
        assert found == (404, f"No such container: {name}")
    network = unique("net")
    engine.cli("jaula", "network", "create", network)
    flags = ("--network", network, "--link", f"{store}:db")
    with running(engine, busybox, flags=flags) as other:
        assert engine.request("DELETE", f"/containers/{other}/db?link=1").status == 404
    engine.cli("jaula", "network", "rm", network)


def test_the_audit_log_has_a_removed_link_as_a_change_of_its_container(
    engine: PrivateEngine, pair: tuple[str, str]
) -> None:
    _, web = pair
    engine.request("DELETE", f"/containers/{web}/db?link=1")
    engine.request("DELETE", f"/containers/{web}/db?link=1")
    lines = engine.cli("jaula", "system", "audit-log", "--format", "json").stdout.splitlines()
    done = [entry for line in lines if (entry := json.loads(line))["action"] == "container unlink"]
    assert [entry["object"] for entry in done if entry["status"] < 400][-1] == (
        containers.inspect(engine, web)["Id"]
    )
    assert [entry["status"] for entry in done if entry["status"] >= 400][-1] == 404
