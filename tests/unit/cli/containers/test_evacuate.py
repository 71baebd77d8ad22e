"""The plan and the report of ``jaula host evacuate``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from jaula.cli.cli_errors import EngineError
from jaula.features.migration.cli.evacuate import (
    MOVED,
    STAYS,
    Evacuation,
    Row,
    Unit,
    document,
    plan,
    table,
)


def container(
    name: str,
    *volumes: str,
    state: str = "running",
    project: str = "",
    network: str = "bridge",
    pod: str = "",
) -> Any:
    in_pod = {"Sandbox": pod, "Name": "web"}
    return ({"Pod": in_pod} if pod else {}) | {
        "Id": name,
        "HostConfig": {"NetworkMode": network},
        "Names": [f"/{name}"],
        "State": state,
        "Labels": {"com.docker.compose.project": project} if project else {},
        "Mounts": [{"Type": "volume", "Name": each} for each in volumes] + [{"Type": "bind"}],
    }


def names(units: list[Unit]) -> list[list[str]]:
    return [unit.names for unit in units]


def test_groups_come_first_and_stopped_containers_last() -> None:
    units = plan(
        [
            container("a"),
            container("z", project="shop"),
            container("old", state="exited", project="shop"),
            container("y", project="shop"),
        ]
    )
    assert names(units) == [["y", "z"], ["a"], ["old"]]
    assert units[0].title == "shop (2 containers)"
    assert [unit.running for unit in units] == [True, True, False]


def test_a_common_volume_ties_containers_and_projects() -> None:
    units = plan(
        [
            container("a", "one"),
            container("b", "two"),
            container("c", "one", "two"),
            container("d", project="p"),
            container("e", "two", project="p"),
            container("f", project="q"),
        ]
    )
    assert names(units) == [["a", "b", "c", "d", "e"], ["f"]]


def test_a_group_without_a_project_is_named_after_its_volume() -> None:
    (unit,) = plan([container("a", "data"), container("b", "data")])
    assert unit.label == "volume data"


def test_a_network_namespace_ties_containers() -> None:
    units = plan([container("a"), container("b", network="container:a"), container("c")])
    assert names(units) == [["a", "b"], ["c"]]
    assert units[0].label == "network of a"


def test_a_pod_is_a_group_without_what_does_not_run_in_it() -> None:
    found = [
        container("sandbox", pod="sandbox"),
        container("server", pod="sandbox"),
        container("init", state="exited", pod="sandbox"),
        container("other", pod="other"),
    ]
    units = plan(found)
    assert names(units) == [["sandbox", "server"], ["other"]]
    assert units[0].title == "pod web (2 containers)"


def test_the_report_has_a_row_for_each_container() -> None:
    unit = Unit([container("a"), container("b")], "shop")
    moved, stays = Row("a", unit, MOVED), Row("b", unit, STAYS, "network: absent")
    moved.pause, moved.sent, moved.there = 312, 4_100_000, "c0ffee"
    lines = table([moved, stays]).splitlines()
    assert lines[0].split() == ["NAME", "GROUP", "RESULT", "PAUSE", "SENT", "REASON"]
    assert "312 ms" in lines[1]
    assert "3.91MiB" in lines[1] or "4.1MB" in lines[1]
    assert lines[2].endswith("network: absent")
    report = document("tcp://b:2376", [moved, stays])
    assert report["Target"] == "tcp://b:2376"
    assert [each["Result"] for each in report["Containers"]] == ["moved", "cannot-move"]
    assert report["Containers"][0]["Container"] == "c0ffee"


def test_the_reason_of_a_refusal_is_the_text_of_the_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> Iterable[dict[str, Any]]:
        raise EngineError(409, "this engine has no certificate")

    monkeypatch.setattr(Evacuation, "_documents", refuse)
    units = [Unit([container("a")])]
    evacuation = Evacuation("tcp://b:1", units, end_execs=False, pre_copy=0, quiet=True)
    evacuation.check()
    assert evacuation.rows["a"].reason == "this engine has no certificate"
