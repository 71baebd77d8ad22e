"""Groups: the order of the members, and one decision for all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from jaula.engine.containers.resolved_request import resolve
from jaula.errors import RuntimeFailure
from jaula.features.migration.coordinator import Step
from jaula.features.migration.group import Group, dependencies, ordered
from jaula.features.migration.moved_networks import definition, difference
from jaula.spec.api_documents import ContainerCreate, HostConfig
from jaula.spec.network_record import NetworkRecord, Pool
from jaula.state.container_records import ContainerRecord
from jaula.state.database import Database


def record(
    name: str, *, links: tuple[str, ...] = (), network: str = "", **labels: str
) -> ContainerRecord:
    body = ContainerCreate(
        image="i",
        labels={f"com.docker.compose.{key}": value for key, value in labels.items()},
        host_config=HostConfig(links=links, network_mode=network),
    )
    resolved = resolve(msgspec.structs.replace(body, host_config=HostConfig(network_mode=network)))
    return ContainerRecord(
        id=name, name=name, created=0, image="i", body=body, resolved_request=resolved
    )


class Outgoing:
    """A migration that is given away."""

    def __init__(self, name: str, *, held: bool = True) -> None:
        self.id = name
        self.held = held
        self.given = False
        self.recorded = False

    def check_held(self) -> None:
        if not self.held:
            raise RuntimeFailure("the container has exited")

    def record_given(self) -> None:
        self.recorded = True


@pytest.fixture
def database(tmp_path: Path, open_database: Callable[[Path], Database]) -> Database:
    return open_database(tmp_path / "db")


def make_group(database: Database, *names: str) -> Group:
    none = {name: frozenset[str]() for name in names}
    return Group(database, none, none, none)


def test_compose_labels_and_links_are_dependencies() -> None:
    records = (
        record("web", project="p", service="web", depends_on="db:service_started:false,gone:x:y"),
        record("db", project="p", service="db"),
        record("other", project="q", service="db"),
        record("linked", links=("/web:alias", "absent:x")),
    )
    assert dependencies(records) == {
        "web": {"db"},
        "db": frozenset(),
        "other": frozenset(),
        "linked": {"web"},
    }


def test_the_owner_of_a_namespace_comes_first() -> None:
    records = (record("b", network="container:a"), record("a"), record("c", network="container:x"))
    assert dependencies(records) == {"b": {"a"}, "a": frozenset(), "c": frozenset()}


def test_a_member_waits_for_the_owner_of_its_namespaces(database: Database) -> None:
    depends = {"a": frozenset[str](), "b": frozenset("a")}
    none = {"a": frozenset[str](), "b": frozenset[str]()}
    group = Group(database, depends, depends, none)
    order: list[str] = []

    async def run() -> None:
        async def one(name: str) -> None:
            await group.members[name].namespaces()
            order.append(name)
            await group.members[name].give(Outgoing(name))

        async with asyncio.timeout(5):
            await asyncio.gather(one("b"), one("a"))

    asyncio.run(run())
    assert order == ["a", "b"]


def test_a_container_follows_those_that_it_depends_on() -> None:
    depends = {"a": frozenset("b"), "b": frozenset("c"), "c": frozenset[str]()}
    assert ordered(depends) == ("c", "b", "a")


def test_a_circle_keeps_its_order() -> None:
    depends = {"a": frozenset("b"), "b": frozenset("a"), "c": frozenset("a")}
    assert ordered(depends) == ("a", "b", "c")


def test_members_of_a_circle_do_not_wait_for_each_other(database: Database) -> None:
    depends = {"a": frozenset("b"), "b": frozenset("a")}
    none = {"a": frozenset[str](), "b": frozenset[str]()}
    group = Group(database, depends, none, none)

    async def run() -> None:
        async def one(name: str) -> None:
            async with group.members[name].creation("image"):
                pass
            async with group.members[name].continuation():
                pass

        async with asyncio.timeout(5):
            await asyncio.gather(one("b"), one("a"))

    asyncio.run(run())


def test_a_shared_volume_is_sent_once(database: Database) -> None:
    volumes = {"a": frozenset(("data", "own")), "b": frozenset(("data",))}
    none = {"a": frozenset[str](), "b": frozenset[str]()}
    group = Group(database, none, none, volumes)
    assert group.members["a"].sent_by_others == frozenset()
    assert group.members["b"].sent_by_others == {"data"}


def test_an_image_is_sent_once(database: Database) -> None:
    group = make_group(database, "a", "b")

    async def run() -> list[bool]:
        async def one(name: str) -> bool:
            async with group.members[name].creation("image") as sends:
                return sends

        return await asyncio.gather(one("a"), one("b"))

    assert asyncio.run(run()) == [True, False]


def test_all_are_given_away_when_the_last_one_is_ready(database: Database) -> None:
    group = make_group(database, "a", "b")
    a, b = Outgoing("a"), Outgoing("b")

    async def run() -> None:
        first = asyncio.ensure_future(group.members["a"].give(a))
        await asyncio.sleep(0)
        assert not a.given
        await group.members["b"].give(b)
        await first

    asyncio.run(run())
    assert a.given
    assert b.given
    assert group.members["a"].migrations == ("a", "b")


def test_none_is_given_away_if_one_has_exited(database: Database) -> None:
    group = make_group(database, "a", "b")
    a, b = Outgoing("a", held=False), Outgoing("b")

    async def run() -> None:
        first = asyncio.ensure_future(group.members["a"].give(a))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeFailure, match="exited"):
            await group.members["b"].give(b)
        first.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await first

    asyncio.run(run())
    assert not (a.given or b.given or a.recorded or b.recorded)


def test_a_cancelled_member_is_in_no_decision(database: Database) -> None:
    group = make_group(database, "a", "b")
    a, b = Outgoing("a"), Outgoing("b")

    async def run() -> None:
        first = asyncio.ensure_future(group.members["a"].give(a))
        await asyncio.sleep(0)
        first.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await first
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await group.members["b"].give(b)

    asyncio.run(run())
    assert not (a.given or b.given)


def test_a_step_is_reached_by_all(database: Database) -> None:
    group = make_group(database, "a", "b")

    async def run() -> None:
        first = asyncio.ensure_future(group.members["a"].reach(Step.HELD))
        await asyncio.sleep(0.01)
        assert not first.done()
        await group.members["b"].reach(Step.HELD)
        await first

    asyncio.run(run())


def test_a_transaction_writes_all_or_nothing(database: Database) -> None:
    with database.transaction():
        database.put_raw("settings", "one", b"1")
    with contextlib.suppress(ValueError), database.transaction():
        database.put_raw("settings", "two", b"2")
        raise ValueError
    assert [key for key, _ in database.all("settings", msgspec.Raw)] == ["one"]  # type: ignore[type-var]


NETWORK = NetworkRecord(
    "n",
    "id",
    0,
    "br-1",
    pools=(Pool("10.1.0.0/24", "10.1.0.1"),),
    driver_options={"com.docker.network.driver.mtu": "1400"},
    labels={"a": "b"},
)


def test_a_network_of_another_gateway_and_bridge_is_the_same() -> None:
    other = msgspec.structs.replace(
        NETWORK,
        pools=(Pool("10.1.0.0/24", "10.1.0.9"),),
        driver_options={**NETWORK.driver_options, "com.docker.network.bridge.name": "x"},
    )
    assert difference(definition(NETWORK), definition(other)) == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pools": (Pool("10.2.0.0/24"),)}, "subnet 10.2.0.0/24 at the target, 10.1.0.0/24 here"),
        ({"internal": True}, "internal True at the target, False here"),
        ({"driver": "macvlan"}, "driver macvlan at the target, bridge here"),
        ({"driver_options": {}}, "option com.docker.network.driver.mtu not set at the target"),
    ],
)
def test_what_differs_is_named(change: dict[str, object], words: str) -> None:
    other = msgspec.structs.replace(NETWORK, **change)
    assert difference(definition(NETWORK), definition(other)).startswith(words)
