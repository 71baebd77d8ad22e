"""Documents of the observer: layers, changes, and requests in any pieces."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from jaula.features.verify.model.result import Result, Verdict
from jaula.features.verify.observer import main
from jaula.features.verify.observer.main import Observer, differences, layers, row_document
from jaula.features.verify.reports import svg

STATIC = Path(__file__).parents[4] / "src/jaula/features/web/static"


def row(
    name: str,
    layer: str,
    verdict: Verdict = Verdict.HOLDS,
    requested: str = "x",
    effective: str = "x",
) -> Result:
    return Result(name, layer, requested, effective, "/proc/1/status", verdict, layer)


def test_a_layer_has_the_worst_verdict_of_its_rows() -> None:
    rows = [
        row("a", "mounts"),
        row("b", "mounts", Verdict.RELAXED),
        row("c", "network", Verdict.UNKNOWN),
        row("d", "network", Verdict.FAILS),
    ]
    documents = layers(rows)
    assert [(each["Layer"], each["Verdict"]) for each in documents] == [
        ("mounts", "relaxed"),
        ("network", "fails"),
    ]
    assert documents[0]["Holds"] == documents[0]["Relaxed"] == 1
    assert documents[1]["Fails"] == documents[1]["Unknown"] == 1


def test_words_of_verdicts_are_in_lower_case() -> None:
    words = {row_document(row("a", "users", verdict))["Verdict"] for verdict in Verdict}
    assert words == {"holds", "relaxed", "fails", "unknown"}


def test_a_new_verdict_and_a_new_request_are_changes() -> None:
    before = {"a": row("a", "users"), "b": row("b", "cgroups", requested="64 MiB")}
    after = {
        "a": row("a", "users", Verdict.FAILS, effective="uid 0"),
        "b": row("b", "cgroups", requested="80 MiB"),
        "c": row("c", "users"),
    }
    found = list(differences(before, after, "now"))
    assert [each["Id"] for each in found] == ["a", "b"]
    assert found[0]["Before"]["Verdict"] == "holds"
    assert found[0]["After"] == {"Requested": "x", "Effective": "uid 0", "Verdict": "fails"}


def test_a_number_of_processes_alone_is_no_change() -> None:
    before, after = row("a", "users", effective="1 process"), row("a", "users", effective="2")
    assert not list(differences({"a": before}, {"a": after}, "now"))


def test_the_page_draws_the_layers_of_the_report_in_its_order() -> None:
    listed = (STATIC / "isolation.js").read_text().partition("LAYERS = [")[2].partition("]")[0]
    assert re.findall(r"'(\w+)'", listed) == [layer for layer, _, _ in svg.LAYERS]


Made = tuple[Observer, BinaryIO, list[dict[str, Any]]]


@pytest.fixture
def observer(tmp_path: Path) -> Iterator[Made]:
    """Yield an observer without an engine, its input, and the documents that it writes."""
    read_fd, write_fd = os.pipe()
    os.set_blocking(read_fd, False)
    emitted: list[dict[str, Any]] = []
    with open(read_fd), open(write_fd, "wb", buffering=0) as requests:
        made = Observer(f"unix://{tmp_path}/none.sock", emitted.append, read_fd, None)
        yield made, requests, emitted


def test_requests_may_arrive_in_pieces(observer: Made) -> None:
    made, requests, emitted = observer
    line = json.dumps({"Request": 7, "Method": "history", "Containers": [], "Fields": [],
                       "Points": 3}).encode() + b"\n"  # fmt: skip
    for byte in line[:-1]:
        requests.write(bytes((byte,)))
        assert made._answer() is False
        assert not emitted
    requests.write(line[-1:])
    made._answer()
    assert emitted[0]["Reply"] == 7
    assert emitted[0]["Document"]["Containers"] == {}


def test_an_unknown_method_and_an_engine_that_is_away_are_errors(observer: Made) -> None:
    made, requests, emitted = observer
    for number, method in enumerate(("none", "verify")):
        request = {"Request": number, "Method": method, "Container": "x"}
        requests.write(json.dumps(request).encode() + b"\n")
    made._answer()
    assert [each["Reply"] for each in emitted] == [0, 1]
    assert all(each["Error"] for each in emitted)


def test_an_event_of_the_engine_asks_for_a_new_list(observer: Made) -> None:
    made, requests, _ = observer
    requests.write(b'{"Event": "unknown"}\n')
    assert made._answer() is True


def test_the_end_of_the_input_ends_the_observer(observer: Made) -> None:
    made, requests, _ = observer
    requests.close()
    made._answer()
    assert made._ended


def test_the_process_tree_is_read_once_a_second(
    observer: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, *_ = observer
    readings: list[int] = []
    original = main.pstree.processes
    monkeypatch.setattr(main.pstree, "processes", lambda: readings.append(1) or original())
    first, second = made._processes(), made._processes()
    assert first is second
    assert len(readings) == 1
    assert any(each["Pid"] == os.getpid() for each in first["Processes"])
