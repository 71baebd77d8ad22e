"""Lists, filters, states in words, changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from jaula.engine.containers import container_list, ps_filters, top
from jaula.engine.containers.container_stats import parse_net_dev
from jaula.engine.model.container import Container
from jaula.engine.model.container_store import ContainerStore
from jaula.errors import Conflict, InvalidRequest, NotFound
from jaula.spec.api_documents import ContainerCreate
from jaula.spec.decode import Empty
from jaula.spec.endpoint_record import PublishedPort
from jaula.state.container_records import ContainerRecord, Status
from jaula.state.database import Database


def record(number: int, **fields: object) -> ContainerRecord:
    made = ContainerRecord(
        id=f"{number:064x}",
        name=f"name{number}",
        created=number * 10**9,
        body=ContainerCreate(image="busybox", labels={"n": str(number)}),
        image="sha256:abc",
        status=Status.RUNNING,
    )
    return msgspec.structs.replace(made, **fields)


RELATIONS = ps_filters.Relations(
    network_id={"bridge": "b" * 64, "none": "c" * 64}.__getitem__,
    descendants=lambda refs: frozenset({"sha256:abc", "sha256:def"} if "busybox" in refs else ()),
)


def names(found: list[Container]) -> list[str]:
    return [container.name for container in found]


@pytest.fixture
def some() -> list[Container]:
    return [
        Container(record(1)),
        Container(record(2, status=Status.EXITED, exit_code=3)),
        Container(record(3, status=Status.PAUSED)),
        Container(record(4, status=Status.CREATED)),
    ]


@pytest.mark.parametrize(
    ("requested", "expected"),
    [
        ({}, ["name3", "name1"]),
        ({"status": ["exited"]}, ["name2"]),
        ({"exited": ["3"]}, ["name2"]),
        ({"name": ["name1"]}, ["name1"]),
        ({"name": ["^/name1$"]}, []),
        ({"label": ["n"]}, ["name3", "name1"]),
        ({"label": ["n=1", "n=3"]}, []),
        ({"id": [f"{3:064x}"]}, ["name3"]),
        ({"ancestor": ["busybox"]}, ["name3", "name1"]),
        ({"before": ["name3"]}, ["name1"]),
        ({"since": ["name1"]}, ["name3"]),
        ({"since": ["name3"]}, []),
        ({"network": ["bbbbbb"]}, ["name3", "name1"]),
        ({"network": ["b"]}, ["name3", "name1"]),
        ({"network": ["bri"]}, []),
        ({"network": ["bridge"]}, ["name3", "name1"]),
        ({"network": ["none"]}, []),
    ],
)
def test_a_filter_chooses(
    some: list[Container], requested: dict[str, list[str]], expected: list[str]
) -> None:
    assert (
        names(ps_filters.select(some, RELATIONS, all=False, limit=None, filters=requested))
        == expected
    )


def test_all_and_limit_show_the_newest_first(some: list[Container]) -> None:
    everything = ps_filters.select(some, RELATIONS, all=True, limit=None, filters={})
    assert names(everything) == ["name4", "name3", "name2", "name1"]
    assert names(ps_filters.select(some, RELATIONS, all=False, limit=2, filters={})) == [
        "name4",
        "name3",
    ]


def test_filters_match_published_and_exposed_ports() -> None:
    body = ContainerCreate(image="x", exposed_ports={"80/tcp": Empty()})
    one = record(1, body=body, pid=7, ports=(PublishedPort(80, "tcp", "", 8080),))

    def match(**values: str) -> bool:
        return ps_filters.matches(one, {name: [text] for name, text in values.items()}, str)

    assert match(publish="8080")
    assert match(publish="8000-8100/tcp")
    assert match(expose="80")
    assert match(expose="79-80")
    assert not match(publish="80"), "the port inside is not the published one"
    assert not match(publish="8080/udp")
    assert not match(expose="8080")


def test_containers_of_another_image_are_no_descendants(some: list[Container]) -> None:
    relations = RELATIONS._replace(descendants=lambda refs: frozenset({"sha256:other"}))
    requested = {"ancestor": ["busybox"]}
    assert ps_filters.select(some, relations, all=True, limit=None, filters=requested) == []


@pytest.mark.parametrize(
    "requested",
    [{"colour": ["red"]}, {"status": ["asleep"]}, {"exited": ["x"]}, {"health": ["ill"]}],
)
def test_an_unknown_filter_is_refused(
    some: list[Container], requested: dict[str, list[str]]
) -> None:
    with pytest.raises(InvalidRequest, match="filter"):
        ps_filters.select(some, RELATIONS, all=True, limit=None, filters=requested)


def test_before_and_since_need_an_existing_container(some: list[Container]) -> None:
    with pytest.raises(NotFound):
        ps_filters.select(some, RELATIONS, all=True, limit=None, filters={"before": ["nobody"]})
    with pytest.raises(NotFound):
        ps_filters.select(some, RELATIONS, all=True, limit=None, filters={"since": [""]})


@pytest.mark.parametrize("text", ["x", "80-", "90-80", "80-90-95", "0", "70000", ""])
def test_a_bad_range_of_ports_is_refused(some: list[Container], text: str) -> None:
    with pytest.raises(InvalidRequest, match="error while looking up for expose"):
        ps_filters.select(some, RELATIONS, all=True, limit=None, filters={"expose": [text]})


def test_the_status_has_the_state_and_its_duration() -> None:
    now = 1000.0
    at = {"started_at": 997 * 10**9, "finished_at": 880 * 10**9}
    assert container_list.status(record(1, **at), now) == "Up 3 seconds"
    assert (
        container_list.status(record(1, status=Status.PAUSED, **at), now) == "Up 3 seconds (Paused)"
    )
    ended = record(1, status=Status.EXITED, exit_code=9, **at)
    assert container_list.status(ended, now) == "Exited (9) 2 minutes ago"
    assert container_list.status(record(1, status=Status.CREATED), now) == "Created"


def test_top_keeps_the_containers_processes() -> None:
    output = "UID PID CMD\nroot 1 /init of the host\nu 42 sh -c sleep 1\n"
    assert top.parse(output, {42}) == {
        "Titles": ["UID", "PID", "CMD"],
        "Processes": [["u", "42", "sh -c sleep 1"]],
    }
    with pytest.raises(InvalidRequest, match="PID"):
        top.parse("CMD\nx\n", {1})
    with pytest.raises(InvalidRequest):
        top.parse("", {1})


def test_interface_counters_are_read_without_loopback() -> None:
    text = "h\nh\n  lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n eth0:1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n"
    assert list(parse_net_dev(text)) == ["eth0"]
    assert parse_net_dev(text)["eth0"]["tx_dropped"] == 8
    assert parse_net_dev("") == {}


@pytest.mark.parametrize("name", ["a\u2028b", "a\x85b", "\x1ca", "eth0\x1f", "\\xff", "é"])
def test_an_interface_keeps_a_name_that_python_would_split(name: str) -> None:
    row = "1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0"
    assert list(parse_net_dev(f"h\nh\n{name:>6}: {row}\n  eth0: {row}\n")) == [name, "eth0"]


def test_a_container_is_found_by_id_name_and_id_prefix(
    tmp_path: Path, open_database: Callable[[Path], Database]
) -> None:
    registry = ContainerStore(open_database(tmp_path / "db"))
    for number, key in ((1, "ab1" + "0" * 61), (2, "ab2" + "0" * 61)):
        made = record(number, id=key)
        registry.reserve(made.name, key)
        registry.add(Container(made))
    for ref in ("ab1" + "0" * 61, "name1", "/name1", "ab1"):
        assert registry.find(ref).name == "name1"
    with pytest.raises(InvalidRequest, match="multiple"):
        registry.find("ab")
    with pytest.raises(InvalidRequest, match="invalid name or ID"):
        registry.find("")
    for ref in ("nobody", "ff", "AB1", "../ab1"):
        with pytest.raises(NotFound, match="No such container"):
            registry.find(ref)


def test_a_name_belongs_to_one_container_until_its_release(
    tmp_path: Path, open_database: Callable[[Path], Database]
) -> None:
    registry = ContainerStore(open_database(tmp_path / "db"))
    registry.reserve("web", "1")
    with pytest.raises(Conflict, match='"/web" is already in use by container "1"'):
        registry.reserve("web", "2")
    registry.release("web", "2")
    with pytest.raises(Conflict):
        registry.check_free("web")
    registry.release("web", "1")
    registry.reserve("web", "2")


def test_waiters_are_notified_once_and_by_condition() -> None:
    async def scenario() -> None:
        container = Container(record(1))
        ended, removed = container.wait("next-exit"), container.wait("removed")
        result = filters_result(5)
        container.notify(("next-exit", "not-running"), result)
        assert ended.result() == result
        assert not removed.done()
        removed.cancel()
        container.notify(("removed",), result)

    asyncio.run(scenario())


def filters_result(code: int):  # type: ignore[no-untyped-def]
    from jaula.spec.api_params import WaitResult

    return WaitResult(code)
