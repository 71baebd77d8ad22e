"""Names, ids, and the durability of records."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from jaula.engine.containers.resolved_request import resolve
from jaula.engine.model.container import Container
from jaula.engine.model.container_store import ContainerStore, check_name, new_id
from jaula.engine.model.names_generator import random_name
from jaula.errors import InvalidRequest
from jaula.spec.api_documents import ContainerCreate, HostConfig
from jaula.spec.pod import PodContainerRequest
from jaula.state.container_records import ContainerRecord
from jaula.state.database import Database


@pytest.mark.parametrize("name", ["ab", "a.b", "A_1-x", "0a", "/web", "a" * 255])
def test_a_valid_name_is_accepted(name: str) -> None:
    assert check_name(name) == name.removeprefix("/")


@pytest.mark.parametrize(
    "name", ["", "a", "-a", ".a", "a b", "a/b", "a\n", "ä1", "a" * 256, "//ab", "a\0b", "../x"]
)
def test_a_bad_name_is_refused_with_the_grammar(name: str) -> None:
    with pytest.raises(InvalidRequest, match="are allowed"):
        check_name(name)


def test_a_name_of_one_character_is_refused_with_the_reason() -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_name("a")
    assert caught.value.hint == "a name has two characters or more"


def test_random_names_follow_the_grammar_and_differ() -> None:
    made = {random_name(()) for _ in range(100)}
    assert len(made) > 80
    assert all(check_name(name) == name for name in made)


def test_a_random_name_is_never_one_in_use() -> None:
    first = random_name((), lambda bound: 0)
    assert random_name({first}, lambda bound: 0) != first


def test_ids_are_sixty_four_digits_and_no_number() -> None:
    for _ in range(100):
        made = new_id()
        assert len(made) == 64
        assert not made[:12].isdecimal()
        int(made, 16)


@pytest.mark.parametrize(
    ("auto_remove", "build", "waited"), [(False, "", 2), (True, "", 0), (False, "b1", 0)]
)
def test_no_client_waits_for_the_record_of_a_container_that_a_power_failure_removes(
    tmp_path: Path, auto_remove: bool, build: str, waited: int
) -> None:
    database = Database(tmp_path / "jaula.db")
    body = ContainerCreate(image="box", host_config=HostConfig(auto_remove=auto_remove))
    container = Container(ContainerRecord("1" * 64, "web", 1, body, "sha256:00", build=build))
    store, before = ContainerStore(database), database.changes
    store.save(container)
    store.forget(container)
    assert database.changes == before + waited
    database.close()


def test_the_containers_of_a_pod_are_found_also_by_the_next_engine(tmp_path: Path) -> None:
    database = Database(tmp_path / "jaula.db")
    store = ContainerStore(database)
    body = ContainerCreate(image="box")

    def add(id: str, sandbox: str | None) -> Container:
        pod = None if sandbox is None else PodContainerRequest(sandbox=sandbox, name=id, body=body)
        resolved = resolve(body)
        record = ContainerRecord(id, id, 1, body, "sha256:00", pod=pod, resolved_request=resolved)
        container = Container(record)
        store.reserve(id, id)
        store.add(container)
        return container

    one, two = add("one", "s1"), add("two", "s1")
    add("other", "s2")
    add("plain", None)
    assert store.members("s1") == [one, two]
    restarted = ContainerStore(database)
    restarted.load(resolve)
    assert {c.id for c in restarted.members("s1")} == {"one", "two"}
    assert [c.id for c in restarted.members("s2")] == ["other"]
    assert restarted.members("plain") == restarted.members("") == []
    for container in (one, two):
        store.forget(container)
    assert store.members("s1") == []
    store.forget(one)
    assert [c.id for c in store.members("s2")] == ["other"]
    database.close()


def test_the_bytes_of_records_follow_every_change_and_a_restart(tmp_path: Path) -> None:
    database = Database(tmp_path / "state.db")
    store = ContainerStore(database)

    def stored(owner: str) -> int:
        rows = database.all("containers", ContainerRecord)
        return sum(
            len(msgspec.json.encode(record))
            for _, record in rows
            if record.owner == owner and not record.build
        )

    made = {}
    for number, (owner, build) in enumerate((("5", ""), ("5", ""), ("6", ""), ("5", "b1"))):
        body = ContainerCreate(image="a", labels={"a": "x" * number})
        made[number] = Container(
            ContainerRecord(
                id=str(number),
                name=f"name-{number}",
                created=1,
                body=body,
                image="a",
                layers=(),
                args=("a",),
                hostname="a",
                networks={},
                storage_driver="overlay2",
                owner=owner,
                build=build,
                resolved_request=resolve(body),
            )
        )
        (store.add_step if build else store.add)(made[number])
    assert store.sizes.size("5") == stored("5") > 100
    made[0].change(name="a-much-longer-name")
    store.save(made[0])
    labels = {"new": "y" * 5000}
    made[2].change(body=msgspec.structs.replace(made[2].record.body, labels=labels))
    store.save(made[2])
    made[3].change(name="a-longer-name-of-a-step")
    store.save(made[3])
    assert store.sizes.size("5") == stored("5")
    assert store.sizes.size("6") == stored("6") > 5000
    again = ContainerStore(database)
    again.load(resolve)
    for owner in "56":
        assert again.sizes.size(owner) == stored(owner)
    for container in made.values():
        store.forget(container)
    assert (store.sizes.size("5"), store.sizes.count("6")) == (0, 0)
    database.close()
