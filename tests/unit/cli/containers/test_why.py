"""``jaula why`` traces the engine's host only, and a hint follows refusals only."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from jaula.cli.cli_errors import CliError
from jaula.cli.containers import hint
from jaula.features.why.cli import explanations


@pytest.mark.parametrize("address", ["tcp://10.0.0.1:2376", "ssh://host", "tcp://127.0.0.1:2375"])
def test_another_host_is_not_traced(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    client = SimpleNamespace(address=SimpleNamespace(text=address))
    with pytest.raises(CliError, match="on the engine's host"):
        explanations.check_host(client)  # type: ignore[arg-type]


def test_an_ordinary_user_cannot_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    client = SimpleNamespace(address=SimpleNamespace(text="unix:///run/jaula.sock"))
    with pytest.raises(CliError, match="sudo"):
        explanations.check_host(client)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "expected"),
    [(0, False), (1, False), (125, False), (126, True), (127, True), (130, False), (137, True),
     (139, True), (143, False), (159, True), (255, False)],
)  # fmt: skip
def test_which_statuses_have_a_hint(status: int, *, expected: bool) -> None:
    assert hint.is_failure(status) == expected
