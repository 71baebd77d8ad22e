"""Rows of ``pod ls``: states, filters and order."""

from __future__ import annotations

from typing import Any

import pytest

from jaula.cli.cli_errors import UsageError
from jaula.features.kubernetes.cli.pods import pod_list
from jaula.features.kubernetes.cli.pods.api_pods import status

NOW = 1000.0


def row(name: str, created: int, *states: str, **fields: Any) -> pod_list.Row:
    entries = [
        {"Id": f"{name}{number}", "Names": [f"/{name}-{number}"], "State": state,
         "Created": created, **fields}
        for number, state in enumerate(states)
    ]  # fmt: skip
    return pod_list.Row(entries[0]["Id"], name, status(list(states)), entries)


ROWS = [
    row("web", 900, "running", "running", Labels={"tier": "front"},
        NetworkSettings={"Networks": {"shop": {}}}),
    row("db", 100, "exited", "exited", Labels={"tier": "back", "keep": ""}),
    row("job", 500, "running", "exited", "running"),
]  # fmt: skip


def names(*conditions: str) -> list[str]:
    return [row.name for row in pod_list.select(ROWS, conditions, NOW)]


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (["created"], "Created"),
        (["running"], "Running"),
        (["running", "running"], "Running"),
        (["running", "exited"], "Degraded"),
        (["paused", "paused"], "Paused"),
        (["paused", "running"], "Degraded"),
        (["exited", "running"], "Exited"),
        (["exited", "exited"], "Exited"),
    ],
)
def test_the_state_of_a_pod_is_that_of_podman(states: list[str], expected: str) -> None:
    assert status(states) == expected


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ((), ["web", "db", "job"]),
        (("name=b",), ["web", "db", "job"]),
        (("name=we",), ["web"]),
        (("name=we", "name=db"), ["web", "db"]),
        (("id=web0",), ["web"]),
        (("status=degraded", "status=Exited"), ["db", "job"]),
        (("label=tier",), ["web", "db"]),
        (("label=tier=back", "label=keep"), ["db"]),
        (("label!=tier",), ["job"]),
        (("network=shop",), ["web"]),
        (("ctr-names=job-2",), ["job"]),
        (("ctr-ids=db1",), ["db"]),
        (("ctr-status=exited",), ["db", "job"]),
        (("ctr-number=3",), ["job"]),
        (("until=450s",), ["db", "job"]),
        (("until=200",), ["db"]),
        (("status=running", "name=db"), []),
    ],
)
def test_filters_select_pods(conditions: tuple[str, ...], expected: list[str]) -> None:
    assert names(*conditions) == expected


@pytest.mark.parametrize(
    "condition", ["state=running", "name", "ctr-number=x", "until=yesterday", "name!=web", ""]
)
def test_a_filter_that_is_not_valid_is_refused(condition: str) -> None:
    with pytest.raises(UsageError):
        names(condition)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("created", ["web", "job", "db"]),
        ("name", ["db", "job", "web"]),
        ("number", ["web", "db", "job"]),
        ("status", ["job", "db", "web"]),
    ],
)
def test_pods_are_sorted(key: str, expected: list[str]) -> None:
    assert [row.name for row in pod_list.sort(ROWS, key)] == expected
