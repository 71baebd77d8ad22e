"""Flags of ``jaula build`` as parameters of ``POST /build``."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jaula.cli.cli_errors import UsageError
from jaula.cli.client.api_client import target
from jaula.cli.command_parser import parse
from jaula.features.build.cli.build_command import COMMAND
from jaula.features.build.cli.build_query import query
from jaula.features.build.cli.client_context import Remote


def parameters(*words: str) -> dict[str, Any]:
    """Return the parameters that are sent; JSON ones are decoded."""
    options = parse(COMMAND, [*words, "."])
    names = options.texts("tag")
    result: dict[str, Any] = {}
    for name, value in query(options, Remote("", "D"), names):
        if value in ("", None, False):
            continue
        if isinstance(value, str) and value[:1] in ("{", "["):
            value = json.loads(value)
        if name in result:
            result[name] = [*(v if isinstance(v := result[name], list) else [v]), value]
        else:
            result[name] = value
    return result


def test_the_defaults_send_few_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    assert parameters() == {"dockerfile": "D", "rm": True, "progress": "steps"}


def test_every_flag_has_its_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_HERE", "value")
    monkeypatch.delenv("NOT_SET", raising=False)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "5")
    result = parameters(
        *("-t", "a:1", "-t", "b", "--target", "x", "--platform", "linux/arm64", "--pull"),
        *("--build-arg", "A=1=2", "--build-arg", "FROM_HERE", "--build-arg", "NOT_SET"),
        *("--label", "k=v", "--label", "bare", "--no-cache", "--squash", "--force-rm"),
        *("--cache-from", "img", "--cache-from", "type=registry,ref=r/i"),
        *("--network", "none", "--cgroup-parent", "/p", "-m", "64m", "--memory-swap", "-1"),
        *("--cpu-period", "1000", "--cpu-quota", "500", "-c", "7", "--cpuset-cpus", "0-1"),
        *("--shm-size", "1m", "--ulimit", "nofile=1:2", "--security-opt", "no-new-privileges"),
        *("--add-host", "h:1.2.3.4", "--allow", "network.host", "--rm=false"),
    )
    assert result == {
        "t": ["a:1", "b"],
        "dockerfile": "D",
        "target": "x",
        "platform": "linux/arm64",
        "pull": True,
        "buildargs": {"A": "1=2", "FROM_HERE": "value", "NOT_SET": None, "SOURCE_DATE_EPOCH": "5"},
        "labels": {"k": "v", "bare": ""},
        "nocache": True,
        "squash": True,
        "forcerm": True,
        "cachefrom": ["img", "r/i"],
        "networkmode": "none",
        "cgroupparent": "/p",
        "memory": 64 << 20,
        "memswap": -1,
        "cpuperiod": 1000,
        "cpuquota": 500,
        "cpushares": 7,
        "cpusetcpus": "0-1",
        "shmsize": 1 << 20,
        "ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}],
        "securityopt": ["no-new-privileges"],
        "extrahosts": "h:1.2.3.4",
        "allow": "network.host",
        "progress": "steps",
    }


def test_a_false_flag_is_not_sent() -> None:
    assert "rm=" not in target(
        "/build", query(parse(COMMAND, ["--rm=false", "."]), Remote("", ""), [])
    )


@pytest.mark.parametrize(
    "words",
    [
        ("--build-arg", "=x"),
        ("--cache-from", "type=gha,scope=x"),
        ("--ulimit", "nofile"),
        ("--add-host", "h"),
        ("--memory", "much"),
    ],
)
def test_an_invalid_value_is_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        parameters(*words)
