"""Filters of ``ps`` about ports and exit statuses."""

from __future__ import annotations

import time

import pytest

from jaula.engine.containers import ps_filters
from jaula.engine.containers.ps_filters import Relations
from jaula.errors import InvalidRequest
from jaula.state.container_records import ContainerRecord

PORTS = [
    {"PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
    {"PrivatePort": 53, "Type": "udp"},
]


class _Record:
    labels: dict[str, str] = {}


def _has(monkeypatch: pytest.MonkeyPatch, key: str, *values: str) -> bool:
    monkeypatch.setattr(ps_filters.network_settings, "listed_ports", lambda record: PORTS)
    record: ContainerRecord = _Record()  # type: ignore[assignment]
    return ps_filters.matches(record, {key: list(values)}, lambda name: name)


@pytest.mark.parametrize(
    ("key", "values", "expected"),
    [
        ("publish", ["8080"], True),
        ("publish", ["8080/tcp"], True),
        ("publish", ["8080/udp"], False),
        ("publish", ["80"], False),
        ("publish", ["8000-8080"], True),
        ("publish", ["8081-9000"], False),
        ("publish", ["1", "8080"], True),
        ("expose", ["80"], True),
        ("expose", ["53"], False),
        ("expose", ["53/udp"], True),
        ("expose", ["1-65535"], True),
        ("expose", ["1-65535/sctp"], False),
        ("expose", ["81-65535"], False),
    ],
)
def test_a_range_of_ports_selects_a_container(
    monkeypatch: pytest.MonkeyPatch, key: str, values: list[str], expected: bool
) -> None:
    assert _has(monkeypatch, key, *values) is expected


def test_many_values_and_many_ports_do_not_multiply(monkeypatch: pytest.MonkeyPatch) -> None:
    ports = [{"PrivatePort": n, "Type": "tcp"} for n in range(1, 32768)]
    monkeypatch.setattr(ps_filters.network_settings, "listed_ports", lambda record: ports)
    record: ContainerRecord = _Record()  # type: ignore[assignment]
    values = {"expose": [f"{n}" for n in range(40_000, 50_000)]}
    began = time.process_time()
    assert not ps_filters.matches(record, values, lambda name: name)
    assert time.process_time() - began < 2.0


@pytest.mark.parametrize("value", ["x", "\N{SUPERSCRIPT TWO}", "9" * 5000, "-", "1" * 19])
def test_an_exit_status_that_is_not_a_number_is_refused(value: str) -> None:
    relations = Relations(lambda name: name, lambda ref: frozenset())
    with pytest.raises(InvalidRequest, match="invalid filter 'exited="):
        ps_filters.select((), relations, all=True, limit=None, filters={"exited": [value]})
