"""Pods in the list of containers, and how a command names one."""

from __future__ import annotations

from typing import Any

import pytest

from jaula.cli.cli_errors import CliError
from jaula.cli.containers import listed_pods


def entry(id: str, sandbox: str, container: str, name: str, namespace: str = "default") -> Any:
    pod = {"Sandbox": sandbox, "Container": container, "Name": name, "Namespace": namespace,
           "UID": f"uid-{sandbox}"}  # fmt: skip
    return {"Id": id, "Pod": pod, "Created": 1}


LISTED = [
    entry("bbbbbbbb", "aaaaaaaa", "main", "web"),
    entry("aaaaaaaa", "aaaaaaaa", "", "web"),
    entry("cccccccc", "cccccccc", "", "web", "other"),
    entry("dddddddd", "dddddddd", "", "db"),
    {"Id": "eeeeeeee"},
]


def ids(ref: str) -> list[str]:
    return [each["Id"] for each in listed_pods.select(LISTED, ref)]


def test_a_pod_is_selected_by_each_of_its_names_with_the_sandbox_first() -> None:
    for ref in ("default/web", "uid-aaaaaaaa", "aaaaaaaa", "aaaaaa"):
        assert ids(ref) == ["aaaaaaaa", "bbbbbbbb"]
    assert ids("db") == ["dddddddd"]
    assert ids("absent") == ids("aaaa") == ids("eeeeeeee") == []


def test_an_ambiguous_name_is_refused_with_the_ids() -> None:
    with pytest.raises(CliError, match=r"several pods are named web: default/web .*other/web"):
        listed_pods.select(LISTED, "web")


def test_groups_have_the_title_of_the_pod() -> None:
    assert listed_pods.groups(LISTED) == {
        "pod default/web": ["bbbbbbbb", "aaaaaaaa"],
        "pod other/web": ["cccccccc"],
        "pod default/db": ["dddddddd"],
    }
    assert listed_pods.title({"Sandbox": "f" * 64}) == "f" * 12
