"""Requests of one command for many objects: how many at a time, and the order of the output."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from jaula.cli import for_each
from jaula.cli.cli_errors import EngineError

NAMES = [f"c{number}" for number in range(120)]


class FakeClient:
    """Records how many requests were sent and not answered."""

    address = SimpleNamespace(text="unix:///run/jaula/jaula.sock")

    def __init__(self, _host: str) -> None:
        self.open: list[str] = []
        self.most = 0
        FakeClient.last = self

    last: FakeClient

    def send(self, method: str, path: str, _query: object) -> str:
        assert method == "POST"
        self.open.append(path)
        self.most = max(self.most, len(self.open))
        return path

    def answer(self, path: str) -> bytes:
        self.open.remove(path)
        if path.endswith("/c7/stop"):
            raise EngineError(404, "No such container: c7")
        return b""


@pytest.mark.parametrize(
    ("address", "most"), [("unix:///run/jaula/jaula.sock", for_each.AT_ONCE), ("ssh://host", 1)]
)
def test_requests_are_sent_before_the_first_answer(
    address: str, most: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(for_each, "Client", FakeClient)
    monkeypatch.setattr(FakeClient, "address", SimpleNamespace(text=address))
    assert for_each.each_container_at_once(NAMES, "stop", ignored=404) == 0
    assert capsys.readouterr().out.split() == [name for name in NAMES if name != "c7"]
    assert FakeClient.last.most == most
    assert FakeClient.last.open == []


def test_a_refused_request_does_not_end_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from jaula.cli import suggestion

    monkeypatch.setattr(for_each, "Client", FakeClient)
    monkeypatch.setattr(suggestion, "print_object_hint", lambda *_: None)
    assert for_each.each_container_at_once(["c6", "c7", "c8"], "stop") == 1
    output = capsys.readouterr()
    assert output.out.split() == ["c6", "c8"]
    assert "No such container: c7" in output.err
