"""SELinux levels of containers: of one container each, for as long as it exists."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import msgspec
import pytest

from jaula.engine.containers import selinux_labels
from jaula.engine.containers.resolved_request import resolve
from jaula.engine.model.container import Container
from jaula.engine.model.container_store import ContainerStore
from jaula.engine.oci_spec.inputs import HostFacts
from jaula.errors import InvalidRequest, Unavailable
from jaula.security.lsm import selinux_mcs
from jaula.spec.api_documents import ContainerCreate
from jaula.state.container_records import ContainerRecord, MountRecord
from jaula.state.database import Database


@pytest.fixture
def registry(tmp_path: Path, open_database: Callable[[Path], Database]) -> ContainerStore:
    return ContainerStore(open_database(tmp_path / "jaula.db"))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four categories, so six pairs."""
    choose = selinux_mcs.choose
    monkeypatch.setattr(
        "jaula.engine.model.container_store.choose", lambda used: choose(used, count=4)
    )


def add(registry: ContainerStore, container_id: str, level: str) -> Container:
    record = ContainerRecord(
        container_id, f"n{container_id}", 0, ContainerCreate(), "", level=level
    )
    registry.reserve(record.name, record.id)
    container = Container(record)
    registry.add(container)
    return container


@pytest.mark.usefixtures("few")
def test_levels_are_unique_and_limited(registry: ContainerStore) -> None:
    levels = [registry.take_level(str(n)) for n in range(6)]
    assert len(set(levels)) == 6
    with pytest.raises(Unavailable, match="categories are in use"):
        registry.take_level("7")
    registry.free_level("3")
    assert registry.take_level("8") == levels[3]


@pytest.mark.usefixtures("few")
def test_a_requested_level_is_not_allocated_again(registry: ContainerStore) -> None:
    assert registry.take_level("a", requested="s0:c0,c1") == "s0:c0,c1"
    assert registry.take_level("b", requested="s0:c0,c1") == "s0:c0,c1"  # asked for, so shared
    assert registry.take_level("c", requested="s0") == "s0"
    assert "s0:c0,c1" not in [registry.take_level(str(n)) for n in range(5)]


@pytest.mark.usefixtures("few")
def test_levels_are_kept_over_a_restart_and_freed_with_the_container(
    tmp_path: Path, open_database: Callable[[Path], Database]
) -> None:
    database = open_database(tmp_path / "jaula.db")
    before = ContainerStore(database)
    levels = [before.take_level(str(n)) for n in range(6)]
    for number, level in enumerate(levels):
        add(before, str(number), level)
    after = ContainerStore(database)
    after.load(resolve)
    with pytest.raises(Unavailable):
        after.take_level("new")
    gone = after.find("2")
    after.forget(gone)
    assert after.take_level("new") == levels[2]


@pytest.mark.parametrize(
    ("mount", "expected"),
    [
        (MountRecord("bind", "/m", mode=""), ""),
        (MountRecord("bind", "/m", mode="ro"), ""),
        (MountRecord("bind", "/m", mode="ro,z"), "z"),
        (MountRecord("bind", "/m", mode="Z,rslave"), "Z"),
        (MountRecord("volume", "/m", mode="ro"), "z"),
        (MountRecord("volume", "/m", mode="Z"), "Z"),
        (MountRecord("tmpfs", "/m", mode="size=9"), ""),
    ],
)
def test_which_mounts_are_labelled(mount: MountRecord, expected: str) -> None:
    assert selinux_labels.relabel_option(mount) == expected


def test_a_record_without_a_level_can_be_read() -> None:
    old = msgspec.json.encode({"id": "a", "name": "n", "created": 1, "body": {}, "image": ""})
    assert msgspec.json.decode(old, type=ContainerRecord).level == ""


class _Services(NamedTuple):
    """The members of the engine's services that labelling needs."""

    host: HostFacts
    config: SimpleNamespace


def test_mounts_of_a_running_container_are_labelled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    labelled: list[tuple[str, str]] = []
    monkeypatch.setattr(
        selinux_labels,
        "relabel",
        lambda fd, label: labelled.append((os.readlink(f"/proc/self/fd/{fd}"), label)),
    )
    paths = SimpleNamespace(root=Path("/var/lib/jaula"), run=Path("/run/jaula"))
    services: Any = _Services(HostFacts(selinux=True), SimpleNamespace(paths=paths))
    body = ContainerCreate()
    record = ContainerRecord(
        "id", "web", 0, body, "", level="s0:c1,c2", resolved_request=resolve(body)
    )
    for name in ("private", "shared", "plain", "volume"):
        (tmp_path / name).mkdir()
    mounts = [
        MountRecord("bind", "/p", source=str(tmp_path / "private"), mode="Z"),
        MountRecord("bind", "/s", source=str(tmp_path / "shared"), mode="z"),
        MountRecord("bind", "/n", source=str(tmp_path / "plain")),
        MountRecord("volume", "/v", source=str(tmp_path / "volume"), name="v"),
        MountRecord("tmpfs", "/t"),
    ]
    selinux_labels.label_mounts(services, record, mounts)
    levels = {Path(path).name: label.split(":", 3)[3] for path, label in labelled}
    assert levels == {"private": "s0:c1,c2", "shared": "s0", "volume": "s0"}
    with pytest.raises(InvalidRequest, match="/etc"):
        selinux_labels.label_mounts(
            services, record, [MountRecord("bind", "/e", source="/etc", mode="z")]
        )
    no_selinux: Any = _Services(HostFacts(), SimpleNamespace(paths=paths))
    labelled.clear()
    selinux_labels.label_mounts(no_selinux, record, mounts)
    assert labelled == []
