"""A container's directory: its name, its record, its lock."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jaula.errors import Conflict, InvalidRequest, NotFound
from jaula.oci.runtime_container import Container, Record, check_id, process_facts


@pytest.mark.parametrize("text", ["a", "A-b_c.d+e", "0", "..a", "x" * 255])
def test_an_id_may_be(text: str) -> None:
    check_id(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a container id is missing"),
        (".", "invalid container ID format: '.'"),
        ("..", "invalid container ID format: '..'"),
        ("a/b", "invalid container ID format: 'a/b'"),
        ("a\nb", "invalid container ID format: 'a\\nb'"),
        ("é", "invalid container ID format: 'é'"),
        ("x" * 256, "a container ID of 256 bytes is longer than 255"),
        ("\0" * 2000, "invalid container ID format"),
    ],
)
def test_an_id_may_not_be(text: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_id(text)
    assert str(caught.value).startswith(message)
    assert len(str(caught.value)) < 1000


def test_an_id_can_be_used_once(tmp_path: Path) -> None:
    root = str(tmp_path / "root")
    made = Container.create(root, "one")
    with made, pytest.raises(Conflict, match="container with given ID already exists: one"):
        Container.create(root, "one")
    with pytest.raises(NotFound, match="container two does not exist"):
        Container.open(root, "two")


def test_a_directory_without_a_record_is_being_created_while_it_is_locked(tmp_path: Path) -> None:
    with (
        Container.create(str(tmp_path), "one") as made,
        Container.open(str(tmp_path), "one") as seen,
    ):
        assert seen.status(seen.record()) == "creating"
        made.unlock()
        assert seen.status(seen.record()) == "stopped"


def test_a_container_that_is_deleted_during_the_wait_does_not_exist(tmp_path: Path) -> None:
    with (
        Container.create(str(tmp_path), "one") as made,
        Container.open(str(tmp_path), "one") as late,
    ):
        made.remove()
        made.unlock()
        with pytest.raises(NotFound, match="container one does not exist"):
            late.lock()


def test_another_start_time_means_another_process(tmp_path: Path) -> None:
    pid = os.getpid()
    started = process_facts(pid)[1]
    with Container.create(str(tmp_path), "one") as container:
        assert container.status(Record(id="one", bundle="", pid=pid, start_time=started)) == (
            "running"
        )
        other = Record(id="one", bundle="", pid=pid, start_time=started + 1)
        assert container.status(other) == "stopped"


def test_a_record_round_trips_through_its_file(tmp_path: Path) -> None:
    record = Record(id="one", bundle="/b", annotations={"a": "\u00e9\n"}, pid=7, start_time=9)
    with Container.create(str(tmp_path), "one") as container:
        container.write("state.json", record.encode())
        result = container.record()
    assert result.encode() == record.encode()
